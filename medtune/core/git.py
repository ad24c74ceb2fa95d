"""git, as a user has it."""

import subprocess
from pathlib import Path

from medtune.core.errors import MedtuneError


def git(*arguments: str, cwd: Path | str | None = None) -> str:
    """What a git command prints; if it refuses, a MedtuneError with its words in one line.

    Names and texts that are not UTF-8 come with surrogates, as paths of Python have them.
    """
    command = ["git", *arguments]
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, encoding="utf-8", errors="surrogateescape"
        )
    except FileNotFoundError:
        raise MedtuneError("git is not installed, or not on the PATH") from None
    if done.returncode != 0:
        # Some reasons, as that there is nothing to commit, are no errors to git.
        reason = " ".join((done.stderr or done.stdout).split()) or "it said nothing"
        name = next(word for word in arguments if word[:1] != "-" and "=" not in word)
        raise MedtuneError(f"git {name}: {reason.removeprefix('fatal: ')}")
    return done.stdout
