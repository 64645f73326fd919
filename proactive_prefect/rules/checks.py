"""What a rule's model cannot tell: its expressions and templates, the project's limits, functions that are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from jinja2 import Environment, TemplateSyntaxError

from ..errors import Mistake
from .conditions import check_custom, check_holidays
from .durations import format_duration
from .models import ProjectTable, Rule, Rulebook, SkillRule, WebhookRule
from .modules import check_call
from .source import Key
from .timing import IntervalTiming
from .words import Finding

_CEL = "a CEL expression that gives true or false"


def check_calls(rulebook: Rulebook, root: Path) -> list[Mistake]:
    """A mistake for each Python callable that the rules name and that `root` does not have. Imports their modules."""
    named: dict[str, str] = {}
    for key in ("agent", "session_hook"):
        if call := getattr(rulebook.proactive, key):
            named.setdefault(call, f"proactive.{key}")
    for rule in rulebook.rules:
        for key in ("call", "agent"):
            if call := getattr(rule.action, key, None):
                named.setdefault(call, f"{rule.kind}[{rule.id}].action.{key}")
    mistakes = []
    for call, where in named.items():
        try:
            check_call(call, root)
        except ValueError as problem:
            found, _, allowed = str(problem).partition("; allowed: ")
            mistakes.append(Mistake(0, where, found, allowed))
    return mistakes


def check_expressions(rule: Rule) -> Iterator[Finding]:
    """What only the engines that judge them can say about a rule's expressions."""
    checks: list[tuple[Key, str | None, Callable[[str], None], str]] = [
        (("conditions", "custom"), rule.conditions.custom, check_custom, _CEL),
        (
            ("conditions", "holidays"),
            rule.conditions.holidays,
            check_holidays,
            'a country or a part of it: "DE", "US-NY"',
        ),
    ]
    if isinstance(rule, WebhookRule):
        checks += [
            (("when",), rule.when, check_custom, _CEL),
            (("template",), rule.template, _check_template, "a jinja template"),
            (("coalesce", "key"), rule.coalesce.key if rule.coalesce else None, check_custom, "a CEL expression"),
        ]
    for key, text, check, form in checks:
        try:
            if text is not None:
                check(text)
        except ValueError as problem:
            found, _, allowed = str(problem).partition("; allowed: ")
            yield Finding(key, found, allowed or form)
    if rule.action.type == "prompt" and rule.action.agent is None:
        yield Finding(("action", "agent"), "is missing", 'a callable, "module:function", here or as [proactive] agent')


def _check_template(text: str) -> None:
    try:
        Environment(autoescape=False).parse(text)  # noqa: S701 - only parsed here, and its output is no HTML
    except TemplateSyntaxError as problem:
        raise ValueError(f"is not a template: line {problem.lineno}: {problem.message}") from None


def check_interval(rule: Rule, project: ProjectTable) -> Iterator[Finding]:
    """That no interval is shorter than the project allows."""
    timing = rule.timing
    if isinstance(timing, IntervalTiming) and timing.every < project.min_interval:
        least = format_duration(project.min_interval)
        key = ("schedule", "every") if isinstance(rule, SkillRule) else ("every",)
        allowed = f'"{least}" or more; [proactive] min_interval lowers that, down to "1s"'
        yield Finding(key, f"{format_duration(timing.every)!r} is too often", allowed)
