"""Rules from Python code: `Proactive`, and `AsyncProactive` with the same names for code that awaits.

    with Proactive() as client:
        client.schedule({"kind": "heartbeat", "id": "disk", "every": "5m", "action": {…}})
        client.trigger_now("disk")

Both talk to the Prefect API that Prefect's own settings name; where these name none, to the server of the `up` that
runs in this project. A rule scheduled here is kept apart from those of rules files: no `proactive apply` changes or
removes it, and `schedule` and `unschedule` leave alone what a file declares.
"""

from __future__ import annotations

import asyncio
import difflib
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from uuid import UUID, uuid4

from pydantic import TypeAdapter, ValidationError

from .daemon.upfile import read_up_file
from .deploy.apply import apply_plan
from .deploy.compile import Project, compile_rules
from .deploy.plan import make_plan
from .errors import InputError, PrefectUnreachable, UnknownRule
from .firing.foreseen import next_runs
from .ledger.db import open_ledger
from .ledger.tables import ResolutionAction
from .ledger.why import Why, why, with_states
from .missed.queue import MissedItem, read_queue
from .missed.resolve import Resolved, learn_held, occurrence_of_run, resolve_missed, this_user
from .prefect_api import PrefectApi, connect
from .prefect_api.address import configured_api_url, use_api_url
from .prefect_api.deployments import DeployedRule, delete_deployment, deployed_rules
from .prefect_api.pausing import pause_rule, resume_rule
from .prefect_api.runs import FlowRun, create_run
from .rules.checks import check_expressions, check_interval
from .rules.models import ProjectTable, Rule, Rulebook
from .settings import Settings, project_root, rules_file

P = ParamSpec("P")
T = TypeVar("T")
Missed = MissedItem | UUID | str

# Not a name that a rules file can give its project: so the two can never be taken for one another.
_SDK = "sdk:"
_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)


class AsyncProactive:
    """The project's rules, for code that awaits. Connects when first used; `close` it, or use `async with`.

    Every call raises PrefectUnreachable if Prefect does not answer, and UnknownRule, with near names, for an id that
    no deployed rule has.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        config = rules_file(self._settings)
        root = project_root(config) if config else Path().resolve()
        self._project = Project(f"{_SDK}{root.name}", root, self._settings.work_pool)
        self._stack = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._connection: PrefectApi | None = None

    async def __aenter__(self) -> Self:
        await self._api()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._connection = None
        await self._stack.aclose()

    async def schedule(self, rule: Rule | Mapping[str, Any]) -> DeployedRule:
        """Deploy one rule, or let the one of that id be like this; equal to what is deployed, nothing is written.

        `rule` is a rule model, or its keys as in a rules file, with `kind`. Other rules stay as they are.
        Raises InputError with all that is wrong with it, or if a rules file or another project has that id.
        """
        wanted = _checked(rule)
        api = await self._api()
        mine = [found.rule for found in await deployed_rules(api, project=self._project.name)]
        await self._reconcile(api, [*(one for one in mine if one.id != wanted.id), wanted], wanted.id)
        return await self._find(api, wanted.id)

    async def unschedule(self, rule_id: str) -> None:
        """Delete a rule that was scheduled here, with its coming runs; its past runs stay in Prefect.

        Raises InputError for a rule that a rules file declares: the next `apply` would bring it back.
        """
        api = await self._api()
        found = await self._find(api, rule_id)
        if found.project is None or not found.project.startswith(_SDK):
            raise InputError(
                f"the rule {rule_id!r} is declared in a rules file of the project {found.project or 'that made it'!r}",
                hint="Remove it there and apply, or pause it.",
            )
        await delete_deployment(api, found.deployment_id)
        rest = [one.rule for one in await deployed_rules(api, project=self._project.name)]
        await self._reconcile(api, rest, None)

    async def pause(self, rule_id: str) -> None:
        """Pause a rule, as the switch in Prefect's UI does: no scheduled run until it is resumed."""
        api = await self._api()
        await pause_rule(api, (await self._find(api, rule_id)).deployment_id)

    async def resume(self, rule_id: str) -> None:
        """Resume a paused rule. One that is not enabled does not fire all the same."""
        api = await self._api()
        found = await self._find(api, rule_id)
        await resume_rule(api, found.deployment_id, enabled=found.rule.enabled)

    async def trigger_now(self, rule_id: str) -> FlowRun:
        """Create a run of the rule for now, and return it; it has yet to start."""
        api = await self._api()
        found = await self._find(api, rule_id)
        return await create_run(api, found.deployment_id, idempotency_key=f"trigger {uuid4()}")

    async def rules(self) -> list[DeployedRule]:
        """Every deployed rule, of files and scheduled here, by id."""
        return sorted(await deployed_rules(await self._api()), key=lambda found: found.rule.id)

    async def get_scheduled_skills(self) -> list[DeployedRule]:
        """Every deployed rule of kind skill, by id."""
        found = await deployed_rules(await self._api(), kinds=["skill"])
        return sorted(found, key=lambda one: one.rule.id)

    async def get_next_run(self, rule_id: str) -> datetime | None:
        """When the rule will run next (UTC), past what its conditions rule out.

        None while it is paused or not enabled, if it never will, or for a webhook.
        """
        found = await self._find(await self._api(), rule_id)
        due = next_runs(found.rule, datetime.now(UTC), 1) if found.active else []
        return due[0] if due else None

    async def missed(self, rule_id: str | None = None) -> list[MissedItem]:
        """What was missed (of one rule) and waits: for a decision, or approved for its turn; oldest first."""
        api = await self._api()
        rule_ids = [(await self._find(api, rule_id)).rule.id] if rule_id else None
        async with open_ledger(self._settings) as ledger:
            await learn_held(ledger, api, self._settings)
            async with ledger.read() as session:
                now = datetime.now(UTC)
                return (await read_queue(session, self._settings, now, rule_ids=rule_ids, limit=100_000)).items

    async def approve(self, missed: Missed) -> Resolved:
        """Let a missed run go, now or when it is its turn, with its original due time.

        `missed` is an item of `missed()`, or a flow run's id. The first decision stands, and is returned; asking again
        changes nothing. Raises InputError if the run was not missed.
        """
        return await self._resolve(missed, "approve_backfill_run")

    async def reschedule(self, missed: Missed, at: datetime) -> Resolved:
        """Let what a missed run stands for run at `at`, as a new run; as `approve`, and `at` must be aware."""
        return await self._resolve(missed, "reschedule", at)

    async def delete_missed(self, missed: Missed) -> Resolved:
        """Drop a missed run: it ends as Cancelled; as `approve`."""
        return await self._resolve(missed, "delete_missed")

    async def _resolve(self, missed: Missed, action: ResolutionAction, at: datetime | None = None) -> Resolved:
        api, settings = await self._api(), self._settings
        async with open_ledger(settings) as ledger:
            if isinstance(missed, MissedItem):
                occurrence_id = missed.occurrence_id
            else:
                occurrence_id = await occurrence_of_run(ledger, api, settings, str(missed))
            [answer] = await resolve_missed(
                ledger, api, settings, [occurrence_id], action, by=this_user(), via="sdk", target=at
            )
        if answer.status == "not_missed":
            raise InputError(f"run {answer.run_id} is {answer.outcome}; allowed: a run that is Missed")
        return answer

    async def why(self, rule_id: str, at: datetime) -> Why:
        """What became of the rule at that time, and why. Raises UnknownRule for an id that was never seen."""
        if at.tzinfo is None:
            raise InputError(f"{at.isoformat()} has no offset; allowed: an aware datetime")
        async with open_ledger(self._settings) as ledger, ledger.read() as session:
            answer = await why(session, rule_id, at, datetime.now(UTC))
        return await with_states(await self._api(), answer)

    async def _api(self) -> PrefectApi:
        async with self._connecting:
            if self._connection is None:
                with use_api_url(self._api_url()):
                    self._connection = await self._stack.enter_async_context(connect(self._settings))
            return self._connection

    def _api_url(self) -> str:
        # Without a name, Prefect would start a passing server of its own inside this process, with no rules on it.
        if (configured := configured_api_url()) is not None:
            return configured
        running = read_up_file(self._settings.home)
        if running is None:
            raise PrefectUnreachable(
                "no Prefect server is running for this project",
                hint="`proactive up` starts one; PREFECT_API_URL names another.",
            )
        return running["prefect_api_url"]

    async def _reconcile(self, api: PrefectApi, rules: Iterable[Rule], only: str | None) -> None:
        """Let the rule `only` be as in `rules`, and the alerts as all of them ask; touch no other deployment."""
        book = Rulebook(proactive=ProjectTable(enabled=True), rules=tuple(rules))
        plan = await make_plan(api, compile_rules(book, self._project), self._project)
        await apply_plan(
            api,
            replace(
                plan,
                added=tuple(spec for spec in plan.added if spec.name == only),
                changed=tuple(change for change in plan.changed if change.spec.name == only),
                removed=tuple(found for found in plan.removed if found.name == only),  # it was of another kind
                obstacles=tuple(found for found in plan.obstacles if not found.alerts_of or only in found.alerts_of),
            ),
        )

    async def _find(self, api: PrefectApi, rule_id: str) -> DeployedRule:
        deployed = await deployed_rules(api)
        found = next((one for one in deployed if one.rule.id == rule_id), None)
        if found is not None:
            return found
        near = difflib.get_close_matches(rule_id, [one.rule.id for one in deployed], n=3, cutoff=0.5)
        raise UnknownRule(
            f"no rule {rule_id!r} is deployed",
            hint=f"Near: {', '.join(near)}." if near else "`proactive list` shows those that are.",
        )


def _waits(
    method: Callable[Concatenate[AsyncProactive, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Proactive, P], T]:
    """The method for code that does not await: the same, in the client's own event loop."""

    @wraps(method)
    def call(self: Proactive, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(method(self._client, *args, **kwargs))

    return call


class Proactive:
    """The project's rules. Connects when first used; `close` it, or use `with`. From any thread.

    Every call raises PrefectUnreachable if Prefect does not answer, and UnknownRule, with near names, for an id that
    no deployed rule has.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._client = AsyncProactive(self._settings)
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    schedule = _waits(AsyncProactive.schedule)
    unschedule = _waits(AsyncProactive.unschedule)
    pause = _waits(AsyncProactive.pause)
    resume = _waits(AsyncProactive.resume)
    trigger_now = _waits(AsyncProactive.trigger_now)
    rules = _waits(AsyncProactive.rules)
    get_scheduled_skills = _waits(AsyncProactive.get_scheduled_skills)
    get_next_run = _waits(AsyncProactive.get_next_run)
    missed = _waits(AsyncProactive.missed)
    approve = _waits(AsyncProactive.approve)
    reschedule = _waits(AsyncProactive.reschedule)
    delete_missed = _waits(AsyncProactive.delete_missed)
    why = _waits(AsyncProactive.why)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and end its thread; the next call begins anew."""
        with self._starting:
            if self._loop is None:
                return
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None
            self._client = AsyncProactive(self._settings)  # what the old one waits with belongs to the loop that ended

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon, so that a client that nobody closes does not keep its program alive.
                threading.Thread(target=_run, args=(self._loop,), name="proactive-sdk", daemon=True).start()
            answer = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return answer.result()
        except BaseException:
            answer.cancel()  # Ctrl-C ends the call, not only the wait for it
            raise


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    # Calls of other threads that still wait here end as cancelled, instead of never.
    loop.run_until_complete(_cancel(asyncio.all_tasks(loop)))
    loop.close()


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _checked(rule: Rule | Mapping[str, Any]) -> Rule:
    try:
        checked = _RULE.validate_python(dict(rule) if isinstance(rule, Mapping) else rule)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InputError(f"this is not a rule: {said}") from None
    wrong = [*check_expressions(checked), *check_interval(checked, ProjectTable())]
    if wrong:
        said = "; ".join(f"{'.'.join(map(str, one.key))}: {one.found}; allowed: {one.allowed}" for one in wrong)
        raise InputError(f"the rule {checked.id!r} cannot be scheduled: {said}")
    return checked
