"""Where medtune keeps what may be deleted at any time: converted models, and the progress of stages."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$MEDTUNE_CACHE`, else `~/.cache/medtune`."""
    return Path(os.environ.get("MEDTUNE_CACHE") or Path.home() / ".cache" / "medtune")


def progress_folder() -> Path:
    """`$MEDTUNE_PROGRESS`, else `progress/` in the cache."""
    return Path(os.environ.get("MEDTUNE_PROGRESS") or cache_folder() / "progress")
