"""Read a rules file into a Rulebook, or say every mistake in it at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError, Mistake
from ..settings import project_root
from . import decorators
from .checks import check_expressions, check_interval
from .models import KINDS, RULE_MODELS, Kind, ProjectTable, Rule, Rulebook, SkillRule
from .modules import import_module
from .picobot import PICOBOT_KEYS, PicoBotTable, to_rule_keys
from .policies import Policies
from .salvage import present, without
from .source import Key, Source, key_path, kind_of, load_source
from .words import Finding, findings, known_keys, unknown

_TABLES = ("proactive", "defaults", *KINDS, "heartbeats")
# What a rule's table adds to, rather than replaces, where `[defaults]` has it too.
_MERGED = ("dst", "conditions", "notifications")
_FROM_PROJECT = ("timezone", "environment", "session_hook")


@dataclass(frozen=True)
class Entry:
    """A rule as somebody wrote it: its keys, and where they stand. `line` is that of a decorated rule's module."""

    kind: Kind
    keys: Mapping[str, Any]
    at: Key
    line: int = 0
    names: Mapping[str, str] = field(default_factory=dict)


def read_rules(path: Path) -> Rulebook:
    """The rulebook of the file at `path` and of the modules it names. Raises ConfigError with every mistake."""
    return read_source(load_source(path), project_root(path))


def read_source(source: Source, root: Path) -> Rulebook:
    """The rulebook of a parsed file, whose modules are imported from `root`. Raises ConfigError with every mistake."""
    reader = _Reader(source, root)
    rulebook = reader.read()
    if reader.mistakes:
        raise ConfigError(source.file, sorted(set(reader.mistakes)))
    return rulebook


class _Reader:
    """Collects mistakes while it reads."""

    def __init__(self, source: Source, root: Path) -> None:
        self.source = source
        self.root = root
        self.mistakes: list[Mistake] = list(source.mistakes)
        self.skills: dict[tuple[str, str | None], str] = {}

    def read(self) -> Rulebook:
        data = self.source.data
        for name in data:
            if name not in _TABLES and name != "$schema":  # how a JSON file names its schema
                self._add((name,), *unknown(name, _TABLES))
        project = ProjectTable.model_validate(self._sound(ProjectTable, "proactive"))
        entries = [*self._file_entries(), *self._picobot_entries(), *self._decorated_entries(project)]
        defaults = self._sound(Policies, "defaults")
        rules = []
        for entry in entries:
            rule = self._rule(entry, defaults, project)
            if rule is not None:
                rules.append((entry, rule))
        self._check_ids(entries)
        self._check_quotas(rules, project)
        return Rulebook(proactive=project, rules=tuple(rule for _, rule in rules))

    def _table(self, name: str) -> dict[str, Any]:
        value = self.source.data.get(name, {})
        if isinstance(value, dict):
            return value
        self._add((name,), kind_of(value), "a table")
        return {}

    def _file_entries(self) -> Iterator[Entry]:
        for kind in KINDS:
            rules = self.source.data.get(kind, [])
            if not isinstance(rules, list):
                self._add((kind,), kind_of(rules), f"a list of tables; in TOML each starts with [[{kind}]]")
                continue
            for index, keys in enumerate(rules):
                if isinstance(keys, dict):
                    yield Entry(kind, keys, (kind, index))
                else:
                    self._add((kind, index), kind_of(keys), "a table")

    def _picobot_entries(self) -> Iterator[Entry]:
        table = self._table("heartbeats")
        wrong = self._note(PicoBotTable, table, ("heartbeats",))
        prompts = table.get("prompts", [])
        if ("prompts",) in wrong:
            return
        beginnings = {key[:2] for key in wrong}
        sound = {index: keys for index, keys in enumerate(prompts) if ("prompts", index) not in beginnings}
        rest = {name: value for name, value in table.items() if (name,) not in wrong}
        model = PicoBotTable.model_validate({**rest, "prompts": list(sound.values())})
        for index, prompt in zip(sound, model.prompts, strict=True):
            at = ("heartbeats", "prompts", index)
            yield Entry("heartbeat", to_rule_keys(model, prompt), at, names=PICOBOT_KEYS)

    def _decorated_entries(self, project: ProjectTable) -> Iterator[Entry]:
        seen: set[int] = set()  # a package and a module in it may both be named
        for index, name in enumerate(project.modules):
            at = ("proactive", "modules", index)
            try:
                import_module(name, self.root)
            except ValueError as problem:
                found, _, allowed = str(problem).partition("; allowed: ")
                self._add(at, found, allowed)
                continue
            for skill in decorators.skills(name):
                self.skills.setdefault((skill.name, skill.action), skill.call)
            for rule in decorators.declared(name):
                if id(rule) not in seen:
                    seen.add(id(rule))
                    yield Entry(rule.kind, rule.keys, (rule.call,), line=self.source.line(at))

    def _sound(self, model: type[BaseModel], name: str) -> dict[str, Any]:
        """The table `name` without its mistakes, which are noted here, once."""
        table = self._table(name)
        wrong = {key[0] for key in self._note(model, table, (name,))}
        return {key: value for key, value in table.items() if key not in wrong}

    def _rule(self, entry: Entry, defaults: Mapping[str, Any], project: ProjectTable) -> Rule | None:
        keys = self._complete(entry, defaults, project)
        wrong = self._refused(entry)
        keys = without(keys, wrong, entry.kind)
        while True:
            rule, found = self._validate(entry.kind, keys, project)
            new = [one for one in found if not any(one.key[: len(key)] == key for key in wrong)]
            for one in new:
                self._add_to(entry, one, defaults)
            more = {present(one.key, keys) for one in new} - {()}
            if rule is not None or not more:
                return None if wrong or found else rule
            # Once more without what is wrong, for the mistakes that show only when the rest is right.
            wrong |= more
            keys = without(keys, more, entry.kind)

    def _validate(self, kind: Kind, keys: dict[str, Any], project: ProjectTable) -> tuple[Rule | None, list[Finding]]:
        model = RULE_MODELS[kind]
        try:
            rule = model.model_validate(keys)
        except ValidationError as problem:
            found = list(findings(problem, model, keys))
            if kind == "skill" and "action" not in keys:
                found = [self._unregistered(keys) if one.key == ("action",) else one for one in found]
            return None, found
        return rule, [*check_expressions(rule), *check_interval(rule, project)]

    def _refused(self, entry: Entry) -> set[Key]:
        """Note the keys that are refused for a reason of their own, and give them."""
        refused: set[Key] = set()
        if "kind" in entry.keys:
            self._add_to(entry, Finding(("kind",), *unknown("kind", known_keys(RULE_MODELS[entry.kind]))))
            refused.add(("kind",))
        return refused

    def _complete(self, entry: Entry, defaults: Mapping[str, Any], project: ProjectTable) -> dict[str, Any]:
        keys: dict[str, Any] = {**defaults, **entry.keys}
        for name in _MERGED:
            below, above = defaults.get(name), entry.keys.get(name)
            if isinstance(below, dict) and isinstance(above, dict):
                keys[name] = {**below, **above}
        for name in _FROM_PROJECT:
            keys.setdefault(name, getattr(project, name))
        action = keys.get("action")
        if isinstance(action, dict) and action.get("type") == "prompt" and project.agent is not None:
            keys["action"] = {"agent": project.agent, **action}
        if entry.kind == "skill" and "action" not in keys:
            call = self.skills.get((keys.get("skill", ""), keys.get("skill_action")))
            if call is not None:
                keys["action"] = {"type": "python", "call": call}
        return keys

    def _unregistered(self, keys: Mapping[str, Any]) -> Finding:
        name, action = str(keys.get("skill", "")), keys.get("skill_action")
        of_skill = [known[1] for known in self.skills if known[0] == name and known[1] is not None]
        if action is not None and of_skill:
            found, allowed = unknown(str(action), of_skill)
            return Finding(("skill_action",), found, f"{allowed}, or an action of the rule's own")
        found, allowed = unknown(name, dict.fromkeys(known[0] for known in self.skills))
        registered = f"a registered skill ({allowed})" if allowed else "a skill that a module of [proactive] registers"
        return Finding(("skill",), found, f"{registered}, or an action of the rule's own")

    def _check_ids(self, entries: Iterable[Entry]) -> None:
        seen: dict[str, Entry] = {}
        for entry in entries:
            rule_id = entry.keys.get("id")
            if not isinstance(rule_id, str):
                continue
            first = seen.setdefault(rule_id, entry)
            if first is not entry:
                where = f"{key_path(first.at)} (line {self._line(first, ('id',))})"
                self._add_to(entry, Finding(("id",), f"{rule_id!r} is also the id of {where}", "an id of its own"))

    def _check_quotas(self, rules: list[tuple[Entry, Rule]], project: ProjectTable) -> None:
        if len(rules) > project.max_rules:
            entry = rules[project.max_rules][0]
            self._add_to(entry, Finding((), f"is rule {project.max_rules + 1}", _quota("max_rules", project.max_rules)))
        owned: Counter[str] = Counter()
        scheduled: Counter[str] = Counter()
        for entry, rule in rules:
            owned[rule.owner] += 1
            if project.max_rules_per_owner is not None and owned[rule.owner] == project.max_rules_per_owner + 1:
                found = f"is rule {owned[rule.owner]} of owner {rule.owner!r}"
                allowed = _quota("max_rules_per_owner", project.max_rules_per_owner)
                self._add_to(entry, Finding((), found, allowed))
            scheduled[rule.owner] += isinstance(rule, SkillRule)
            if isinstance(rule, SkillRule) and scheduled[rule.owner] == project.max_scheduled + 1:
                found = f"is scheduled skill {scheduled[rule.owner]} of owner {rule.owner!r}"
                self._add_to(entry, Finding((), found, _quota("max_scheduled", project.max_scheduled)))

    def _note(self, model: type[BaseModel], data: Any, at: Key) -> set[Key]:
        """Note every mistake of `data` as a `model`, and give the keys of them."""
        try:
            model.model_validate(data)
        except ValidationError as problem:
            found = list(findings(problem, model, data))
            for one in found:
                self._add((*at, *one.key), one.found, one.allowed)
            return {one.key for one in found}
        return set()

    def _add(self, key: Key, found: str, allowed: str) -> None:
        self.mistakes.append(Mistake(self.source.line(key), key_path(key), found, allowed))

    def _add_to(self, entry: Entry, found: Finding, defaults: Mapping[str, Any] | None = None) -> None:
        if found.key and defaults and found.key[0] in defaults and found.key[0] not in entry.keys:
            self._add(("defaults", *found.key), found.found, found.allowed)
            return
        key = (*entry.at, *_renamed(found.key, entry.names))
        self.mistakes.append(Mistake(self._line(entry, found.key), key_path(key), found.found, found.allowed))

    def _line(self, entry: Entry, key: Key) -> int:
        return entry.line or self.source.line((*entry.at, *_renamed(key, entry.names)))


def _renamed(key: Key, names: Mapping[str, str]) -> Key:
    first = key[0] if key else None
    return (names[first],) if isinstance(first, str) and first in names else key


def _quota(name: str, limit: int) -> str:
    return f"{limit}, by [proactive] {name}"
