"""Looks at a gateway from outside, as its users do, and calls the soak's webhook."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from .slo import Seen

_PATIENCE = 30.0
_PAGE = 500


class Prober:
    """One caller of the gateway, who writes down what it is told."""

    def __init__(self, gateway_url: str, token: str, hook: tuple[str, str], seen: Seen, *, push: bool) -> None:
        self._client = httpx.AsyncClient(base_url=gateway_url, timeout=_PATIENCE)
        self._token = {"Authorization": f"Bearer {token}"}
        self._hook, self._secret = hook
        self._seen = seen
        self._push = push
        self._seq: int | None = None
        self.accepted: list[str] = []
        """The ids of the deliveries that were accepted."""

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()

    async def look(self) -> None:
        """One round over everything that an operator or a machine would ask."""
        await self._get("/healthz", token=False)
        await self._get("/readyz", token=False)
        await self._get("/api/v1/proactive/state")
        await self._get("/api/v1/ops/metrics/scheduling-runtime")
        await self._get("/api/v1/heartbeat/last")
        await self._get("/metrics")
        if self._push:
            await self._replay()
        await self._calendar()

    async def call(self) -> None:
        """Call the webhook once."""
        self._seen.calls += 1
        began = time.monotonic()
        try:
            answer = await self._client.post(
                self._hook, json={"n": self._seen.calls}, headers={"X-Webhook-Secret": self._secret}
            )
        except httpx.HTTPError as error:
            self._seen.refused_calls.append(type(error).__name__)
            return
        self._seen.accepts.append(time.monotonic() - began)
        if answer.status_code == 202:
            self.accepted.append(answer.json()["delivery_id"])
        else:
            self._seen.refused_calls.append(f"{answer.status_code}")

    async def _replay(self) -> None:
        """Read the event log on from where we were: no number is left out."""
        if self._seq is None:
            answer = await self._get("/api/v1/ops/scheduling/events", limit=1)
            self._seq = None if answer is None else int(answer["seq"])
            return
        while True:
            answer = await self._get("/api/v1/ops/scheduling/events", since_seq=self._seq, limit=_PAGE)
            found = [] if answer is None else answer["events"]
            for event in found:
                if event["seq"] != self._seq + 1:
                    self._seen.gaps.append(f"{self._seq + 1} to {event['seq'] - 1}")
                self._seq = int(event["seq"])
            if len(found) < _PAGE:
                return

    async def _calendar(self) -> None:
        now = datetime.now(UTC)
        start, end = now - timedelta(days=1), now + timedelta(days=1)
        span: dict[str, Any] = {"start": start.isoformat(), "end": end.isoformat()}
        began = time.monotonic()
        if await self._get("/api/v1/ops/calendar/events", **span) is not None:
            self._seen.calendar.append(time.monotonic() - began)

    async def _get(self, path: str, *, token: bool = True, **params: Any) -> Any:
        """The answer (JSON where it is); None, and a failed probe, where it is not 200."""
        self._seen.probes += 1
        try:
            answer = await self._client.get(path, params=params, headers=self._token if token else {})
        except httpx.HTTPError as error:
            self._seen.failed_probes.append(f"{path}: {type(error).__name__}")
            return None
        if answer.status_code != 200:
            self._seen.failed_probes.append(f"{path}: {answer.status_code}")
            return None
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text
