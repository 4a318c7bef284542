"""
The benchmark runner: one line about the environment, then what every `bench_*` module prints.

`python -m tests.benchmarks [NAME ...]` runs the named modules, all by default. A module has a `main()` that prints one
line per case; its cases are compared with each other, never with a number from another machine.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from pathlib import Path

import numpy as np

PREFIX = "bench_"


def environment() -> str:
    """One line that says on what the numbers were measured."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    return (
        f"{platform.python_implementation()} {platform.python_version()}, numpy {np.__version__}, "
        f"{platform.system()} {platform.machine()}, {cores} cores"
    )


def known() -> list[str]:
    """Names of the benchmark modules beside this one, sorted, without their prefix."""
    return sorted(path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def run(names: list[str]) -> int:
    """Run the named benchmarks in order; the exit code."""
    modules = known()
    unknown = sorted(set(names) - set(modules))
    if unknown:
        print(f"error: no benchmark {', '.join(unknown)}; there are {', '.join(modules)}", file=sys.stderr)
        return 2
    print(f"environment: {environment()}")
    for name in names or modules:
        print(f"\n{name}", flush=True)
        importlib.import_module(f"{__package__}.{PREFIX}{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(run([name.removeprefix(PREFIX) for name in sys.argv[1:]]))
