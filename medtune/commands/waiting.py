"""What a command does while somebody waits at a terminal: a line that is gone afterwards.

    with waiting("reading") as now:
        now("judging 590 questions")

In a pipe, a log or under a program nothing is shown: no control character gets there.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def waiting(doing: str) -> Iterator[Callable[[str], None]]:
    """Show on standard error what is being done, and for how long; yields what changes the words."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda _: None
        return
    # Imported here: a program that reads JSON need not wait for it.
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda words: progress.update(task, description=words)
