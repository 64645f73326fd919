"""What a user may ask of a run's process: the work pool's base job template and a run's own job variables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorkerResult
from pydantic import Field

from .seam import base_environment

Isolation = Literal["fork", "spawn"]

_WORKING_DIR = "The folder that the run starts in. Empty: a new temporary folder, removed afterwards."
_ISOLATION = (
    "fork: a spare process that is ready in milliseconds, forked from a clean one that has imported Prefect. "
    "spawn: a new Python interpreter for each run, for code that cannot live in a fork."
)
_MEMORY = "The most memory, in MiB, that the run's process may use for data; beyond it the run gets a MemoryError."
_TIME = "Seconds after which the run's whole process group is killed and the run is TimedOut, whatever it does."
_CANCEL = "Seconds that a cancelled run has to clean up before its process group is killed."


class ProactiveVariables(BaseVariables):
    """The variables of the base job template."""

    working_dir: Path | None = Field(default=None, title="Working directory", description=_WORKING_DIR)
    isolation: Isolation = Field(default="fork", description=_ISOLATION)
    memory_limit: int | None = Field(default=None, ge=64, title="Memory limit (MiB)", description=_MEMORY)
    time_limit: float | None = Field(default=None, gt=0, title="Time limit (seconds)", description=_TIME)
    cancel_grace: float = Field(default=1.5, ge=0, title="Cancel grace (seconds)", description=_CANCEL)


class ProactiveJobConfiguration(BaseJobConfiguration):
    """One run's job: the template with its variables filled in."""

    working_dir: Path | None = Field(default=None, description=_WORKING_DIR)
    isolation: Isolation = Field(default="fork", description=_ISOLATION)
    memory_limit: int | None = Field(default=None, description=_MEMORY)
    time_limit: float | None = Field(default=None, description=_TIME)
    cancel_grace: float = Field(default=1.5, description=_CANCEL)

    @staticmethod
    def _base_environment() -> dict[str, str]:
        return dict(base_environment())


class ProactiveWorkerResult(BaseWorkerResult):
    """How a run's process ended: its process id and exit status (negative: the signal that killed it)."""
