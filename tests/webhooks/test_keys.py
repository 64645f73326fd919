"""Secrets are read from where a rule says; what is missing, empty or of no use is an error that never repeats it."""

from __future__ import annotations

from pathlib import Path

import pytest

from proactive_prefect.errors import SecretMissing
from proactive_prefect.prefect_api import PrefectApi
from proactive_prefect.rules.schemes import Scheme
from proactive_prefect.webhooks.keys import read_secret

# Neither the environment nor a file is Prefect's.
NO_PREFECT: PrefectApi = None  # type: ignore[assignment]


async def read(reference: str, scheme: Scheme = "header") -> str:
    return await read_secret(reference, scheme, NO_PREFECT)


async def test_a_secret_comes_from_the_environment_or_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White space around it, such as a file's last line end, is no part of it."""
    file = tmp_path / "with space, and 'quotes'"
    file.write_text(" grüße \n")
    monkeypatch.setenv("HOOK", "from-env\n")
    assert await read("${env:HOOK}") == "from-env"
    assert await read(f"${{file:{file}}}") == "grüße"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is no file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"hunter2\xff", "cannot be read"),
        (b"hunter2" * 3_000, "larger than"),
    ],
)
async def test_a_file_of_no_use_is_an_error_that_names_it(content: bytes | None, said: str, tmp_path: Path) -> None:
    """The message has the reference and what is wrong, not what is in the file."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SecretMissing, match=said) as raised:
        await read(f"${{file:{file}}}")
    assert str(file) in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("path", ["/dev/zero", "/tmp"])
async def test_what_is_no_plain_file_is_not_read(path: str) -> None:
    """A device or a pipe would keep the gateway waiting."""
    with pytest.raises(SecretMissing, match="is no file"):
        await read(f"${{file:{path}}}")


@pytest.mark.parametrize("secret", ["hunter2!", "whsec_", "whpk_aHVudGVyMg==", "whsec_hunter2 hunter2", "A"])
async def test_a_secret_that_is_none_of_standard_webhooks_is_refused(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a typing mistake the library would make a short key."""
    monkeypatch.setenv("HOOK", secret)
    with pytest.raises(SecretMissing, match="no secret of Standard"):
        await read("${env:HOOK}", "standard")


async def test_the_error_of_a_secret_does_not_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the message nor its cause has the value."""
    monkeypatch.setenv("HOOK", "hunter2!")
    with pytest.raises(SecretMissing) as raised:
        await read("${env:HOOK}", "standard")
    assert "hunter2" not in repr(raised.value) + str(raised.value.__cause__)
