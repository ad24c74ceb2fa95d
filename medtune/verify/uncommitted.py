"""What is here and not as the commit has it, among the files that decide or say what a run is."""

import re
import subprocess
from collections.abc import Iterator, Sequence

from medtune.core.errors import MedtuneError
from medtune.core.git import git
from medtune.core.section import PARAMS_FILE
from medtune.run.lock_file import LOCK_FILE

DECIDES = (str(LOCK_FILE), "dvc.yaml", str(PARAMS_FILE), "requirements", "digests", "medtune", "stages")
IMPORTED = tuple(f":(glob){name}.{end}" for name in ("*", "*/__init__") for end in ("py", "pyc", "so"))
"""Modules and packages in the top folder: Python looks for those of libraries there too."""
OF_A_MACHINE = (":!metrics/timing.json", ":!metrics/environment.json")
SAYS = ("models/record.json", "metrics", *OF_A_MACHINE)
FULL_HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
NOT_LOOKED_AT = "hS"
"""What `git ls-files -v` puts before a file of which git was told to notice no edit."""


def uncommitted() -> list[str]:
    """Files that decide or say what is here and are not as the commit has them; none without git."""
    places = (*DECIDES, *IMPORTED, *SAYS)
    # Whatever the user's settings of git are: they may show no file that git does not know.
    command = ["git", "status", "--porcelain", "--untracked-files=normal", "--", *places]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return sorted({*(line[3:] for line in lines), *_edited_unnoticed(places)})


def _edited_unnoticed(places: Sequence[str]) -> Iterator[str]:
    """Files of which git was told to notice no edit, and which are not as it has them."""
    command = ["git", "ls-files", "-v", "-z", "--", *places]
    listed = subprocess.run(command, capture_output=True, text=True).stdout.split("\0")
    for name in (line[2:] for line in listed if line and line[0] in NOT_LOOKED_AT):
        here = subprocess.run(["git", "hash-object", "--", name], capture_output=True, text=True).stdout
        if here != subprocess.run(["git", "rev-parse", f":./{name}"], capture_output=True, text=True).stdout:
            yield name


def require_committed() -> None:
    """Refuse files that are not as the commit has them, all that git tracks and whatever else decides.

    Statements, the clock's and the machine's files may differ: they decide nothing.
    """
    edited = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!attestations", *OF_A_MACHINE)
    hidden = [line[2:] for line in git("ls-files", "-v").splitlines() if line[0] in NOT_LOOKED_AT]
    changed = sorted({*(line[3:] for line in edited.splitlines()), *uncommitted()})
    if changed:
        raise MedtuneError(
            f"not as committed: {', '.join(changed)}; a statement is about a commit: commit or stash first"
        )
    if hidden:
        raise MedtuneError(
            f"git was told to notice no edit of {hidden[0]}; `git update-index --no-assume-unchanged "
            f"--no-skip-worktree {hidden[0]}` takes that back"
        )


def head_commit() -> str:
    """The full hash of the commit that is checked out."""
    return git("rev-parse", "--verify", "HEAD").strip()


def is_in_history(commit: str) -> bool:
    """Whether a full hash is that of the commit that is checked out or of one before it."""
    # A name such as HEAD would be that of any commit.
    if not FULL_HASH.fullmatch(commit):
        return False
    command = ["git", "merge-base", "--is-ancestor", commit, "HEAD"]
    return subprocess.run(command, capture_output=True).returncode == 0
