"""A side of a comparison, in a process of its own: what it leaves in memory slows no other side.

Sides take turns (benchmarks/rounds.py): each waits until it is asked, does its part and reports what it
measured.

    with running("benchmarks.train_sides", ["medtune", "trl"]) as sides:
        found = in_turns({name: side.turn for name, side in sides.items()}, rounds=5)

A module of sides ends with `run_asked(SIDES)`. A side gets the arguments it was started with, as text, and
goes through `turns()`, with a `report` for each.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from medtune.core.outputs import resident_peak

_REPORTS = sys.stdout
"""Where reports go; while a side runs, whatever libraries print goes to standard error."""


class Side:
    """A process that waits for its turn."""

    def __init__(self, module: str, name: str, arguments: Sequence[str]) -> None:
        self._name = name
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", module, name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def turn(self, asked: str = "") -> dict[str, Any]:
        """What the side reports when it has done what it is asked for; its `peak_gib` is that so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{asked}\n")
            self._process.stdin.flush()
            return dict(json.loads(self._process.stdout.readline()))
        except (OSError, ValueError):
            sys.exit(f"{self._name} ended before its turn did; what it said stands above")

    def end(self) -> None:
        """Let the process end, and wait until its memory is free."""
        self._process.communicate()


@contextmanager
def running(module: str, names: Sequence[str], *arguments: str) -> Iterator[dict[str, Side]]:
    """Sides of a module, each with the same arguments."""
    print(f"{', '.join(names)} ...", file=sys.stderr, flush=True)
    with ExitStack() as stack:
        sides = {}
        for name in names:
            sides[name] = Side(module, name, arguments)
            stack.callback(sides[name].end)
        yield sides


def run_asked(sides: Mapping[str, Callable[..., None]]) -> None:
    """Be the side that the command line names."""
    name, *arguments = sys.argv[1:]
    sys.stdout = sys.stderr
    sides[name](*arguments)


def turns() -> Iterator[str]:
    """What a side is asked for, turn by turn."""
    for line in sys.stdin:
        yield line.strip()


def report(measured: Mapping[str, Any]) -> None:
    """End a turn with what was measured in it."""
    print(json.dumps({**measured, "peak_gib": resident_peak() / 2**30}), file=_REPORTS, flush=True)


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
