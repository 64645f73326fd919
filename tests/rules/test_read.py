"""A rules file becomes a rulebook: complete rules, whatever the language it is written in."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tomlkit
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proactive_prefect.errors import ConfigError
from proactive_prefect.rules import (
    CronTiming,
    HeartbeatRule,
    Rulebook,
    SkillRule,
    from_snapshot,
    read_rules,
    to_snapshot,
)
from proactive_prefect.rules.actions import PromptAction
from proactive_prefect.rules.source import SUFFIXES

FULL = """
[proactive]
enabled = true
project = "night shift"
timezone = "Europe/Berlin"
environment = "production"
agent = "agents:answer"
session_hook = "agents:in_session"
min_interval = "10s"

[defaults]
timeout = "1m30s"
retry_delay = ["5s", "1m"]
conditions = { environment = ["production"], days_of_week = ["mon", "sun"] }

[[heartbeat]]
id = "disk"
every = "10s"
splay = "5s"
action = { type = "python", call = "checks:disk", config = { percent = 90 } }

[[heartbeat]]
id = "mood"
cron = "*/5 * * * *"
timezone = "Asia/Tokyo"
action = { type = "prompt", prompt = "How are you?" }
conditions = { days_of_week = ["tue"], session_active = true, active_hours = { start = "22:00", end = "06:00" } }

[[cron]]
id = "report"
cron = "@daily"
timeout = "2h"
environment = "staging"
[cron.action]
type = "http"
method = "POST"
url = "https://example.org/report"
headers = { Authorization = "Bearer ${secret:report-token}" }
json = { day = "today" }

[[skill]]
id = "tidy"
skill = "housekeeping"
skill_action = "tidy"
schedule = { type = "interval", every = "1h", start_at = "2027-01-01T00:00:00+01:00" }
action = { type = "command", argv = ["tidy", "--all"] }

[[skill]]
id = "greet"
skill = "greeter"
schedule = { type = "once", at = "2027-01-01T00:00:00Z" }
action = { type = "deployment", name = "greet/all", parameters = { loud = true } }

[[webhook]]
id = "orders"
scheme = "bearer"
secret = "${env:ORDERS_SECRET}"
max_body = 4096
rate_limit = "60/minute"
when = 'payload.total > 10'
template = "{{ payload.total }}"
action = { type = "command", argv = ["true"] }

[[webhook]]
id = "pushes"
scheme = "hmac"
hmac = { header = "X-Sig", algorithm = "sha512", encoding = "base64", prefix = "v1=" }
secret = ["${file:/run/secrets/new}", { ref = "${secret:old}", until = "2027-01-01T00:00:00Z" }]
action = { type = "command", argv = ["true"] }
"""


def read(text: str, folder: Path, suffix: str = ".toml") -> Rulebook:
    file = folder / f"proactive{suffix}"
    file.write_text(text, encoding="utf-8")
    return read_rules(file)


def in_language(data: dict[str, Any], suffix: str) -> str:
    if suffix == ".toml":
        return tomlkit.dumps(data)
    return json.dumps(data) if suffix == ".json" else str(yaml.safe_dump(data, sort_keys=False))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_toml_yaml_and_json_give_the_same_rulebook(suffix: str, tmp_path: Path) -> None:
    """The language is a matter of taste."""
    expected = read(FULL, tmp_path)
    other = read(in_language(tomllib.loads(FULL), suffix), tmp_path, suffix)
    assert other == expected
    assert [rule.id for rule in other.rules] == ["disk", "mood", "report", "tidy", "greet", "orders", "pushes"]


def test_defaults_lie_beneath_each_rule(tmp_path: Path) -> None:
    """What a rule says itself wins; tables of conditions are merged key by key."""
    book = read(FULL, tmp_path)
    disk, mood, report = book.rules[:3]
    assert (disk.timeout, report.timeout) == (timedelta(seconds=90), timedelta(hours=2))
    assert disk.retry_delay == [timedelta(seconds=5), timedelta(minutes=1)]
    assert (mood.conditions.environment, mood.conditions.days_of_week) == (["production"], ["tue"])
    assert disk.conditions.days_of_week == ["mon", "sun"]


def test_a_rule_is_complete_without_its_project(tmp_path: Path) -> None:
    """Timezone, environment, agent and session hook are filled in, and a rule's snapshot reads back as the same."""
    book = read(FULL, tmp_path)
    disk, mood, report = book.rules[:3]
    assert (disk.timezone, mood.timezone) == ("Europe/Berlin", "Asia/Tokyo")
    assert (disk.environment, report.environment) == ("production", "staging")
    assert isinstance(mood.action, PromptAction)
    assert mood.action.agent == "agents:answer"
    assert mood.session_hook == "agents:in_session"
    assert [from_snapshot(to_snapshot(rule)) for rule in book.rules] == list(book.rules)


def test_references_to_secrets_stay_references(tmp_path: Path) -> None:
    """`${secret:…}` is resolved when an action runs, and not before."""
    snapshot = to_snapshot(read(FULL, tmp_path).rules[2])
    assert json.loads(snapshot)["action"]["headers"] == {"Authorization": "Bearer ${secret:report-token}"}


def test_a_skill_does_not_run_before_its_schedule_starts(tmp_path: Path) -> None:
    """An interval's `start_at` is the skill's own start, too."""
    rule = read(FULL, tmp_path).get("tidy")
    assert isinstance(rule, SkillRule)
    assert rule.start_at == datetime(2026, 12, 31, 23, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "[defaults]\nretries = 1\n", "[proactive]\ntimezone = 'UTC'\n"])
def test_a_project_that_does_not_say_so_is_not_enabled(text: str, tmp_path: Path) -> None:
    """Nothing fires until somebody opts in."""
    assert read(text, tmp_path).proactive.enabled is False


def test_yaml_words_for_true_and_false_stay_words(tmp_path: Path) -> None:
    """`on`, `off`, `yes` and `no` are text, as in YAML 1.2; 1:30 is no number of seconds, and 2027-01-01 is text."""
    text = """
proactive: { enabled: true }
heartbeat:
  - id: on
    every: 5m
    tags: [yes, no, off, 1:30, 2027-01-01]
    action: { type: command, argv: [echo, on], env: { ANSWER: no } }
    conditions: { exclude_dates: [2027-12-24] }
"""
    rule = read(text, tmp_path, ".yaml").rules[0]
    assert rule.id == "on"
    assert rule.tags == ["yes", "no", "off", "1:30", "2027-01-01"]
    assert rule.action.model_dump()["env"] == {"ANSWER": "no"}


def test_yaml_anchors_can_be_used(tmp_path: Path) -> None:
    """An alias stands for what it names."""
    text = """
proactive: { enabled: true }
cron:
  - { id: a, cron: "@daily", action: &act { type: command, argv: ["true"] } }
  - { id: b, cron: "@daily", action: *act }
"""
    a, b = read(text, tmp_path, ".yaml").rules
    assert a.action == b.action


PICOBOT = """
[proactive]
enabled = true
agent = "agents:answer"

[heartbeats]
enabled = true
default_interval_secs = 300

[[heartbeats.prompts]]
name = "health_check"
prompt = "Check system health and report issues"
interval_secs = 60

[[heartbeats.prompts]]
name = "daily_summary"
prompt = "Generate daily summary"
cron = "0 0 18 * * *"
timezone = "America/New_York"

[[heartbeats.prompts]]
name = "Standard Check!"
prompt = "Look"

[[heartbeats.prompts]]
name = "workdays"
prompt = "Work"
cron = "0 30 9 ? * 2-6"
"""


def test_picobots_heartbeats_are_heartbeat_rules(tmp_path: Path) -> None:
    """The same prompts at the same times: seconds first, Sunday is 1, an interval where none is given."""
    rules = read(PICOBOT, tmp_path).rules
    assert all(isinstance(rule, HeartbeatRule) for rule in rules)
    assert [rule.id for rule in rules] == ["health_check", "daily_summary", "standard-check", "workdays"]
    health, summary, standard, workdays = (rule.timing for rule in rules)
    assert [getattr(timing, "every", None) for timing in (health, standard)] == [
        timedelta(minutes=1),
        timedelta(minutes=5),
    ]
    assert isinstance(summary, CronTiming)
    assert (summary.prefect_cron, summary.timezone) == ("0 18 * * *", "America/New_York")
    assert isinstance(workdays, CronTiming)
    assert workdays.prefect_cron == "30 9 * * mon-fri"
    first = rules[0].action
    assert isinstance(first, PromptAction)
    assert (first.prompt, first.agent) == ("Check system health and report issues", "agents:answer")


def test_picobots_heartbeats_are_off_unless_enabled(tmp_path: Path) -> None:
    """PicoBot's opt-in is kept: its rules are there, and not enabled."""
    assert not any(
        rule.enabled for rule in read(PICOBOT.replace("[heartbeats]\nenabled = true", "[heartbeats]"), tmp_path).rules
    )


tables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["5m", "0 9 * * *", "python", "a:b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "every",
                    "cron",
                    "action",
                    "type",
                    "call",
                    "conditions",
                    "schedule",
                    "dst",
                    "prompts",
                    "name",
                    "prompt",
                    "x",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)
files = st.dictionaries(
    st.sampled_from(["proactive", "defaults", "heartbeat", "cron", "skill", "webhook", "heartbeats", "other"]), tables
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    at=st.integers(0, len(FULL)), cut=st.integers(0, 12), put=st.sampled_from(["", '"', "]", "[[", "{", "=", "\n", "x"])
)
def test_a_file_with_a_slip_of_the_pen_is_read_or_refused_with_a_line(
    at: int, cut: int, put: str, tmp_path: Path
) -> None:
    """Wherever a good file is broken, the message says on which line something is wrong."""
    file = tmp_path / "proactive.toml"
    file.write_text(FULL[:at] + put + FULL[at + cut :], encoding="utf-8")
    try:
        read_rules(file)
    except ConfigError as error:
        assert all(mistake.line > 0 for mistake in error.mistakes), error.mistakes  # noqa: PT017


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(text=st.text() | files.map(json.dumps), suffix=st.sampled_from(SUFFIXES))
def test_any_text_is_read_or_refused(text: str, suffix: str, tmp_path: Path) -> None:
    """Whatever stands in a file, the answer is a rulebook or a ConfigError with at least one mistake."""
    file = tmp_path / f"proactive{suffix}"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        read_rules(file)
    except ConfigError as error:
        assert error.mistakes  # noqa: PT017 - either end is right


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=files)
def test_any_values_are_read_or_refused_with_a_line(data: dict[str, Any], tmp_path: Path) -> None:
    """Each mistake in well-formed JSON says on which line it is."""
    file = tmp_path / "proactive.json"
    file.write_text(json.dumps(data, indent=1, allow_nan=False) if _is_finite(data) else "{", encoding="utf-8")
    try:
        read_rules(file)
    except ConfigError as error:
        assert all(mistake.line > 0 for mistake in error.mistakes), error.mistakes  # noqa: PT017


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, list) else True
