"""The repository that a command works in: found from the folder the user stands in, as git does.

    docs$ medtune verify                     # of the repository that docs/ is in
    docs$ medtune score ../mine.jsonl        # what is typed is relative to docs/

Everything behind the command line works in the top folder, as the stages do. Imports neither torch nor DVC.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from medtune.core.errors import MedtuneError
from medtune.run.shadowing import ROOT

MARK = ".dvc"
"""The folder in the top folder, by which DVC finds it as well."""

PARAMETERS = "params.yaml"
"""As medtune.core.section names it, which takes a tenth of a second to import."""
PREDICTION_FILES = (".json", ".jsonl")
"""What the name of a file of predictions ends with."""


def find_root(start: Path) -> Path | None:
    """The nearest folder, from `start` upwards, that is a repository's top folder.

    A git repository of something else in between is where the search ends: whoever stands in it means that.
    Without DVC's folder, as in an unpacked archive, it is the nearest with parameters.
    """
    folders = [*_upwards(start)]
    marked = [folder for folder in folders if (folder / MARK).is_dir()]
    return next(iter(marked or [folder for folder in folders if (folder / PARAMETERS).is_file()]), None)


def _upwards(start: Path) -> Iterator[Path]:
    """A folder and those above it, up to the top of a git repository if it is in one."""
    for folder in (start, *start.parents):
        yield folder
        if (folder / ".git").exists():
            return


def from_here(typed: str) -> str:
    """A path or pattern that was typed, for use in the top folder: relative to that if it was relative."""
    here = _here()
    root = find_root(here)
    if root is None or root == here or not typed or Path(typed).is_absolute():
        return typed
    path = os.path.join(here.relative_to(root), typed)  # noqa: PTH118 - keeps "..", which may follow a link
    short = os.path.normpath(path)
    return short if os.path.realpath(root / short) == os.path.realpath(root / path) else path


def path_from_here(typed: str) -> Path:
    """`from_here`, of an option that is a path."""
    return Path(from_here(typed))


def side_from_here(typed: str) -> str:
    """`from_here`, of what may be a file of predictions or the name of a commit."""
    return from_here(typed) if typed.endswith(PREDICTION_FILES) else typed


def enter(*, needed: bool) -> None:
    """Make the top folder the current one; where there is none, stay, or refuse if one is `needed`."""
    here = _here()
    root = find_root(here)
    if root is None:
        if needed:
            *_, last = _upwards(here)
            raise MedtuneError(
                f"{here}: in no medtune repository (no folder from it up to {last} has {MARK}); run this in "
                "a clone of one"
            )
        return
    os.chdir(root)
    if root != ROOT and (root / "medtune/commands/cli.py").is_file():
        # The stages import what lies in the repository; this process has imported something else.
        print(
            f"warning: this medtune is that of {ROOT}, not of {root}: what it says may be of "
            "other code; activate that repository's environment, or run in its top folder: "
            "python -m medtune.commands.cli",
            file=sys.stderr,
        )


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise MedtuneError("the folder that this runs in was deleted; change to another one") from None
