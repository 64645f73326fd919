"""The ids of entries: whatever made an occurrence, its id can be read back, and nothing else can."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proactive_prefect.calendar.ids import UnknownEntry, day_id, entry_id_of_key, origin_of, read_id
from proactive_prefect.ledger.outcomes import occurrence_key

SLUGS = st.from_regex(re.compile(r"[a-z0-9]([a-z0-9_-]{0,20}[a-z0-9])?"), fullmatch=True)
INSTANTS = st.integers(0, 10**9).map(
    lambda seconds: datetime(1971, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds * 32.5)
)


@given(rule=SLUGS, due=INSTANTS, delivery=st.one_of(st.none(), st.text(st.characters(codec="utf-8"), min_size=1)))
def test_an_occurrences_id_names_its_key(rule: str, due: datetime, delivery: str | None) -> None:
    """By its instant, by its delivery, and by what it was rescheduled from; fit to stand in an address."""
    key = occurrence_key(due, delivery)
    moved = occurrence_key(due, None, key)
    for one in (key, moved):
        made = entry_id_of_key(rule, one, due)
        assert re.fullmatch(r"[a-z0-9_-]+:[A-Za-z0-9._-]+", made)
        found = read_id(made)
        assert (found.rule_id, found.key) == (rule, one)
    assert origin_of(rule, moved) == entry_id_of_key(rule, key, due)
    assert origin_of(rule, key) is None
    assert read_id(day_id(rule, due.date())).day == due.date()


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    """By one error, whatever it is; what is read back is what was given."""
    try:
        found = read_id(text)
    except UnknownEntry:
        return
    assert text.startswith(f"{found.rule_id}:")


@pytest.mark.parametrize("text", ["", ":", "rule", "rule:", ":20260301", "rule:2026", "rule:k-!", "rule:20261301T00Z"])
def test_what_is_no_id_is_said(text: str) -> None:
    """In a sentence that shows it."""
    with pytest.raises(UnknownEntry, match="is not the event_id"):
        read_id(text)
