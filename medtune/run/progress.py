"""Progress of a stage, kept outside the repository so that a killed run goes on where it stopped.

DVC deletes a stage's outputs before it runs, and `dvc exp run --temp` runs in a copy of the repository.
So what a stage has done so far lies in the user's cache, named after a fingerprint of everything that
decides its result:

    ~/.cache/medtune/progress/finetune-0f3a5c.../0/checkpoint-25/

A run with any other fingerprint finds nothing there and starts anew. The number is a place for one
process: a second run of the same fingerprint takes the next one.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from medtune.core.cache import progress_folder

FORGET_AFTER_DAYS = 30


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Hex digest of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@contextmanager
def kept_progress(stage: str, identity: Mapping[str, Any]) -> Iterator[Path]:
    """A folder with what an earlier run of the same identity left; deleted when the block succeeds."""
    root = progress_folder()
    root.mkdir(parents=True, exist_ok=True)
    runs = root / f"{stage}-{fingerprint(identity)[:32]}"
    # Held only while places are taken and given back, so that no lock file vanishes under a newcomer.
    guard = FileLock(root / "lock")
    with guard:
        _forget_old(root)
        place, lock = _take_place(runs)
    try:
        yield place
    except BaseException:
        lock.release()
        raise
    with guard:
        shutil.rmtree(place)
        lock.release()
        Path(lock.lock_file).unlink()
        if not any(runs.iterdir()):
            runs.rmdir()


def _take_place(runs: Path) -> tuple[Path, FileLock]:
    """Lock a place that no living process holds: the one last worked in, else a new one."""
    runs.mkdir(exist_ok=True)
    started = [path for path in runs.iterdir() if path.is_dir()]
    started.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    taken = {path.name for path in started}
    unused = next(runs / str(number) for number in range(len(taken) + 1) if str(number) not in taken)
    for place in [*started, unused]:
        lock = FileLock(runs / f"{place.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        place.mkdir(exist_ok=True)
        return place, lock
    raise AssertionError("a place that nobody has started was locked")


def _forget_old(root: Path) -> None:
    """Delete what nobody has come back to, or abandoned experiments would pile up."""
    oldest = time.time() - FORGET_AFTER_DAYS * 24 * 3600
    for runs in root.iterdir():
        if runs.is_dir() and all(path.stat().st_mtime < oldest for path in [runs, *runs.iterdir()]):
            shutil.rmtree(runs)
