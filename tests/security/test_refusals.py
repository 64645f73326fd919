"""Whoever guesses is soon not listened to."""

from __future__ import annotations

from pathlib import Path

import httpx

from .conftest import without_prefect


def test_an_address_whose_calls_are_refused_too_often_has_to_wait(tmp_path: Path) -> None:
    """After five refusals 429, whatever the id, before the body is read; other addresses are heard."""
    with without_prefect(tmp_path, PROACTIVE_REFUSALS="5/hour") as gateway:
        answers = [httpx.post(f"{gateway.url}/hooks/guess-{n}", content=b"x", timeout=60) for n in range(8)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 3600
        assert httpx.get(f"{gateway.url}/healthz", timeout=60).status_code == 200
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.77"), timeout=60) as other:
            assert other.post(f"{gateway.url}/hooks/guess", content=b"x").status_code == 401
