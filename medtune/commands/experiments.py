"""Experiments that `medtune seeds` and `medtune search` run beside the workspace, with DVC.

Each runs in a folder of its own and has a name that says what it is. So one that is there is not run again,
and one that was killed goes on from the progress of its stages (medtune/run/progress.py).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError

from medtune.core.errors import MedtuneError
from medtune.core.git import git
from medtune.core.outputs import read_json
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import parse_yaml, read_yaml
from medtune.data.tracking import declared_files
from medtune.run.lock_file import LOCK_FILE
from medtune.verify.uncommitted import uncommitted

FIRST_RUN = "run `dvc repro` and commit what it leaves, then this again"
TOLD = 3
"""Stages, and files of a stage, that an error names."""
TEMPORARY = Path(".dvc/tmp/exps/standalone")
"""Where `dvc exp run --temp` works, and notes its runs in `run/`."""
LOCK = Path(".dvc/tmp/medtune-experiments.lock")
STASHED = Path(".dvc/tmp/repro.dat")
"""What DVC adds to git's index for the second in which it stashes the workspace."""


def require_reproduced(beside: Sequence[Path] = ()) -> None:
    """Refuse a workspace that is not the run of its commit, but for the files `beside` it."""
    read_yaml(PARAMS_FILE)
    if subprocess.run(["git", "rev-parse", "--verify", "--quiet", "HEAD"], capture_output=True).returncode:
        raise MedtuneError(f"no git commit here, and this runs experiments beside that of one; {FIRST_RUN}")
    if changed := [name for name in uncommitted() if name not in map(str, beside)]:
        _refuse(changed)
    try:
        with Repo() as repo:
            differing = [*_differing(repo.status())]
    except (DvcException, SCMError) as error:
        raise MedtuneError(f"DVC cannot say whether the run is done: {one_line(error)}") from None
    if differing:
        raise MedtuneError(f"not as the last run has it: {_first(differing, 'stages')}; {FIRST_RUN}")


def _refuse(changed: Sequence[str]) -> None:
    if str(PARAMS_FILE) in changed and git("ls-files", str(STASHED)):
        raise MedtuneError(
            f"a `dvc exp run` that was killed as it began has left its parameters in {PARAMS_FILE}; the "
            f"commit's come back with: git restore --source=HEAD --staged --worktree {PARAMS_FILE} {STASHED}"
        )
    raise MedtuneError(f"not committed: {', '.join(changed)}; {FIRST_RUN}")


def _differing(status: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """From what `dvc status` says to a stage and a name each."""
    for stage, changes in status.items():
        groups = [group for change in changes if isinstance(change, dict) for group in change.values()]
        names = [name for group in groups if isinstance(group, dict) for name in group]
        yield f"{stage} ({_first(names, 'files')})" if names else stage


def _first(names: Sequence[str], of: str) -> str:
    """The first few; in a clone without outputs there are dozens."""
    more = [f"{len(names) - TOLD} more {of}"] if len(names) > TOLD else []
    return ", ".join([*names[:TOLD], *more])


@contextmanager
def only_here(command: str) -> Iterator[int]:
    """A lock that lasts as long as this process, or an experiment that outlives it; yields its descriptor."""
    try:
        import fcntl
    except ImportError:
        raise MedtuneError(
            f"`{command}` needs locks that a program inherits, which Windows has not; run it in WSL 2"
        ) from None
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MedtuneError(
                "`medtune seeds` or `medtune search`, or an experiment of theirs, still runs in this folder; "
                "wait for it or end it, then run this again: it goes on from what is done"
            ) from None
        yield lock.fileno()


def command_of(name: str, params: Mapping[str, object], targets: Sequence[str] = ()) -> list[str]:
    """Arguments for DVC: an experiment of a name in a folder of its own, up to some stages (default: all)."""
    command = ["exp", "run", "--temp", "--name", name]
    for key, value in params.items():
        command += ["--set-param", f"{key}={_shown(value)}"]
    for path in not_in_git():
        command += ["--copy-paths", path]
    return [*command, *targets]


def start_dvc(command: Sequence[str], lock: int, output: Any) -> "subprocess.Popen[bytes]":
    """Start DVC, which writes to `output`, as do the stages that it runs."""
    # The stages' `python` is to be this one, also where its environment was not activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", *command],
        stdout=output,
        stderr=output,
        env=os.environ | {"PATH": path},
        pass_fds=[lock],
    )


def commits_named(name: str) -> list[str]:
    """The commits of the experiments of a name, whichever commits they were made on."""
    return git("for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").split()


def stages_of(revision: str) -> dict[str, Any]:
    """The stages in the `dvc.lock` of a commit."""
    return parse_yaml(git("show", f"{revision}:./{LOCK_FILE}"), LOCK_FILE)["stages"]


def folders_of(name: str) -> Iterator[Path]:
    """The folders in which DVC runs, or ran until it was killed, an experiment of this name."""
    for note in TEMPORARY.glob("run/*/*.run"):
        try:
            noted = read_json(note)
            folder = Path(noted["root_dir"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if noted.get("name") == name and folder.parent == TEMPORARY.absolute():
            yield folder


def forget_killed(name: str) -> None:
    """Delete the folders of a killed experiment of this name, which DVC leaves and lists as running."""
    for folder in folders_of(name):
        shutil.rmtree(folder, ignore_errors=True)


def one_line(words: object) -> str:
    """A message without its line breaks."""
    return " ".join(str(words).split())


def not_in_git() -> list[str]:
    """Paths that an experiment in a folder of its own would lack: data and a base model that git ignores."""
    source = str(read_yaml(PARAMS_FILE)["model"]["source"])
    places = [*declared_files(), *([source] if source.startswith("./") else [])]
    if not places:
        return []
    listed = git("ls-files", "--others", "--directory", "-z", "--", *places).split("\0")
    # DVC fetches what a .dvc file names.
    return [path.rstrip("/") for path in listed if path and not Path(f"{path.rstrip('/')}.dvc").is_file()]


def _shown(value: object) -> str:
    """A value in the words of Hydra, which DVC reads it with."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
