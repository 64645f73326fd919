"""The rules, as values: what a reader of the rules file, a decorator or an API call gives, checked and complete.

A rule is self-contained: defaults are filled in when it is read, so its JSON form (`Rule.model_dump_json`) is the
snapshot that travels with each run.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from .actions import Action, Call
from .durations import Duration
from .policies import Policies, Timezone
from .timing import CronTiming, IntervalTiming, OnceTiming, Timing, check_cron, splay_offset

Kind = Literal["heartbeat", "cron", "skill", "webhook"]
KINDS: tuple[Kind, ...] = ("heartbeat", "cron", "skill", "webhook")
Scheme = Literal["header", "bearer"]

# All interval rules count from one instant, so that an edit or a redeploy never shifts their phase.
ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)

Slug = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$",
        description="Lower-case letters, digits, - and _; at most 64; unique over all kinds.",
    ),
]
Cron = Annotated[str, Field(description='Five fields, or "@daily" and kin.', examples=["0 9 * * mon-fri"])]
SecretRef = Annotated[
    str, Field(pattern=r"^\$\{(env:[A-Za-z_]\w*|secret:[a-z0-9-]+)\}$", examples=["${env:HOOK_SECRET}"])
]
CHANNEL = re.compile(r"^[a-z0-9-]+/[a-z0-9-]+$")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RuleBase(Policies):
    """What every rule has, besides its policies and its timing."""

    id: Slug
    description: str = Field(default="", max_length=2000)
    enabled: bool = True
    environment: str = Field(default="development", description="Default: `[proactive] environment`.")
    timezone: Timezone = Field(default="UTC", description="Default: `[proactive] timezone`.")
    action: Action
    tags: list[str] = Field(default_factory=list)
    owner: str = Field(default="local", min_length=1, max_length=200)
    priority: Literal["low", "normal", "high"] = "normal"
    work_pool: str | None = Field(default=None, description="Default: PROACTIVE_WORK_POOL.")
    job_variables: dict[str, Any] = Field(default_factory=dict)
    session_hook: Call | None = Field(default=None, description="Default: `[proactive] session_hook`.")

    @model_validator(mode="after")
    def _together(self) -> RuleBase:
        if self.start_at and self.end_at and self.end_at <= self.start_at:
            raise ValueError("end_at is not after start_at; allowed: an end after the start")
        if self.conditions.session_active is not None and self.session_hook is None:
            raise ValueError(
                "conditions.session_active needs a hook that answers; "
                'allowed: [proactive] session_hook = "module:function"'
            )
        for outcome, channels in self.notifications.model_dump().items():
            for channel in channels:
                if not CHANNEL.match(channel):
                    raise ValueError(
                        f"notifications.{outcome} has {channel!r}; allowed: a Prefect block as "
                        '"type/name", such as "slack-webhook/ops" or "webhook/pager"'
                    )
        return self


class HeartbeatRule(RuleBase):
    """Wake up again and again, and speak only if there is something to say."""

    kind: Literal["heartbeat"] = "heartbeat"
    every: Duration | None = None
    cron: Cron | None = None
    anchor: AwareDatetime = ANCHOR

    @model_validator(mode="after")
    def _one_timing(self) -> HeartbeatRule:
        if (self.every is None) == (self.cron is None):
            raise ValueError('allowed: exactly one of every = "5m" and cron = "*/5 * * * *"')
        if self.cron is not None:
            check_cron(self.cron)
        return self

    @property
    def timing(self) -> Timing:
        if self.every is not None:
            return _interval(self, self.every, self.anchor)
        assert self.cron is not None  # one of the two, by validation
        return _cron(self, self.cron, self.timezone)


class CronRule(RuleBase):
    """Run at the times of a cron expression, in a timezone."""

    kind: Literal["cron"] = "cron"
    cron: Cron

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        check_cron(value)
        return value

    @property
    def timing(self) -> Timing:
        return _cron(self, self.cron, self.timezone)


class SkillCron(_Model):
    """A skill's cron schedule (ADR 023)."""

    type: Literal["cron"]
    cron: Cron
    timezone: Timezone | None = None

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        check_cron(value)
        return value


class SkillInterval(_Model):
    """A skill's interval schedule (ADR 023), counted from `start_at`."""

    type: Literal["interval"]
    every: Duration
    start_at: AwareDatetime | None = None


class SkillOnce(_Model):
    """A skill that runs once (ADR 023)."""

    type: Literal["once"]
    at: AwareDatetime


class SkillRule(RuleBase):
    """Run a named skill on a schedule. `action` may be left out: then the skill registered under that name runs."""

    kind: Literal["skill"] = "skill"
    skill: str = Field(min_length=1, max_length=200)
    skill_action: str | None = Field(default=None, min_length=1, max_length=200)
    # "schedule" of contracts.md; each form names its type.
    schedule: Annotated[SkillCron | SkillInterval | SkillOnce, Field(discriminator="type")]

    @property
    def timing(self) -> Timing:
        plan = self.schedule
        if isinstance(plan, SkillCron):
            return _cron(self, plan.cron, plan.timezone or self.timezone)
        if isinstance(plan, SkillInterval):
            return _interval(self, plan.every, plan.start_at or ANCHOR)
        return OnceTiming(plan.at + splay_offset(self.id, self.splay))


class WebhookRule(RuleBase):
    """Run when somebody calls `POST /hooks/{id}` with the right secret."""

    kind: Literal["webhook"] = "webhook"
    scheme: Scheme = Field(default="header", description="header: X-Webhook-Secret; bearer: Authorization.")
    secret: SecretRef | None = Field(
        default=None,
        description="Where the secret is kept; absent: generated on first use, in PROACTIVE_HOME.",
    )
    max_body: int | None = Field(default=None, ge=1, le=67_108_864, description="Bytes. Default: PROACTIVE_MAX_BODY.")
    rate_limit: str | None = Field(
        default=None, pattern=r"^\d{1,9}/(s|second|m|minute|h|hour|d|day)$", examples=["60/minute"]
    )
    when: str | None = Field(
        default=None, max_length=4096, description="A CEL expression over headers and body; false is a skip."
    )
    template: str | None = Field(
        default=None, max_length=20_000, description="A jinja template over headers and body: the payload."
    )

    @property
    def timing(self) -> None:
        return None


Rule = Annotated[HeartbeatRule | CronRule | SkillRule | WebhookRule, Field(discriminator="kind")]
_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)
RULE_MODELS: dict[Kind, type[HeartbeatRule | CronRule | SkillRule | WebhookRule]] = {
    "heartbeat": HeartbeatRule,
    "cron": CronRule,
    "skill": SkillRule,
    "webhook": WebhookRule,
}


class ProjectTable(_Model):
    """The `[proactive]` table: the project, and what holds for all its rules."""

    enabled: bool = Field(default=False, description="Absent means false: nothing fires until somebody opts in.")
    project: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][\w .-]{0,99}$",
        description="Names the project on a shared Prefect server. Default: the name of its folder.",
    )
    timezone: Timezone = "UTC"
    environment: str = "development"
    modules: list[str] = Field(default_factory=list, description="Imported to find decorated rules and skills.")
    agent: Call | None = Field(default=None, description="The agent of prompt actions that name none.")
    session_hook: Call | None = Field(default=None, description="Answers whether a session is active.")
    max_rules: int = Field(default=500, ge=1, le=100_000)
    max_rules_per_owner: int | None = Field(default=None, ge=1, le=100_000)
    max_scheduled: int = Field(default=20, ge=1, le=100_000, description="Skills, for each owner (ADR 023).")
    min_interval: Duration = Field(default=timedelta(seconds=60), description="The floor is 1s.")

    @field_validator("min_interval")
    @classmethod
    def _floor(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError("below the floor; allowed: 1s or more")
        return value


class Rulebook(_Model):
    """A whole rules file, read: the project's table and its rules, each complete, in the order of the file."""

    proactive: ProjectTable
    rules: tuple[Rule, ...]

    def get(self, rule_id: str) -> HeartbeatRule | CronRule | SkillRule | WebhookRule | None:
        """The rule of that id, or None."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)


def to_snapshot(rule: RuleBase) -> str:
    """The rule as the JSON text that travels with each run. No `{{` in it, which Prefect's templates would take."""
    # In JSON "{{" can only stand inside a string, where an escape means the same.
    return rule.model_dump_json(exclude_defaults=False).replace("{{", "{\\u007b")


def from_snapshot(text: str) -> Rule:
    """Read back what `to_snapshot` wrote. Raises pydantic's ValidationError on anything else."""
    return _RULE.validate_json(text)


def _cron(rule: RuleBase, cron: str, timezone: str) -> CronTiming:
    return CronTiming(cron, timezone, rule.dst, rule.id if rule.splay else None, rule.splay)


def _interval(rule: RuleBase, every: timedelta, anchor: datetime) -> IntervalTiming:
    return IntervalTiming(every, anchor, splay_key=rule.id if rule.splay else None, splay=rule.splay)
