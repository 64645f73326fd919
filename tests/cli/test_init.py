"""`proactive init`: a working project in an empty folder, and never a file overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_commands import proactive

REPOSITORY = Path(__file__).parents[2]


def test_a_new_project_is_valid_and_complete(tmp_path: Path) -> None:
    """Rules, flows and actions are written; `check` finds no mistake; the next two commands are named."""
    done = proactive(tmp_path, "init", "shop")
    assert done.returncode == 0
    assert done.stdout.endswith("Next: cd shop\nNext: proactive check\nNext: proactive up\n")
    written = {str(path.relative_to(tmp_path / "shop")) for path in (tmp_path / "shop").rglob("*") if path.is_file()}
    kinds = {f"flows/{kind}.py" for kind in ("heartbeat", "cron", "skill", "webhook")}
    assert {
        "proactive.toml",
        "proactive.schema.json",
        "flows/__init__.py",
        "flows/actions.py",
        ".gitignore",
    } | kinds <= written
    assert proactive(tmp_path / "shop", "check").returncode == 0


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    """A file that exists is never overwritten, and that is said; all others are written."""
    (tmp_path / "proactive.toml").write_text("# mine\n")
    done = proactive(tmp_path, "init")
    assert done.returncode == 0
    assert "kept proactive.toml: it was there already" in done.stderr
    assert (tmp_path / "proactive.toml").read_text() == "# mine\n"
    assert (tmp_path / "flows" / "heartbeat.py").exists()
    again = proactive(tmp_path, "init")
    assert "wrote" not in again.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_installed_wheel_gives_a_project_that_is_valid(tmp_path: Path) -> None:
    """Built and installed into an environment of its own, `init` and `check` work with nothing of this checkout."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*argv: str, cwd: Path = tmp_path) -> str:
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=800, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    uv = (sys.executable, "-m", "uv")
    run(*uv, "build", "--wheel", "--out-dir", str(tmp_path / "dist"), cwd=REPOSITORY)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(*uv, "venv", "--python", sys.executable, str(tmp_path / "venv"))
    python = str(tmp_path / "venv" / "bin" / "python")
    run(*uv, "pip", "install", "--python", python, "--constraint", str(REPOSITORY / "constraints.txt"), str(wheel))
    command = str(tmp_path / "venv" / "bin" / "proactive")
    run(command, "init", "fresh")
    assert "no mistakes" in run(command, "check", cwd=tmp_path / "fresh")
    types = run(python, "-c", "from prefect.workers.base import BaseWorker as B; import proactive_prefect.worker; "
                "print(B.get_all_available_worker_types())")  # fmt: skip
    assert "proactive" in types
