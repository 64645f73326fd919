"""`proactive doctor`: what keeps a project from firing, found by trying, each with what to do about it."""

from __future__ import annotations

import importlib.metadata
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal

import httpx
from packaging.version import InvalidVersion, Version

from ..errors import ConfigError, PrefectError, ProactiveError
from ..settings import Settings
from .declared import Declared, off_notice, read_declared
from .ports import url_at
from .reach import connected
from .upfile import read_up_file
from .words import distance, read_instant

if TYPE_CHECKING:
    from ..prefect_api.client import PrefectApi

Level = Literal["OK", "WARN", "FAIL"]
_SCHEDULER_PATIENCE = 90.0
_CLOCK_WARN, _CLOCK_FAIL = 2.0, 30.0
_FIX_VERSIONS = "pip install 'prefect>=3.8.8,<4' 'fastapi>=0.139,<0.151' 'sqlalchemy>=2.0,<2.1'"

# What each package must be, and what happens otherwise.
_VERSIONS = (
    ("prefect", "3.8.8", "4", "other versions are not tried"),
    ("fastapi", "0.139", "0.151", "newer ones keep Prefect's server from starting"),
    ("sqlalchemy", "2.0", "2.1", "with newer ones Prefect's scheduler fails on every pass: nothing ever fires"),
)


@dataclass(frozen=True)
class Finding:
    """The answer of one check: `todo` is what to do, "" where all is well."""

    check: str
    level: Level
    text: str
    todo: str = ""


def installed_versions() -> dict[str, str]:
    """The versions of the packages that matter, as they are installed here; missing ones are left out."""
    found = {}
    for name, *_ in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def check_versions(versions: Mapping[str, str]) -> list[Finding]:
    """The two traps of a plain install, and Prefect's own range."""
    wrong = []
    for name, least, below, otherwise in _VERSIONS:
        try:
            fits = Version(least) <= Version(versions[name]) < Version(below)
        except KeyError:
            wrong.append(Finding("versions", "FAIL", f"{name} is not installed", _FIX_VERSIONS))
            continue
        except InvalidVersion:
            fits = False
        if not fits:
            text = f"{name} {versions[name]}; it must be at least {least} and below {below}: {otherwise}"
            wrong.append(Finding("versions", "FAIL", text, _FIX_VERSIONS))
    if wrong:
        return wrong
    text = ", ".join(f"{name} {versions[name]}" for name, *_ in _VERSIONS)
    return [Finding("versions", "OK", f"Python {sys.version_info.major}.{sys.version_info.minor}, {text}")]


def check_rules(settings: Settings) -> tuple[Declared | None, list[Finding]]:
    """The rules file: its mistakes, and whether anything is to fire at all."""
    try:
        declared = read_declared(settings)
    except ConfigError as error:
        more = f" (and {len(error.mistakes) - 1} more)" if len(error.mistakes) > 1 else ""
        text = f"{error.file}: {error.mistakes[0]}{more}"
        return None, [Finding("rules", "FAIL", text, "`proactive check` lists every mistake")]
    except ProactiveError as error:
        return None, [Finding("rules", "FAIL", error.message, error.hint)]
    count = len(declared.rulebook.rules)
    if notice := off_notice(declared):
        return declared, [Finding("rules", "WARN", f"{count} declared, but {notice.split(':')[0]}", notice)]
    return declared, [Finding("rules", "OK", f"{declared.config}: {count} declared, no mistakes")]


async def examine(settings: Settings, *, fix: bool) -> AsyncIterator[Finding]:
    """Every finding, as soon as it is known. `fix` repairs what can be repaired.

    Prefect must not be imported before: `find_server` says which server is meant.
    """
    for finding in check_versions(installed_versions()):
        yield finding
    declared, findings = check_rules(settings)
    for finding in findings:
        yield finding
    yield await examine_gateway(settings)
    async for finding in examine_webhooks(settings):
        yield finding
    try:
        async with connected(settings) as api:
            yield Finding("server", "OK", f"answers at {api.url.rstrip('/')}")
            async for finding in examine_workers(api, _pools(settings, declared)):
                yield finding
            async for finding in examine_server(api, fix=fix):
                yield finding
    except PrefectError as error:
        yield Finding("server", "FAIL", error.message, error.hint)
    except httpx.HTTPError as error:  # it answered, and does so no more
        text = f"broke off while it was examined ({type(error).__name__}): {error}"
        yield Finding("server", "FAIL", text, "look into the server's log, and run `proactive doctor` again")


def _pools(settings: Settings, declared: Declared | None) -> Counter[str]:
    """The work pools of the project, with how many rules each has."""
    pools = Counter({settings.work_pool: 0}) if declared is None or not declared.rulebook.rules else Counter[str]()
    for rule in declared.rulebook.rules if declared else ():
        pools[rule.work_pool or settings.work_pool] += 1
    return pools


def check_clock(server_time: datetime, before: datetime, after: datetime) -> Finding:
    """The server's clock (whole seconds, read between `before` and `after` by ours) against ours."""
    early = (before - server_time).total_seconds() - 1.0
    late = (server_time - after).total_seconds()
    off = max(early, late, 0.0)
    if off <= _CLOCK_WARN:
        return Finding("clock", "OK", "the server's clock and this machine's agree")
    which = "behind" if early > late else "ahead of"
    text = f"the server's clock is {off:.0f} s {which} this machine's: rules fire early or late, or count as missed"
    level: Level = "FAIL" if off > _CLOCK_FAIL else "WARN"
    return Finding("clock", level, text, "set both clocks by NTP (timedatectl set-ntp true)")


async def examine_server(api: PrefectApi, *, fix: bool) -> AsyncIterator[Finding]:
    """The findings on the server itself: its clock, where it keeps leases, whether it schedules, leaked slots."""
    from ..prefect_api.checkup import free_slots, leaked_slots, lease_storage, time_to_schedule

    before = datetime.now(UTC)
    answer = await api.client.request("GET", "/health")
    after = datetime.now(UTC)
    if date := answer.headers.get("date"):
        yield check_clock(parsedate_to_datetime(date), before, after)

    storage = await lease_storage(api)
    if storage is not None and storage.endswith(".memory"):
        yield Finding(
            "leases",
            "WARN",
            "the server keeps concurrency leases in memory: a restart cancels live runs and leaks slots",
            "start it with PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="
            "prefect.server.concurrency.lease_storage.filesystem (`proactive up` does)",
        )
    elif storage is not None:
        yield Finding("leases", "OK", f"kept in {storage.rpartition('.')[2]} storage")

    seconds = await time_to_schedule(api, _SCHEDULER_PATIENCE)
    if seconds is None:
        yield Finding(
            "scheduler",
            "FAIL",
            f"the server made no run for a new schedule within {_SCHEDULER_PATIENCE:g} s: no schedule fires",
            "look for errors of the Scheduler service in the server's log (`sqlalchemy<2.1`? started with "
            "--no-services?)",
        )
    else:
        yield Finding("scheduler", "OK", f"made runs for a new schedule within {seconds:.0f} s")

    leaks = await leaked_slots(api)
    for leak in leaks:
        text = f"{leak.rule}: {leak.taken} of {leak.limit} slots taken by {leak.claimed} runs"
        if fix:
            await free_slots(api, leak)
            yield Finding("slots", "OK", f"{text}: freed")
        else:
            yield Finding("slots", "FAIL", f"{text}: its runs wait for ever", "proactive doctor --fix")
    if not leaks:
        yield Finding("slots", "OK", "no concurrency slot has leaked")


async def examine_workers(api: PrefectApi, pools: Mapping[str, int]) -> AsyncIterator[Finding]:
    """Whether somebody polls each of the work pools (`pools`: how many rules run in it)."""
    from ..prefect_api.overview import pool_workers

    start = "`proactive up` or `proactive worker` starts one"
    for pool, rules in sorted(pools.items()):
        workers = await pool_workers(api, pool)
        if workers is None:
            yield Finding("worker", "FAIL", f"there is no work pool {pool}", "`proactive apply` creates it")
            continue
        if (await api.get(f"/work_pools/{pool}"))["is_paused"]:
            todo = f"prefect work-pool resume {pool}"
            yield Finding("worker", "FAIL", f"work pool {pool} is paused: its {rules} rules do not run", todo)
            continue
        online = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
        if online:
            yield Finding("worker", "OK", f"work pool {pool}: {len(online)} polling ({', '.join(sorted(online)[:3])})")
            continue
        seen = max((at for worker in workers if (at := read_instant(worker["last_heartbeat_time"]))), default=None)
        last = f"the last was seen {distance(seen, datetime.now(UTC))}" if seen else "none was ever seen"
        yield Finding("worker", "FAIL", f"no worker polls the work pool {pool} of {rules} rules; {last}", start)


async def examine_gateway(settings: Settings) -> Finding:
    """Whether the gateway answers, and is ready."""
    running = read_up_file(settings.home)
    url = running["gateway_url"] if running else url_at(settings.gateway_host, settings.gateway_port)
    try:
        async with httpx.AsyncClient(timeout=5) as http:
            answer = await http.get(f"{url}/readyz")
    except httpx.HTTPError as error:
        todo = "`proactive up` or `proactive gateway` starts it"
        return Finding("gateway", "FAIL", f"no answer at {url} ({type(error).__name__}): webhooks are lost", todo)
    if answer.status_code == 200:
        return Finding("gateway", "OK", f"ready at {url}")
    todo = "its log says why: PROACTIVE_HOME/logs/gateway.log"
    return Finding("gateway", "FAIL", f"{url} is not ready (HTTP {answer.status_code})", todo)


async def examine_webhooks(settings: Settings) -> AsyncIterator[Finding]:
    """The webhooks that let nobody in, as the running gateway knows: it is the one that needs their secrets."""
    if (running := read_up_file(settings.home)) is None:
        return
    url, token = f"{running['gateway_url']}/api/v1/proactive/state", running["token"]
    try:
        async with httpx.AsyncClient(timeout=10) as http:
            answer = await http.get(url, headers={"authorization": f"Bearer {token}"})
            rules = answer.raise_for_status().json()["rules"]
    except httpx.HTTPError:
        return  # why, others tell
    hooks = [rule for rule in rules if rule["webhook"] is not None]
    closed = [rule for rule in hooks if not rule["webhook"]["open"]]
    for rule in closed:
        text = f"webhook {rule['id']} lets nobody in: {rule['webhook']['problem']}"
        yield Finding("webhooks", "FAIL", text, "give `proactive up` or `proactive gateway` its secret, and restart it")
    if hooks and not closed:
        yield Finding("webhooks", "OK", f"{len(hooks)} with their secrets")
