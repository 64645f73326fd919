"""The doctor, on things that are really broken: it sees each, says what to do, and repairs what it can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proactive_prefect.daemon.doctor import (
    Finding,
    check_clock,
    check_rules,
    check_versions,
    examine_gateway,
    examine_server,
    examine_workers,
    installed_versions,
)
from proactive_prefect.settings import Settings

from ..conftest import Server
from ..support import free_port

GOOD = {"prefect": "3.8.8", "fastapi": "0.150.0", "sqlalchemy": "2.0.58"}
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def collect(findings: AsyncIterator[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    async for finding in findings:
        found.setdefault(finding.check, []).append(finding)
    return found


@pytest.mark.parametrize(
    ("package", "version", "why"),
    [
        ("fastapi", "0.151.0", "keep Prefect's server from starting"),
        ("fastapi", "0.155.1", "keep Prefect's server from starting"),
        ("sqlalchemy", "2.1.0", "nothing ever fires"),
        ("prefect", "3.8.7", "not tried"),
        ("prefect", "4.0.0", "not tried"),
        ("sqlalchemy", None, "is not installed"),
        ("fastapi", "unknown", "keep Prefect's server from starting"),
    ],
)
def test_versions_that_keep_prefect_from_firing_are_found(package: str, version: str | None, why: str) -> None:
    """Each of the traps fails alone, with the reason and a command that repairs it."""
    versions = {**GOOD, package: version} if version else {name: GOOD[name] for name in GOOD if name != package}
    (finding,) = check_versions({name: text for name, text in versions.items() if text})
    assert finding.level == "FAIL"
    assert package in finding.text
    assert why in finding.text
    assert "'fastapi>=0.139,<0.151' 'sqlalchemy>=2.0,<2.1'" in finding.todo


def test_the_versions_installed_here_are_right() -> None:
    """What this project's own pins install passes."""
    (finding,) = check_versions(installed_versions())
    assert finding.level == "OK"


@pytest.mark.parametrize(
    ("off", "level", "words"),
    [
        (timedelta(0), "OK", "agree"),
        (timedelta(seconds=-2), "OK", "agree"),
        (timedelta(seconds=-10), "WARN", "behind"),
        (timedelta(seconds=10), "WARN", "ahead of"),
        (timedelta(minutes=5), "FAIL", "300 s ahead of"),
        (timedelta(minutes=-5), "FAIL", "behind"),
    ],
)
def test_a_clock_that_is_off_is_found(off: timedelta, level: str, words: str) -> None:
    """A few seconds are no matter; more is a warning, half a minute a failure."""
    finding = check_clock(NOW + off, NOW, NOW + timedelta(seconds=0.2))
    assert finding.level == level
    assert words in finding.text


def test_mistakes_and_a_project_that_is_off_are_found(tmp_path: Path) -> None:
    """A mistake fails, `enabled` absent warns with the line to add, no file at all fails with a hint."""
    rules = tmp_path / "proactive.toml"
    settings = Settings(config=rules, home=tmp_path)
    assert check_rules(settings)[1][0].level == "FAIL"
    rules.write_text("[proactive]\n")
    (off,) = check_rules(settings)[1]
    assert off.level == "WARN"
    assert "enabled = true" in off.todo
    rules.write_text("[proactive]\nenabled = true\n")
    assert check_rules(settings)[1][0].level == "OK"
    rules.write_text("[proactive]\nenabled = 7\n")
    (wrong,) = check_rules(settings)[1]
    assert wrong.level == "FAIL"
    assert "line 2" in wrong.text


async def test_a_gateway_that_does_not_answer_is_found(tmp_path: Path) -> None:
    """The address that was tried is named."""
    port = free_port()
    finding = await examine_gateway(Settings(home=tmp_path, gateway_port=port))
    assert finding.level == "FAIL"
    assert f"http://127.0.0.1:{port}" in finding.text


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_real_server_is_examined_by_trying(prefect_server: Server, tmp_path: Path) -> None:
    """A pool without a worker and a leaked slot are found, the slot is freed by --fix, the scheduler is proved to
    work, and nothing of the proof is left on the server."""
    from proactive_prefect.deploy.apply import apply_plan
    from proactive_prefect.deploy.compile import Project, compile_rules
    from proactive_prefect.deploy.plan import make_plan
    from proactive_prefect.prefect_api.client import connect
    from proactive_prefect.prefect_api.deployments import read_deployments
    from proactive_prefect.rules.read import read_rules

    rules = tmp_path / "proactive.toml"
    rules.write_text(
        '[proactive]\nenabled = true\n[[webhook]]\nid = "doctored"\naction = { type = "command", argv = ["true"] }\n'
    )
    project = Project("doctored", tmp_path, "doctored-pool")
    async with connect(Settings(home=tmp_path)) as api:
        specs = compile_rules(read_rules(rules), project)
        before = await collect(examine_workers(api, {"doctored-pool": 1}))
        assert before["worker"][0].text == "there is no work pool doctored-pool"

        await apply_plan(api, await make_plan(api, specs, project))
        (worker,) = (await collect(examine_workers(api, {"doctored-pool": 1})))["worker"]
        assert worker.level == "FAIL"
        assert "no worker polls the work pool doctored-pool of 1 rules; none was ever seen" in worker.text
        await api.patch("/work_pools/doctored-pool", {"is_paused": True})
        (paused,) = (await collect(examine_workers(api, {"doctored-pool": 1})))["worker"]
        assert "is paused" in paused.text

        (deployment,) = [one for one in await read_deployments(api) if one.name == "doctored"]
        limit = deployment.data["global_concurrency_limit"]["id"]
        await api.patch(f"/v2/concurrency_limits/{limit}", {"active_slots": 2})
        found = await collect(examine_server(api, fix=False))
        assert found["slots"][0].level == "FAIL"
        assert found["slots"][0].text.startswith("doctored: 2 of 2 slots taken by 0 runs")
        assert found["slots"][0].todo == "proactive doctor --fix"
        assert found["scheduler"][0].level == "OK"
        assert found["clock"][0].level == "OK"
        assert found["leases"][0].text == "kept in filesystem storage"

        fixed = await collect(examine_server(api, fix=True))
        assert fixed["slots"][0].text.endswith("freed")
        assert (await api.get(f"/v2/concurrency_limits/{limit}"))["active_slots"] == 0

        assert await api.post("/deployments/filter", {"flows": {"name": {"any_": ["proactive-doctor"]}}}) == []
        assert await api.post("/flows/filter", {"flows": {"name": {"any_": ["proactive-doctor"]}}}) == []
        await api.delete(f"/deployments/{deployment.id}")
