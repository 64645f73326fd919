"""When the worker wakes: before the instants that it knows, the earlier the more is due."""

from __future__ import annotations

import time
from uuid import uuid4

from proactive_prefect.worker.wake import LEAD, Alarm


def test_many_runs_that_are_due_together_are_prepared_earlier() -> None:
    """One run is claimed about a second before its instant, twenty some seconds before, a thousand not minutes."""
    alone, twenty, thousand = Alarm(), Alarm(), Alarm()
    for alarm, count in ((alone, 1), (twenty, 20), (thousand, 1000)):
        alarm.replace({uuid4(): 1000.0 + 0.001 * (nth % 7) for nth in range(count)})
        alarm.set(uuid4(), 5000.0)  # another day
    assert LEAD <= alone.lead() < 1.5
    assert 3 < twenty.lead() < 5
    assert thousand.lead() == 6
    assert LEAD <= Alarm().lead() < 1.5


async def test_an_alarm_rings_its_lead_before_the_instant() -> None:
    """The waiter wakes before the earliest instant, not at it, and at once when it is rung."""
    alarm, began = Alarm(), time.time()
    alarm.set(uuid4(), began + LEAD + 0.6)
    alarm._rung.clear()
    await alarm.wait(until=began + 60)
    assert 0.2 < time.time() - began < LEAD + 0.6
    alarm.ring()
    await alarm.wait(until=began + 60)
