"""PicoBot's scheduling: opt-in, a minimum interval, explicit timezones, and its heartbeat configuration."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

from .conftest import Life, proactive

RULE = """
[[heartbeat]]
id = "beat"
{timing}
action = {{ type = "command", argv = ["true"] }}
"""


def check(folder: Path, text: str) -> tuple[int, str]:
    """`proactive check` of a rules file: its exit code and what it prints."""
    (folder / "proactive.toml").write_text(text)
    done = proactive(folder, "check")
    return done.returncode, done.stdout + done.stderr


def test_nothing_is_scheduled_until_somebody_opts_in(tmp_path: Path) -> None:
    """Without `enabled = true` the file is right, and the command says plainly that nothing fires."""
    code, text = check(tmp_path, RULE.format(timing='every = "5m"'))
    assert code == 0
    assert "enabled = true" in text


def test_less_than_a_minute_is_refused(tmp_path: Path) -> None:
    """An interval below 60 s is a mistake with its line, unless `min_interval` says otherwise."""
    on = "[proactive]\nenabled = true\n"
    code, text = check(tmp_path, on + RULE.format(timing='every = "59s"'))
    assert code == 2
    assert "proactive.toml:6" in text
    assert "min_interval" in text
    code, _ = check(tmp_path, on + 'min_interval = "1s"\n' + RULE.format(timing='every = "59s"'))
    assert code == 0


def test_six_fields_are_refused_with_the_five_to_write(tmp_path: Path) -> None:
    """A cron expression with seconds is refused, and the five-field one is named."""
    code, text = check(tmp_path, "[proactive]\nenabled = true\n" + RULE.format(timing='cron = "0 0 18 * * *"'))
    assert code == 2
    assert "0 18 * * *" in text


def test_timezones_are_explicit_and_utc_by_default(tmp_path: Path) -> None:
    """The next fire of 18:00 in New York is at 18:00 there; without a timezone it is UTC."""
    on = "[proactive]\nenabled = true\n"
    for timing, zones in (
        ('cron = "0 18 * * *"\ntimezone = "America/New_York"', ("EST", "EDT")),
        ('cron = "0 18 * * *"', ("UTC",)),
    ):
        (tmp_path / "proactive.toml").write_text(on + RULE.format(timing=timing))
        [fire] = json.loads(proactive(tmp_path, "next", "-n", "1", "--json").stdout)
        assert any(fire["local"].endswith(f"18:00:00 {zone}") for zone in zones)
        assert datetime.fromisoformat(fire["due"]).utcoffset() == timedelta(0)


def test_its_heartbeats_section_registers_heartbeats(life: Life) -> None:
    """`[[heartbeats.prompts]]` becomes a heartbeat that gives its prompt to the project's agent."""
    [run, *_] = life.wait_for("health_check", "Completed")
    assert "agent heard: Check system health and report issues" in run["state"]["message"]
