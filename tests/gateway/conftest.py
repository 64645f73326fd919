"""A real gateway in a process of its own, in front of the test's Prefect server, with webhooks applied to that."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from proactive_prefect.deploy.apply import apply_plan
from proactive_prefect.deploy.compile import Project, compile_rules
from proactive_prefect.deploy.plan import make_plan
from proactive_prefect.prefect_api import PrefectApi, connect
from proactive_prefect.prefect_api.deployments import read_deployments
from proactive_prefect.rules.models import Rulebook
from tests.conftest import Server, stop
from tests.support import free_port, wait_until, wait_until_sync

ROOT = Path(__file__).parents[2]
CANARY = "canary-3f1c8a72b9d64e05"
TOKEN = f"token-{CANARY}"
ENV_SECRET = f"env-{CANARY}"
BLOCK_SECRET = f"block-{CANARY}"
STANDARD_SECRET = "whsec_" + base64.b64encode(f"standard-{CANARY}".encode()).decode()
FILE_SECRET = f"file-{CANARY}"
PROXY = "127.0.0.5"
"""From here calls come as from a proxy that is trusted."""
SECRET_FILE = Path(tempfile.gettempdir()) / f"proactive-test-secret-{os.getpid()}"

SERVE = (
    "from proactive_prefect.gateway.serve import serve\n"
    "from proactive_prefect.settings import Settings\n"
    "serve(Settings())\n"
)

HOOKS: list[dict[str, Any]] = [
    {"id": "plain"},
    {"id": "by-bearer", "scheme": "bearer", "secret": "${env:TEST_HOOK_SECRET}"},
    {"id": "by-block", "secret": "${secret:test-hook-secret}"},
    {"id": "no-secret", "secret": "${env:TEST_HOOK_NOT_SET}"},
    {"id": "limited", "rate_limit": "2/minute"},
    {"id": "small", "max_body": 100},
    {"id": "shaped", "template": '{"who": {{ payload.user | tojson }}, "event": "{{ headers["x-event"] }}"}'},
    {"id": "asked", "when": "payload.go == true"},
    {"id": "off", "enabled": False},
    {"id": "of-few", "callers": ["192.0.2.0/24", "2001:db8::/32"], "caller_rate_limit": "2/hour"},
    {"id": "of-few-signed", "scheme": "github", "callers": ["192.0.2.0/24"]},
    {"id": "one-at-a-time", "on_overlap": "skip"},
    {"id": "bundled", "coalesce": {"key": "payload.repo", "window": "5s", "max_wait": "20s"}},
    {"id": "asks", "wait": "60s"},
    {"id": "deduped", "dedupe": "5m"},
    {"id": "github", "scheme": "github"},
    {
        "id": "rotated",
        "scheme": "github",
        "secret": [
            "${env:TEST_HOOK_SECRET}",
            {"ref": "${secret:test-hook-secret}", "until": "2099-01-01T00:00:00Z"},
            {"ref": "${env:TEST_HOOK_NOT_SET}", "until": "2026-01-01T00:00:00Z"},
        ],
    },
    {"id": "stripe", "scheme": "stripe", "secret": "${env:TEST_HOOK_SECRET}", "max_body": 2_000},
    {"id": "slack", "scheme": "slack", "secret": "${env:TEST_HOOK_SECRET}"},
    {"id": "standard", "scheme": "standard", "secret": "${env:TEST_HOOK_STANDARD}"},
    {"id": "no-standard", "scheme": "standard", "secret": "${env:TEST_HOOK_SECRET}"},
    {
        "id": "signed",
        "scheme": "hmac",
        "hmac": {"header": "X-Sig", "algorithm": "sha512", "encoding": "base64", "prefix": "sha512="},
        "secret": f"${{file:{SECRET_FILE}}}",
        "template": "{{ headers | tojson }}",
    },
]


@dataclass
class Gateway:
    """A running gateway and what its operator knows."""

    url: str
    home: Path
    log: Path
    process: subprocess.Popen[bytes]

    def secret(self, rule_id: str) -> str:
        """The generated secret of a webhook that names none."""
        return (self.home / "webhook-secrets" / rule_id).read_text().strip()

    def is_alive(self) -> bool:
        """Whether it answers at all; AssertionError with its log if its process ended."""
        assert self.process.poll() is None, f"the gateway ended: {self.log.read_text()[-3000:]}"
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def is_ready(self, webhooks: int = 0) -> bool:
        """Whether it is ready, and knows at least so many webhooks."""
        if not self.is_alive():
            return False
        answer = httpx.get(f"{self.url}/readyz", timeout=10)
        return answer.status_code == 200 and bool(answer.json()["webhooks"] >= webhooks)


def rulebook(*rules: dict[str, Any]) -> Rulebook:
    """Webhooks, unless they say otherwise, that call something, and allow overlap."""
    action = {"type": "python", "call": "flows.actions:look"}
    filled = [{"kind": "webhook", "action": action, "on_overlap": "allow", **rule} for rule in rules]
    return Rulebook.model_validate({"proactive": {"enabled": True}, "rules": filled})


async def apply(project: str, *rules: dict[str, Any]) -> None:
    """Let the project have these rules and no others."""
    made = Project(project, ROOT, f"pool-{project}")
    async with connect() as api:
        await apply_plan(api, await make_plan(api, compile_rules(rulebook(*rules), made), made))


async def forget(project: str) -> None:
    """Delete the project's deployments, whose past runs stay."""
    async with connect() as api:
        for found in await read_deployments(api):
            if found.project == project:
                await api.delete(f"/deployments/{found.id}")


async def keep_secret(name: str, value: str) -> None:
    """Keep a Secret block in Prefect."""
    from prefect.blocks.system import Secret

    await Secret(value=value).save(name, overwrite=True)


def start_gateway(server: Server, home: Path, first: str = "", port: int | None = None, **env: str) -> Gateway:
    """Start a gateway, on a free port if none is given. `first` is Python that its process runs before."""
    port = port or free_port()
    home.mkdir(exist_ok=True)
    log = home.parent / f"{home.name}.log"
    given = {
        **server.env,
        "PROACTIVE_HOME": str(home),
        "PROACTIVE_GATEWAY_PORT": str(port),
        "PROACTIVE_TOKEN": TOKEN,
        "TEST_HOOK_SECRET": ENV_SECRET,
        "TEST_HOOK_STANDARD": STANDARD_SECRET,
        "PROACTIVE_REFUSALS": "",  # the tests come from one address
        "PROACTIVE_TRUSTED_PROXIES": PROXY,
        **env,
    }
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", first + SERVE], env=given, cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
    return Gateway(f"http://127.0.0.1:{port}", home, log, process)


async def settled(answer: httpx.Response) -> dict[str, Any]:
    """What the operator is shown of the delivery that was answered so, once it waits no more.

    An answer itself tells of the run only where that was made at once, which on a busy machine it is not.
    """
    url = answer.request.url.join(f"/api/v1/proactive/deliveries/{answer.json()['delivery_id']}")
    async with httpx.AsyncClient(timeout=60, headers={"Authorization": f"Bearer {TOKEN}"}) as operator:

        async def look() -> dict[str, Any] | None:
            found = (await operator.get(url)).raise_for_status().json()
            return found if found["status"] != "waiting" else None

        found = await wait_until(look, what=f"the end of the wait of {url.path}", timeout=120)
    assert found is not None
    assert answer.json().get("flow_run_id", found["run_id"]) == found["run_id"]
    return found


def fresh(name: str) -> str:
    """An id that no other call has, whatever was tried before."""
    return f"{name}-{uuid4().hex}"


@pytest.fixture(scope="package")
def gateway(prefect_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that knows `HOOKS`, for all tests of this folder: to make one takes longer than most of them."""

    async def arrange() -> None:
        await keep_secret("test-hook-secret", BLOCK_SECRET)
        await apply("gateway-tests", *HOOKS)

    asyncio.run(arrange())
    SECRET_FILE.write_text(f"{FILE_SECRET}\n")
    running = start_gateway(prefect_server, tmp_path_factory.mktemp("gateway") / "home")
    try:
        wait_until_sync(lambda: running.is_ready(len(HOOKS)), what="the gateway knows its webhooks")
        yield running
    finally:
        stop(running.process)
        asyncio.run(forget("gateway-tests"))
        SECRET_FILE.unlink(missing_ok=True)  # the folder security/ may have its own gateway in the same process


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    """A caller from outside."""
    with httpx.Client(base_url=gateway.url, timeout=90) as client:
        yield client


@pytest.fixture
async def caller(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A caller from outside, for tests with an event loop."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=90) as client:
        yield client


@pytest.fixture
async def api(prefect_server: Server) -> AsyncIterator[PrefectApi]:
    """Prefect, to look at what became of a call."""
    async with connect() as open_api:
        yield open_api
