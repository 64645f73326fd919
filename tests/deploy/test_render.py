"""The rendered prefect.yaml and `apply` make the same deployments."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from proactive_prefect.deploy.apply import apply_plan
from proactive_prefect.deploy.compile import Project, compile_rules
from proactive_prefect.deploy.render import render
from proactive_prefect.prefect_api.deployments import Deployment, read_deployments
from proactive_prefect.rules.read import read_rules
from proactive_prefect.settings import Settings
from tests.conftest import Server
from tests.support import wait_until

from .conftest import ROOT, Workshop, heartbeat, specs_of

RULES: list[dict[str, Any]] = [
    heartbeat("r-interval", "5m", splay="2m", tags=["a", "{{ b }}"], priority="high", on_overlap="allow"),
    heartbeat("r-off", "5m", enabled=False),
    {
        "kind": "cron",
        "id": "r-cron",
        "cron": "0 9 * * mon-fri",
        "timezone": "America/New_York",
        "description": "says {{ hello }} and ${env:HOME}",
        "on_overlap": "queue_all",
        "job_variables": {"env": {"LANG": "C"}},
        "action": {"type": "command", "argv": ["echo", "{{ $HOME }}", "{% raw %}"], "env": {"X": "${secret:x}"}},
    },
    {
        "kind": "skill",
        "id": "r-once",
        "skill": "tidy",
        "schedule": {"type": "once", "at": "2031-05-01T09:00:00+02:00"},
    },
    {"kind": "webhook", "id": "r-hook"},
]


@pytest.fixture
def project(workshop: Workshop, tmp_path: Path) -> Workshop:
    """The workshop's project in a folder of its own, which has the flows."""
    shutil.copytree(ROOT / "flows", tmp_path / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    return replace(workshop, project=replace(workshop.project, root=tmp_path))


def prefect_deploy(server: Server, project: Workshop, rules: list[dict[str, Any]]) -> None:
    """Render the rules into the project's folder and let Prefect's own command deploy them."""
    root = project.project.root
    (root / "prefect.yaml").write_text(render(project.specs(*rules)))
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=root,
        env=server.env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def rendered(project: Workshop) -> dict[str, Deployment]:
    ids = {rule["id"] for rule in RULES}
    return {found.name: found for found in await read_deployments(project.api) if found.name in ids}


def kept(found: Deployment) -> dict[str, Any]:
    """What Prefect keeps about a deployment, except ids, times and what no file can say (labels)."""
    schedules = [
        {name: schedule[name] for name in ("slug", "schedule", "active", "parameters", "max_scheduled_runs")}
        for schedule in found.data["schedules"]
    ]
    left_out = ("id", "created", "updated", "labels", "schedules", "last_polled", "status", "global_concurrency_limit")
    return {name: value for name, value in found.data.items() if name not in left_out} | {
        "schedules": schedules,
        "limit": found.fields()["concurrency_limit"],
    }


@pytest.mark.slow
async def test_prefect_deploy_of_the_rendered_file_gives_the_same(prefect_server: Server, project: Workshop) -> None:
    """Deployed by `apply` and by `prefect deploy --all`, each deployment is equal in all that Prefect keeps."""
    await project.apply(*RULES)
    ours = {name: kept(found) for name, found in (await rendered(project)).items()}
    await project.apply()
    assert await rendered(project) == {}
    prefect_deploy(prefect_server, project, RULES)
    found = await rendered(project)
    assert {name: kept(one) for name, one in found.items()} == ours
    assert len(ours) == len(RULES)

    # `apply` then takes them over: labels are all that it has to add, and after that there is nothing to do.
    plan = await project.apply(*RULES)
    assert {change.spec.name for change in plan.changed if change.adopt} == set(ours)
    assert {str(shown).split(":")[0] for change in plan.changed for shown in change.shown} == {
        "label proactive.project"
    }
    assert not (await project.plan(*RULES)).differs
    assert {name: kept(one) for name, one in (await rendered(project)).items()} == ours

    # Deployed by both, one after another, the labels and the ids of the schedules stay.
    before = await rendered(project)
    prefect_deploy(prefect_server, project, RULES)
    after = await rendered(project)
    assert {name: one.schedule and one.schedule["id"] for name, one in after.items()} == {
        name: one.schedule and one.schedule["id"] for name, one in before.items()
    }
    assert not (await project.plan(*RULES)).differs


async def test_runs_doubled_by_a_redeploy_have_the_same_due_time(workshop: Workshop) -> None:
    """A deployment created over itself, as deploy tools do, gets new schedule ids: the same occurrence twice, which
    the gate tells by its due time."""
    rule = heartbeat("twice", "10s")
    await workshop.apply(rule, min_interval="1s")
    twice = await workshop.deployed("twice")
    assert twice.schedule is not None

    async def due() -> list[Any]:
        now = datetime.now(UTC).isoformat()
        found: list[Any] = await workshop.api.post(
            "/flow_runs/filter",
            {
                "deployments": {"id": {"any_": [twice.id]}},
                "flow_runs": {"next_scheduled_start_time": {"before_": now}},
                "sort": "EXPECTED_START_TIME_ASC",
            },
        )
        return found

    runs: list[Any] = await wait_until(due, what="a run that no worker took")
    late = {"type": "SCHEDULED", "name": "Late"}  # as Prefect does after a while
    await workshop.api.post(f"/flow_runs/{runs[0]['id']}/set_state", {"state": late, "force": True})
    spec = workshop.specs(rule, min_interval="1s")[0]
    assert spec.schedule is not None
    body = {
        "name": "twice",
        "flow_id": twice.data["flow_id"],
        "labels": spec.labels,
        "schedules": [{"slug": "rule", "schedule": spec.schedule.schedule, "active": True}],
        **spec.fields(),
    }
    await workshop.api.post("/deployments/", body)
    since = runs[0]["expected_start_time"]
    await workshop.api.post(f"/deployments/{twice.id}/schedule", {"start_time": since})
    again = await workshop.api.post(
        "/flow_runs/filter",
        {
            "deployments": {"id": {"any_": [twice.id]}},
            "flow_runs": {"expected_start_time": {"after_": since, "before_": since}},
        },
    )
    assert Counter(run["expected_start_time"] for run in again) == {since: 2}
    assert len({run["idempotency_key"] for run in again}) == 2


def test_the_rendered_file_names_no_machine() -> None:
    """A rendered file has no path of the machine that it was made on, and reads back as YAML with all rules."""
    specs = specs_of(*RULES)
    text = render(specs)
    assert str(ROOT) not in text
    assert [entry["name"] for entry in yaml.safe_load(text)["deployments"]] == [rule["id"] for rule in RULES]
    assert render(specs) == text


def test_the_repository_has_its_own_rules_rendered() -> None:
    """prefect.yaml is what `proactive render` makes of deployments/proactive.toml."""
    rules = read_rules(ROOT / "deployments" / "proactive.toml")
    text = render(compile_rules(rules, Project("any", ROOT, Settings.model_fields["work_pool"].default)))
    assert (ROOT / "prefect.yaml").read_text() == text, "write it again: proactive render"


async def test_what_prefect_deploy_made_is_adopted_with_the_operators_pause(
    prefect_server: Server, project: Workshop
) -> None:
    """A deployment that `prefect deploy` made and an operator paused is adopted, and is still paused."""
    specs = project.specs(RULES[0])
    await apply_plan(project.api, replace(await project.plan(RULES[0]), added=()))  # the pool only
    prefect_deploy(prefect_server, project, RULES[:1])
    found = (await rendered(project))[specs[0].name]
    assert found.project is None
    await project.api.post(f"/deployments/{found.id}/pause_deployment")
    await project.apply(RULES[0])
    after = (await rendered(project))[specs[0].name]
    assert after.id == found.id
    assert after.project == project.project.name
    assert after.paused
