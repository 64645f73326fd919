"""Butler's acceptance criteria for its proactive runtime, line by line."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from pathlib import Path

import httpx

from .conftest import Life

ROOT = Path(__file__).parents[2]


def due(run: dict[str, str]) -> datetime:
    """When a run was due."""
    return datetime.fromisoformat(run["expected_start_time"])


def test_the_config_is_loaded_from_a_file_and_the_runtime_starts(life: Life) -> None:
    """Each rule of the file is a deployment in Prefect, named by its kind and its id."""
    found = life.prefect("/deployments/filter", {"limit": 200})
    names = {deployment["name"] for deployment in found}
    assert {"beat", "each-minute", "door", "skill-once", "health_check"} <= names


def test_heartbeats_fire_at_their_interval(life: Life) -> None:
    """A heartbeat of every 10 s runs every 10 s: from the first to the fourth none is missing and none double."""
    runs = life.wait_for("beat", "Completed", count=4)
    times = [due(run) for run in life.runs("beat") if due(run) <= due(runs[3])]
    assert all(later - earlier == timedelta(seconds=10) for earlier, later in itertools.pairwise(times))


def test_cron_rules_fire_when_the_expression_matches_the_minute(life: Life) -> None:
    """`* * * * *` runs at the full minute."""
    [run, *_] = life.wait_for("each-minute", "Completed")
    assert due(run).second == 0


def test_webhooks_fire_only_with_a_known_id_and_its_secret(life: Life) -> None:
    """A wrong secret and an unknown id get the same 401 and no run; the right secret gets 202 and a run."""
    hook = life.up["webhooks"]["door"]
    wrong = httpx.post(hook["url"], json={"n": 1}, headers={"X-Webhook-Secret": "wrong"}, timeout=60)
    unknown = httpx.post(hook["url"] + "x", json={"n": 1}, headers={"X-Webhook-Secret": hook["secret"]}, timeout=60)
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()
    right = httpx.post(hook["url"], json={"n": 2}, headers={"X-Webhook-Secret": hook["secret"]}, timeout=60)
    assert right.status_code == 202
    [run] = life.wait_for("door", "Completed")
    assert [one["id"] for one in life.runs("door")] == [run["id"]], "a call that was refused made a run"
    assert right.json().get("flow_run_id", run["id"]) == run["id"]  # on a busy machine the run comes after the answer
    assert "{'n': 2}" in run["state"]["message"]


def test_a_rule_is_skipped_while_its_last_run_has_not_ended(life: Life) -> None:
    """A heartbeat every 10 s that takes 25 s skips what falls in between, says so, and never runs twice at once."""
    skipped = life.wait_for("slow", "Skipped", count=2)
    assert all(run["state"]["message"].startswith("overlap: ") for run in skipped)
    ran = life.wait_for("slow", "Quiet", count=2)
    ends = [(datetime.fromisoformat(run["start_time"]), datetime.fromisoformat(run["end_time"])) for run in ran]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))


def test_a_webhook_is_skipped_while_its_last_run_has_not_ended(life: Life) -> None:
    """A second call while the first one's run is at work is recorded as Skipped, and never runs."""
    hook = life.up["webhooks"]["held-door"]
    secret = {"X-Webhook-Secret": hook["secret"]}
    first = httpx.post(hook["url"], json={"n": 1}, headers=secret, timeout=60)
    assert first.status_code == 202
    life.wait_for("held-door", "Running")
    second = httpx.post(hook["url"], json={"n": 2}, headers=secret, timeout=60)
    assert second.status_code == 202
    [skipped] = life.wait_for("held-door", "Skipped")
    assert skipped["state"]["message"].startswith("overlap: ")
    (life.folder / "let-go").touch()
    [ran] = life.wait_for("held-door", "Quiet")
    assert ran["run_count"] == 1
    assert skipped["run_count"] == 0


def test_no_secret_is_in_the_defaults_of_the_repository() -> None:
    """The default rules hold no secret and ask for none: one is generated on the machine that runs them."""
    text = (ROOT / "deployments/proactive.toml").read_text()
    assert "[[webhook]]" in text
    assert all(not line.startswith(("secret", "token")) for line in text.splitlines())


def test_operators_see_the_state(life: Life) -> None:
    """The state endpoint wants the operator's token, and tells each rule's next fire and last outcome."""
    url = f"{life.up['gateway_url']}/api/v1/proactive/state"
    assert httpx.get(url, timeout=60).status_code == 401
    life.wait_for("beat", "Completed")
    state = httpx.get(url, headers={"Authorization": f"Bearer {life.up['token']}"}, timeout=60).json()
    assert state["enabled"] is True
    beat = next(rule for rule in state["rules"] if rule["id"] == "beat")
    assert beat["next_fire"] is not None
    assert beat["last_outcome"]["state"] in ("Completed", "Skipped")


def test_the_docs_describe_config_auth_and_limits() -> None:
    """The reference has every key of a webhook; the how-to has the secret; the limits are in the tables."""
    reference = (ROOT / "docs/reference/configuration.md").read_text()
    keys = ("secret", "scheme", "max_body", "rate_limit", "caller_rate_limit", "callers", "every", "cron", "max_rules")
    for key in keys:
        assert f"`{key}`" in reference
    assert "X-Webhook-Secret" in (ROOT / "docs/how-to/webhooks.md").read_text()
