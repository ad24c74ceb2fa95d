"""One side of a comparison, run in a process of its own: what it leaves in memory slows no other side.

A module of sides ends with `run_asked(SIDES)`; a bench calls `measure(MODULE, "trl", 10)`.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medtune.core.outputs import resident_peak


def measure(module: str, side: str, *arguments: int) -> dict[str, Any]:
    """Run a side; what it returned, and its peak of memory in GiB."""
    print(f"running {side} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-W", "ignore", "-m", module, side, *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f"{module} {side} failed")
    return json.loads(result.stdout.splitlines()[-1])


def run_asked(sides: Mapping[str, Callable[..., Mapping[str, Any]]]) -> None:
    """Run the side that the command line names and print what it measured."""
    side, *arguments = sys.argv[1:]
    measured = sides[side](*map(int, arguments))
    print(json.dumps({**measured, "peak_gib": resident_peak() / 2**30}))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be; the first to the left, figures to the right."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]))
    print()
