"""Conditions: when a due rule may run."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proactive_prefect.rules.conditions import (
    MAX_VALUES,
    check_custom,
    check_holidays,
    expression_scope,
    holiday,
    is_within,
    read_payload,
    unmet,
    why_false,
)
from proactive_prefect.rules.models import HeartbeatRule
from proactive_prefect.rules.policies import ActiveHours

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)  # a Wednesday
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]

instants = st.integers(1_704_067_200, 1_798_761_600).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
minutes = st.integers(0, 24 * 60 - 1).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
zones = st.sampled_from(ZONES)


def rule(**keys: Any) -> HeartbeatRule:
    keys = {"id": "disk", "every": "5m", "tags": ["ops"], "action": {"type": "python", "call": "a:b"}, **keys}
    return HeartbeatRule.model_validate(keys)


def hours(start: str, end: str, timezone: str | None = None) -> ActiveHours:
    return ActiveHours.model_validate({"start": start, "end": end, "timezone": timezone})


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("start", "end", "at", "inside"),
    [
        ("09:00", "17:00", utc(2026, 3, 4, 9, 0), True),
        ("09:00", "17:00", utc(2026, 3, 4, 8, 59, 59), False),
        ("09:00", "17:00", utc(2026, 3, 4, 16, 59, 59), True),
        ("09:00", "17:00", utc(2026, 3, 4, 17, 0), False),
        ("22:00", "06:00", utc(2026, 3, 4, 22, 0), True),
        ("22:00", "06:00", utc(2026, 3, 4, 0, 0), True),
        ("22:00", "06:00", utc(2026, 3, 4, 5, 59), True),
        ("22:00", "06:00", utc(2026, 3, 4, 6, 0), False),
        ("22:00", "06:00", utc(2026, 3, 4, 12, 0), False),
        ("00:00", "00:00", utc(2026, 3, 4, 3, 0), True),
    ],
)
def test_active_hours_include_their_start_and_not_their_end(start: str, end: str, at: datetime, inside: bool) -> None:
    """From start to before end, also over midnight; the same time twice is the whole day."""
    assert is_within(hours(start, end), at, "UTC") is inside


@given(instants, minutes, minutes, zones)
def test_two_halves_of_a_day_make_a_whole(at: datetime, start: str, end: str, zone: str) -> None:
    """Each instant is in exactly one of start-end and end-start."""
    if start != end:
        assert is_within(hours(start, end), at, zone) is not is_within(hours(end, start), at, zone)


@given(instants, minutes, minutes, zones, zones)
def test_active_hours_count_in_their_own_timezone(at: datetime, start: str, end: str, own: str, rules: str) -> None:
    """A timezone of the hours outweighs the rule's."""
    assert is_within(hours(start, end, own), at, rules) is is_within(hours(start, end), at, own)


@pytest.mark.parametrize(
    ("zone", "at", "inside"),
    [
        ("Europe/Berlin", utc(2026, 3, 29, 0, 59), False),  # 01:59, before the gap
        ("Europe/Berlin", utc(2026, 3, 29, 1, 0), False),  # 03:00: 02:00-03:00 does not happen
        ("Europe/Berlin", utc(2026, 10, 25, 0, 30), True),  # 02:30, the first time
        ("Europe/Berlin", utc(2026, 10, 25, 1, 30), True),  # 02:30, again
        ("Europe/Berlin", utc(2026, 10, 25, 2, 0), False),  # 03:00
        ("America/New_York", utc(2026, 3, 8, 7, 0), False),  # 03:00
        ("America/New_York", utc(2026, 3, 8, 6, 59), False),  # 01:59
        ("Australia/Lord_Howe", utc(2026, 4, 4, 15, 0), False),  # 01:30, again
        ("Australia/Lord_Howe", utc(2026, 4, 4, 15, 30), True),  # 02:00, half an hour after 02:00 would have been
    ],
)
def test_active_hours_follow_the_wall_through_clock_changes(zone: str, at: datetime, inside: bool) -> None:
    """02:00 to 03:00 is no time at all on one night, and two hours long on another."""
    assert is_within(hours("02:00", "03:00"), at, zone) is inside


def test_days_are_those_of_the_rules_timezone() -> None:
    """Late on Tuesday in New York, when it is Wednesday in UTC already, is Tuesday."""
    late = utc(2026, 3, 4, 3, 0)
    tuesdays = rule(timezone="America/New_York", conditions={"days_of_week": ["tue"]})
    assert unmet(tuesdays, late) is None
    assert unmet(rule(conditions={"days_of_week": ["tue"]}), late) is not None


def test_holidays_have_a_name() -> None:
    """The public holidays of a country, or of a part of it, are no days for the rule."""
    found = unmet(rule(conditions={"holidays": "US-NY"}), utc(2026, 12, 25, 12, 0))
    assert found is not None
    assert (found.code, found.text) == ("excluded_date", "2026-12-25 is a holiday in US-NY: Christmas Day")
    assert holiday("DE-BY", date(2026, 1, 6)) is not None
    assert holiday("DE-HH", date(2026, 1, 6)) is None


@pytest.mark.parametrize("region", ["XX", "US-QQ"])
def test_holidays_of_nowhere_are_refused(region: str) -> None:
    """A region without a calendar is named."""
    with pytest.raises(ValueError, match=region):
        check_holidays(region)


@pytest.mark.parametrize(
    "expression",
    [
        "due.hour == 12 && due.minute < 5",
        "due.weekday in ['wed', 'thu'] && due.month == 3 && due.day == 4 && due.year == 2026",
        "due.at > timestamp('2026-01-01T00:00:00Z')",
        "rule.id == 'disk' && rule.kind == 'heartbeat' && rule.owner == 'local'",
        "rule.tags.exists(tag, tag == 'ops')",
        "rule.environment != 'production'",
        "cause == 'webhook'",
        "payload.action == 'opened' && size(payload.labels) == 2",
        "payload.labels.all(one, one.startsWith('a')) || payload.labels.exists(two, two == 'b')",
        "headers['x-github-event'] == 'issues'",
        "has(payload.action) && !has(payload.missing)",
        "'rule.nothing and nobody.all(x, y' != ''",
    ],
)
def test_expressions_see_the_rule_the_time_and_the_call(expression: str) -> None:
    """Each of these holds for a webhook at noon on a Wednesday."""
    check_custom(expression)
    scope = expression_scope(
        rule(),
        NOON,
        cause="webhook",
        payload={"action": "opened", "labels": ["a", "b"]},
        headers={"X-GitHub-Event": "issues"},
    )
    assert why_false(expression, scope) is None


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("due.hour ==", "not a CEL expression"),
        ("hour == 3", "unknown variable 'hour'; allowed: rule, due, cause, payload, headers"),
        ("due.huor == 3", "unknown field due.huor; allowed: year, month"),
        ("rule.name == 'x'", "unknown field rule.name; allowed: id, kind"),
        ("open('/etc/passwd') == ''", "unknown function 'open'"),
        ("payload.a.all(x, payload.b.all(y, x == y))", "one list at a time"),
        ("payload.a.map(x, x).size() > 0 || " * 5 + "true", "allowed: at most 4"),
        ("true || " * 600 + "true", "allowed: at most 4096"),
        ("", "not a CEL expression"),
    ],
)
def test_an_expression_that_cannot_work_is_refused_at_check_time(expression: str, told: str) -> None:
    """In one line, with what is allowed."""
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        check_custom(expression)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("due.hour == 3", "'due.hour == 3' is false"),
        ("due.hour", "'due.hour' is neither true nor false"),
        ("payload.a == 1", "could not be judged: there is no 'a'"),
        ("1 / 0 == 1", "could not be judged: division by zero"),
        ("payload == 9223372036854775807 + 1", "could not be judged"),
        ("nobody == 1", "could not be judged: unknown variable 'nobody'"),
        ("payload.b < 'x'", "could not be judged"),
    ],
)
def test_what_cannot_be_judged_lets_nothing_run(expression: str, told: str) -> None:
    """Errors at run time count as false, and are told."""
    scope = expression_scope(rule(), NOON, cause="webhook", payload={"b": 1})
    why = why_false(expression, scope)
    assert why is not None
    assert told in why


def test_a_payload_made_to_keep_an_expression_busy_is_not_judged() -> None:
    """The costliest expression over the largest payload that is judged takes seconds; a larger one is refused."""
    costly = "payload.a.map(x, x).size() > 0"
    larger = expression_scope(rule(), NOON, cause="webhook", payload={"a": list(range(MAX_VALUES + 1))})
    assert "larger than" in (why_false(costly, larger) or "")
    longer = expression_scope(rule(), NOON, cause="webhook", payload={"a": "x" * 300_000})
    assert "larger than" in (why_false(costly, longer) or "")
    largest = expression_scope(rule(), NOON, cause="webhook", payload={"a": list(range(MAX_VALUES - 10))})
    began = time.process_time()
    assert why_false(costly, largest) is None
    assert time.process_time() - began < 15


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=5)))
def test_no_payload_breaks_an_expression(payload: Any) -> None:
    """Whatever is sent, the answer is yes or a reason."""
    scope = expression_scope(rule(), NOON, cause="webhook", payload=payload)
    answer = why_false("payload == 'yes' || payload[0] == 1", scope)
    assert answer is None or isinstance(answer, str)


@given(st.text(max_size=200))
def test_no_expression_breaks_the_check(expression: str) -> None:
    """It is fine, or refused with a ValueError of one line."""
    try:
        check_custom(expression)
        told = ""
    except ValueError as refused:
        told = str(refused)
    assert "\n" not in told


@given(instants, zones)
def test_the_answer_is_about_the_due_time(at: datetime, zone: str) -> None:
    """The parts of `due` are those of the rule's wall clock."""
    due = expression_scope(rule(timezone=zone), at, cause="schedule")["due"]
    local = at.astimezone(ZoneInfo(zone))
    assert (due["hour"], due["minute"], due["day"]) == (local.hour, local.minute, local.day)
    assert due["at"] - at == timedelta()


@pytest.mark.parametrize(
    ("text", "value"), [(None, None), ('{"a": 1}', {"a": 1}), ("plain", "plain"), ("[" * 100_000, "[" * 100_000)]
)
def test_a_payload_is_its_json_or_its_text(text: str | None, value: Any) -> None:
    """What is not JSON is text; nesting without end is text, too."""
    assert read_payload(text) == value
