"""From the inbox to Prefect: each delivery ends as exactly one run, or as one recorded skip.

The idempotency key of a run is the delivery's. So whatever is cut off between two steps is done again, by this gateway
or another one, and comes out the same: a run that was created is found instead of made, and what is in Prefect decides
what is written into the inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from ..errors import PrefectError, PrefectUnreachable
from ..firing.atdoor import judge_calls
from ..firing.gate import Skip
from ..ledger.deliveries import Settled, claim, lock_groups, next_due, put_off, settle
from ..ledger.delivery_log import forget
from ..ledger.log import NewEvent, append
from ..ledger.tables import Delivery
from ..prefect_api import PrefectApi, Refused
from ..prefect_api.client import BUSY, Busy, gap
from ..prefect_api.runs import create_runs, find_runs, make_run
from ..rules.state_names import SKIPPED
from .coalesce import close_groups, is_open
from .inbox import LEASE, Inbox
from .newrun import new_run
from .pace import Pace
from .targets import Departures, Target, Targets

log = logging.getLogger("proactive.inbox")

_FORGET_EVERY = 3600.0  # seconds
_LOOK = 1.0  # seconds after which a gateway looks for deliveries that another one accepted and did not take
_DISPATCH_SECONDS = 45.0  # well below the lease
_PUT_OFF = timedelta(seconds=30)  # what Prefect refuses for reasons that may pass: a wrong key, say
_GONE_AFTER = timedelta(seconds=30)  # that a webhook is not known: another apply may be about to deploy it again
_PERMANENT = {400, 409, 413, 422}
_GONE = "the webhook is not deployed any more"


class Dispatcher:
    """What one process gives to Prefect. `api` must not try again by itself: how often, and when, is decided here."""

    def __init__(
        self,
        api: PrefectApi,
        inbox: Inbox,
        targets: Targets,
        keep: timedelta = timedelta(days=30),
        gone_after: timedelta = _GONE_AFTER,
    ) -> None:
        self.pace = Pace(api.concurrency)
        self._api = api
        self._inbox = inbox
        self._targets = targets
        self._under_way: set[asyncio.Task[None]] = set()
        self._keep = keep
        self._departures = Departures(api, targets, gone_after)
        self._forget_at = 0.0
        self._not_before = 0.0
        self._look_at = 0.0

    async def work(self, stop: asyncio.Event) -> None:
        """Dispatch until `stop` is set; no failure of Prefect or of the database ends it."""
        waker = asyncio.create_task(self._wake_at(stop))
        freed = False
        try:
            while not stop.is_set():
                self._inbox.wake.clear()
                try:
                    if not freed:
                        await self._inbox.take_over()
                        freed = True
                    if await self._start_one():
                        continue
                    await self._forget()
                except (SQLAlchemyError, OSError) as error:
                    log.warning("inbox.unreachable: %s", type(error).__name__)
                    self._look_at = time.monotonic() + _LOOK
                pause = max(self._look_at, self._not_before) - time.monotonic()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._inbox.wake.wait(), min(max(pause, 0.01), _LOOK))
        finally:
            waker.cancel()
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(waker, *self._under_way, return_exceptions=True)
            # Others need not wait for the leases to end; a run that was just made is found by its key.
            await self._give_back(self._inbox.held_ids, timedelta(0))

    async def _forget(self) -> None:
        """Now and then delete what was settled before the retention."""
        if time.monotonic() < self._forget_at:
            return
        async with self._inbox.ledger.write() as session:
            count = await forget(session, await self._inbox.ledger.now(session) - self._keep)
        self._forget_at = time.monotonic() + (0 if count else _FORGET_EVERY)

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._inbox.wake.set()

    async def _start_one(self) -> bool:
        """Start to dispatch some, if there are any and Prefect may be given more."""
        if len(self._under_way) >= int(self.pace.calls) or time.monotonic() < self._not_before:
            return False
        ready, size = self._inbox.ready, int(self.pace.size)
        batch = [ready.popleft() for _ in range(min(size, len(ready)))] or await self._claim(size)
        if not batch:
            return False
        task = asyncio.create_task(self._dispatch(batch))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._inbox.wake.set()

    async def _claim(self, limit: int) -> list[Delivery]:
        if not self._inbox.backlog and time.monotonic() < self._look_at:
            return []
        ledger = self._inbox.ledger
        async with ledger.read() as session:
            due, now = await next_due(session), await ledger.now(session)
        if due is None or due > now:
            self._inbox.backlog = False
            until = _LOOK if due is None else min(_LOOK, (due - now).total_seconds())
            self._look_at = time.monotonic() + until
            return []
        async with ledger.write(tell=False) as session:
            await lock_groups(session)
            now = await ledger.now(session)
            taken = await claim(session, self._inbox.holder, now, now + LEASE, limit)
            mine = await close_groups(session, taken, self._targets, now)
        for delivery, payload in mine:  # not in the session, which would write it
            delivery.payload = payload
        self._inbox.hold(delivery for delivery, _ in mine)
        return [delivery for delivery, _ in mine]

    async def _dispatch(self, batch: list[Delivery]) -> None:
        by_rule: dict[str, list[Delivery]] = {}
        for delivery in batch:
            by_rule.setdefault(delivery.rule_id, []).append(delivery)
        for rule_id, deliveries in by_rule.items():
            ids = [delivery.id for delivery in deliveries]
            try:
                async with asyncio.timeout(_DISPATCH_SECONDS):
                    settled = await self._settle_in_a_gap(self._targets.get(rule_id), deliveries)
            except TimeoutError:
                await self._too_much(ids, "no answer in time", in_time=False)
            except PrefectUnreachable as error:
                await self._too_much(ids, type(error).__name__)
            except Refused as refused:
                if refused.status in BUSY:
                    await self._too_much(ids, str(refused.status))
                else:
                    log.warning("delivery.put_off webhook=%s count=%d: %s", rule_id, len(ids), refused.message)
                    await self._give_back(ids, _PUT_OFF)
            except PrefectError as error:
                log.warning("delivery.put_off webhook=%s count=%d: %s", rule_id, len(ids), error.message)
                await self._give_back(ids, _PUT_OFF)
            except Exception:
                log.exception("delivery.put_off webhook=%s count=%d", rule_id, len(ids))
                await self._give_back(ids, _PUT_OFF)
            else:
                await self._record(rule_id, settled)
                # A webhook that is not known yet has not become of anything.
                await self._give_back(set(ids) - {one.id for one in settled}, timedelta(seconds=2))

    async def _settle_in_a_gap(self, target: Target | None, deliveries: list[Delivery]) -> list[Settled]:
        """`_settle`, again and again while others keep Prefect's database locked."""
        tries = 1
        while True:
            began = time.monotonic()
            try:
                settled = await self._settle(target, deliveries)
            except Busy:
                self._inbox.brisk = False
                self.pace.locked()
                for delivery in deliveries:
                    delivery.attempts += (
                        1  # some may have their runs: of several calls it was not the first that failed
                    )
                await asyncio.sleep(gap(tries))
                tries += 1
                continue
            self.pace.took(len(deliveries), time.monotonic() - began)
            self._inbox.brisk = tries == 1
            if tries > 1:
                log.info("prefect.locked deliveries=%d tries=%d", len(deliveries), tries)
            return settled

    async def _settle(self, target: Target | None, deliveries: list[Delivery]) -> list[Settled]:
        """See that each has its run; what became of those that can have one now, or never can."""
        rule_id = deliveries[0].rule_id
        if target is None:
            gone = await self._departures.is_gone(rule_id)
            return [Settled(one.id, "undeliverable", None, _GONE) for one in deliveries] if gone else []
        self._departures.known(rule_id)
        # The webhook became known after these were claimed: the next claim closes their groups.
        if not (deliveries := [one for one in deliveries if not is_open(one)]):
            return []
        try:
            return await self._create(target, deliveries)
        except Refused as refused:
            if refused.status == 404:
                # Of a proxy, it may be. Where the deployment is gone the webhook will not be known a moment later.
                log.warning("delivery.put_off webhook=%s count=%d: %s", rule_id, len(deliveries), refused.message)
                return []
            if refused.status not in _PERMANENT:
                raise
            if len(deliveries) == 1:
                return [
                    Settled(deliveries[0].id, "undeliverable", None, f"Prefect refused it: {refused.detail}"[:1000])
                ]
        return [one for delivery in deliveries for one in await self._settle(target, [delivery])]

    async def _create(self, target: Target, deliveries: Sequence[Delivery]) -> list[Settled]:
        skips = await self._judge(target, deliveries)
        runs = [new_run(target.rule, delivery, skip) for delivery, skip in zip(deliveries, skips, strict=True)]
        ids: list[str | None] = [None] * len(runs)
        if len(runs) > 1:
            try:
                ids = await create_runs(self._api, target.deployment_id, runs)
            except Refused as refused:
                if (
                    refused.status != 404
                ):  # else its deployment is gone, or this Prefect takes one run a call: see below
                    raise
        settled: dict[str, Settled] = {}
        look: dict[str, str] = {}
        for delivery, skip, run, run_id in zip(deliveries, skips, runs, ids, strict=True):
            found = run_id
            if found is None:
                made = await make_run(self._api, target.deployment_id, run)
                found = str(made.id)
                if made.name != run.name:
                    look[found] = delivery.id
            elif delivery.attempts:  # somebody may have made its run before
                look[found] = delivery.id
            settled[delivery.id] = (
                Settled(delivery.id, "skipped", found, str(skip)) if skip else Settled(delivery.id, "dispatched", found)
            )
        if look:
            # What was decided the first time stands: the state that the run was created in says it.
            names = {run.name for run in runs}
            for there in await find_runs(self._api, [target.deployment_id], {"id": {"any_": list(look)}}, limit=200):
                if there.name not in names:
                    state = there.state
                    was_skipped = state is not None and state.name == SKIPPED
                    one = look[str(there.id)]
                    reason = (state.message or "") if state is not None and was_skipped else ""
                    settled[one] = Settled(one, "skipped" if was_skipped else "dispatched", str(there.id), reason)
        return list(settled.values())

    async def _judge(self, target: Target, deliveries: Sequence[Delivery]) -> list[Skip | None]:
        if target.paused:
            return [Skip("disabled", "the rule is paused in Prefect")] * len(deliveries)
        skips: dict[str, Skip] = {
            one.id: Skip("condition_false", one.reason.removeprefix("condition_false: "))
            for one in deliveries
            if one.reason
        }
        if asked := [one for one in deliveries if not one.reason]:
            payloads = [one.payload for one in asked]
            decisions = await judge_calls(self._api, target.rule, target.deployment_id, payloads)
            # What the gate would hold, the gate inside the run holds, where it can be resolved.
            skips |= {
                one.id: decision for one, decision in zip(asked, decisions, strict=True) if isinstance(decision, Skip)
            }
        return [skips.get(one.id) for one in deliveries]

    async def _too_much(self, ids: Sequence[str], why: str, *, in_time: bool = True) -> None:
        """Prefect is busy, or away: give all back, and come again with less."""
        self.pace.refused(in_time=in_time)
        self._inbox.brisk = False
        self._not_before = time.monotonic() + self.pace.wait()
        log.warning("prefect.busy (%s): deliveries=%d calls=%d", why, len(ids), int(self.pace.calls))
        waiting = [delivery.id for delivery in self._inbox.ready]
        self._inbox.ready.clear()
        await self._give_back([*ids, *waiting], timedelta(0))

    async def _give_back(self, ids: Iterable[str], after: timedelta) -> None:
        mine = list(ids)
        if not mine:
            return
        with contextlib.suppress(SQLAlchemyError, OSError):  # then their leases end
            async with self._inbox.ledger.write(tell=False) as session:
                now = await self._inbox.ledger.now(session)
                await put_off(session, mine, now + after, holder=self._inbox.holder)
        self._inbox.let_go(mine)
        self._inbox.backlog = True

    async def _record(self, rule_id: str, settled: Sequence[Settled]) -> None:
        self._inbox.announce(settled)
        for one in settled:
            level = logging.ERROR if one.status == "undeliverable" else logging.INFO
            reason = f" reason={one.reason!r}" if one.reason else ""
            log.log(level, "delivery.%s webhook=%s id=%s run=%s%s", one.status, rule_id, one.id, one.run_id, reason)
        try:
            async with self._inbox.ledger.write() as session:
                now = await self._inbox.ledger.now(session)
                await settle(session, settled, now)
                await append(session, [_event(rule_id, one, now) for one in settled if one.status == "undeliverable"])
        except (SQLAlchemyError, OSError) as error:
            # The runs are there; whoever has these deliveries next finds them.
            log.warning("inbox.unreachable: %s", type(error).__name__)


def _event(rule_id: str, one: Settled, at: datetime) -> NewEvent:
    return NewEvent(
        key=f"undeliverable:{one.id}",
        event_type="webhook_undeliverable",
        source="webhook",
        source_ref=rule_id,
        owner_id="local",
        occurred_at_utc=at,
        status="failed",
        payload={"delivery": one.id, "message": one.reason},
    )
