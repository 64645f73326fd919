"""Rules declared beside the code they run."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from proactive_prefect.errors import ConfigError
from proactive_prefect.rules import HeartbeatRule, Rulebook, SkillRule, check_calls, read_rules

MODULE = """
from proactive_prefect import cron, heartbeat, skill, webhook

@heartbeat(every="5m", timeout="10s", tags=["system"])
async def disk(ctx):
    return "full"

@cron("0 9 * * mon-fri", timezone="Europe/Berlin", id="morning")
def _report(ctx):
    return None

@webhook(max_body=1024)
def orders(ctx):
    return ctx

@skill("housekeeping", action="tidy")
def tidy(ctx): ...

@skill(schedule={"type": "interval", "every": "1h"})
def sweep(ctx): ...

@skill("housekeeping", action="dust", schedule={"type": "cron", "cron": "@daily"}, id="dusting")
def dust(ctx): ...
"""
FILE = """
[proactive]
enabled = true
modules = ["work.rules"]

[defaults]
retries = 7

[[skill]]
id = "tidying"
skill = "housekeeping"
skill_action = "tidy"
schedule = { type = "interval", every = "2h" }
"""


def project(folder: Path, file: str = FILE, module: str = MODULE) -> Path:
    package = folder / "work"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    (package / "rules.py").write_text(module, encoding="utf-8")
    rules = folder / "proactive.toml"
    rules.write_text(file, encoding="utf-8")
    return rules


@pytest.fixture
def book(tmp_path: Path) -> Rulebook:
    return read_rules(project(tmp_path))


def test_decorated_functions_are_rules_after_those_of_the_file(book: Rulebook) -> None:
    """An id is the function's name, if none is given."""
    assert [(rule.kind, rule.id) for rule in book.rules] == [
        ("skill", "tidying"),
        ("heartbeat", "disk"),
        ("cron", "morning"),
        ("webhook", "orders"),
        ("skill", "sweep"),
        ("skill", "dusting"),
    ]


def test_a_decorated_rule_calls_its_function_and_takes_the_defaults(book: Rulebook) -> None:
    """It is complete in the same way as a rule of the file."""
    disk = book.get("disk")
    assert isinstance(disk, HeartbeatRule)
    assert disk.action.model_dump()["call"] == "work.rules:disk"
    assert (disk.every, disk.timeout, disk.retries, disk.tags) == (
        timedelta(minutes=5),
        timedelta(seconds=10),
        7,
        ["system"],
    )


def test_a_skill_rule_runs_the_skill_of_that_name_and_action(book: Rulebook) -> None:
    """A rule without an action of its own runs what is registered; a scheduled skill is such a rule itself."""
    calls = {rule.id: rule.action.model_dump()["call"] for rule in book.rules if isinstance(rule, SkillRule)}
    assert calls == {"tidying": "work.rules:tidy", "sweep": "work.rules:sweep", "dusting": "work.rules:dust"}


def test_a_decorated_function_stays_what_it_was(book: Rulebook) -> None:
    """It can be called, in tests or by others, as if it had no decorator."""
    orders = sys.modules["work.rules"].orders
    assert orders("the context") == "the context"


def test_reading_twice_gives_the_same_rules(tmp_path: Path, book: Rulebook) -> None:
    """Nothing is declared twice because a file is read again."""
    assert read_rules(tmp_path / "proactive.toml") == book


def test_another_project_with_modules_of_the_same_name_is_read_as_itself(
    tmp_path_factory: pytest.TempPathFactory, book: Rulebook
) -> None:
    """One process can read two projects."""
    other = project(
        tmp_path_factory.mktemp("other"),
        '[proactive]\nmodules = ["work.rules"]',
        'from proactive_prefect import heartbeat\n@heartbeat(every="9m")\ndef pulse(ctx): ...',
    )
    assert [rule.id for rule in read_rules(other).rules] == ["pulse"]


def test_a_package_and_its_module_declare_once(tmp_path: Path) -> None:
    """Naming both a package and a module in it gives each rule once."""
    file = project(tmp_path, FILE.replace('["work.rules"]', '["work.rules", "work"]'))
    assert len(read_rules(file).rules) == 6


@pytest.mark.parametrize(
    ("module", "path", "found"),
    [
        ("raise RuntimeError('boom')", "proactive.modules[0]", "RuntimeError: boom (rules.py, line 1)"),
        ("import nothing_of_that_name", "proactive.modules[0]", "ModuleNotFoundError: No module named"),
        ("def (", "proactive.modules[0]", "SyntaxError"),
        ("raise SystemExit(3)", "proactive.modules[0]", "SystemExit: 3"),
        (MODULE.replace('"5m"', '"5 m"'), "work.rules:disk.every", "'5 m' is not a duration"),
        (MODULE.replace("timeout=", "timout="), "work.rules:disk.timout", 'did you mean "timeout"?'),
        (
            MODULE.replace('id="morning"', 'id="tidying"'),
            "work.rules:_report.id",
            "'tidying' is also the id of skill[0]",
        ),
        (
            MODULE + "\ndef outer():\n    @heartbeat(every='5m')\n    def inner(ctx): ...\nouter()",
            "work.rules:outer.<locals>.inner.action.call",
            "<locals>",
        ),
        ("from proactive_prefect import skill\n@skill(retries=1)\ndef f(): ...", "proactive.modules[0]", "no schedule"),
    ],
)
def test_a_mistake_in_a_module_is_told_at_the_line_that_names_it(
    module: str, path: str, found: str, tmp_path: Path
) -> None:
    """An import that fails is a mistake like others, and so is a wrong key of a decorator."""
    file = project(tmp_path, FILE.split("[[skill]]")[0] if "proactive." in path else FILE, module)
    with pytest.raises(ConfigError) as caught:
        read_rules(file)
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.path) == (4, path)
    assert found in mistake.found


def test_a_misspelt_skill_is_told_with_its_nearest(tmp_path: Path) -> None:
    """The skills that are registered are what is allowed."""
    with pytest.raises(ConfigError) as caught:
        read_rules(project(tmp_path, FILE.replace('skill_action = "tidy"', 'skill_action = "tidyy"')))
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.path) == (12, "skill[0].skill_action")
    assert 'did you mean "tidy"?' in mistake.found


def test_a_misspelt_function_is_told_with_its_nearest(tmp_path: Path) -> None:
    """What rules call is looked up, as a run would, and a near name offered."""
    file = project(
        tmp_path,
        FILE + '[[webhook]]\nid = "a"\naction = { type = "python", call = "work.rules:disc" }\n'
        '[[webhook]]\nid = "b"\naction = { type = "python", call = "work.roles:disk" }\n'
        '[[webhook]]\nid = "c"\naction = { type = "prompt", prompt = "x", agent = "work.rules:LIST" }\n',
        MODULE + "LIST = []\n",
    )
    found = {mistake.path: mistake.found for mistake in check_calls(read_rules(file), tmp_path)}
    assert found == {
        "webhook[a].action.call": "work.rules has no 'disc'; did you mean 'disk'?",
        "webhook[b].action.call": "'work.roles' is not a module of this project",
        "webhook[c].action.agent": "'work.rules:LIST' is not callable",
    }


def test_a_decorator_does_not_import_prefect(tmp_path: Path) -> None:
    """A module that declares a rule is light: it costs neither Prefect nor the engines for expressions."""
    code = f"{MODULE}\nimport sys; print({{'prefect', 'cel', 'croniter', 'pydantic'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
