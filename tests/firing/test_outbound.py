"""Calls that rules make reach the public internet and what the operator allows, and nothing else.

The listeners are real. Only the answers of name servers are made up, for names that belong to nobody.
"""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proactive_prefect.errors import ActionError
from proactive_prefect.firing.outbound import NotAllowed, outbound
from proactive_prefect.networks import read_network

from .acting import run

NAME = "api.example.test"


class Site:
    """A web server at one address; `heard` has the Host header of every request, or its target at a proxy."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0, moved_to: str = "") -> None:
        site = self
        self.heard: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.heard.append(self.path if self.path.startswith("http") else self.headers["Host"])
                self.send_response(302 if moved_to else 200)
                if moved_to:
                    self.send_header("Location", moved_to)
                self.end_headers()
                self.wfile.write(b"" if moved_to else b"heard")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
                return

        self.server = ThreadingHTTPServer((address, port), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Site:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What name servers say: for each name the addresses of each answer in turn, the last one again and again."""
    answers: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else host
        if text not in answers:
            return real(host, port, *rest, **more)
        said = answers[text].pop(0) if len(answers[text]) > 1 else answers[text][0]
        return [place for address in said for place in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return answers


async def get(url: str, *allowed: str, **keys: Any) -> httpx.Response:
    """One request by the guarded transport."""
    transport = outbound(httpx.URL(url), [read_network(text) for text in allowed])
    async with httpx.AsyncClient(transport=transport, timeout=30, **keys) as client:
        return await client.get(url)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "[::1]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[::7f00:1]",
    ],
)  # fmt: skip
async def test_this_machine_is_out_of_reach_however_it_is_written(host: str, names: dict[str, Any]) -> None:
    """No spelling of the loopback address gets a connection to a server that listens there."""
    with Site("0.0.0.0") as site:
        with pytest.raises((NotAllowed, httpx.ConnectError, httpx.InvalidURL)) as error:
            await get(f"http://{host}:{site.port}/")
        assert site.heard == []
    assert not isinstance(error.value, httpx.ConnectError) or "has no address" in str(error.value)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "224.0.0.1", "255.255.255.255",
     "fd00:ec2::254", "fe80::1", "ff02::1", "::", "2002:a9fe:a9fe::"],
)  # fmt: skip
async def test_a_name_of_a_private_address_is_out_of_reach(address: str, names: dict[str, Any]) -> None:
    """Whatever a name resolves to is checked: cloud metadata, private networks, groups."""
    names[NAME] = [[address]]
    with pytest.raises(NotAllowed, match=rf"{NAME} \(.*\) is not on the public internet"):
        await get(f"http://{NAME}/")


async def test_what_the_operator_allows_is_reached_and_nothing_beside_it() -> None:
    """An allowed network opens itself only."""
    with Site("127.0.0.1") as allowed, Site("127.0.0.2") as other:
        assert (await get(f"http://127.0.0.1:{allowed.port}/", "127.0.0.1")).text == "heard"
        with pytest.raises(NotAllowed):
            await get(f"http://127.0.0.2:{other.port}/", "127.0.0.1")
        assert other.heard == []


async def test_a_name_that_changes_its_address_is_connected_where_it_was_checked(names: dict[str, Any]) -> None:
    """DNS rebinding: a name server's second answer is never asked for. The Host header has the name."""
    with Site("127.0.0.1") as checked, Site("127.0.0.2", checked.port) as other:
        names[NAME] = [["127.0.0.1"], ["127.0.0.2"]]
        assert (await get(f"http://{NAME}:{checked.port}/", "127.0.0.1")).text == "heard"
        assert checked.heard == [f"{NAME}:{checked.port}"]
        assert other.heard == []
        assert names[NAME] == [["127.0.0.2"]]  # asked once


async def test_of_several_addresses_only_those_that_may_be_called_are(names: dict[str, Any]) -> None:
    """The next one is tried where nobody listens; one that is not allowed never is."""
    with Site("127.0.0.2") as site, Site("127.0.0.3", site.port) as other:
        names[NAME] = [["127.0.0.3", "127.0.0.1", "127.0.0.2"]]
        assert (await get(f"http://{NAME}:{site.port}/", "127.0.0.1", "127.0.0.2")).text == "heard"
        assert other.heard == []


async def test_a_redirect_leads_nowhere_else() -> None:
    """Also a client that follows redirects is checked at each step."""
    with Site("127.0.0.2") as inside:
        with Site("127.0.0.1", moved_to=f"http://127.0.0.2:{inside.port}/") as site, pytest.raises(NotAllowed):
            await get(f"http://127.0.0.1:{site.port}/", "127.0.0.1", follow_redirects=True)
        assert inside.heard == []


def certificate(folder: Path, *names: str) -> Path:
    """A certificate that signs itself, for those names; its file has the key, too."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / f"{names[0]}.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return file


@pytest.mark.parametrize(("name", "good"), [(NAME, True), ("other.example.test", False)])
async def test_tls_is_checked_against_the_name(
    name: str, good: bool, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is asked for the name's certificate, and one of another name is refused."""
    file = certificate(tmp_path, name)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    asked: list[str] = []
    names[NAME] = [["127.0.0.1"]]
    with Site() as site:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(file)
        tls.sni_callback = lambda _, wanted, __: asked.append(wanted)
        site.server.socket = tls.wrap_socket(site.server.socket, server_side=True)
        if good:
            assert (await get(f"https://{NAME}:{site.port}/", "127.0.0.1")).text == "heard"
            assert site.heard == [f"{NAME}:{site.port}"]
        else:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await get(f"https://{NAME}:{site.port}/", "127.0.0.1")
    assert asked == [NAME]


async def test_the_operators_proxy_is_used_and_private_addresses_are_refused_before_it(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of the environment resolves names itself; what is known to be private never gets to it."""
    with Site() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        names["public.example.test"] = [["93.184.215.14"]]
        names[NAME] = [["169.254.169.254"]]
        assert (await get("http://public.example.test/x")).text == "heard"
        assert (await get("http://known-to-the-proxy.invalid/y")).text == "heard"
        for url in (f"http://{NAME}/", "http://169.254.169.254/", "http://127.0.0.1:1/", "http://[::1]:1/"):
            with pytest.raises(NotAllowed):
                await get(url)
        assert proxy.heard == ["http://public.example.test/x", "http://known-to-the-proxy.invalid/y"]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(NotAllowed):
            await get("http://127.0.0.1:1/")


async def test_an_action_is_told_what_it_may_not_call_and_how_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the setting an http action cannot reach this machine; with it, it can."""
    monkeypatch.delenv("PROACTIVE_OUTBOUND_ALLOW", raising=False)
    with Site() as site:
        action = {"type": "http", "url": f"http://127.0.0.1:{site.port}/"}
        with pytest.raises(ActionError) as error:
            await run(action)
        assert error.value.message == f"GET {action['url']}: 127.0.0.1 is not on the public internet"
        assert "PROACTIVE_OUTBOUND_ALLOW" in error.value.hint
        assert site.heard == []
        monkeypatch.setenv("PROACTIVE_OUTBOUND_ALLOW", "10.0.0.0/8, 127.0.0.1")
        assert (await run(action)).message == "heard"


async def test_a_name_that_nobody_has_is_one_line(names: dict[str, Any]) -> None:
    """The action says that there is no such name."""
    with pytest.raises(ActionError, match=r"GET http://nobody.invalid/: ConnectError: nobody.invalid has no address: "):
        await run({"type": "http", "url": "http://nobody.invalid/"})


def test_allowing_is_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the public internet, until the operator says otherwise."""
    from proactive_prefect.settings import Settings

    monkeypatch.delenv("PROACTIVE_OUTBOUND_ALLOW", raising=False)
    assert Settings().outbound_allow == ()
