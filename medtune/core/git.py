"""git, as a user has it."""

import subprocess
from pathlib import Path

from medtune.core.errors import MedtuneError


def git(*arguments: str, cwd: Path | str | None = None) -> str:
    """What a git command prints; if it refuses, a MedtuneError with its words in one line."""
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or "it said nothing"
        raise MedtuneError(f"git {arguments[0]}: {reason.removeprefix('fatal: ')}")
    return done.stdout
