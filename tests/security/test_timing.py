"""How long a refusal takes tells nobody which webhooks there are, or how near a guess was.

Samples are taken in turns, so that whatever else the machine does meets all of them alike, and compared by rank: 0.5
means that nobody can tell two kinds of refusals apart.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import httpx

from proactive_prefect.gateway.secrets import same_secret
from proactive_prefect.rules.schemes import Algorithm, HmacOptions, Scheme
from proactive_prefect.webhooks.verify import Secret, verify
from tests.gateway.conftest import Gateway, gateway  # noqa: F401 - the fixture

from .tried import TRIED

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SAME = 0.2  # from 0.5: far less is chance with so few samples, a comparison that stops early is far more


def timed(kinds: Mapping[str, Callable[[], object]], samples: int) -> dict[str, list[float]]:
    """How long each kind takes, in nanoseconds, so many times in turns."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    order, chance = list(kinds.items()), random.Random(0)
    for _ in range(samples):
        chance.shuffle(order)  # whoever comes after another finds the machine as that one left it
        for name, do in order:
            began = time.perf_counter_ns()
            do()
            times[name].append(time.perf_counter_ns() - began)
    TRIED["refusals whose time was measured"] += samples * len(kinds)
    return times


def ranks(kinds: Mapping[str, Callable[[], object]], samples: int, usual: str) -> dict[str, float]:
    """For each kind how often it takes longer than the usual one: 0.5 where they are the same."""
    times = timed(kinds, samples)
    return {
        name: statistics.fmean((one > other) + (one == other) / 2 for one in times[name] for other in times[usual])
        for name in kinds
    }


def test_refusals_over_http_take_the_same_time_whatever_is_wrong(gateway: Gateway) -> None:  # noqa: F811
    """Unknown id, every scheme, closed, from a network that is not let in: the same time."""
    ids = ("nobody", "plain", "by-bearer", "no-secret", "github", "stripe", "standard", "signed", "of-few-signed")
    body = b'{"text": "' + b"x" * 4000 + b'"}'
    headers = {"X-Webhook-Secret": "wrong", "X-Hub-Signature-256": f"sha256={'0' * 64}", "X-Sig": "sha512=AAAA"}
    with httpx.Client(base_url=gateway.url, timeout=60) as http:

        def refused(rule_id: str) -> Callable[[], object]:
            def call() -> None:
                assert http.post(f"/hooks/{rule_id}", content=body, headers=headers).status_code == 401

            return call

        found = ranks({rule_id: refused(rule_id) for rule_id in ids}, 60, "nobody")
    assert all(abs(rank - 0.5) < SAME for rank in found.values()), found


def test_a_near_guess_takes_as_long_as_a_far_one() -> None:
    """A secret that differs in its last character is refused as fast as one that differs in its first."""
    secret = "s3cret-" * 40

    def guess(value: str) -> Callable[[], object]:
        headers = [(b"x-webhook-secret", value.encode())]
        return lambda: verify("header", b"{}", headers, [Secret(secret)], NOW)

    kinds = {"far": guess("x" + secret[1:]), "near": guess(secret[:-1] + "x"), "short": guess("x"), "empty": guess("")}
    found = ranks(kinds, 400, "far")
    assert all(abs(rank - 0.5) < SAME for rank in found.values()), found
    # Made before: Python appends to a text sooner than it puts something before it.
    far, near = "x" + secret[1:], secret[:-1] + "x"
    found = ranks({"far": lambda: same_secret(far, secret), "near": lambda: same_secret(near, secret)}, 2000, "far")
    assert abs(found["near"] - 0.5) < SAME, found


def test_every_scheme_and_algorithm_makes_the_signatures_that_nobody_needs() -> None:
    """The time is that of the same signatures, for an unknown webhook and for a missing header, too."""
    algorithms: tuple[Algorithm, ...] = ("sha1", "sha256", "sha384", "sha512")
    schemes: tuple[Scheme, ...] = ("header", "bearer", "github", "stripe", "slack", "standard")
    signed, secret = [(b"x", b"0" * 64)], [Secret("s")]

    def refuse(scheme: Scheme, raw: bytes, options: HmacOptions | None = None) -> Callable[[], object]:
        return lambda: verify(scheme, raw, signed, secret, NOW, options)

    def kinds(size: int) -> dict[str, Callable[[], object]]:
        raw = b"x" * size
        named: dict[str, Callable[[], object]] = {"nobody": lambda: verify("header", raw, signed, [], NOW)}
        named |= {scheme: refuse(scheme, raw) for scheme in schemes}
        return named | {name: refuse("hmac", raw, HmacOptions(header="X", algorithm=name)) for name in algorithms}

    found = ranks(kinds(400_000), 60, "nobody")
    assert all(abs(rank - 0.5) < SAME for rank in found.values()), found
    # Of a small body the microsecond is left in which Python reads one header or another; on a machine that does
    # nothing else each rank would show it, of 50 microseconds in all.
    medians = {name: statistics.median(times) for name, times in timed(kinds(4_000), 200).items()}
    assert all(abs(median / medians["nobody"] - 1) < 0.15 for median in medians.values()), medians
