"""Progress of a stage, kept outside the repository so that a killed run goes on where it stopped.

DVC deletes a stage's outputs before it runs, and `dvc exp run --temp` runs in a copy of the repository.
So what a stage has done so far lies in the user's cache, named after a fingerprint of everything that
decides its result:

    ~/.cache/medtune/medtune-progress/finetune-0f3a5c.../0/
      progress.json    that it is such a place and, once the stage is done, what it left in which repository
      checkpoint-25/   what the stage keeps there

A run with any other fingerprint finds nothing there and starts anew. The number is a place for one
process: a second run of the same fingerprint takes the next one.

A stage that is done has not yet been recorded: DVC hashes and saves its outputs first. So its place stays,
for a stage killed in between to publish once more, until the next start of a stage finds that `dvc.lock`
names these outputs. Nothing is ever deleted but places that carry the file above.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from medtune.core.cache import progress_folder, require_writable
from medtune.core.errors import MedtuneError
from medtune.core.outputs import read_json, write_json
from medtune.run.lock_file import LOCK_FILE, dvc_md5, read_lock

FORGET_AFTER_DAYS = 30
"""When a place that nobody has come back to is deleted, or abandoned experiments would pile up."""
MARK = "progress.json"


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Hex digest of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@contextmanager
def kept_progress(stage: str, identity: Mapping[str, Any], outputs: Iterable[Path]) -> Iterator[Path]:
    """A folder with what an earlier run of the same identity left.

    When the block succeeds, the stage's `outputs` have to be there, named as in dvc.yaml; the folder stays
    until `dvc.lock` in the current one names them too.
    """
    root = progress_folder()
    require_writable(root, "MEDTUNE_PROGRESS")
    environment = identity.get("environment", {})
    mark = {
        "stage": stage,
        "inputs": fingerprint({key: value for key, value in identity.items() if key != "environment"}),
        "environment": environment,
    }
    # Held while places are taken and deleted, so that no lock file vanishes under a newcomer.
    with FileLock(root / "lock"):
        _delete_unneeded(root)
        unused = _left_elsewhere(root, mark)
        place, lock = _take_place(root / f"{stage}-{fingerprint(identity)[:32]}")
    if unused and not (place / MARK).exists():
        print(unused, file=sys.stderr)
    try:
        # A place that was done is so no longer: its outputs are about to be written again.
        write_json(place / MARK, mark)
        yield place
        write_json(place / MARK, _done(stage, outputs))
    finally:
        lock.release()


def _done(stage: str, outputs: Iterable[Path]) -> dict[str, Any]:
    return {
        "stage": stage,
        "repository": str(Path.cwd()),
        "outputs": {path.as_posix(): dvc_md5(path) for path in outputs},
    }


def _left_elsewhere(root: Path, mark: Mapping[str, Any]) -> str | None:
    """What to say of a run of the same inputs that stopped elsewhere, as on another processor."""
    for path in sorted(root.glob(f"{mark['stage']}-*/*/{MARK}")):
        try:
            other = read_json(path)
            if other["inputs"] != mark["inputs"] or "outputs" in other:
                continue
            known, here = other["environment"], mark["environment"]
        except (MedtuneError, OSError, ValueError, KeyError, TypeError):
            continue
        differing = [name for name in sorted({*known, *here}) if known.get(name) != here.get(name)]
        if differing and any(item.name != MARK for item in path.parent.iterdir()):
            told = ", ".join(_changed(name, known.get(name), here.get(name)) for name in differing)
            return (
                f"{mark['stage']}: starts anew; what an unfinished run of the same inputs left is not used, "
                f"as it ran elsewhere and would give other bytes: {told}"
            )
    return None


def _changed(name: str, then: Any, now: Any) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
        return ", ".join(_changed(key, then.get(key), now.get(key)) for key in keys)
    return f"other {name}" if isinstance(then, list) else f"{name} {then} then, {now} now"


def _take_place(runs: Path) -> tuple[Path, FileLock]:
    """Lock a place that no living process holds: the one last worked in, else a new one."""
    runs.mkdir(exist_ok=True)
    started = [path for path in runs.iterdir() if path.is_dir()]
    started.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    taken = {path.name for path in started}
    unused = next(runs / str(number) for number in range(len(taken) + 1) if str(number) not in taken)
    for place in [*started, unused]:
        lock = _lock(place)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        place.mkdir(exist_ok=True)
        return place, lock
    raise AssertionError("a place that nobody has started was locked")


def _lock(place: Path) -> FileLock:
    """The lock that a process holds while it works in a place."""
    return FileLock(place.with_name(f"{place.name}.lock"))


def _delete_unneeded(root: Path) -> None:
    for mark in sorted(root.glob(f"*/*/{MARK}")):
        place = mark.parent
        lock = _lock(place)
        # Held by a living process (Timeout is an OSError), or not to be deleted by this user: it stays.
        with suppress(OSError), lock.acquire(timeout=0):
            if _may_be_needed(place):
                continue
            Path(lock.lock_file).unlink()
            _delete(place)
            if not any(place.parent.iterdir()):
                place.parent.rmdir()


def _may_be_needed(place: Path) -> bool:
    """Whether somebody may come back: not if `dvc.lock` vouches for what was left, nor after a long time."""
    try:
        mark = read_json(place / MARK)
        if _last_touched(place) < time.time() - FORGET_AFTER_DAYS * 24 * 3600:
            return "stage" not in mark
        return Path(mark["repository"]).is_dir() and not _is_recorded(mark)
    except (MedtuneError, OSError, ValueError, KeyError, TypeError):
        # Not done; or its repository is somebody else's and in the middle of a write: no reason to fail here.
        return True


def _last_touched(place: Path) -> float:
    return max(path.lstat().st_mtime for path in [place, *place.iterdir()])


def _is_recorded(mark: Mapping[str, Any]) -> bool:
    """Whether the `dvc.lock` of its repository names just what a stage left."""
    stage = read_lock(Path(mark["repository"]) / LOCK_FILE)[mark["stage"]]
    recorded = {out["path"]: out["md5"] for out in stage["outs"]}
    return mark["outputs"].items() <= recorded.items()


def _delete(place: Path) -> None:
    # The mark goes last: what is left if this is killed is then still known to be ours.
    for path in place.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()
    shutil.rmtree(place)
