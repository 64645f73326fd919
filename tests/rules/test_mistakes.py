"""Every mistake in a rules file is told with its line, its key, what was found and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from proactive_prefect.errors import ConfigError, Mistake
from proactive_prefect.rules import read_rules

TOML_ACTION = 'action = { type = "command", argv = ["true"] }'
YAML_ACTION = "action: { type: command, argv: ['true'] }"


class Case(NamedTuple):
    """The same mistake in both languages; `<-` marks its line. `rule` completes the text to an otherwise good file."""

    toml: str
    yaml: str
    path: str
    found: str
    allowed: str


def heartbeat(toml: str, yaml: str, key: str, found: str, allowed: str) -> Case:
    """A mistake in a heartbeat that has all it needs but a timing."""
    return Case(
        f'[[heartbeat]]\nid = "beat"\n{TOML_ACTION}\n{toml} # <-',
        f"heartbeat:\n  - id: beat\n    {YAML_ACTION}\n    {yaml} # <-",
        f"heartbeat[0].{key}",
        found,
        allowed,
    )


def timed(toml: str, yaml: str, key: str, found: str, allowed: str) -> Case:
    """A mistake in a heartbeat that has all it needs."""
    case = heartbeat(toml, yaml, key, found, allowed)
    return case._replace(
        toml=case.toml.replace('id = "beat"', 'id = "beat"\nevery = "5m"'),
        yaml=case.yaml.replace("id: beat", "id: beat\n    every: 5m"),
    )


def daily(toml: str, yaml: str, key: str, found: str, allowed: str) -> Case:
    """A mistake in a cron rule that has all it needs."""
    case = timed(toml, yaml, key, found, allowed)
    return case._replace(
        toml=case.toml.replace("[[heartbeat]]", "[[cron]]").replace('every = "5m"', 'cron = "0 9 * * *"'),
        yaml=case.yaml.replace("heartbeat:", "cron:").replace("every: 5m", "cron: '0 9 * * *'"),
        path=f"cron[0].{key}",
    )


def hook(toml: str, yaml: str, key: str, found: str, allowed: str) -> Case:
    """A mistake in a webhook."""
    case = heartbeat(toml, yaml, key, found, allowed)
    return case._replace(
        toml=case.toml.replace("heartbeat", "webhook"),
        yaml=case.yaml.replace("heartbeat", "webhook"),
        path=f"webhook[0].{key}",
    )


def project(toml: str, yaml: str, key: str, found: str, allowed: str) -> Case:
    """A mistake in the project's table."""
    return Case(f"[proactive]\n{toml} # <-", f"proactive:\n  {yaml} # <-", f"proactive.{key}", found, allowed)


def picobot(toml: str, yaml: str, key: str, found: str, allowed: str) -> Case:
    """A mistake in PicoBot's form."""
    return Case(
        '[proactive]\nagent = "a:b"\n[heartbeats]\n[[heartbeats.prompts]]\nname = "health_check"\nprompt = "Check"\n'
        f"{toml} # <-",
        "proactive: { agent: 'a:b' }\nheartbeats:\n  prompts:\n    - name: health_check\n      prompt: Check\n"
        f"      {yaml} # <-",
        f"heartbeats.prompts[0].{key}",
        found,
        allowed,
    )


CASES = {
    "unknown table": Case(
        "[heartbeet] # <-", "heartbeet: {} # <-", "heartbeet", 'did you mean "heartbeat"', "heartbeat, cron, skill"
    ),
    "one table instead of a list": Case("[cron] # <-", "cron: {} # <-", "cron", "a table", "[[cron]]"),
    "a rule that is text": Case('cron = ["x"] # <-', "cron: [x] # <-", "cron[0]", "text", "a table"),
    "the project is text": Case('proactive = "on" # <-', "proactive: on # <-", "proactive", "text", "a table"),
    "unknown key of the project": project(
        'timezon = "UTC"', "timezon: UTC", "timezon", 'did you mean "timezone"', "enabled, project, timezone"
    ),
    "enabled in words": project('enabled = "yes"', "enabled: yes", "enabled", "'yes'", "true or false"),
    "unknown timezone": project(
        'timezone = "Europe/Berln"', "timezone: Europe/Berln", "timezone", "'Europe/Berln'", "IANA"
    ),
    "quota of zero": project("max_rules = 0", "max_rules: 0", "max_rules", "0", "1 or more"),
    "least interval below its floor": project(
        'min_interval = "500ms"', "min_interval: 500ms", "min_interval", "'500ms' is too short", '"1s" or more'
    ),
    "missing module": project(
        'modules = ["no.such"]', "modules: [no.such]", "modules[0]", "'no.such'", "a module that can be imported"
    ),
    "unknown default": Case(
        "[defaults]\nretrys = 1 # <-", "defaults:\n  retrys: 1 # <-", "defaults.retrys", '"retries"', "timeout, retries"
    ),
    "a default that is no policy": Case(
        "[defaults]\nowner = 'me' # <-", "defaults:\n  owner: me # <-", "defaults.owner", "'owner'", "timeout"
    ),
    "unknown key": timed('timout = "5s"', "timout: 5s", "timout", 'did you mean "timeout"', "id, description"),
    "a kind said twice": timed('kind = "cron"', "kind: cron", "kind", "'kind' is not known", "every"),
    "no duration": heartbeat('every = "5min"', "every: 5min", "every", "'5min'", '"5m"'),
    "a duration without a unit": timed("timeout = 30", "timeout: 30", "timeout", "30 is not a duration", '"90s"'),
    "a timeout of nothing": timed('timeout = "0s"', "timeout: 0s", "timeout", "'0s'", '"1ms" or more'),
    "too often": heartbeat('every = "30s"', "every: 30s", "every", "'30s' is too often", '"1m" or more'),
    "below every floor": heartbeat('every = "0s"', "every: 0s", "every", "'0s'", '"1s" or more'),
    "unknown policy": timed(
        'on_overlap = "skp"', "on_overlap: skp", "on_overlap", 'did you mean "skip"', '"queue_one", "queue_all"'
    ),
    "retries as true": timed("retries = true", "retries: true", "retries", "true", "a whole number"),
    "retries as text": timed('retries = "2"', "retries: '2'", "retries", "'2'", "a whole number"),
    "too many retries": timed("retries = 101", "retries: 101", "retries", "101", "up to 100"),
    "no delay in a list": timed('retry_delay = ["5s", 1]', "retry_delay: [5s, 1]", "retry_delay", "1", '"90s"'),
    "an empty list of delays": timed("retry_delay = []", "retry_delay: []", "retry_delay", "empty", "at least one"),
    "a naive instant": timed(
        'start_at = "2027-01-01T00:00:00"', "start_at: 2027-01-01T00:00:00", "start_at", "no offset", "ISO 8601"
    ),
    "an instant as a number": timed("end_at = 1800000000", "end_at: 1800000000", "end_at", "1800000000", "ISO 8601"),
    "a date that is none": timed(
        'conditions.exclude_dates = ["2027-02-30"]',
        "conditions: { exclude_dates: [2027-02-30] }",
        "conditions.exclude_dates[0]",
        "'2027-02-30'",
        "YYYY-MM-DD",
    ),
    "a weekday in full": timed(
        'conditions.days_of_week = ["monday"]',
        "conditions: { days_of_week: [monday] }",
        "conditions.days_of_week[0]",
        "'monday'",
        '"mon", "tue"',
    ),
    "no time of day": timed(
        'conditions.active_hours = { start = "9am", end = "17:00" }',
        "conditions: { active_hours: { start: 9am, end: '17:00' } }",
        "conditions.active_hours.start",
        "'9am'",
        "HH:MM",
    ),
    "no such holidays": timed(
        'conditions.holidays = "XX"', "conditions: { holidays: XX }", "conditions.holidays", "'XX'", ""
    ),
    "no CEL": timed('conditions.custom = "1 +"', "conditions: { custom: '1 +' }", "conditions.custom", "CEL", ""),
    "a session without a hook": timed(
        "conditions.session_active = true",
        "conditions: { session_active: true }",
        "conditions.session_active",
        "needs a hook",
        "session_hook",
    ),
    "no channel": timed(
        'notifications.on_failure = ["ops"]',
        "notifications: { on_failure: [ops] }",
        "notifications.on_failure[0]",
        "'ops' is not a channel",
        "type/name",
    ),
    "six fields": heartbeat('cron = "0 0 9 * * *"', "cron: 0 0 9 * * *", "cron", "6 fields", '"0 9 * * *"'),
    "seven fields": heartbeat('cron = "0 0 9 ? * MON *"', "cron: 0 0 9 ? * MON *", "cron", "7 fields", '"0 9 * * mon"'),
    "six fields below a minute": heartbeat(
        'cron = "*/5 * * * * *"', "cron: '*/5 * * * * *'", "cron", "smallest step is a minute", 'every = "10s"'
    ),
    "four fields": heartbeat('cron = "0 9 * *"', "cron: 0 9 * *", "cron", "4 fields", "five fields"),
    "a minute too many": heartbeat(
        'cron = "60 * * * *"', "cron: 60 * * * *", "cron", "'60' is not a minute", "0 to 59"
    ),
    "a step too long": heartbeat('cron = "*/61 * * * *"', "cron: '*/61 * * * *'", "cron", "'*/61'", "0 to 59"),
    "@reboot": heartbeat('cron = "@reboot"', "cron: '@reboot'", "cron", "'@reboot'", "@hourly"),
    "an unknown @-name": heartbeat('cron = "@often"', "cron: '@often'", "cron", "'@often'", "@hourly"),
    "the nearest weekday": heartbeat(
        'cron = "0 9 15W * *"', "cron: 0 9 15W * *", "cron", "'15w' is not a day of the month", "1 to 31"
    ),
    "a date that never comes": heartbeat(
        'cron = "0 0 31 2 *"', "cron: 0 0 31 2 *", "cron", "never comes", "a day that"
    ),
    "a day that February would swallow": heartbeat(
        'cron = "0 9 */10 * *"', "cron: 0 9 */10 * *", "cron", "lose its first days of March", "L for the last day"
    ),
    "a gap that is left out": daily(
        'dst.gap = "skip"', "dst: { gap: skip }", "dst.gap", "more than Prefect", '"shift"'
    ),
    "an overlap that runs twice": daily(
        'dst.overlap = "both"', "dst: { overlap: both }", "dst.overlap", "more than Prefect", '"first"'
    ),
    "a splay over the minute": daily('splay = "5m"', "splay: 5m", "splay", "more than Prefect", '"59s"'),
    "unknown action": timed('action.type = "x"', "x: 1", "x", "", "")._replace(
        toml='[[heartbeat]]\nid = "beat"\nevery = "5m"\naction = { type = "pyhton" } # <-',
        yaml="heartbeat:\n  - id: beat\n    every: 5m\n    action: { type: pyhton } # <-",
        path="heartbeat[0].action.type",
        found='did you mean "python"',
        allowed='"python", "prompt", "http"',
    ),
    "no callable": timed("", "", "", "", "")._replace(
        toml='[[heartbeat]]\nid = "beat"\nevery = "5m"\naction = { type = "python", call = "mod.fn" } # <-',
        yaml="heartbeat:\n  - id: beat\n    every: 5m\n    action: { type: python, call: mod.fn } # <-",
        path="heartbeat[0].action.call",
        found="'mod.fn'",
        allowed="package.module:function",
    ),
    "a prompt without an agent": timed("", "", "", "", "")._replace(
        toml='[[heartbeat]]\nid = "beat"\nevery = "5m"\naction = { type = "prompt", prompt = "hi" } # <-',
        yaml="heartbeat:\n  - id: beat\n    every: 5m\n    action: { type: prompt, prompt: hi } # <-",
        path="heartbeat[0].action.agent",
        found="is missing",
        allowed="[proactive] agent",
    ),
    "a skill that nobody registered": Case(
        '[[skill]]\nid = "s"\nskill = "report" # <-\nschedule = { type = "interval", every = "1h" }',
        "skill:\n  - id: s\n    skill: report # <-\n    schedule: { type: interval, every: 1h }",
        "skill[0].skill",
        "'report' is not known",
        "an action of the rule's own",
    ),
    "unknown schedule": Case(
        f'[[skill]]\nid = "s"\nskill = "report"\nschedule = {{ type = "dayly" }} # <-\n{TOML_ACTION}',
        f"skill:\n  - id: s\n    skill: report\n    schedule: {{ type: dayly }} # <-\n    {YAML_ACTION}",
        "skill[0].schedule.type",
        "'dayly'",
        '"cron", "interval", "once"',
    ),
    "a skill's cron": Case(
        f'[[skill]]\nid = "s"\nskill = "report"\nschedule = {{ type = "cron", cron = "x" }} # <-\n{TOML_ACTION}',
        f"skill:\n  - id: s\n    skill: report\n    schedule: {{ type: cron, cron: x }} # <-\n    {YAML_ACTION}",
        "skill[0].schedule.cron",
        "'x' has 1 field",
        "five fields",
    ),
    "a skill too often": Case(
        f'[[skill]]\nid = "s"\nskill = "report"\nschedule = {{ type = "interval", every = "5s" }} # <-\n{TOML_ACTION}',
        f"skill:\n  - id: s\n    skill: report\n    schedule: {{ type: interval, every: 5s }} # <-\n    {YAML_ACTION}",
        "skill[0].schedule.every",
        "'5s' is too often",
        '"1m" or more',
    ),
    "a webhook that waits for no table": hook("coalesce = true", "coalesce: true", "coalesce", "true", "a table"),
    "a webhook that waits for nothing known": hook(
        'coalesce = { key = "body.x" }',
        "coalesce: { key: body.x }",
        "coalesce.key",
        "unknown variable 'body'",
        "payload",
    ),
    "a webhook that waits too short": hook(
        'coalesce = { window = "2m", max_wait = "1m" }',
        "coalesce: { window: 2m, max_wait: 1m }",
        "coalesce.max_wait",
        "shorter than window",
        "window or more",
    ),
    "a caller kept too long": hook('wait = "5m"', "wait: 5m", "wait", "'5m' is too long", '"1m" or less'),
    "a webhook's condition": hook('when = "1 +"', "when: 1 +", "when", "CEL", ""),
    "a webhook's template": hook('template = "{{ x"', "template: '{{ x'", "template", "not a template", "jinja"),
    "a scheme that nobody knows": hook('scheme = "gitub"', "scheme: gitub", "scheme", '"github"', '"standard", "hmac"'),
    "scheme hmac alone": hook(
        'scheme = "hmac"', "scheme: hmac", "scheme", "needs its options", 'header = "X-Signature"'
    ),
    "options of another scheme": hook(
        'hmac = { header = "X-Sig" }', "hmac: { header: X-Sig }", "hmac", 'scheme = "header"', 'scheme = "hmac"'
    ),
    "an hmac without its header": hook("hmac = {}", "hmac: {}", "hmac.header", "is missing", "X-Signature"),
    "a header's name with a space": hook(
        'hmac = { header = "X Sig" }', "hmac: { header: X Sig }", "hmac.header", "'X Sig'", "The header"
    ),
    "an unknown hash": hook(
        'scheme = "hmac"\nhmac = { header = "X-Sig", algorithm = "md5" }',
        "scheme: hmac\n    hmac: { header: X-Sig, algorithm: md5 }",
        "hmac.algorithm",
        "'md5'",
        '"sha1", "sha256"',
    ),
    "a sender's scheme without its secret": hook(
        'scheme = "stripe"', "scheme: stripe", "scheme", "its sender makes", "${env:NAME}"
    ),
    "no secret in the list": hook("secret = []", "secret: []", "secret", "0 secrets", "1 to 3"),
    "four secrets": hook(
        'secret = ["${env:A}", "${env:B}", "${env:C}", "${env:D}"]',
        "secret: ['${env:A}', '${env:B}', '${env:C}', '${env:D}']",
        "secret",
        "4 secrets",
        "1 to 3",
    ),
    "a secret's end without an offset": hook(
        'secret = [{ ref = "${env:A}", until = "2027-01-01T00:00:00" }]',
        "secret: [{ ref: '${env:A}', until: '2027-01-01T00:00:00' }]",
        "secret[0].until",
        "not shown",
        "ISO 8601",
    ),
    "a secret without a reference": hook(
        "secret = [{ until = 2027-01-01T00:00:00Z }]",
        "secret: [{ until: '2027-01-01T00:00:00Z' }]",
        "secret[0].ref",
        "is missing",
        "kept",
    ),
    "a relative file": hook(
        'secret = "${file:secret}"', "secret: '${file:secret}'", "secret", "a secret itself", "${file:/absolute/path}"
    ),
    "a rate without a time": hook('rate_limit = "60"', "rate_limit: '60'", "rate_limit", "'60'", "60/minute"),
    "callers of no network": hook(
        'callers = ["192.0.2.0/24", "example.com"]',
        "callers: [192.0.2.0/24, example.com]",
        "callers[1]",
        "'example.com' is not a network",
        '"192.0.2.0/24"',
    ),
    "callers of a network with a host in it": hook(
        'callers = ["192.0.2.7/24"]', "callers: [192.0.2.7/24]", "callers[0]", "beyond its network", "'192.0.2.0/24'"
    ),
    "too large a body": hook("max_body = 100000000", "max_body: 100000000", "max_body", "100000000", "up to 67108864"),
    "PicoBot without seconds": picobot('cron = "0 18 * * *"', "cron: 0 18 * * *", "cron", "5 fields", "0 0 18 * * *"),
    "PicoBot below a minute": picobot('cron = "5 0 18 * * *"', "cron: 5 0 18 * * *", "cron", "'5'", '"0"'),
    "PicoBot's weekday 0": picobot('cron = "0 0 18 * * 0"', "cron: 0 0 18 * * 0", "cron", "'0'", "1 (Sunday)"),
    "PicoBot's both days": picobot('cron = "0 0 18 1 * 2"', "cron: 0 0 18 1 * 2", "cron", "day of the month", "one of"),
    "PicoBot too often": picobot("interval_secs = 10", "interval_secs: 10", "interval_secs", "'10s' is too", '"1m"'),
    "PicoBot's unknown key": picobot(
        "interval_sec = 60", "interval_sec: 60", "interval_sec", '"interval_secs"', "name, prompt"
    ),
}


def mistakes_of(text: str, suffix: str, folder: Path) -> tuple[Mistake, ...]:
    file = folder / f"proactive{suffix}"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_rules(file)
    return caught.value.mistakes


@pytest.mark.parametrize("language", ["toml", "yaml"])
@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_with_its_line_and_its_key(name: str, language: str, tmp_path: Path) -> None:
    """One mistake in a file gives one message, which says where it is and what to write instead."""
    case = CASES[name]
    text = case.toml if language == "toml" else case.yaml
    (mistake,) = mistakes_of(text, f".{language}", tmp_path)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if line.endswith("<-"))
    assert (mistake.line, mistake.path) == (line, case.path)
    assert case.found in mistake.found
    assert case.allowed in mistake.allowed
    assert mistake.allowed
    assert "pydantic" not in str(mistake)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Also those that show only when the rest of a rule is right, and those of rules after a wrong one."""
    text = """
[proactive]
enabled = 1
[defaults]
grace = "soon"
[[cron]]
id = "Nightly"
cron = "61 * * * *"
dst = { gap = "skip", overlap = "both" }
splay = "1h"
start_at = "2027-01-02T00:00:00Z"
end_at = "2027-01-01T00:00:00Z"
notifications = { on_failure = ["ops"] }
action = { type = "http", url = "ftp://x", methd = "GET" }
[[heartbeat]]
id = "beat"
"""
    found = {(mistake.line, mistake.path) for mistake in mistakes_of(text, ".toml", tmp_path)}
    assert found == {
        (3, "proactive.enabled"),
        (5, "defaults.grace"),
        (7, "cron[0].id"),
        (8, "cron[0].cron"),
        (9, "cron[0].dst.gap"),
        (9, "cron[0].dst.overlap"),
        (10, "cron[0].splay"),
        (12, "cron[0].end_at"),
        (13, "cron[0].notifications.on_failure[0]"),
        (14, "cron[0].action.url"),
        (14, "cron[0].action.methd"),
        (15, "heartbeat[0].action"),
        (15, "heartbeat[0]"),
    }


def test_a_wrong_default_is_told_once_and_where_it_stands(tmp_path: Path) -> None:
    """What `[defaults]` gives to many rules is one mistake, in `[defaults]`."""
    rule = f'[[cron]]\nid = "one"\ncron = "@daily"\n{TOML_ACTION}\n'
    text = '[defaults]\ndst.gap = "skip"\n' + rule + rule.replace("one", "two")
    (mistake,) = mistakes_of(text, ".toml", tmp_path)
    assert (mistake.line, mistake.path) == (2, "defaults.dst.gap")


@pytest.mark.parametrize("language", ["toml", "yaml"])
def test_an_id_is_unique_over_all_kinds(language: str, tmp_path: Path) -> None:
    """Two rules of one id are a mistake of the second, also if one is a heartbeat and one a webhook."""
    toml = f'[[heartbeat]]\nid = "same"\nevery = "5m"\n{TOML_ACTION}\n[[webhook]]\nid = "same"\n{TOML_ACTION}'
    yaml = f"heartbeat:\n- id: same\n  every: 5m\n  {YAML_ACTION}\nwebhook:\n- id: same\n  {YAML_ACTION}"
    (mistake,) = mistakes_of(toml if language == "toml" else yaml, f".{language}", tmp_path)
    assert (mistake.line, mistake.path) == (6, "webhook[0].id")
    assert "heartbeat[0] (line 2)" in mistake.found


@pytest.mark.parametrize(
    ("quota", "rules", "expected"),
    [
        ("max_rules = 2", [{}, {}, {}], "rule 3"),
        ("max_rules_per_owner = 1", [{"owner": "a"}, {"owner": "b"}, {"owner": "a"}], "rule 2 of owner 'a'"),
        ("max_scheduled = 1", [{"owner": "a"}, {"owner": "b"}, {"owner": "a"}], "scheduled skill 2 of owner 'a'"),
    ],
)
def test_quotas_are_kept(quota: str, rules: list[dict[str, str]], expected: str, tmp_path: Path) -> None:
    """One rule too many is told at that rule, with the quota it breaks."""
    text = f"[proactive]\n{quota}\n"
    for index, rule in enumerate(rules):
        text += f'[[skill]]\nid = "s{index}"\nskill = "x"\nschedule = {{ type = "interval", every = "1h" }}\n'
        text += "".join(f'{name} = "{value}"\n' for name, value in rule.items()) + TOML_ACTION + "\n"
    (mistake,) = mistakes_of(text, ".toml", tmp_path)
    assert mistake.path == "skill[2]"
    assert expected in mistake.found
    assert quota.split()[0] in mistake.allowed


@pytest.mark.parametrize(
    ("key", "value", "told_of"),
    [
        ("secret", '"hunter2"', "secret"),
        ("secret", '["hunter2"]', "secret[0]"),
        ("secret", '["${env:NEW}", { ref = "hunter2" }]', "secret[1].ref"),
        ("secret", '["${env:NEW}", { ref = "${env:OLD}", until = "hunter2" }]', "secret[1].until"),
        ("secret", '{ ref = "hunter2" }', "secret"),
        ("scheme", '{ token = "hunter2" }', "scheme"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_never_repeated(key: str, value: str, told_of: str, tmp_path: Path) -> None:
    """A webhook's secret may only be named; a message about it does not show it."""
    (mistake,) = mistakes_of(f'[[webhook]]\nid = "w"\n{TOML_ACTION}\n{key} = {value}', ".toml", tmp_path)
    assert (mistake.line, mistake.path) == (4, f"webhook[0].{told_of}")
    assert "hunter2" not in str(mistake)


@pytest.mark.parametrize("key", ["Authorization", "X-Api-Key", "password", "my_token"])
def test_values_of_secret_keys_are_never_shown(key: str, tmp_path: Path) -> None:
    """A wrong value below headers, env or a key with a secret's name is not part of the message."""
    text = f'[[heartbeat]]\nid = "h"\nevery = "5m"\n[heartbeat.action]\nheaders."{key}" = 4711\n'
    text += 'type = "http"\nurl = "http://x"'
    (mistake,) = mistakes_of(text, ".toml", tmp_path)
    assert (mistake.line, mistake.path) == (5, f"heartbeat[0].action.headers.{key}")
    assert "4711" not in str(mistake)


@pytest.mark.parametrize(
    ("suffix", "text", "line", "found"),
    [
        (".toml", "[proactive]\nenabled = = true\n", 2, "is not TOML"),
        (".toml", '[proactive]\nenabled = true\nproject = "x', 3, "is not TOML"),
        (".toml", "[proactive]\nenabled = true\nenabled = true\n", 3, "is not TOML"),
        (".yaml", "proactive:\n  enabled: [true\n", 3, "is not YAML"),
        (".yaml", "proactive:\n  enabled: true\n  enabled: false\n", 3, "stands here twice, first on line 2"),
        (".yaml", "proactive: !!python/object:os.system {}\n", 1, ""),
        (".yaml", "proactive:\n  project: !!binary aGk=\n", 2, "has the tag"),
        (".yaml", "a: &a [*a]\n", 1, "aliases"),
        (".yaml", "- proactive\n", 1, "a list"),
        (".yaml", "? [a, b]\n: 1\n", 1, "a key is a list or a table"),
        (".json", '{\n"proactive": {"enabled": true,}\n}', 2, "is not JSON"),
        (".json", '{"proactive": {\n"enabled": true,\n"enabled": false}}', 3, "twice, first on line 2"),
        (".json", '{\n\t"proactive": {\n\t\t"timezone": "Nowhere"}}', 3, "'Nowhere' is not a timezone"),
        (".json", '{"proactive": NaN}', 0, "NaN"),
    ],
)
def test_a_syntax_mistake_is_told_with_its_line(suffix: str, text: str, line: int, found: str, tmp_path: Path) -> None:
    """What cannot be parsed is told like any other mistake, in TOML, YAML and JSON."""
    mistakes = mistakes_of(text, suffix, tmp_path)
    assert any(mistake.line == line and found in mistake.found for mistake in mistakes), mistakes


def test_aliases_cannot_grow_without_bound(tmp_path: Path) -> None:
    """A short YAML file whose aliases stand for a billion items is refused at once."""
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    (mistake,) = mistakes_of(text, ".yaml", tmp_path)
    assert "aliases" in mistake.found


@pytest.mark.parametrize(
    ("prepare", "found"),
    [
        (lambda file: None, "no such file"),
        (lambda file: file.mkdir(), "is not a file"),
        (lambda file: file.write_bytes(b"[proactive]\nproject = '\xff'"), "not UTF-8"),
        (lambda file: file.write_bytes(b"#" * (2 * 1024 * 1024 + 1)), "larger than"),
        (lambda file: file.write_text("a = " + "[" * 100_000, encoding="utf-8"), "nested too deeply"),
        (lambda file: file.write_text("a = " + "9" * 5000, encoding="utf-8"), "too long"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line(prepare: object, found: str, tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8, too large, too deep: each has its own message, and none a traceback."""
    file = tmp_path / "proactive.toml"
    assert callable(prepare)
    prepare(file)
    with pytest.raises(ConfigError) as caught:
        read_rules(file)
    assert found in caught.value.mistakes[0].found


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """The name says the language: TOML, YAML or JSON."""
    (tmp_path / "proactive.ini").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="1 mistake") as caught:
        read_rules(tmp_path / "proactive.ini")
    assert ".toml" in caught.value.mistakes[0].allowed
