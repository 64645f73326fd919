"""After a project has run with secrets in every place that may hold one, nothing else on the machine holds them."""

from __future__ import annotations

import base64
import hmac
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.acceptance.conftest import Life, living
from tests.support import wait_until_sync

from .tried import TRIED

ACTIONS = '''
"""Actions that are careless with what they are given."""

from proactive_prefect import Context


def fails(ctx: Context) -> None:
    print("printed", ctx.config["key"])
    ctx.logger.warning("logged %s", ctx.config["key"])
    raise RuntimeError(f"raised {ctx.config['key']}")


def tells(ctx: Context) -> str:
    return f"told {ctx.config['key']}"
'''

RULES = """
[proactive]
enabled = true
modules = ["acting"]

[defaults]
retries = 0
on_overlap = "allow"

[[webhook]]
id = "by-bearer"
scheme = "bearer"
secret = "${{env:CANARY_BEARER}}"
action = {{ type = "python", call = "acting:tells", config = {{ key = "${{env:CANARY_CONFIG}}" }} }}

[[webhook]]
id = "generated"
template = "{{{{ headers | tojson }}}}"
action = {{ type = "python", call = "acting:fails", config = {{ key = "${{env:CANARY_CONFIG}}" }} }}

[[webhook]]
id = "signed"
scheme = "github"
secret = ["${{file:{file}}}", "${{env:CANARY_BEARER}}"]
when = "payload.go"
action = {{ type = "http", url = "{site}/${{env:CANARY_CONFIG}}", headers = {{ Authorization = "${{env:CANARY_CONFIG}}" }} }}

[[webhook]]
id = "of-no-use"
scheme = "standard"
secret = "${{env:CANARY_BEARER}}"
action = {{ type = "command", argv = ["sh", "-c", "echo $KEY; echo $KEY >&2; exit 3"], env = {{ KEY = "${{env:CANARY_CONFIG}}" }} }}

[[webhook]]
id = "command"
action = {{ type = "command", argv = ["sh", "-c", "echo $KEY; echo $KEY >&2; exit 3"], env = {{ KEY = "${{env:CANARY_CONFIG}}" }} }}
"""  # noqa: E501


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that says back whatever it is told."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = f"{self.path} {self.headers['Authorization']}".encode()
            self.send_response(500)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def forms(secret: str) -> set[bytes]:
    """A secret as it may stand somewhere: plain, in an address, in base64 at any offset, in hexadecimal."""
    raw = secret.encode()
    packed = {base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)}
    return {raw, quote(secret, safe="").encode(), raw.hex().encode()} | packed


def run_everything(life: Life, known: dict[str, str]) -> list[str]:
    """Call every webhook rightly and wrongly, wait for the runs, and ask for all there is to see; what was heard."""
    heard: list[str] = []
    hooks, body = life.up["webhooks"], b'{"go": true}'
    signature = f"sha256={hmac.new(known['file'].encode(), body, 'sha256').hexdigest()}"
    right = {
        "by-bearer": {"Authorization": f"Bearer {known['bearer']}"},
        "generated": {"X-Webhook-Secret": known["generated"], "Cookie": known["generated"]},
        "signed": {"X-Hub-Signature-256": signature, "Content-Type": "application/json"},
        "command": {"X-Webhook-Secret": known["command"]},
    }
    wait_until_sync(
        lambda: httpx.get(f"{life.up['gateway_url']}/readyz", timeout=60).json().get("webhooks") == 5,
        what="the gateway knows the webhooks",
    )
    with httpx.Client(timeout=90) as http:
        for rule, headers in right.items():
            answer = http.post(hooks[rule]["url"], content=body, headers=headers)
            assert answer.status_code == 202, (rule, answer.text)
            heard.append(answer.text)
            for other in ("by-bearer", "generated", "signed", "of-no-use", "command", "nobody"):
                wrong = http.post(hooks["signed"]["url"].replace("signed", other), content=b"{", headers=headers)
                heard.append(wrong.text + str(wrong.headers))
            # A secret in a wrong place: in the address, in a header of another name.
            heard.append(http.post(f"{hooks[rule]['url']}?secret={known['bearer']}", content=body).text)
        gateway, token = life.up["gateway_url"], {"Authorization": f"Bearer {known['token']}"}
        for rule in right:
            life.wait_for(rule, "Completed", "Failed")
        http.get(f"{gateway}/", params={"token": known["token"]}, follow_redirects=True)
        document = http.get(f"{gateway}/openapi.json", headers=token).json()
        for path, operations in document["paths"].items():
            if "get" in operations and "{" not in path and not path.endswith("/stream"):
                answer = http.get(f"{gateway}{path}", headers=token, params={"start": life.began.isoformat()})
                heard.append(answer.text + str(answer.headers))
        heard.append(str(document))
        heard.append(http.get(f"{gateway}/", headers=token).text)
    for route, more in (
        ("logs", {}),
        ("artifacts", {}),
        ("flow_runs", {}),
        ("deployments", {}),
        ("events", {"filter": {}}),
    ):
        heard.append(str(life.prefect(f"/{route}/filter", {"limit": 200 if route != "events" else 50, **more})))
    for words in (
        ("list", "--json"),
        ("runs", "--json"),
        ("events", "--json"),
        ("deliveries", "list", "--json"),
    ):
        ended = life.command(*words)
        heard += [ended.stdout, ended.stderr]
    return heard


@pytest.mark.slow
def test_no_secret_is_left_anywhere(tmp_path: Path, echo: str) -> None:
    """No log, database (the ledger's and Prefect's), event, artifact, parameter, state, answer, page or error has one.

    Only the files that are there to hold them do, which none but their owner can read.
    """
    canary = {name: f"canary-{name}-{secrets.token_hex(12)}" for name in ("bearer", "config", "file", "token")}
    file = tmp_path / "github-secret"
    file.write_text(canary["file"])
    folder = tmp_path / "project"
    folder.mkdir()
    kept_in = folder / ".proactive"
    with living(
        folder,
        RULES.format(file=file, site=echo),
        ACTIONS,
        CANARY_BEARER=canary["bearer"],
        CANARY_CONFIG=canary["config"],
        PROACTIVE_TOKEN=canary["token"],
        PROACTIVE_OUTBOUND_ALLOW="127.0.0.1",
    ) as life:
        generated = {
            rule: (kept_in / "webhook-secrets" / rule).read_text().strip() for rule in ("generated", "command")
        }
        heard = run_everything(life, canary | generated)
        states = [
            str(run["state"]["message"]) for rule in ("by-bearer", "generated", "command") for run in life.runs(rule)
        ]
    assert any("***" in state for state in states), states  # they were there to be hidden
    wanted = {form for secret in (canary | generated).values() for form in forms(secret)}
    holders = {kept_in / "token", kept_in / "read-token", kept_in / "up.json"}
    places = {f"answer {number}": text.encode() for number, text in enumerate(heard)}
    for path in folder.rglob("*"):
        if path.is_file() and path not in holders and path.parent.name != "webhook-secrets":
            places[str(path.relative_to(folder))] = path.read_bytes()
    assert {".proactive/logs/gateway.log", "up.log"} <= places.keys()
    assert any(name.endswith("prefect.db") for name in places)
    found = {name for name, content in places.items() for form in wanted if form in content}
    assert not found
    TRIED["places searched for secrets"] += len(places)
    for holder in (*(kept_in / "webhook-secrets").iterdir(), kept_in / "webhook-secrets"):
        assert holder.stat().st_mode & 0o077 == 0
