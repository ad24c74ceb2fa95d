"""One process a stage in a repository: the lock of DVC ends with DVC, even if a stage it started lives on."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from medtune.core.errors import MedtuneError, run

FOLDER = Path(".dvc/tmp")


def run_stage(stage: str, main: Callable[[], None]) -> None:
    """Call a stage's entry point under its lock; bad input becomes one line and exit code 1."""

    def locked() -> None:
        with only_here(stage):
            main()

    run(locked)


@contextmanager
def only_here(stage: str) -> Iterator[None]:
    """Refuse to start a stage that still runs in this folder: it would write over the outputs."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(FOLDER / f"medtune-{stage}.lock"), FOLDER / f"medtune-{stage}.pid"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MedtuneError(
            f"{stage} still runs in this folder, as process {note.read_text(encoding='utf-8')}; "
            "wait for it or end it, then run `dvc repro` again: it goes on from what is done"
        ) from None
    with lock:
        note.write_text(str(os.getpid()), encoding="utf-8")
        yield
