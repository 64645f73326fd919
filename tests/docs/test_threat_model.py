"""The threat model names tests, and they are there."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "docs/threat-model.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", MODEL)))
PROXY = (ROOT / "docs/how-to/proxy.md").read_text()


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_it_names_exists(file: str, name: str) -> None:
    """A defence whose test was renamed or taken away is no longer shown."""
    tree = ast.parse((ROOT / file).read_text())
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in found if name else any(one.startswith("test_") for one in found)


def test_every_defence_has_a_test() -> None:
    """Each line of a table of threats ends with one; each file of the security tests is named."""
    rows = [line for line in MODEL.splitlines() if line.startswith("| ") and line.count("|") == 4]
    threats = [row for row in rows if not row.startswith(("| Threat", "| Who"))]
    assert len(threats) > 20
    assert all("`tests/" in row.rsplit("|", 2)[1] for row in threats)
    named = {file for file, _ in NAMED}
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "tests/security").glob("test_*.py")}
    assert files <= named


def config(language: str) -> str:
    """The example of the page in that language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PROXY, re.S | re.M)
    assert found
    return found[1]


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not on this machine")
def test_nginx_takes_the_example(tmp_path: Path) -> None:
    """`nginx -t` finds nothing wrong with it."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=hooks.example.com", "-days", "1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    text = config("nginx").replace("/etc/ssl/certs/hooks.example.com.pem", str(certificate))
    text = text.replace("/etc/ssl/private/hooks.example.com.key", str(key))
    file = tmp_path / "nginx.conf"
    kept = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{kept}{text}\n}}\n")
    told = subprocess.run(["nginx", "-t", "-p", str(tmp_path), "-c", str(file)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr


@pytest.mark.skipif(not shutil.which("caddy"), reason="Caddy is not on this machine")
def test_caddy_takes_the_example(tmp_path: Path) -> None:
    """`caddy validate` finds nothing wrong with it."""
    file = tmp_path / "Caddyfile"
    file.write_text(config("caddy"))
    told = subprocess.run(
        [str(shutil.which("caddy")), "validate", "--adapter", "caddyfile", "--config", str(file)],
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin"},
    )
    assert told.returncode == 0, told.stderr
