"""The webhooks that are open now: learned from Prefect, again and again, so that an `apply` is all it takes.

Everything a call needs is in memory before the call comes: no caller can make the gateway ask Prefect.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ..errors import ActionError, PrefectError, SecretMissing
from ..networks import Address, Network, read_network, within
from ..prefect_api import PrefectApi, Refused
from ..prefect_api.client import BUSY
from ..prefect_api.deployments import DeployedRule, deployed_rules, deployments_mark
from ..rules.models import WebhookRule
from ..rules.schemes import Scheme
from ..settings import Settings
from ..webhooks.claims import Headers
from ..webhooks.keys import read_secret
from ..webhooks.verify import Secret, Verdict, shows_secret, verify
from .secrets import webhook_secret

log = logging.getLogger("proactive.gateway")

REFRESH_SECONDS = 2.0
SOONEST_SECONDS = 1.0  # between two refreshes, however many calls for unknown webhooks come
READ_SECONDS = 30.0  # after which all are read again, whatever Prefect says
STALE_SECONDS = 15.0
AT_ONCE = 128 * 1024  # signatures of larger bodies are made beside the event loop
SECRET_SECONDS = 10.0  # for which a secret from Prefect's store is not asked for again

Passage = Verdict | Literal["outside"]
"""`outside`: the call comes from a network that the webhook does not let in."""


@dataclass(frozen=True)
class Door:
    """One webhook: its rule as deployed, and its secrets. Without any, `closed` says why; nobody gets in."""

    rule: WebhookRule
    deployment_id: str
    paused: bool
    secrets: tuple[Secret, ...]
    closed: str | None
    callers: tuple[Network, ...] = ()

    @property
    def secret(self) -> str | None:
        """The secret for those who begin to call now: the first that has no end, else the first."""
        return next((one.value for one in (*(s for s in self.secrets if s.until is None), *self.secrets)), None)

    @property
    def by_token(self) -> bool:
        """Whether the secret itself comes in a header, so that a caller is known before the body is read."""
        return self.rule.scheme in ("header", "bearer")

    def __repr__(self) -> str:
        return f"Door({self.rule.id!r})"


class Doors:
    """All doors, kept fresh by `watch`. `problem` says why the last look at Prefect failed, or is None."""

    def __init__(self, api: PrefectApi, settings: Settings) -> None:
        self.problem: str | None = "Prefect has not been asked yet"
        self._api = api
        self._settings = settings
        self._doors: dict[str, Door] = {}
        self._stored: dict[tuple[str, Scheme], tuple[float, str]] = {}
        self._known: list[DeployedRule] = []
        self._mark: tuple[int, str] | None = None
        self._read_at = 0.0
        self._fresh_at = 0.0
        self._asked = asyncio.Event()

    def __iter__(self) -> Iterator[Door]:
        return iter(self._doors.values())

    def __len__(self) -> int:
        return len(self._doors)

    def get(self, rule_id: str) -> Door | None:
        """The door of that webhook, whoever asks."""
        return self._doors.get(rule_id)

    @property
    def known(self) -> bool:
        """Whether Prefect has ever answered, so that who is unknown is unknown."""
        return self._fresh_at > 0

    @property
    def ready(self) -> bool:
        """Whether Prefect answered lately, so that the doors are those of now."""
        return self._fresh_at > 0 and time.monotonic() - self._fresh_at < STALE_SECONDS

    def largest(self, usual: int) -> int:
        """The bytes that the body of a call may have before anybody knows whose it is: the same for every id."""
        return max([usual, *(door.rule.max_body or 0 for door in self._doors.values())])

    def knows(self, rule_id: str, headers: Headers, now: datetime, origin: Address | None) -> Door | None:
        """The door that this caller opens by a secret in a header, before the body is read; None proves nothing yet."""
        door = self._doors.get(rule_id)
        if door is None or not door.by_token:
            shows_secret("header", headers, (), now)
            return None
        if not shows_secret(door.rule.scheme, headers, door.secrets, now):
            return None
        return None if door.callers and not within(origin, door.callers) else door

    async def verify(
        self, rule_id: str, raw: bytes, headers: Headers, now: datetime, origin: Address | None
    ) -> tuple[Door | None, Passage]:
        """The door of that id, if there is one, and whether the call may go through: the same work in either case."""
        door = self._doors.get(rule_id)
        if len(raw) > AT_ONCE:
            verdict = await asyncio.to_thread(_verdict, door, raw, headers, now, origin)
        else:
            verdict = _verdict(door, raw, headers, now, origin)
        if verdict != "verified":  # whatever is wrong: there may be another rule, or another secret, by now
            self._asked.set()
        return door, verdict

    async def watch(self) -> None:
        """Refresh for ever. Raises nothing but cancellation: while Prefect is away the doors stay as they were."""
        while True:
            began = time.monotonic()
            try:
                await self.refresh()
                self._report(None)
            except PrefectError as error:
                self._report(error.message)
            except Exception as error:
                log.exception("doors.refresh_failed")
                self._report(f"{type(error).__name__} in the gateway")
            self._asked.clear()
            await asyncio.sleep(max(0.0, began + SOONEST_SECONDS - time.monotonic()))
            try:
                async with asyncio.timeout(max(0.0, began + REFRESH_SECONDS - time.monotonic())):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def refresh(self) -> None:
        """Learn all webhooks from Prefect, and their secrets. Raises PrefectError."""
        doors: dict[str, Door] = {}
        for found in await self._deployed():
            if not isinstance(found.rule, WebhookRule):
                continue
            secrets: tuple[Secret, ...] = ()
            closed = None
            try:
                secrets = await self._secrets(found.rule)
            except (ActionError, Refused) as error:
                if isinstance(error, Refused) and error.status in BUSY - {500}:
                    raise  # while Prefect is away, all stay as they were
                closed = error.message  # this door only, also where it is Prefect that fails at this one secret
            callers = tuple(read_network(network) for network in found.rule.callers)
            doors[found.rule.id] = Door(found.rule, found.deployment_id, found.paused, secrets, closed, callers)
        for rule_id in doors.keys() | self._doors.keys():
            self._tell(self._doors.get(rule_id), doors.get(rule_id))
        self._doors = doors
        self._fresh_at = time.monotonic()

    async def _deployed(self) -> list[DeployedRule]:
        """The webhooks in Prefect: all of them are read only where one has changed, or it was long ago."""
        mark, now = await deployments_mark(self._api, ["webhook"]), time.monotonic()
        if mark != self._mark or now - self._read_at > READ_SECONDS:
            self._known = await deployed_rules(self._api, kinds=["webhook"])
            self._mark, self._read_at = mark, now
        return self._known

    async def _secrets(self, rule: WebhookRule) -> tuple[Secret, ...]:
        if rule.secret is None:
            return (Secret(webhook_secret(self._settings, rule.id)),)
        now = datetime.now(UTC)
        # What has ended may be gone from its place already.
        uses = [use for use in rule.secret if use.until is None or now < use.until]
        if not uses:
            raise SecretMissing("every secret of this webhook has ended")
        return tuple([Secret(await self._read(use.ref, rule.scheme), use.until) for use in uses])

    async def _read(self, reference: str, scheme: Scheme) -> str:
        since, secret = self._stored.get((reference, scheme), (0.0, ""))
        if not secret or time.monotonic() - since > SECRET_SECONDS:
            try:
                secret = await read_secret(reference, scheme, self._api)
            except Refused as refused:
                if not secret or refused.status not in BUSY:
                    raise
                # What will pass closes no door: who has the right secret is let in as before.
            self._stored[reference, scheme] = (time.monotonic(), secret)
        return secret

    def _tell(self, before: Door | None, now: Door | None) -> None:
        if now is None:
            log.info("door.removed webhook=%s", before.rule.id if before else "")
        elif now.closed and now.closed != (before.closed if before else None):
            log.error("door.closed webhook=%s: %s", now.rule.id, now.closed)
        elif before is None or (before.closed and not now.closed):
            log.info("door.open webhook=%s", now.rule.id)

    def _report(self, problem: str | None) -> None:
        if problem != self.problem and problem:
            log.warning("doors.stale: %s", problem)
        self.problem = problem


def _verdict(door: Door | None, raw: bytes, headers: Headers, now: datetime, origin: Address | None) -> Passage:
    if door is None:
        return verify("header", raw, headers, (), now)
    # Verified in any case: nobody learns from the time which networks a webhook lets in.
    verdict = verify(door.rule.scheme, raw, headers, door.secrets, now, door.rule.hmac)
    return "outside" if door.callers and not within(origin, door.callers) else verdict
