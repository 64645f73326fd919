"""`notifications` become Prefect automations that tell of the outcomes named, and of nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.webhook import Webhook

from proactive_prefect.deploy.apply import apply_plan
from proactive_prefect.errors import InputError
from proactive_prefect.prefect_api.automations import read_automations
from tests.support import wait_until

from .conftest import Workshop, heartbeat


class Receiver:
    """A host that is told things: each body that was posted to it, with its path."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Any]] = []
        receiver = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                receiver.got.append((self.path, json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An HTTP server of the test's own."""
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


async def end_run(workshop: Workshop, rule_id: str, *states: dict[str, Any]) -> str:
    """Make a run of the rule and put it in these states, one after another."""
    found = await workshop.deployed(rule_id)
    run = await workshop.api.post(
        f"/deployments/{found.id}/create_flow_run", {"state": {"type": "SCHEDULED", "name": "Scheduled"}}
    )
    for state in states:
        await workshop.api.post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    return str(run["id"])


RUNNING = {"type": "RUNNING", "name": "Running"}


def state(kind: str, name: str) -> dict[str, Any]:
    return {"type": kind, "name": name, "message": f"about {name}"}


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator lets alerts call this machine."""
    monkeypatch.setenv("PROACTIVE_OUTBOUND_ALLOW", "127.0.0.1")


@pytest.mark.usefixtures("allowed")
@pytest.mark.slow
async def test_failures_are_told_and_skips_are_not(workshop: Workshop, receiver: Receiver) -> None:
    """Failed, TimedOut and Crashed runs reach both kinds of channel; skipped, quiet and other rules' runs do not."""
    name = f"c{uuid4().hex[:8]}"
    await CustomWebhookNotificationBlock(
        name=name, url=f"{receiver.url}/notify", json_data={"subject": "{{subject}}", "body": "{{body}}"}
    ).save(name)
    await Webhook(url=f"{receiver.url}/hook").save(name)
    channels = [f"custom-webhook/{name}", f"webhook/{name}"]
    rules = [
        heartbeat("loud", notifications={"on_failure": channels, "on_skip": channels[1:]}),
        heartbeat("mute"),
    ]
    await workshop.apply(*rules)
    workshop.writes.clear()
    assert not (await workshop.plan(*rules)).differs
    assert workshop.writes == []
    assert sorted(found["name"] for found in await read_automations(workshop.api, workshop.project.name)) == [
        f"proactive {workshop.project.name}: failures to custom-webhook/{name}",
        f"proactive {workshop.project.name}: failures to webhook/{name}",
        f"proactive {workshop.project.name}: skipped runs to webhook/{name}",
    ]

    async def told() -> bool:
        # The service that watches events learns of an automation a moment after it is made: fail until it does.
        await end_run(workshop, "loud", RUNNING, state("FAILED", "Failed"))
        return {path for path, body in receiver.got if "Failed" in json.dumps(body)} == {"/hook", "/notify"}

    heard: bool = await wait_until(told, what="a failed run is told to both channels", timeout=90, every=2)
    assert heard
    receiver.got.clear()
    await end_run(workshop, "mute", RUNNING, state("FAILED", "Failed"))
    await end_run(workshop, "loud", RUNNING, state("COMPLETED", "Quiet"))
    await end_run(workshop, "loud", RUNNING, state("COMPLETED", "Completed"))
    await end_run(workshop, "loud", state("CANCELLED", "Cancelled"))
    skipped = await end_run(workshop, "loud", state("CANCELLED", "Skipped"))
    timed_out = await end_run(workshop, "loud", RUNNING, state("FAILED", "TimedOut"))
    crashed = await end_run(workshop, "loud", RUNNING, state("CRASHED", "Crashed"))

    def hooked() -> set[tuple[str, str]]:
        return {(body["flow_run_id"], body["state"]) for path, body in receiver.got if path == "/hook"}

    expected = {(skipped, "Skipped"), (timed_out, "TimedOut"), (crashed, "Crashed")}
    await wait_until(lambda: expected <= hooked(), what="three more runs are told", timeout=90)

    def notified() -> set[str]:
        return {body["subject"] for path, body in receiver.got if path == "/notify"}

    later = {"loud: TimedOut", "loud: Crashed"}
    await wait_until(lambda: later <= notified(), what="the other channel is told, too", timeout=90)
    late = {pair for pair in hooked() - expected if pair[1] == "Failed"}  # the last of those that failed above
    assert hooked() == expected | late
    assert notified() <= later | {"loud: Failed"}


@pytest.mark.usefixtures("allowed")
async def test_alerts_follow_the_file(workshop: Workshop) -> None:
    """An automation is changed in place when rules join it, stays disabled when an operator disabled it, and goes."""
    name = f"c{uuid4().hex[:8]}"
    await Webhook(url="http://127.0.0.1:9/").save(name)
    told: dict[str, Any] = {"notifications": {"on_failure": [f"webhook/{name}"]}}
    await workshop.apply(heartbeat("one", **told))
    (first,) = await read_automations(workshop.api, workshop.project.name)
    await workshop.api.patch(f"/automations/{first['id']}", {"enabled": False})
    await workshop.apply(heartbeat("one", **told), heartbeat("two", **told))
    (second,) = await read_automations(workshop.api, workshop.project.name)
    assert second["id"] == first["id"]
    assert not second["enabled"]
    assert len(second["trigger"]["match_related"]["prefect.resource.id"]) == 2
    kept = {name: first[name] for name in ("trigger", "actions")}
    other = await workshop.api.post("/automations/", {"name": "somebody's", "tags": ["proactive"], **kept})
    await workshop.apply(heartbeat("one"), heartbeat("two"))
    assert await read_automations(workshop.api, workshop.project.name) == []
    assert await workshop.api.get(f"/automations/{other['id']}")
    await workshop.api.delete(f"/automations/{other['id']}")


async def test_a_channel_that_is_not_there_is_named_before_any_write(workshop: Workshop) -> None:
    """A channel without a block stops `apply`, which names the rule, the channel and how to make it."""
    plan = await workshop.plan(heartbeat("disk", notifications={"on_failure": ["slack-webhook/nowhere"]}))
    (obstacle,) = plan.obstacles
    assert "'disk'" in obstacle.message
    assert "'slack-webhook/nowhere'" in obstacle.message
    assert "prefect block create slack-webhook" in obstacle.hint
    with pytest.raises(InputError):
        await apply_plan(workshop.api, plan)
    assert workshop.writes == []


async def test_a_channel_that_leads_inside_is_refused(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is written as, unless the operator allows it or Prefect itself looks; the address is not shown."""
    urls = {
        "metadata": "http://169.254.169.254/latest",
        "loopback": "http://[::ffff:127.0.0.1]:9/x",
        "name": "https://localhost/x",
        "private": "http://10.1.2.3/x",
    }
    name = f"c{uuid4().hex[:8]}"
    for key, url in urls.items():
        await Webhook(url=url).save(f"{name}-{key}")
    await Webhook(url=urls["private"], allow_private_urls=False).save(f"{name}-looked-at")
    await CustomWebhookNotificationBlock(name=name, url=urls["private"]).save(f"{name}-custom")
    channels = [*(f"webhook/{name}-{key}" for key in (*urls, "looked-at")), f"custom-webhook/{name}-custom"]
    rule = heartbeat("disk", notifications={"on_failure": channels})
    obstacles = (await workshop.plan(rule)).obstacles
    assert len(obstacles) == 5
    for channel in channels:
        assert any(f"{channel!r} calls this machine or a private network" in one.message for one in obstacles) == (
            "looked-at" not in channel
        )
    assert not any(url in one.message + one.hint for one in obstacles for url in urls.values())
    monkeypatch.setenv("PROACTIVE_OUTBOUND_ALLOW", "10.0.0.0/8")
    assert len((await workshop.plan(rule)).obstacles) == 3
