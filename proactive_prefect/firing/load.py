"""Finds the function that a rule names, and tells what went wrong in it. Light: child processes import this."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from ..errors import ActionError


def load_call(call: str) -> Callable[..., Any]:
    """Import the callable that `call` ("module:function") names, from the project (the current folder) or installed.

    Raises ActionError, naming what is not there.
    """
    root = os.getcwd()
    if root not in sys.path:
        sys.path.insert(0, root)
    module, _, path = call.partition(":")
    try:
        target: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise ActionError(
            f"{call}: there is no module {error.name!r}",
            hint=f"Modules are looked for in the project ({root}) and among the installed packages.",
        ) from None
    for name in path.split("."):
        if not hasattr(target, name):
            raise ActionError(f"{call}: {module} has no {name!r}")
        target = getattr(target, name)
    if not callable(target):
        raise ActionError(f"{call} is of type {type(target).__name__}; allowed: a function")
    function: Callable[..., Any] = target
    return function


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling `function` gives something to await."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def describe(error: BaseException) -> str:
    """An exception in one line, with the last place that it came through outside the standard library."""
    text = " ".join(str(error).split())[:1000]
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    return f"{line} ({_place(frames[-1])})" if frames else line


def _is_machinery(filename: str) -> bool:
    here = os.path.dirname(os.path.abspath(__file__))
    return filename.startswith(("<", here, os.path.dirname(os.__file__)))


def _place(frame: traceback.FrameSummary) -> str:
    return f"{os.path.relpath(frame.filename)}:{frame.lineno} in {frame.name}"
