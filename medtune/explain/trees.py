"""A revision as a folder: its files of git, and the questions that DVC tracks.

Nothing of the repository is touched: no checkout, no worktree of git's that a kill would leave behind.
"""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError, resolve_rev

from medtune.core.errors import MedtuneError
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.data.tracking import PIPELINE_FILE, RAW_FOLDER, declared_files, is_pattern

WORKSPACE = "workspace"
NEEDED = (PARAMS_FILE, PIPELINE_FILE, Path("stages/code.py"), Path("medtune/run/code.py"))
"""Without these a revision is not of this pipeline."""


@dataclass(frozen=True)
class Tree:
    """The files of a revision in a folder.

    `missing` are the files of questions that could not be had, each with why.
    """

    name: str
    folder: Path
    commit: str | None
    missing: dict[str, str] = field(default_factory=dict)


def tree_of(name: str, folder: Path) -> Tree:
    """Write the files of a commit, an experiment or the workspace into a folder that is not there yet.

    MedtuneError: there is no such revision, or it is not one of this pipeline.
    """
    commit = None if name == WORKSPACE else _commit(name)
    folder.mkdir(parents=True)
    if commit is None:
        _copy_workspace(folder)
    else:
        _unpack(commit, folder)
    for path in NEEDED:
        if not (folder / path).is_file():
            raise MedtuneError(f"{name}: has no {path}; accepted: a revision of this pipeline")
    try:
        _link_base(folder)
        return Tree(name, folder, commit, _fetch_questions(name, commit, folder))
    except MedtuneError as error:
        # Its files are named as the revision has them, not by the folder that they lie in for now.
        raise MedtuneError(f"{name}: {str(error).replace(f'{folder}/', '')}") from None


def _commit(name: str) -> str:
    try:
        with Repo() as repo:
            return str(resolve_rev(repo.scm, name))
    except SCMError:
        raise MedtuneError(
            f"'{name}' is no commit, branch, tag or experiment here; `medtune runs` lists them, and "
            f"`{WORKSPACE}` is what lies here"
        ) from None
    except DvcException as error:
        raise MedtuneError(f"DVC cannot read {name}: {' '.join(str(error).split())}") from None


def _unpack(commit: str, folder: Path) -> None:
    archive = subprocess.run(["git", "archive", commit], capture_output=True)
    if archive.returncode:
        raise MedtuneError(
            f"git archive {commit}: {' '.join(archive.stderr.decode(errors='replace').split())}"
        )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def _copy_workspace(folder: Path) -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        raise MedtuneError(f"not a git repository: {' '.join(listed.stderr.split())}")
    for name in listed.stdout.split("\0"):
        if name and Path(name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, folder / name)


def _link_base(folder: Path) -> None:
    """A base model in a folder that git ignores is the one that lies here; its sha256 is pinned."""
    model = read_yaml(folder / PARAMS_FILE).get("model")
    source = str(model.get("source", "")) if isinstance(model, dict) else ""
    place = folder / source
    if source.startswith("./") and not place.exists() and Path(source).is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(Path(source).absolute(), target_is_directory=True)


def _fetch_questions(name: str, commit: str | None, folder: Path) -> dict[str, str]:
    """Files below data/raw that dvc.yaml names and git has not: from here, or DVC's cache or remote."""
    missing = {}
    for path in question_files(folder):
        target = folder / path
        if target.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if commit is None:
            found = Path(path).is_file() and bool(shutil.copy2(path, target))
        else:
            found = (folder / f"{path}.dvc").is_file() and _from_dvc(commit, path, target)
        if not found:
            tracked = (folder / f"{path}.dvc").is_file()
            why = "neither in DVC's cache nor in its remote" if tracked else "versioned nowhere"
            missing[path] = f"{path} of {name} is {'not here' if commit is None else why}"
    return missing


def question_files(folder: Path) -> list[str]:
    """The files below data/raw that dvc.yaml or params.yaml names; patterns as they match in the folder."""
    found = set(declared_files(folder / PIPELINE_FILE))
    data = read_yaml(folder / PARAMS_FILE).get("data")
    for place in _places(data if isinstance(data, dict) else {}):
        if Path(place).is_relative_to(RAW_FOLDER):
            matched = folder.glob(place) if is_pattern(place) else [folder / place]
            found |= {path.relative_to(folder).as_posix() for path in matched if path.suffix != ".dvc"}
    return sorted(found)


def _places(data: dict[str, Any]) -> Iterator[str]:
    """What a section `data` names, also one that is not valid any more."""
    sources = data.get("sources")
    for source in sources.values() if isinstance(sources, dict) else ():
        if isinstance(source, dict):
            splits = source.get("splits")
            yield from map(str, [source.get("path"), *(splits.values() if isinstance(splits, dict) else ())])
    yield from map(str, data.get("held_out") or ())


def _from_dvc(commit: str, path: str, target: Path) -> bool:
    try:
        with (
            Repo() as repo,
            repo.switch(commit),
            repo.dvcfs.open(path, "rb") as source,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(source, file)
        return True
    except (OSError, DvcException):
        target.unlink(missing_ok=True)
        return False
