"""`python -m benchmarks NAME [--quick]`: a table for people and, as the last line, one JSON object. `all` runs all."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil

import benchmarks


def main() -> None:
    """Run the benchmark that is named: the module of that name, if it has a `main(quick)`."""
    modules = {
        found.name: importlib.import_module(f"benchmarks.{found.name}")
        for found in pkgutil.iter_modules(benchmarks.__path__)
        if not found.name.startswith("_")
    }
    mains = {name: module.main for name, module in modules.items() if hasattr(module, "main")}
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    parser.add_argument("name", choices=[*sorted(mains), "all"])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: minutes, not tens of minutes")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], help="default: both, where PostgreSQL answers")
    asked = parser.parse_args()
    if asked.database:
        os.environ["BENCH_DATABASE"] = asked.database
    for name in sorted(mains) if asked.name == "all" else [asked.name]:
        mains[name](quick=asked.quick)


if __name__ == "__main__":
    main()
