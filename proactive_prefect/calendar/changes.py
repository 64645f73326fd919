"""What somebody wants to change on the calendar: shown first, then confirmed.

One occurrence that is yet to come can be moved or dropped; a rule can be paused and resumed. When a rule is due by
itself is declared in the rules file and changed there: such a change can be looked at here, and not confirmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, assert_never

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import InputError
from ..firing.conditions import first_unmet
from ..rules.models import CronRule, HeartbeatRule, Rule, SkillRule
from ..rules.timing import next_due
from .ids import UnknownEntry, read_id
from .plans import Plan
