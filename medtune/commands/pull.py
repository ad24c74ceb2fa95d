"""`medtune pull`: `dvc pull`, once it is known that there is something to fetch.

In a fresh clone whose remote is empty, `dvc pull` prints every object that it lacks, and not what to do.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

from medtune.core.errors import MedtuneError
from medtune.verify.remotes import Holding, compare_with_remote

MAKE = "make it here with `dvc repro`"
PUSH = "have it pushed where it was made (`dvc push`)"
NEXT = "next: medtune verify; medtune ask QUESTION"


def pull(name: str | None = None) -> str:
    """Fetch what this commit's run left, from a remote (None: the default one); returns what was done.

    MedtuneError: the remote cannot be asked, or lacks some of it. What it has is fetched all the same.
    """
    held = compare_with_remote(name)
    if held is None:
        _dvc_pull(name)
        return f"pulled; {NEXT}"
    if not held.has and not held.lacks:
        raise MedtuneError(f"this commit has no run to fetch (dvc.lock names no output); {MAKE}")
    if held.lacks and not held.has:
        raise MedtuneError(f"{_remote(held)} {_state(held)}; {_what_to_do(held)}")
    _dvc_pull(name, held.has if held.lacks or held.unknown else ())
    if held.lacks:
        raise MedtuneError(
            f"{_remote(held)} lacks {len(held.lacks)} of {len(held.has) + len(held.lacks)} outputs of this "
            f"commit, {held.lacks[0]} among them; the others are here now; {_what_to_do(held)}"
        )
    if held.unknown:
        raise MedtuneError(
            f"{len(held.has)} outputs are here, but dvc.lock of this commit knows no {held.unknown[0]}: its "
            f"stage was changed and has not run since; {MAKE}"
        )
    return f"all {len(held.has)} outputs of this commit are here; {NEXT}"


def _remote(held: Holding) -> str:
    return f"remote {held.remote} ({held.place})"


def _state(held: Holding) -> str:
    if held.is_there:
        return "has nothing of this commit's run"
    return "is not there: nothing was ever pushed to it"


def _what_to_do(held: Holding) -> str:
    """By who can make what is lacking: a stage, or only whoever has the file."""
    own = [path for path in held.lacks if path not in held.made]
    if own:
        return f"no stage makes {own[0]}: {PUSH}"
    return f"{MAKE}, or {PUSH}"


def _dvc_pull(name: str | None, outputs: Sequence[str] = ()) -> None:
    """Run DVC, which shows its progress."""
    command = [sys.executable, "-m", "dvc", "pull", *(("--remote", name) if name else ()), *outputs]
    if subprocess.run(command, stdout=sys.stderr, env=os.environ).returncode:
        raise MedtuneError("`dvc pull` has failed; why stands above, and docs/remotes.md has what mends it")
