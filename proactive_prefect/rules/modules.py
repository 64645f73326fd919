"""The modules that a rules file names: imported for what they declare, with the project's folder on the path."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from . import decorators


def import_module(name: str, root: Path) -> ModuleType:
    """Import `name` as the project in `root` would. Raises ValueError with one line, whatever goes wrong in there.

    A module that is imported already is used as it is, unless it is another project's of the same name.
    """
    with _on_path(root):
        _drop_foreign(name.partition(".")[0], root)
        try:
            return importlib.import_module(name)
        except KeyboardInterrupt:
            raise
        except BaseException as problem:  # a module may do anything, also exit
            raise ValueError(_one_line(name, problem)) from None


def check_call(call: str, root: Path) -> None:
    """Raise ValueError, with a near name, unless "module:function" can be imported in `root` and called."""
    module_name, _, path = call.partition(":")
    value: object = import_module(module_name, root)
    for part in path.split("."):
        names = [name for name in vars(value) if not name.startswith("_")] if hasattr(value, "__dict__") else []
        if not hasattr(value, part):
            near = get_close_matches(part, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{module_name} has no {path!r}{hint}; allowed: a function of that module")
        value = getattr(value, part)
    if not callable(value):
        raise ValueError(f"{call!r} is not callable; allowed: a function")


@contextmanager
def _on_path(root: Path) -> Iterator[None]:
    folder = str(root.resolve())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


def _drop_foreign(top: str, root: Path) -> None:
    """Forget the package `top` where it is imported from elsewhere and the project has its own."""
    loaded = sys.modules.get(top)
    own = PathFinder.find_spec(top, [str(root.resolve())])
    if loaded is None or own is None or loaded.__spec__ is None:
        return
    if own.origin is None and own.submodule_search_locations is not None:
        same = set(own.submodule_search_locations) <= set(loaded.__spec__.submodule_search_locations or ())
    else:
        same = own.origin == loaded.__spec__.origin
    if same:
        return
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]
        decorators.forget(name)


def _one_line(name: str, problem: BaseException) -> str:
    text = (str(problem).splitlines() or [""])[0][:300]
    if isinstance(problem, ModuleNotFoundError) and problem.name in (name, name.partition(".")[0]):
        return f"{name!r} is not a module of this project; allowed: a module that can be imported from its folder"
    frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if frame.filename != __file__]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"importing {name!r} failed: {type(problem).__name__}: {text}{where}; allowed: a module that can be imported"
