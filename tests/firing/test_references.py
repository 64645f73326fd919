"""`${env:…}` and `${secret:…}`: filled in when an action runs, and masked in everything that it says."""

from __future__ import annotations

import json
import logging
import re
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.blocks.system import Secret

from proactive_prefect.errors import ActionError, SecretMissing
from proactive_prefect.firing.masking import MaskedLogger, Masker
from proactive_prefect.firing.output import KEPT, LOGGED, Output
from proactive_prefect.firing.references import resolve

from ..conftest import Server
from .acting import run, sample

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
# Few letters, so that secrets overlap, repeat and start alike.
_TEXT = st.text("abc\n*", max_size=40)
_SECRETS = st.lists(st.text("abc", min_size=4, max_size=9), max_size=4)


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Variables of the environment that a test sets."""
    monkeypatch.setenv("TOKEN", "canary-token")
    monkeypatch.setenv("NESTED", "${env:TOKEN} and $${env:TOKEN}")
    monkeypatch.delenv("ABSENT", raising=False)
    return monkeypatch


async def test_references_in_every_text_are_filled_in(env: pytest.MonkeyPatch) -> None:
    """Texts in lists and tables, several in one text; keys and values that are no text stay."""
    value = {"a": ["Bearer ${env:TOKEN}", 1, None], "${env:TOKEN}": {"b": "${env:TOKEN}/${env:TOKEN}"}}
    assert await resolve(value) == {
        "a": ["Bearer canary-token", 1, None],
        "${env:TOKEN}": {"b": "canary-token/canary-token"},
    }


async def test_what_is_filled_in_is_not_looked_at_again(env: pytest.MonkeyPatch) -> None:
    """A value that itself holds a reference stays that text: nobody can smuggle one in."""
    assert await resolve("${env:NESTED}") == "${env:TOKEN} and $${env:TOKEN}"


@pytest.mark.parametrize("text", ["${HOME}", "$HOME", "${other:thing}", "{{ env }}", "${}", "${env}", "$${HOME}"])
async def test_other_dollars_stay(text: str) -> None:
    """Only the two forms are references; a command's own ${HOME} is not."""
    assert await resolve(text) == text


async def test_a_doubled_dollar_stands_for_the_text_itself(env: pytest.MonkeyPatch) -> None:
    """`$${env:TOKEN}` is the text `${env:TOKEN}`, whether or not there is such a variable."""
    assert await resolve("$${env:TOKEN} $${secret:x} $${env:ABSENT}") == "${env:TOKEN} ${secret:x} ${env:ABSENT}"


@settings(deadline=None)
@given(_JSON)
async def test_what_is_escaped_comes_back_as_it_was(value: Any) -> None:
    """Any text can be written so that it is taken to the letter."""
    assert await resolve(_escaped(value)) == value


@settings(deadline=None)
@given(st.lists(st.sampled_from(["$", "{", "}", "${env:", "${secret:", "env:", "TOKEN}", "x"])).map("".join))
async def test_texts_that_look_like_references_can_be_escaped_too(text: str) -> None:
    """Also texts made of nothing but dollars, braces and names."""
    assert await resolve(_escaped(text)) == text


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return re.sub(r"(?=\$\{(env|secret):[^{}]*\})", "$", value)
        case list():
            return [_escaped(item) for item in value]
        case dict():
            return {key: _escaped(item) for key, item in value.items()}
        case _:
            return value


async def test_a_missing_variable_is_named_with_its_place(env: pytest.MonkeyPatch) -> None:
    """The error has the name and the key's path, and no value of any other."""
    with pytest.raises(SecretMissing) as error:
        await resolve({"a": [{"b": "${env:TOKEN} ${env:ABSENT}"}]}, where="action.config")
    assert error.value.message == "action.config.a[0].b: ${env:ABSENT} is not set"
    assert "environment of the worker" in error.value.hint


@pytest.mark.parametrize("text", ["${env:}", "${env:A B}", "${secret:No_Such}", "${secret:../x}", "${secret:a/b}"])
async def test_a_malformed_reference_is_an_error(text: str) -> None:
    """A reference with an impossible name is told, not passed on as text; Prefect is not asked for it."""
    with pytest.raises(ActionError, match="is not a reference; allowed: "):
        await resolve(text)


async def test_secret_blocks_come_from_prefect(prefect_server: Server) -> None:
    """A text in a Secret block is taken as it is (also one that looks like a number), anything else as JSON."""
    name = f"t{uuid4().hex[:8]}"
    await Secret(value="0012").save(f"{name}-text")
    await Secret(value={"a": 1}).save(f"{name}-json")
    found = await resolve(f"${{secret:{name}-text}} ${{secret:{name}-json}}")
    text, _, rest = found.partition(" ")
    assert (text, json.loads(rest)) == ("0012", {"a": 1})
    with pytest.raises(SecretMissing, match=rf"\$\{{secret:{name}-none\}} names no Prefect Secret block"):
        await resolve(f"${{secret:{name}-none}}")


@pytest.mark.parametrize(
    "value", ["canary-token", 'canary "quoted" \\ é', "canary&a=b c", "canary-1\ncanary-2\ncanary-3"]
)
async def test_a_secret_is_masked_wherever_an_action_tells_it(
    env: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    """Output, log lines, message, metadata and its keys: none has the value, also not as JSON would write it."""
    caplog.set_level("INFO")
    env.setenv("TOKEN", value)
    result = await run(sample("spill", secret="${env:TOKEN}"))
    told = [result.message, json.dumps(result.metadata), *(record.getMessage() for record in caplog.records)]
    assert all("canary" not in str(text) for text in told), told
    assert result.message == "message ***"
    assert result.metadata == {"key": ["***"], "***": 1}
    assert {"out ***", "err ***", "log ***"} <= {str(text) for text in told} or "\n" in value


async def test_a_secret_is_masked_in_errors_and_tracebacks(
    env: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that quotes a secret is told without it, and nothing is chained to it that would tell more."""
    with pytest.raises(ActionError) as error:
        await run(sample("spill_async", secret="${env:TOKEN}"))
    assert "RuntimeError: ***" in error.value.message
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    texts = [record.getMessage() for record in caplog.records]
    assert any("KeyError: '***'" in text for text in texts)
    assert all("canary" not in text and not record.exc_info for text, record in zip(texts, caplog.records, strict=True))


def test_short_values_are_not_masked() -> None:
    """Masking "1" would leave nothing readable: values shorter than four characters stay."""
    masker = Masker()
    for value in ("1", "yes", "   a   ", ""):
        masker.add(value)
    assert masker.mask("1 yes    a    ok") == "1 yes    a    ok"


def test_the_longer_of_two_secrets_that_start_alike_is_masked_whole() -> None:
    """Nothing of a longer secret is left over because a shorter one is its beginning."""
    masker = Masker()
    masker.add("pass")
    masker.add("password-1")
    assert masker.mask("pass password-1 passwor") == "*** *** ***wor"


@settings(deadline=None)
@given(_SECRETS, st.lists(_TEXT, max_size=6))
def test_a_stream_is_masked_as_the_whole_would_be(secrets: list[str], pieces: list[str]) -> None:
    """However a text is cut into pieces, also in the middle of a secret, it comes out as if it had come at once."""
    masker = Masker()
    for secret in secrets:
        masker.add(secret)
    stream = masker.stream()
    said = "".join([*(stream.feed(piece) for piece in pieces), stream.close()])
    assert said == masker.mask("".join(pieces))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=400), max_size=8), st.integers(1, 400))
def test_output_keeps_its_end_and_tells_how_much_there_was(chunks: list[bytes], times: int) -> None:
    """Any bytes, in any pieces: the log and what is kept are bounded, and what is kept is the end of it."""
    logged: list[str] = []
    output = Output("it", Masker(), logged.append)
    for _ in range(times if any(chunks) else 1):
        for chunk in chunks:
            output.feed(chunk)
    output.close()
    whole = b"".join(chunks) * (times if any(chunks) else 1)
    assert output.total == len(whole)
    assert len(output.text()) <= KEPT + 60
    assert output.cut == (len(whole.decode(errors="replace")) > KEPT)
    assert sum(map(len, logged)) <= LOGGED + 5000
    assert all("\n" not in line and "\x00" not in line for line in logged)


def test_a_masked_logger_formats_as_any_logger_does(caplog: pytest.LogCaptureFixture) -> None:
    """Arguments, a percent sign, and a wrong format: the line is there, masked."""
    masker = Masker()
    masker.add("canary")
    log = MaskedLogger(logging.getLogger("masked"), masker)
    log.warning("%s is %d%%", "canary", 50)
    log.warning("100% canary")
    log.warning("%d", "canary")
    log.warning("%(a)s", {"a": "canary"})
    heard = [record.getMessage() for record in caplog.records]
    assert heard == ["*** is 50%", "100% ***", "%d ('***',)", "***"]
