"""A side of a comparison, in a process of its own: what it leaves in memory slows no other side.

Sides take turns (benchmarks/rounds.py): each waits until it is asked, does its part and reports what it
measured.

    with running("benchmarks.train_sides", ["medtune", "trl"]) as sides:
        found = in_turns({name: side.turn for name, side in sides.items()}, rounds=5)

With `cpu_time` sides take one thread, and `clock` counts the seconds that the processor worked: on a machine
that others use those of the wall say little, and threads wait for one another. A module of sides ends with
`run_asked(SIDES)`. A side gets the arguments it was started with, as text, and goes through `turns()`, with
a `report` for each.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from medtune.core.outputs import resident_peak

CPU_TIME = "MEDTUNE_BENCH_CPU_TIME"
"""Set in the environment of sides that are to be timed by the processor."""
_REPORTS = sys.stdout
"""Where reports go; while a side runs, whatever libraries print goes to standard error."""


class Side:
    """A process that waits for its turn."""

    def __init__(self, module: str, name: str, arguments: Sequence[str], *, cpu_time: bool = False) -> None:
        self._name = name
        environment = os.environ | ({CPU_TIME: "1", "OMP_NUM_THREADS": "1"} if cpu_time else {})
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", module, name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def turn(self, asked: str = "") -> dict[str, Any]:
        """What the side reports when it has done what it is asked for; its `peak_gib` is that so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{asked}\n")
            self._process.stdin.flush()
            measured: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            sys.exit(f"{self._name} ended before its turn did; what it said stands above")
        if "seconds" in measured:
            print(f"  {self._name}: {measured['seconds']:.1f} s", file=sys.stderr, flush=True)
        return measured

    def end(self) -> None:
        """Let the process end, and wait until its memory is free."""
        self._process.communicate()


@contextmanager
def running(
    module: str, names: Sequence[str], *arguments: str, cpu_time: bool = False
) -> Iterator[dict[str, Side]]:
    """Sides of a module, each with the same arguments."""
    print(f"{', '.join(names)} ...", file=sys.stderr, flush=True)
    with ExitStack() as stack:
        sides = {}
        for name in names:
            sides[name] = Side(module, name, arguments, cpu_time=cpu_time)
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


def clock() -> float:
    """Seconds: of the wall, or of this process's one thread if that was asked for."""
    return time.process_time() if by_the_processor() else time.perf_counter()


def by_the_processor() -> bool:
    """Whether this side is to take one thread and to count what the processor worked."""
    return CPU_TIME in os.environ


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
