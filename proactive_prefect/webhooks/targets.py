"""The webhooks that deliveries are for: those that are deployed now, and those that are gone."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Protocol

from ..errors import PrefectError
from ..prefect_api import PrefectApi
from ..prefect_api.deployments import read_deployments
from ..rules.models import WebhookRule


class Target(Protocol):
    """A webhook as it is deployed now."""

    @property
    def rule(self) -> WebhookRule:
        """The rule."""

    @property
    def deployment_id(self) -> str:
        """Where its runs are made."""

    @property
    def paused(self) -> bool:
        """Whether an operator paused it in Prefect."""


class Targets(Protocol):
    """The webhooks that are deployed now."""

    @property
    def ready(self) -> bool:
        """Whether they are those of now."""

    def get(self, rule_id: str) -> Target | None:
        """The webhook of that id."""


class Departures:
    """Tells a webhook that is gone from one that is only not known here, for whatever reason.

    To be gone it has to be unknown for as long as `after`, since somebody may be about to deploy it again, and then
    Prefect itself has to say that there is none of its name.
    """

    def __init__(self, api: PrefectApi, targets: Targets, after: timedelta) -> None:
        self._api = api
        self._targets = targets
        self._after = after.total_seconds()
        self._unknown_since: dict[str, float] = {}

    def known(self, rule_id: str) -> None:
        """It is there."""
        self._unknown_since.pop(rule_id, None)

    async def is_gone(self, rule_id: str) -> bool:
        """Whether the unknown webhook is gone. Raises PrefectError where Prefect does not say so, or has it."""
        if not self._targets.ready:
            self._unknown_since.pop(rule_id, None)
            return False
        now = time.monotonic()
        if now - self._unknown_since.setdefault(rule_id, now) < self._after:
            return False
        if any(one.name == rule_id and one.is_a_rule for one in await read_deployments(self._api, ["webhook"])):
            raise PrefectError("it is deployed, by a version whose rules this one cannot read")
        return True
