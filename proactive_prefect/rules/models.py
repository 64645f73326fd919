"""The rules, as values: what a reader of the rules file, a decorator or an API call gives, checked and complete.

A rule is self-contained: defaults are filled in when it is read, so its JSON form (`Rule.model_dump_json`) is the
snapshot that travels with each run.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from .actions import Action, Call
from .coalesce import Coalesce
from .durations import Duration, at_least, at_most, format_duration
from .policies import Count, Flag, Instant, KeyMistake, Policies, Timezone
from .schemes import GIVEN_BY_SENDER, CallerNetwork, HmacOptions, Rate, Scheme, Secrets
from .timing import CRON_SPLAY_LIMIT, CronTiming, IntervalTiming, OnceTiming, Timing, check_cron, splay_offset

Kind = Literal["heartbeat", "cron", "skill", "webhook"]
KINDS: tuple[Kind, ...] = ("heartbeat", "cron", "skill", "webhook")

# All interval rules count from one instant, so that an edit or a redeploy never shifts their phase.
ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)

Slug = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$",
        description="Lower-case letters, digits, - and _; at most 64; unique over all kinds.",
    ),
]

Interval = Annotated[Duration, at_least(timedelta(seconds=1))]


def _checked_cron(expression: str) -> str:
    check_cron(expression)
    return expression


Cron = Annotated[
    str,
    AfterValidator(_checked_cron),
    Field(description='Five fields, or "@daily" and kin.', examples=["0 9 * * mon-fri"], max_length=500),
]
CHANNEL = re.compile(r"^[a-z0-9-]+/[a-z0-9-]+$")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RuleBase(Policies):
    """What every rule has, besides its policies and its timing."""

    id: Slug
    description: str = Field(default="", max_length=2000, description="What it is for; shown in Prefect.")
    enabled: Flag = Field(default=True, description="false keeps it deployed and paused.")
    environment: str = Field(default="development", description="Default: `[proactive] environment`.")
    timezone: Timezone = Field(default="UTC", description="Default: `[proactive] timezone`.")
    action: Action
    tags: list[str] = Field(default_factory=list, description="Added to the tags of its deployment and its runs.")
    owner: str = Field(
        default="local", min_length=1, max_length=200, description="Whose rule it is; quotas count by it."
    )
    priority: Literal["low", "normal", "high"] = Field(
        default="normal", description="Which of several due runs goes first."
    )
    work_pool: str | None = Field(default=None, description="Default: PROACTIVE_WORK_POOL.")
    job_variables: dict[str, Any] = Field(default_factory=dict, description="Of its work pool's job template.")
    session_hook: Call | None = Field(default=None, description="Default: `[proactive] session_hook`.")

    @model_validator(mode="after")
    def _together(self) -> RuleBase:
        if self.start_at and self.end_at and self.end_at <= self.start_at:
            raise KeyMistake(("end_at",), "is not after start_at; allowed: an end after the start")
        if self.conditions.session_active is not None and self.session_hook is None:
            raise KeyMistake(
                ("conditions", "session_active"),
                'needs a hook that answers; allowed: with [proactive] session_hook = "module:function"',
            )
        for outcome, channels in self.notifications.model_dump().items():
            for index, channel in enumerate(channels):
                if not CHANNEL.match(channel):
                    raise KeyMistake(
                        ("notifications", outcome, index),
                        f"{channel!r} is not a channel; allowed: a Prefect block as "
                        '"type/name", such as "slack-webhook/ops" or "webhook/pager"',
                    )
        return self


class HeartbeatRule(RuleBase):
    """Wake up again and again, and speak only if there is something to say."""

    kind: Literal["heartbeat"] = "heartbeat"
    every: Interval | None = Field(default=None, description="Elapsed time, counted from the anchor.")
    cron: Cron | None = Field(default=None, description='Five fields, or "@daily" and kin, instead of `every`.')
    anchor: Instant = Field(default=ANCHOR, description="The instant that `every` counts from, in both directions.")

    @model_validator(mode="after")
    def _one_timing(self) -> HeartbeatRule:
        if (self.every is None) == (self.cron is None):
            found = "has no timing" if self.every is None else "has both every and cron"
            raise ValueError(f'{found}; allowed: exactly one of every = "5m" and cron = "*/5 * * * *"')
        _check_native(self.timing)
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

    @model_validator(mode="after")
    def _native_timing(self) -> CronRule:
        _check_native(self.timing)
        return self

    @property
    def timing(self) -> Timing:
        return _cron(self, self.cron, self.timezone)


class SkillCron(_Model):
    """A skill's cron schedule (ADR 023)."""

    type: Literal["cron"]
    cron: Cron
    timezone: Timezone | None = Field(default=None, description="Default: the rule's timezone.")


class SkillInterval(_Model):
    """A skill's interval schedule (ADR 023), counted from `start_at`."""

    type: Literal["interval"]
    every: Interval = Field(description="Elapsed time, counted from `start_at`.")
    start_at: Instant | None = Field(default=None, description="The first run; absent: counted from 2020-01-01.")


class SkillOnce(_Model):
    """A skill that runs once (ADR 023)."""

    type: Literal["once"]
    at: Instant = Field(description="When it runs.")


class SkillRule(RuleBase):
    """Run a named skill on a schedule. `action` may be left out: then the skill registered under that name runs."""

    kind: Literal["skill"] = "skill"
    skill: str = Field(min_length=1, max_length=200, description="The name of a registered skill.")
    skill_action: str | None = Field(
        default=None, min_length=1, max_length=200, description="Which of the skill's actions, if it has several."
    )
    # "schedule" of contracts.md; each form names its type.
    schedule: Annotated[SkillCron | SkillInterval | SkillOnce, Field(discriminator="type")] = Field(
        description="When it runs: a table of type cron, interval or once."
    )

    @model_validator(mode="before")
    @classmethod
    def _not_before_its_start(cls, data: Any) -> Any:
        # Prefect's interval schedules reach back before their anchor; the rule's own start does not.
        schedule = data.get("schedule") if isinstance(data, dict) else None
        if isinstance(schedule, dict) and schedule.get("type") == "interval" and schedule.get("start_at") is not None:
            return {"start_at": schedule["start_at"], **data}
        return data

    @model_validator(mode="after")
    def _native_timing(self) -> SkillRule:
        _check_native(self.timing)
        return self

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
    scheme: Scheme = Field(
        default="header",
        description="How callers prove who they are. header: X-Webhook-Secret; bearer: Authorization; "
        "the others sign the body: their senders' own schemes, Standard Webhooks, or as `hmac` says.",
    )
    secret: Secrets | None = Field(
        default=None,
        description="Where the secret is kept, or a list of up to three, each with its end; "
        "absent: generated on first use, in PROACTIVE_HOME.",
    )
    hmac: HmacOptions | None = Field(default=None, description="Of scheme hmac, which needs it.")
    max_body: Count | None = Field(default=None, ge=1, le=67_108_864, description="Bytes. Default: PROACTIVE_MAX_BODY.")
    rate_limit: Rate | None = Field(
        default=None, description="Calls, and the time they are counted in.", examples=["60/minute"]
    )
    caller_rate_limit: Rate | None = Field(
        default=None, description="The same, for each address that calls.", examples=["60/minute"]
    )
    callers: list[CallerNetwork] = Field(
        default_factory=list,
        max_length=1000,
        description="The networks that calls may come from. Empty: from anywhere.",
    )
    dedupe: Annotated[Duration, at_least(timedelta(seconds=1))] | None = Field(
        default=None,
        description="Two equal calls without an id of their own, within this time, are one. "
        "Absent: each call is its own; what has an id is always taken once.",
    )
    coalesce: Coalesce | None = Field(
        default=None, description="Many deliveries that come together are one run. Absent: each is one."
    )
    wait: Annotated[Duration, at_least(timedelta(milliseconds=100)), at_most(timedelta(seconds=60))] | None = Field(
        default=None,
        description="How long a call is kept waiting for its outcome, to be answered with it; 60s at most. "
        "Absent: it is answered as soon as it is safe.",
    )
    when: str | None = Field(
        default=None, max_length=4096, description="A CEL expression over headers and body; false is a skip."
    )
    template: str | None = Field(
        default=None, max_length=20_000, description="A jinja template over headers and body: the payload."
    )

    @model_validator(mode="after")
    def _whole_scheme(self) -> WebhookRule:
        if self.scheme == "hmac" and self.hmac is None:
            raise KeyMistake(("scheme",), "'hmac' needs its options; allowed: with hmac = { header = \"X-Signature\" }")
        if self.scheme != "hmac" and self.hmac is not None:
            raise KeyMistake(("hmac",), f'has no meaning with scheme = "{self.scheme}"; allowed: with scheme = "hmac"')
        if self.scheme in GIVEN_BY_SENDER and self.secret is None:
            raise KeyMistake(
                ("scheme",),
                f"{self.scheme!r} needs a secret, which its sender makes; "
                'allowed: with secret = "${env:NAME}", "${file:/absolute/path}" or "${secret:block-name}"',
            )
        return self

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

    enabled: Flag = Field(default=False, description="Absent means false: nothing fires until somebody opts in.")
    project: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][\w .-]{0,99}$",
        description="Names the project on a shared Prefect server. Default: the name of its folder.",
    )
    timezone: Timezone = Field(default="UTC", description="Of rules that name none.")
    environment: str = Field(default="development", description="Which environment this is, for conditions.")
    modules: list[str] = Field(default_factory=list, description="Imported to find decorated rules and skills.")
    agent: Call | None = Field(default=None, description="The agent of prompt actions that name none.")
    session_hook: Call | None = Field(default=None, description="Answers whether a session is active.")
    max_rules: Count = Field(default=500, ge=1, le=100_000, description="How many rules there may be.")
    max_rules_per_owner: Count | None = Field(default=None, ge=1, le=100_000, description="How many, for each owner.")
    max_scheduled: Count = Field(default=20, ge=1, le=100_000, description="How many scheduled skills, for each owner.")
    min_interval: Interval = Field(
        default=timedelta(seconds=60), description="The least interval of a rule; 1s at the lowest."
    )


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


def _check_native(timing: Timing) -> None:
    """Raise KeyMistake where Prefect's schedules cannot do what `timing` asks for."""
    if not isinstance(timing, CronTiming):
        return
    if timing.dst.gap == "skip":
        raise KeyMistake(
            ("dst", "gap"),
            "'skip' is more than Prefect's cron schedules can do: a local time that a clock change removes "
            'is moved, not left out; allowed: "shift", or a heartbeat\'s `every`, which knows no clock changes',
        )
    if timing.dst.overlap == "both":
        raise KeyMistake(
            ("dst", "overlap"),
            "'both' is more than Prefect's cron schedules can do: a local time that comes twice is due the first time; "
            'allowed: "first", or a heartbeat\'s `every`, which knows no clock changes',
        )
    if timing.splay is not None and timing.splay > CRON_SPLAY_LIMIT:
        raise KeyMistake(
            ("splay",),
            f"{format_duration(timing.splay)!r} is more than Prefect's cron schedules can do: "
            'a cron rule can be moved within its minute only; allowed: up to "59s", or a heartbeat\'s `every`',
        )


def _cron(rule: RuleBase, cron: str, timezone: str) -> CronTiming:
    return CronTiming(cron, timezone, rule.dst, rule.id if rule.splay else None, rule.splay)


def _interval(rule: RuleBase, every: timedelta, anchor: datetime) -> IntervalTiming:
    return IntervalTiming(every, anchor, splay_key=rule.id if rule.splay else None, splay=rule.splay)
