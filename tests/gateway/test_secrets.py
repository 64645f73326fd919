"""Secrets that the machine generates: private, stable, and the same for everybody who asks at once."""

from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proactive_prefect.errors import SecretMissing
from proactive_prefect.gateway.secrets import operator_token, same_secret, webhook_secret
from proactive_prefect.settings import Settings


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """The first use makes a long secret in a file of mode 0600, in folders of mode 0700; later uses give the same."""
    settings = Settings(home=tmp_path / "home")
    secret = webhook_secret(settings, "deploy")
    assert len(secret) >= 43
    assert webhook_secret(settings, "deploy") == secret
    assert webhook_secret(settings, "other") != secret
    file = tmp_path / "home" / "webhook-secrets" / "deploy"
    assert mode(file) == 0o600
    assert mode(file.parent) == 0o700
    assert mode(file.parent.parent) == 0o700
    assert sorted(path.name for path in file.parent.iterdir()) == ["deploy", "other"]


def test_everybody_who_asks_at_once_gets_the_same_secret(tmp_path: Path) -> None:
    """Several processes with several threads, all first at once, agree on one secret."""
    program = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from proactive_prefect.gateway.secrets import webhook_secret\n"
        "from proactive_prefect.settings import Settings\n"
        "settings = Settings(home=Path(sys.argv[1]))\n"
        "sys.stdin.readline()\n"
        "for n in range(50):\n"
        "    print(webhook_secret(settings, f'hook-{n}'))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda process: process.communicate("go\n", timeout=60)[0], processes))
    assert answers[0].count("\n") == 50
    assert answers[0] == answers[1] == answers[2]


def test_an_empty_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """An empty secret is never used, nor silently replaced."""
    settings = Settings(home=tmp_path)
    (tmp_path / "token").write_text("\n")
    with pytest.raises(SecretMissing, match="token is empty"):
        operator_token(settings)


def test_the_operators_token_can_be_given(tmp_path: Path) -> None:
    """PROACTIVE_TOKEN goes before the generated token; an empty one is an error, not an open door."""
    assert operator_token(Settings(home=tmp_path, token="given")) == "given"
    assert not (tmp_path / "token").exists()
    with pytest.raises(SecretMissing, match="PROACTIVE_TOKEN is empty"):
        operator_token(Settings(home=tmp_path, token="  "))
    generated = operator_token(Settings(home=tmp_path))
    assert generated == operator_token(Settings(home=tmp_path))
    assert mode(tmp_path / "token") == 0o600


@pytest.mark.parametrize(("given", "same"), [("a", True), ("b", False), ("", False), ("ä", False), ("\udc80", False)])
def test_any_text_can_be_compared(given: str, same: bool) -> None:
    """Text outside of ASCII is compared like any other, not refused with an error."""
    assert same_secret(given, "a") is same
