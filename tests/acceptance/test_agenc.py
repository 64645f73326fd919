"""AgenC's heartbeat contract: quiet unless there is something to say, and one failure touches nothing else."""

from __future__ import annotations

from .conftest import Life


def test_a_quiet_heartbeat_makes_no_noise(life: Life) -> None:
    """should_notify=False ends as Quiet: its message is nowhere, and there is no artifact."""
    [run, *_] = life.wait_for("quiet", "Quiet")
    assert "nobody must see this" not in str(run)
    assert life.artifacts("heartbeat-quiet") == []
    logs = life.prefect("/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    assert not [log for log in logs if "nobody must see this" in log["message"]]


def test_a_heartbeat_with_something_to_say_says_it(life: Life) -> None:
    """A text is the run's message and an artifact under the rule's own key."""
    [run, *_] = life.wait_for("beat", "Completed")
    assert "beat was due at" in run["state"]["message"]
    assert life.artifacts("heartbeat-beat")


def test_one_failing_action_does_not_stop_the_others(life: Life) -> None:
    """While one rule raises and one aborts its process, time and again, the others keep running."""
    [broken, *_] = life.wait_for("broken", "Failed", count=2)
    assert "this action is broken" in broken["state"]["message"]
    [crashed, *_] = life.wait_for("crashing", "Failed", count=2)
    assert "SIGABRT" in crashed["state"]["message"]
    before = len(life.runs("beat", "Completed"))
    life.wait_for("beat", "Completed", count=before + 2)
