"""Durations, snapshots and exports."""

from __future__ import annotations

import inspect
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import proactive_prefect
from proactive_prefect import rules
from proactive_prefect.rules.actions import CommandAction
from proactive_prefect.rules.durations import format_duration, parse_duration
from proactive_prefect.rules.models import WebhookRule, from_snapshot, to_snapshot


@given(st.timedeltas(timedelta(0), timedelta(days=3660)))
def test_a_duration_is_read_back_as_it_was_written(value: timedelta) -> None:
    """To the millisecond, which is the least that can be written."""
    whole = timedelta(milliseconds=value // timedelta(milliseconds=1))
    assert parse_duration(format_duration(whole)) == whole


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("2d", 172_800), ("1.5s", 1.5), ("250ms", 0.25)]
)
def test_durations_are_written_with_their_units(text: str, seconds: float) -> None:
    """Days, hours, minutes, seconds and milliseconds, together or alone."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "-5m", "5min", "1h 30m", "P1D", "1e3s", "9999999999d", "٣s"])
def test_what_is_no_duration_is_refused_with_what_is(text: str) -> None:
    """Without a unit it could mean anything, so it means nothing."""
    with pytest.raises(ValueError, match="allowed: "):
        parse_duration(text)


@given(st.text())
def test_no_snapshot_has_what_prefect_would_take_for_a_template(text: str) -> None:
    """Whatever stands in a rule, its snapshot has no double brace, and reads back as the rule."""
    rule = WebhookRule(id="w", action=CommandAction(argv=["echo", "{{ x }}", text]), description="{{{" + text[:100])
    snapshot = to_snapshot(rule)
    assert "{{" not in snapshot
    assert from_snapshot(snapshot) == rule


@pytest.mark.parametrize("module", [proactive_prefect, rules])
def test_exports_are_sorted_and_there(module: object) -> None:
    """What a package says it has can be imported from it."""
    names = module.__all__  # type: ignore[attr-defined]
    assert list(names) == sorted(names)
    for name in names:
        assert inspect.isfunction(getattr(module, name)) or isinstance(getattr(module, name), type) or name == "Rule"


@pytest.mark.parametrize("module", [proactive_prefect, rules])
def test_what_is_not_exported_is_not_there(module: object) -> None:
    """A misspelt name is an AttributeError, as with any module."""
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        getattr(module, "nothing_of_that_name")  # noqa: B009 - the name must not be known
