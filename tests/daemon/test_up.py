"""`proactive up`, really run: ready means ready, and its end leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ..conftest import Server, stop
from ..support import wait_until, wait_until_sync
from .running import RULES, Running, alive, needs_ipv6, start_worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

LIVE = {"PENDING", "RUNNING", "CANCELLING"}

PATIENT = """
[proactive]
enabled = true

[[webhook]]
id = "patient"
action = {{ type = "command", argv = ["sh", "-c", "until [ -e {go} ]; do sleep 0.2; done"] }}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One `up` for the tests that leave it as it is."""
    found = Running.project(tmp_path_factory.mktemp("project"))
    try:
        found.start()
        yield found
    finally:
        found.kill()


def call(running: Running, webhook: str, body: str = "{}") -> httpx.Response:
    entry = running.up_file["webhooks"][webhook]
    return httpx.post(entry["url"], headers={"X-Webhook-Secret": entry["secret"]}, content=body, timeout=60)


def test_when_up_json_is_there_everything_works(running: Running) -> None:
    """The file has exactly the promised keys, is for its owner only, and all that it names answers."""
    found = running.up_file
    assert set(found) == {
        "prefect_url",
        "prefect_api_url",
        "gateway_url",
        "token",
        "webhooks",
        "pids",
        "started_at",
    }
    assert set(found["pids"]) == {"up", "server", "worker", "gateway"}
    assert all(alive(pid) for pid in found["pids"].values())
    assert set(found["webhooks"]) == {"hook", "sleeper"}
    assert (running.folder / ".proactive" / "up.json").stat().st_mode & 0o777 == 0o600
    assert httpx.get(found["prefect_api_url"] + "/health", timeout=30).status_code == 200
    assert httpx.get(found["gateway_url"] + "/readyz", timeout=30).status_code == 200
    assert (running.folder / ".proactive" / "prefect" / "prefect.db").exists()
    settings = httpx.get(found["prefect_api_url"] + "/admin/settings", timeout=30).json()
    assert settings["server"]["concurrency"]["lease_storage"].endswith(".filesystem")
    assert settings["home"] == str(running.folder / ".proactive" / "prefect")


def test_where_there_is_no_terminal_plain_lines_say_what_and_how_long(running: Running) -> None:
    """No escapes and no board; the addresses are there, and no secret: who keeps the lines may show them to others."""
    wait_until_sync(lambda: "up.json" in running.log, what="the last lines")
    assert "\x1b" not in running.log
    for words in ("Prefect server: http://", "rules: 3 declared", "worker: polls proactive", "gateway: http://", " s)"):
        assert words in running.log
    secrets = [running.up_file["token"], *(entry["secret"] for entry in running.up_file["webhooks"].values())]
    assert not [secret for secret in secrets if secret and secret in running.log]


def test_a_webhook_called_as_printed_runs_its_rule(running: Running) -> None:
    """202 with the run; the run completes with what the action said."""
    answer = call(running, "hook", '{"n": 1}')
    assert answer.status_code == 202
    run_id = answer.json()["flow_run_id"]
    url = f"{running.up_file['prefect_api_url']}/flow_runs/{run_id}"
    run = wait_until_sync(
        lambda: found if (found := httpx.get(url, timeout=60).json())["state_type"] == "COMPLETED" else None,
        what="the run of the webhook",
        timeout=120,
    )
    assert run["state"]["message"] == "got {'n': 1}"


def test_other_terminals_find_the_server_that_up_started(running: Running) -> None:
    """Each command works in the project's folder without any setting."""
    rules = {rule["id"]: rule for rule in json.loads(running.proactive("list", "--json").stdout)}
    assert set(rules) == {"beat", "hook", "sleeper"}
    assert rules["beat"]["next_fire"] is not None

    done = running.proactive("trigger", "hook", "--payload", '{"n": 2}', "--wait")
    assert "/runs/flow-run/" in done.stdout
    assert "Completed: got {'n': 2}" in done.stdout
    runs = json.loads(running.proactive("runs", "hook", "--json").stdout)
    assert "got {'n': 2}" in [run["message"] for run in runs]
    shown = running.proactive("show", "hook").stdout
    assert "got {'n': 2}" in shown
    assert running.up_file["webhooks"]["hook"]["url"] in shown
    assert "webhook-secrets/hook (generated on first use)" in shown

    assert running.proactive("plan", check=False).returncode == 0
    running.proactive("pause", "beat")
    paused = {rule["id"]: rule for rule in json.loads(running.proactive("list", "--json").stdout)}
    assert paused["beat"]["paused"]
    assert paused["beat"]["next_fire"] is None
    running.proactive("resume", "beat")
    resumed = {rule["id"]: rule for rule in json.loads(running.proactive("list", "--json").stdout)}
    assert not resumed["beat"]["paused"]


def test_code_finds_the_server_that_up_started(running: Running) -> None:
    """`Proactive()` in the project's folder, without any setting."""
    program = "from proactive_prefect import Proactive\nprint(*(found.rule.id for found in Proactive().rules()))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=running.folder,
        env=running.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["beat", "hook", "sleeper"], done.stderr


def test_a_run_is_cancelled_by_the_beginning_of_its_name(running: Running) -> None:
    """Its action ends, and its state says who did it; a name that fits no run is an error."""
    name = json.loads(running.proactive("trigger", "sleeper", "--json").stdout)["name"]

    def state() -> str:
        found = json.loads(running.proactive("runs", "sleeper", "--json").stdout)
        return str(next((run["state"] for run in found if run["name"] == name), ""))

    wait_until_sync(lambda: state() == "Running", what="the run at work", timeout=120)
    listed = {rule["id"]: rule for rule in json.loads(running.proactive("list", "--json").stdout)}
    assert listed["sleeper"]["active"]["name"] == name
    assert listed["hook"]["active"] is None
    assert "Running for " in running.proactive("list").stdout
    running.proactive("cancel", name[:-1])
    wait_until_sync(lambda: state() == "Cancelled", what="the end of the run", timeout=120)
    nobody = running.proactive("cancel", "no-such-run", check=False)
    assert nobody.returncode == 2
    assert nobody.stderr.startswith("error: no runs")


def test_doctor_finds_a_webhook_that_lets_nobody_in(running: Running) -> None:
    """Its secret is not set where the gateway runs: callers are told nothing, so the operator must be."""
    rules = running.folder / "proactive.toml"
    before = rules.read_text()
    closed = 'id = "closed"\nsecret = "${env:SET_NOWHERE}"\naction = { type = "command", argv = ["true"] }\n'
    rules.write_text(f"{before}\n[[webhook]]\n{closed}")
    try:
        running.proactive("apply")

        def told() -> bool:
            return "webhook closed lets nobody in" in running.proactive("doctor", check=False).stdout

        wait_until_sync(told, what="doctor tells", timeout=120, every=1)
    finally:
        rules.write_text(before)
        running.proactive("apply")


def test_a_second_up_in_the_project_says_that_one_is_running(running: Running) -> None:
    """Exit code 2, one line and a hint; the first is not disturbed."""
    second = running.proactive("up", check=False)
    assert second.returncode == 2
    assert f"is running in this project already (process {running.up_file['pids']['up']}" in second.stderr
    assert httpx.get(running.up_file["gateway_url"] + "/readyz", timeout=30).status_code == 200


def test_a_part_that_is_killed_is_back_and_up_json_says_so(running: Running) -> None:
    """The worker is started again, the line names the signal, and its new pid is in the file."""
    first = running.up_file["pids"]["worker"]
    os.kill(first, signal.SIGKILL)
    again = wait_until_sync(
        lambda: pid if (pid := running.up_file["pids"].get("worker", first)) != first else None,
        what="another worker",
        timeout=120,
    )
    assert alive(again)
    assert "worker ended (SIGKILL); starting it again" in running.log


def test_up_goes_on_while_up_json_cannot_be_written(running: Running) -> None:
    """It says so, and the file is right again when it can be written."""
    path = running.folder / ".proactive" / "up.json"
    first = running.up_file["pids"]["worker"]
    path.unlink()
    path.mkdir()  # as on a full disk, each write fails
    try:
        os.kill(first, signal.SIGKILL)
        wait_until_sync(lambda: "up.json cannot be written" in running.log, what="that it is said", timeout=120)
    finally:
        path.rmdir()
    wait_until_sync(
        lambda: path.is_file() and running.up_file["pids"].get("worker", first) != first,
        what="another worker in the file",
        timeout=120,
    )
    assert running.process is not None
    assert running.up_file["pids"]["up"] == running.process.pid


async def test_two_hundred_run_nows_and_as_many_webhooks_at_once_lose_nothing(running: Running) -> None:
    """No caller sees an error, and each call becomes exactly one run, which completes."""
    from proactive_prefect.prefect_api.address import use_api_url
    from proactive_prefect.prefect_api.client import connect
    from proactive_prefect.prefect_api.deployments import deployed_rules
    from proactive_prefect.prefect_api.runs import create_run

    found = running.up_file
    entry = found["webhooks"]["hook"]
    count = 200
    loop = asyncio.get_running_loop()
    began = loop.time()
    with use_api_url(found["prefect_api_url"]):
        async with connect() as api, httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=None)) as http:
            hook = next(one for one in await deployed_rules(api) if one.rule.id == "hook")

            async def call_webhook(number: int) -> str:
                answer = await http.post(
                    entry["url"], headers={"X-Webhook-Secret": entry["secret"]}, json={"webhook": number}
                )
                assert answer.status_code == 202, f"{answer.text} after {loop.time() - began:.1f} s"
                return str(answer.json()["delivery_id"])

            async def run_now(number: int) -> str:
                made = await create_run(api, hook.deployment_id, idempotency_key=f"burst {number}", payload="{}")
                return str(made.id)

            made = await asyncio.gather(*map(call_webhook, range(count)), *map(run_now, range(count)))
            accepted = loop.time() - began
            assert len(set(made)) == 2 * count
            keys = [f"webhook hook {one}" for one in made[:count]] + [f"burst {number}" for number in range(count)]

            async def all_completed() -> bool:
                completed = {"idempotency_key": {"any_": keys}, "state": {"type": {"any_": ["COMPLETED"]}}}
                return int(await api.post("/flow_runs/count", {"flow_runs": completed})) == 2 * count

            await wait_until(all_completed, what="the end of 400 runs", timeout=1200, every=2)
    ended = loop.time() - began
    print(f"\nburst: 400 accepted within {accepted:.1f} s, completed within {ended:.1f} s")


def test_ctrl_c_ends_everything_within_five_seconds_and_leaves_no_run_behind(running: Running) -> None:
    """With runs at work: no process is left, no run is Pending, Running or Cancelling, and up.json is gone."""
    for _ in range(3):
        assert call(running, "sleeper").status_code == 202
    wait_until_sync(lambda: running.run_states()["RUNNING"] >= 3, what="three runs at work", timeout=180)
    seconds = running.signal(signal.SIGINT)
    assert seconds < 5, running.log
    assert running.left_over() == []
    assert not LIVE & set(running.run_states()), running.run_states()
    assert not (running.folder / ".proactive" / "up.json").exists()
    assert "Traceback" not in running.log


def test_up_killed_leaves_no_process_and_the_next_up_settles_its_runs(tmp_path: Path) -> None:
    """After kill -9 nothing of it lives on; the run that was at work ends as Crashed when `up` starts again."""
    running = Running.project(tmp_path)
    try:
        running.start()
        pids = running.up_file["pids"]
        assert call(running, "sleeper").status_code == 202
        wait_until_sync(lambda: running.run_states()["RUNNING"] >= 1, what="a run at work", timeout=180)
        tag_before = running.tag
        running.signal(signal.SIGKILL)
        wait_until_sync(
            lambda: not any(alive(pid) for pid in pids.values()) and running.left_over() == [],
            what="the end of everything",
            timeout=30,
        )
        assert running.run_states()["RUNNING"] >= 1
        assert running.proactive("list", check=False).returncode == 1, "a stale up.json was believed"

        running.start()
        assert running.tag != tag_before
        wait_until_sync(lambda: running.run_states()["CRASHED"] >= 1, what="the end of the run", timeout=60)
        assert not running.run_states()["RUNNING"], running.log
        assert running.signal(signal.SIGTERM) < 5
        assert running.left_over() == []
    finally:
        running.kill()


def test_a_run_of_another_worker_goes_on_while_up_ends_and_starts_again(tmp_path: Path) -> None:
    """Whose the run is, `up` knows by its signature: neither Ctrl-C nor the next start ends it, and it completes."""
    go = tmp_path / "go"
    running = Running.project(tmp_path / "here", PATIENT.format(go=go))
    log = tmp_path / "elsewhere.log"
    other: subprocess.Popen[bytes] | None = None
    try:
        running.start()
        elsewhere = {"PREFECT_API_URL": running.up_file["prefect_api_url"], "PROACTIVE_HOME": str(tmp_path / "home")}
        other = start_worker(running.folder, {**running.env, **elsewhere}, log)
        wait_until_sync(lambda: "started!" in log.read_text(), what="the other worker", timeout=120)
        own = running.up_file["pids"]["worker"]
        os.kill(own, signal.SIGSTOP)  # so that the other one claims the run
        assert call(running, "patient").status_code == 202
        wait_until_sync(lambda: running.run_states()["RUNNING"] == 1, what="the run at work", timeout=120)
        os.kill(own, signal.SIGCONT)

        assert running.signal(signal.SIGINT) < 5
        assert running.run_states() == {"RUNNING": 1}, running.log
        running.start()
        assert running.run_states() == {"RUNNING": 1}, running.log
        go.touch()
        wait_until_sync(lambda: running.run_states() == {"COMPLETED": 1}, what="the end of the run", timeout=120)
    finally:
        if other is not None:
            stop(other)
        running.kill()


def test_two_projects_run_beside_each_other_on_taken_ports(tmp_path: Path) -> None:
    """The second finds the ports of the first taken, says so, and takes others."""
    one, two = Running.project(tmp_path / "one"), Running.project(tmp_path / "two")
    two.env = {**two.env, **{name: one.env[name] for name in ("PREFECT_SERVER_API_PORT", "PROACTIVE_GATEWAY_PORT")}}
    try:
        one.start()
        two.start()
        assert f"port {one.env['PREFECT_SERVER_API_PORT']} is taken" in two.log
        assert f"port {one.env['PROACTIVE_GATEWAY_PORT']} is taken" in two.log
        assert one.up_file["prefect_url"] != two.up_file["prefect_url"]
        assert one.up_file["gateway_url"] != two.up_file["gateway_url"]
        here = json.loads(two.proactive("list", "--json").stdout)
        assert {rule["project"] for rule in here} == {"two"}
        assert two.signal(signal.SIGHUP) < 5
        assert httpx.get(one.up_file["gateway_url"] + "/readyz", timeout=30).status_code == 200
    finally:
        one.kill()
        two.kill()


def test_nohup_keeps_up_when_its_terminal_goes_away(prefect_server: Server, tmp_path: Path) -> None:
    """SIGHUP is ignored if it was at the start; SIGTERM ends all as ever."""
    running = Running.project(tmp_path)
    running.env["PREFECT_API_URL"] = prefect_server.api_url
    try:
        running.start("nohup")
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)
        running.proactive("list")  # takes longer than `up` would to heed the signal
        assert running.process.poll() is None
        assert "ending" not in running.log
        assert running.signal(signal.SIGTERM) < 5
    finally:
        running.kill()


@needs_ipv6
def test_a_channel_that_is_missing_keeps_nothing_from_firing(tmp_path: Path) -> None:
    """`up` says which alerts it cannot give; the server on which the channel is to be made stays."""
    told = 'every = "60s"\nnotifications = { on_failure = ["slack-webhook/nowhere"] }'
    running = Running.project(tmp_path, RULES.replace('every = "60s"', told))
    try:
        running.start()
        assert "there is no block 'slack-webhook/nowhere' in Prefect" in running.log
        assert "prefect block create slack-webhook" in running.log
        assert "beat" in running.proactive("list").stdout
    finally:
        running.kill()


def test_everything_runs_on_ipv6(tmp_path: Path) -> None:
    """The server on the loopback address, the gateway on all addresses: each is found, and where it is, is told."""
    running = Running.project(tmp_path)
    running.env |= {"PREFECT_SERVER_API_HOST": "::1", "PROACTIVE_GATEWAY_HOST": "::"}
    try:
        running.start()
        found = running.up_file
        assert found["prefect_url"] == f"http://[::1]:{running.env['PREFECT_SERVER_API_PORT']}"
        assert found["gateway_url"] == f"http://[::1]:{running.env['PROACTIVE_GATEWAY_PORT']}"
        assert "Completed" in running.proactive("trigger", "hook", "--wait").stdout
        assert call(running, "hook").status_code == 202
        assert running.signal(signal.SIGINT) < 5
    finally:
        running.kill()


def test_a_server_that_is_there_already_is_used_and_left_alone(prefect_server: Server, tmp_path: Path) -> None:
    """With PREFECT_API_URL no server is started; rules fire through it, and it still runs when `up` has ended."""
    running = Running.project(tmp_path)
    running.env["PREFECT_API_URL"] = prefect_server.api_url
    try:
        running.start()
        found = running.up_file
        assert found["prefect_api_url"] == prefect_server.api_url
        assert set(found["pids"]) == {"up", "worker", "gateway"}
        assert not (tmp_path / ".proactive" / "prefect" / "prefect.db").exists()
        assert "Completed" in running.proactive("trigger", "hook", "--wait").stdout
        assert running.signal(signal.SIGINT) < 5
        assert running.left_over() == []
        assert httpx.get(prefect_server.api_url + "/health", timeout=30).status_code == 200
    finally:
        running.kill()
