"""PicoBot's `[heartbeats]` table, read as heartbeat rules with prompt actions.

Its cron expressions are those of the Rust crate `cron`: seconds first, Sunday is 1, and a day must suit both the day
of the month and the day of the week. What five fields cannot say in the same way is refused.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .cron import five_fields
from .policies import Count, Flag, Timezone

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class PicoBotPrompt(BaseModel):
    """One of `[[heartbeats.prompts]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64, pattern=r"[A-Za-z0-9]", description="Becomes the rule's id.")
    prompt: str = Field(min_length=1, max_length=100_000, description="What the agent is asked.")
    interval_secs: Count | None = Field(default=None, ge=1, le=315_360_000, description="Default: the table's.")
    cron: str | None = Field(
        default=None,
        description="Seconds first, and they must be 0; weekdays from 1 (Sunday) to 7.",
        examples=["0 0 18 * * *"],
    )
    timezone: Timezone | None = Field(default=None, description="Default: `[proactive] timezone`.")

    @field_validator("cron")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        return None if value is None else from_six_fields(value)

    @model_validator(mode="after")
    def _one_timing(self) -> PicoBotPrompt:
        if self.cron is not None and self.interval_secs is not None:
            raise ValueError("has both interval_secs and cron; allowed: at most one of them")
        return self


class PicoBotTable(BaseModel):
    """The `[heartbeats]` table: PicoBot's own form of heartbeat rules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: Flag = Field(default=False, description="Absent means false, as in PicoBot.")
    default_interval_secs: Count = Field(
        default=300, ge=1, le=315_360_000, description="For prompts with neither interval_secs nor cron."
    )
    prompts: list[PicoBotPrompt] = Field(default_factory=list, description="Each becomes a heartbeat rule.")


# How the keys of a rule are called in this form, for messages.
PICOBOT_KEYS = {"id": "name", "every": "interval_secs", "action": "prompt"}


def to_rule_keys(table: PicoBotTable, prompt: PicoBotPrompt) -> dict[str, Any]:
    """The keys of the heartbeat rule that `prompt` is."""
    timing = (
        {"cron": prompt.cron}
        if prompt.cron is not None
        else {"every": f"{prompt.interval_secs or table.default_interval_secs}s"}
    )
    zone = {"timezone": prompt.timezone} if prompt.timezone is not None else {}
    return {
        "id": to_slug(prompt.name),
        "enabled": table.enabled,
        "action": {"type": "prompt", "prompt": prompt.prompt},
        **timing,
        **zone,
    }


def to_slug(name: str) -> str:
    """A rule id for a name: lower case, with "-" for whatever an id cannot have. "health_check" stays as it is."""
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-_")


def from_six_fields(expression: str) -> str:
    """The five fields that mean what PicoBot's six mean. Raises ValueError where there are none."""
    fields = expression.lower().replace("?", "*").split()
    if len(fields) == 5:
        raise ValueError(
            f'{expression!r} has 5 fields; allowed: six here, seconds first: "0 {" ".join(expression.split())}"'
        )
    if len(fields) != 6:
        raise ValueError(f'{expression!r} has {len(fields)} fields; allowed: six, such as "0 0 18 * * *"')
    seconds, *five = fields
    if seconds not in ("0", "00"):
        raise ValueError(f'{expression!r} has {seconds!r} as its seconds; allowed: "0", since a minute is the least')
    if five[2] != "*" and five[4] != "*":
        raise ValueError(
            f"{expression!r} asks for a day of the month that is also a day of the week; "
            "allowed: one of the two, the other *"
        )
    return five_fields(" ".join([*five[:4], re.sub(r"(?<![/\d])\d+", _weekday, five[4])]))


def _weekday(match: re.Match[str]) -> str:
    number = int(match[0][:3])
    if not 1 <= number <= 7:
        raise ValueError(f'{match[0]!r} is not a day of the week here; allowed: 1 (Sunday) to 7, or "sun" to "sat"')
    return _DAYS[number - 1]
