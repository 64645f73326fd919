"""The webhooks that are open now: learned from Prefect, again and again, so that an `apply` is all it takes.

Everything a call needs is in memory before the call comes: no caller can make the gateway ask Prefect.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ActionError, PrefectError, SecretMissing
from ..firing.references import resolve
from ..prefect_api import PrefectApi, Refused
from ..prefect_api.deployments import deployed_rules
from ..rules.models import WebhookRule
from ..settings import Settings
from .secrets import same_secret, webhook_secret

log = logging.getLogger("proactive.gateway")

REFRESH_SECONDS = 2.0
SOONEST_SECONDS = 1.0  # between two refreshes, however many calls for unknown webhooks come
STALE_SECONDS = 15.0
SECRET_SECONDS = 10.0  # for which a secret from Prefect's store is not asked for again


@dataclass(frozen=True)
class Door:
    """One webhook: its rule as deployed, and its secret. Without a secret, `closed` says why; nobody gets in."""

    rule: WebhookRule
    deployment_id: str
    paused: bool
    secret: str | None
    closed: str | None

    def __repr__(self) -> str:
        return f"Door({self.rule.id!r})"


class Doors:
    """All doors, kept fresh by `watch`. `problem` says why the last look at Prefect failed, or is None."""

    def __init__(self, api: PrefectApi, settings: Settings) -> None:
        self.problem: str | None = "Prefect has not been asked yet"
        self._api = api
        self._settings = settings
        self._doors: dict[str, Door] = {}
        self._stored: dict[str, tuple[float, str]] = {}
        self._fresh_at = 0.0
        self._asked = asyncio.Event()
        self._nobodys = secrets.token_urlsafe(32)

    def __iter__(self) -> Iterator[Door]:
        return iter(self._doors.values())

    def __len__(self) -> int:
        return len(self._doors)

    def get(self, rule_id: str) -> Door | None:
        """The door of that webhook, whoever asks."""
        return self._doors.get(rule_id)

    @property
    def ready(self) -> bool:
        """Whether Prefect answered lately, so that the doors are those of now."""
        return self._fresh_at > 0 and time.monotonic() - self._fresh_at < STALE_SECONDS

    def admit(self, rule_id: str, header: list[str], bearer: list[str]) -> Door | None:
        """The door that this caller may go through, or None: with the same work whether it exists or not.

        `header` are the values of X-Webhook-Secret, `bearer` the tokens of Authorization: more or less than one of
        the one that the rule's scheme names opens nothing.
        """
        door = self._doors.get(rule_id)
        given = bearer if door is not None and door.rule.scheme == "bearer" else header
        wanted = door.secret if door is not None else None
        same = same_secret(given[0] if len(given) == 1 else "", wanted or self._nobodys)
        if door is None:
            self._asked.set()
        return door if same and wanted else None

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
        for found in await deployed_rules(self._api, kinds=["webhook"]):
            if not isinstance(found.rule, WebhookRule):
                continue
            try:
                secret, closed = await self._secret(found.rule), None
            except (ActionError, Refused) as error:  # this door only; while Prefect is away, all stay as they were
                secret, closed = None, error.message
            doors[found.rule.id] = Door(found.rule, found.deployment_id, found.paused, secret, closed)
        for rule_id in doors.keys() | self._doors.keys():
            self._tell(self._doors.get(rule_id), doors.get(rule_id))
        self._doors = doors
        self._fresh_at = time.monotonic()

    async def _secret(self, rule: WebhookRule) -> str:
        if rule.secret is None:
            return webhook_secret(self._settings, rule.id)
        since, secret = self._stored.get(rule.secret, (0.0, ""))
        if not secret or time.monotonic() - since > SECRET_SECONDS:
            secret = str(await resolve(rule.secret, where="secret", api=self._api)).strip()
            if not secret:
                raise SecretMissing(f"{rule.secret} is empty")
            self._stored[rule.secret] = (time.monotonic(), secret)
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
