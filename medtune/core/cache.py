"""Where medtune keeps what may be deleted at any time: converted models, and the progress of stages."""

import os
from pathlib import Path
from tempfile import TemporaryFile

from medtune.core.errors import MedtuneError


def cache_folder() -> Path:
    """`$MEDTUNE_CACHE`, else `~/.cache/medtune`."""
    return Path(os.environ.get("MEDTUNE_CACHE") or Path.home() / ".cache" / "medtune")


def progress_folder() -> Path:
    """A folder of its own, `medtune-progress/`, in `$MEDTUNE_PROGRESS`, else in the cache."""
    return Path(os.environ.get("MEDTUNE_PROGRESS") or cache_folder()) / "medtune-progress"


def require_writable(folder: Path, variable: str) -> None:
    """Make a folder if it is not there; `variable` is what can be set if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MedtuneError(
            f"{folder} cannot be written to: {error.strerror}; set {variable} to a folder that can"
        ) from None
