"""The proxies of docs/how-to/proxy.md, as they stand there, in front of a real gateway."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import stop
from tests.gateway.conftest import Gateway
from tests.support import free_port, wait_until_sync

from .conftest import without_prefect

PAGE = (Path(__file__).parents[2] / "docs/how-to/proxy.md").read_text()
UPSTREAM = "127.0.0.1:4280"
NAME = "hooks.example.com"


def example(language: str, gateway: Gateway) -> str:
    """The example of the page in that language, in front of this gateway."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.S | re.M)
    assert UPSTREAM in found
    return str(found).replace(UPSTREAM, gateway.url.removeprefix("http://"))


def nginx(folder: Path, gateway: Gateway, port: int) -> tuple[list[str], str]:
    """The command that runs nginx with the example, and where it listens; on TLS, by a certificate of its own."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={NAME}", "-days", "1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    text = example("nginx", gateway).replace("listen 443", f"listen 127.0.0.1:{port}")
    text = text.replace(f"/etc/ssl/certs/{NAME}.pem", str(certificate)).replace(
        f"/etc/ssl/private/{NAME}.key", str(key)
    )
    kept = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off;\nerror_log stderr;\npid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{kept}{text}\n}}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(file)], f"https://127.0.0.1:{port}"


def caddy(folder: Path, gateway: Gateway, port: int) -> tuple[list[str], str]:
    """The same for Caddy; without TLS, for which it would ask the internet."""
    file = folder / "Caddyfile"
    text = example("caddy", gateway).replace(f"{NAME} {{", f"http://{NAME}:{port}, http://127.0.0.1:{port} {{", 1)
    file.write_text(f"{{\n\tadmin off\n}}\n{text}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)], f"http://127.0.0.1:{port}"


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a proxy in front of a gateway that trusts it, and refuses three calls of each address."""
    make: Callable[[Path, Gateway, int], tuple[list[str], str]] = request.param
    if not shutil.which(make.__name__):
        pytest.skip(f"{make.__name__} is not on this machine")
    with without_prefect(tmp_path, PROACTIVE_TRUSTED_PROXIES="127.0.0.1", PROACTIVE_REFUSALS="3/hour") as gateway:
        words, url = make(tmp_path, gateway, free_port())
        with (tmp_path / "proxy.log").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

        def answers() -> bool:
            assert process.poll() is None, (tmp_path / "proxy.log").read_text()
            try:
                return httpx.get(f"{url}/healthz", verify=False, timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        try:
            wait_until_sync(answers, what="the proxy answers")
            yield url
        finally:
            stop(process)


def call(url: str, source: str, said: str | None = None) -> httpx.Response:
    """A call with a wrong secret from an address, with an X-Forwarded-For of its own making."""
    transport = httpx.HTTPTransport(verify=False, local_address=source)
    headers = {"X-Forwarded-For": said, "Forwarded": f"for={said}"} if said else {}
    with httpx.Client(transport=transport, timeout=60) as http:
        return http.post(f"{url}/hooks/nobody", json={}, headers=headers)


def test_behind_a_proxy_each_caller_is_known_by_its_own_address(proxied: str) -> None:
    """Refusals are counted for who calls the proxy, whatever it says about itself, and not for the proxy."""
    assert [call(proxied, "127.0.0.11").status_code for _ in range(4)] == [401, 401, 401, 429]
    assert call(proxied, "127.0.0.12").status_code == 401
    assert call(proxied, "127.0.0.11", said="198.51.100.7").status_code == 429
    assert [call(proxied, "127.0.0.13", said=f"198.51.100.{n}").status_code for n in range(4)] == [401, 401, 401, 429]
