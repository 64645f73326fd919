"""The JSON Schema by which editors complete and check a rules file."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from proactive_prefect.rules import json_schema, read_rules
from proactive_prefect.rules.source import parse_source

from .test_mistakes import CASES
from .test_read import FULL, PICOBOT

ROOT = Path(__file__).parents[2]
ACTION = {"type": "command", "argv": ["true"]}
VALIDATOR = Draft202012Validator(json_schema())

# What only `check` can see: other rules, other keys, other modules, timezones, and what an expression means.
BEYOND_A_SCHEMA = {
    "unknown timezone",
    "missing module",
    "too often",
    "a skill too often",
    "below every floor",
    "least interval below its floor",
    "a timeout of nothing",
    "no such holidays",
    "no CEL",
    "a webhook's condition",
    "a webhook's template",
    "scheme hmac alone",
    "options of another scheme",
    "a sender's scheme without its secret",
    "a secret's end without an offset",
    "a session without a hook",
    "no channel",
    "callers of a network with a host in it",
    "six fields",
    "seven fields",
    "six fields below a minute",
    "four fields",
    "a minute too many",
    "a step too long",
    "@reboot",
    "an unknown @-name",
    "the nearest weekday",
    "a date that never comes",
    "a day that February would swallow",
    "a skill's cron",
    "a gap that is left out",
    "an overlap that runs twice",
    "a splay over the minute",
    "a prompt without an agent",
    "a skill that nobody registered",
    "PicoBot without seconds",
    "PicoBot below a minute",
    "PicoBot's weekday 0",
    "PicoBot's both days",
    "PicoBot too often",
    "a caller kept too long",
    "a webhook that waits for nothing known",
    "a webhook that waits too short",
    # formats are annotations: an instant and a date are told by `check`
    "a naive instant",
    "a date that is none",
}


def is_valid(text: str) -> bool:
    # As JSON has it: dates and times are text.
    return bool(VALIDATOR.is_valid(json.loads(json.dumps(tomllib.loads(text), default=str))))


def test_the_schema_is_a_schema() -> None:
    """It follows draft 2020-12."""
    Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("text", [FULL, PICOBOT, ""], ids=["full", "picobot", "empty"])
def test_good_files_are_valid(text: str) -> None:
    """What can be read has no red line in an editor."""
    assert is_valid(text)


def test_the_default_rules_file_is_valid_and_names_the_schema() -> None:
    """The file that a new project starts with is good, and editors know how to check it."""
    file = ROOT / "deployments" / "proactive.toml"
    assert is_valid(file.read_text(encoding="utf-8"))
    assert "#:schema" in file.read_text(encoding="utf-8").partition("[")[0]
    assert read_rules(file).proactive.enabled


@pytest.mark.parametrize("name", sorted(set(CASES) - BEYOND_A_SCHEMA))
def test_bad_files_are_not_valid(name: str) -> None:
    """What `check` refuses for its form, an editor underlines."""
    assert not is_valid(CASES[name].toml)
    assert not VALIDATOR.is_valid(parse_source(CASES[name].yaml, ".yaml", "bad.yaml").data)


def test_every_key_is_described() -> None:
    """An editor can show what each key is for."""
    for model, definition in json_schema()["$defs"].items():
        assert "kind" not in definition["properties"]
        for name, key in definition["properties"].items():
            assert "description" in key or "$ref" in key or name == "type", f"{model}.{name}"


def test_defaults_are_written_as_in_the_file() -> None:
    """A duration's default is "30s", not a number or another notation."""
    properties = json_schema()["$defs"]["Policies"]["properties"]
    assert (properties["timeout"]["default"], properties["retry_delay"]["default"]) == ("30s", "5s")


@pytest.mark.parametrize(
    ("rule", "good"),
    [
        ({"every": "5m"}, True),
        ({"cron": "* * * * *"}, True),
        ({"every": "5m", "cron": "* * * * *"}, False),
        ({}, False),
    ],
)
def test_a_heartbeat_has_one_timing(rule: dict[str, Any], good: bool) -> None:
    """Either `every` or `cron`, and one of them."""
    assert VALIDATOR.is_valid({"heartbeat": [{"id": "beat", "action": ACTION, **rule}]}) is good


def test_an_action_has_to_name_its_type() -> None:
    """Without it, nobody could tell a command from a prompt."""
    assert not VALIDATOR.is_valid({"heartbeat": [{"id": "beat", "every": "5m", "action": {"argv": ["true"]}}]})
