"""The command as a person meets it: help, errors of one line and a hint, exit codes, and what needs no server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proactive_prefect.cli.output import clean

from ..daemon.running import clean_env

RULES = """
[proactive]
enabled = true
timezone = "Europe/Berlin"

[[cron]]
id = "nine"
cron = "0 9 * * mon-fri"
action = { type = "command", argv = ["true"] }

[[heartbeat]]
id = "beat"
every = "5m"
action = { type = "command", argv = ["true"] }

[[webhook]]
id = "hook"
action = { type = "command", argv = ["true"] }
"""

MONDAYS = """
[[cron]]
id = "mondays"
cron = "0 9 * * *"
conditions = { days_of_week = ["mon"] }
action = { type = "command", argv = ["true"] }
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a rules file."""
    (tmp_path / "proactive.toml").write_text(RULES)
    return tmp_path


def proactive(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proactive_prefect.cli", *words],
        cwd=folder,
        env={**clean_env(folder), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_help_names_every_command(tmp_path: Path) -> None:
    """All commands of the contract that exist, and what the exit codes mean."""
    done = proactive(tmp_path, "--help")
    assert done.returncode == 0
    names = (
        "init check plan apply render up list show next trigger pause resume runs cancel schema doctor gateway worker"
    )
    for name in names.split(" "):
        assert f" {name} " in done.stdout, name
    assert "Exit codes" in done.stdout


@pytest.mark.parametrize("command", ["list", "trigger", "next", "up", "doctor", "plan", "cancel", "render", "init"])
def test_each_command_has_help_with_an_example(tmp_path: Path, command: str) -> None:
    """`proactive COMMAND --help` shows how it is used."""
    done = proactive(tmp_path, command, "--help")
    assert done.returncode == 0
    assert f"proactive {command}" in done.stdout.split("For example:", 1)[1]


def test_the_version_is_printed(tmp_path: Path) -> None:
    """`--version` names the package and its version."""
    assert proactive(tmp_path, "--version").stdout.startswith("proactive-prefect ")


@pytest.mark.parametrize(
    "words", [("--help",), ("check",), ("schema",), ("next",), ("list", "--help"), ("init", "new")], ids=" ".join
)
def test_what_needs_no_server_does_not_import_prefect(project: Path, words: tuple[str, ...]) -> None:
    """Prefect's import takes seconds, so these commands do without."""
    program = (
        "import sys\n"
        "from proactive_prefect.cli.app import run\n"
        "code = run(sys.argv[1:])\n"
        "print('prefect imported:', 'prefect' in sys.modules, file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=project,
        env=clean_env(project),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("prefect imported: False\n")


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["lst"], "no command 'lst'", "did you mean `proactive list`?"),
        (["xyz"], "no command 'xyz'", "`proactive --help` lists the commands."),
        (["list", "--jsn"], "Unknown option: --jsn", "`proactive list --help` shows how."),
        (["trigger"], "", "`proactive trigger --help` shows how."),
        (["next", "-n", "none"], "Invalid value for -n", "`proactive next --help` shows how."),
        (["next", "-n", "0"], "-n 0 is out of bounds", ""),
        (["next", "nien"], "no rule 'nien' in the rules file", "did you mean 'nine'?"),
        (["check", "nowhere.toml"], "nowhere.toml is not a file", ""),
    ],
)
def test_wrong_input_is_one_line_and_a_hint(project: Path, words: list[str], error: str, hint: str) -> None:
    """Exit code 2, `error:` and `hint:` on stderr, nothing on stdout, no traceback."""
    done = proactive(project, *words)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert error in lines[0]
    assert len(lines) <= 2
    if hint:
        assert lines[1] == f"hint: {hint}"


def test_a_setting_out_of_bounds_is_named_as_people_set_it(project: Path) -> None:
    """The variable's name, what is wrong, and where settings come from; exit code 2."""
    done = proactive(project, "check", PROACTIVE_GATEWAY_PORT="99999")
    assert done.returncode == 2
    assert done.stderr.startswith("error: PROACTIVE_GATEWAY_PORT: ")
    assert "99999" not in done.stderr


def test_without_a_server_commands_say_how_to_get_one(project: Path) -> None:
    """Exit code 1 within seconds, and a hint to run `proactive up`."""
    for words in (["list"], ["plan"], ["trigger", "beat"]):
        done = proactive(project, *words)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-2:] == [
            "error: no Prefect server is running for this project",
            "hint: `proactive up` starts a server; PREFECT_API_URL names another.",
        ]


def test_a_server_that_does_not_answer_is_named(project: Path) -> None:
    """The address that was tried, and the hint; `up` starts nothing beside it."""
    for words in (["list"], ["up"]):
        done = proactive(project, *words, PREFECT_API_URL="http://127.0.0.1:9/api")
        assert done.returncode == 1
        assert "no answer from the Prefect API at http://127.0.0.1:9/api" in done.stderr
        assert "hint: " in done.stderr
    assert not (project / ".proactive" / "prefect").exists()


def test_every_mistake_is_reported_with_file_line_and_key(project: Path) -> None:
    """All at once, on stderr, exit code 2; as JSON on stdout."""
    (project / "proactive.toml").write_text(RULES.replace('"5m"', '"5x"').replace("0 9 * *", "0 99 * *"))
    done = proactive(project, "check")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2
    assert ":8: cron[0].cron: " in lines[0]
    assert ":13: heartbeat[0].every: " in lines[1]
    found = json.loads(proactive(project, "check", "--json").stdout)
    assert not found["ok"]
    assert [(one["line"], one["path"]) for one in found["mistakes"]] == [
        (8, "cron[0].cron"),
        (13, "heartbeat[0].every"),
    ]
    assert not (project / ".proactive").exists()


def test_while_nothing_is_to_fire_every_command_says_so(project: Path) -> None:
    """`enabled` absent means off: one line on stderr with the line to add; the output itself stays clean."""
    (project / "proactive.toml").write_text(RULES.replace("enabled = true\n", ""))
    for words in (["check"], ["next"], ["check", "--json"]):
        done = proactive(project, *words)
        assert done.returncode == 0
        assert done.stderr == "note: nothing fires yet: add `enabled = true` to [proactive] in proactive.toml\n"
        assert "enabled = true" not in done.stdout
    assert "nothing fires" not in proactive(project, "schema").stderr


def test_next_fires_are_told_in_the_local_time_of_the_rule(project: Path) -> None:
    """With the abbreviation of the timezone; for one rule or for all, soonest first."""
    found = json.loads(proactive(project, "next", "nine", "-n", "5", "--json").stdout)
    assert len(found) == 5
    assert all(" 09:00:00 CE" in one["local"] for one in found)
    both = json.loads(proactive(project, "next", "-n", "20", "--json").stdout)
    assert len(both) == 20
    assert [one["due"] for one in both] == sorted(one["due"] for one in both)
    assert " CE" in proactive(project, "next", "-n", "1").stdout
    assert "nothing is due" in proactive(project, "next", "hook").stderr


def test_next_passes_over_what_conditions_rule_out(project: Path) -> None:
    """A rule of every day that may run on Mondays only is next on a Monday."""
    rules = project / "proactive.toml"
    rules.write_text(rules.read_text() + MONDAYS)
    found = json.loads(proactive(project, "next", "mondays", "-n", "3", "--json").stdout)
    assert [one["local"].split(" ")[0] for one in found] == ["Mon"] * 3


def test_the_schema_is_json(tmp_path: Path) -> None:
    """`proactive schema` prints the JSON Schema of the rules file."""
    found = json.loads(proactive(tmp_path, "schema").stdout)
    assert "heartbeat" in json.dumps(found)
    assert found["type"] == "object"


def test_a_reader_that_goes_away_is_no_error(project: Path) -> None:
    """`proactive next | head -1` ends quietly."""
    command = f"{sys.executable} -m proactive_prefect.cli next -n 1000 | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=project,
        env=clean_env(project),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Error" not in done.stderr


def test_a_gateway_without_a_server_is_refused(tmp_path: Path) -> None:
    """Prefect would start one of its own, empty, and the ledger would take every run for deleted."""
    done = proactive(tmp_path, "gateway")
    assert done.returncode != 0
    assert "no Prefect server is running for this project" in done.stderr


def test_debug_shows_where_an_error_came_from(project: Path) -> None:
    """The traceback comes with `--debug` only."""
    assert "Traceback" not in proactive(project, "list").stderr
    assert "Traceback" in proactive(project, "list", "--debug").stderr


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    """Escapes in names and messages stay harmless."""
    assert "\x1b" not in clean("\x1b]0;owned\x07 text")
    assert clean("Grüße, 東京") == "Grüße, 東京"


def test_the_start_is_quick(tmp_path: Path) -> None:
    """`--help` takes less than two seconds of this machine's processor."""
    before = os.times()
    proactive(tmp_path, "--help")
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"\nproactive --help: {seconds:.2f} s of processor time")
    assert seconds < 2
