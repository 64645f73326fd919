"""Whether a call comes from somebody who knows a secret: a pure function of its bytes, its headers and the time.

A refusal costs the same whatever is wrong, also for a webhook that does not exist: as many signatures of the body are
made as a rule may have secrets, by every algorithm that a rule may name, and compared in constant time.
"""

from __future__ import annotations

import hmac
import secrets as random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from ..rules.schemes import MAX_SECRETS, Algorithm, HmacOptions, Scheme
from .claims import Fault, Headers, no_claim, read_claim, shown, sign

Verdict = Literal["verified", "no_secret", "malformed", "late", "mismatch"]
"""`malformed`: a header that the scheme needs is missing, there twice, or not what it should be. `late`: its timestamp
is more than five minutes from now. Callers never learn which."""

_ALGORITHMS: tuple[Algorithm, ...] = ("sha1", "sha256", "sha512")
_LIKE: dict[Algorithm, Algorithm] = {"sha384": "sha512"}  # the same work

# As a key of Standard Webhooks too: base64.
_NOBODYS = random.token_hex(32)


@dataclass(frozen=True)
class Secret:
    """One secret of a webhook; it opens until `until`, which is excluded, or for ever. Its value is never shown."""

    value: str = field(repr=False)
    until: datetime | None = None

    def opens(self, now: datetime) -> bool:
        """Whether it has not ended yet."""
        return self.until is None or now < self.until


def shows_secret(scheme: Scheme, headers: Headers, secrets: Sequence[Secret], now: datetime) -> bool:
    """Whether a call brings one of `secrets` itself in the header that `scheme`, header or bearer, names.

    Nothing is signed: the body need not be there yet. It takes as long for nobody's secrets.
    """
    given = shown(scheme, headers) or b""
    opening = [secret.value for secret in secrets if secret.value and secret.opens(now)][:MAX_SECRETS]
    same = False
    for index, secret in enumerate([*opening, *[_NOBODYS] * (MAX_SECRETS - len(opening))]):
        same |= hmac.compare_digest(given, secret.encode()) and index < len(opening)
    return same


def verify(
    scheme: Scheme,
    raw: bytes,
    headers: Headers,
    secrets: Sequence[Secret],
    now: datetime,
    options: HmacOptions | None = None,
) -> Verdict:
    """Whether a call with the body `raw` proves, by `scheme`, that its sender knows one of `secrets`.

    `options` are those of scheme hmac. Never raises for anything that a caller sends. Without a secret that opens
    nobody gets in: so an unknown webhook is verified as one without secrets.
    """
    claim = read_claim(scheme, raw, headers, now, options)
    fault: Fault | None = claim if isinstance(claim, str) else None
    sound = no_claim(raw) if isinstance(claim, str) else claim
    opening = [secret.value for secret in secrets if secret.value and secret.opens(now)][:MAX_SECRETS]
    same = False
    for index, secret in enumerate([*opening, *[_NOBODYS] * (MAX_SECRETS - len(opening))]):
        wanted = sound.wanted(secret)
        for given in sound.given:
            same |= hmac.compare_digest(given, wanted) and index < len(opening)
    if not same:
        _make_the_rest(raw, sound.algorithm)
    if not opening:
        return "no_secret"
    if fault is not None:
        return fault
    return "verified" if same else "mismatch"


def _make_the_rest(raw: bytes, algorithm: Algorithm) -> None:
    """The signatures by the algorithms that were not asked for: the time of a refusal tells none."""
    for other in _ALGORITHMS:
        if other != _LIKE.get(algorithm, algorithm):
            for _ in range(MAX_SECRETS):
                sign(_NOBODYS, other, raw)
