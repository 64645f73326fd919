"""The project that commands work on: its rules file, found and read, and the folder it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..rules.models import Rulebook
from ..settings import CONFIG_PLACES, Settings, project_root, rules_file

if TYPE_CHECKING:
    from ..deploy.compile import Project


@dataclass(frozen=True)
class Declared:
    """What a rules file declares, read and valid."""

    config: Path
    rulebook: Rulebook

    @property
    def name(self) -> str:
        """The project's name on a shared Prefect server: as `[proactive] project` says, else its folder's name."""
        return self.rulebook.proactive.project or project_root(self.config).name

    def project(self, settings: Settings) -> Project:
        """The project as `deploy` wants it."""
        from ..deploy.compile import Project  # slow: it brings Prefect's client

        return Project(self.name, project_root(self.config), settings.work_pool)


def find_config(settings: Settings) -> Path:
    """The rules file's path, absolute. Raises InputError if there is none."""
    found = rules_file(settings)
    if found is None:
        raise InputError(
            f"no rules file in {Path().resolve()} (looked for {', '.join(CONFIG_PLACES)})",
            hint="`proactive init` writes a project here; PROACTIVE_CONFIG names another file.",
        )
    if not found.is_file():
        raise InputError(f"{found} is not a file", hint="PROACTIVE_CONFIG or the argument names the rules file.")
    return found.resolve()


def read_declared(settings: Settings, file: Path | None = None) -> Declared:
    """Find and read the rules file. Raises InputError, and ConfigError with all of the file's mistakes."""
    from ..rules.read import read_rules

    config = find_config(settings.model_copy(update={"config": file}) if file else settings)
    return Declared(config, read_rules(config))


def off_notice(declared: Declared) -> str | None:
    """The sentence that everything the user runs says while the project is off; None if it is on."""
    if declared.rulebook.proactive.enabled:
        return None
    return f"nothing fires yet: add `enabled = true` to [proactive] in {_short(declared.config)}"


def _short(path: Path) -> str:
    here = Path().resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
