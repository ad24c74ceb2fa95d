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
from collections.abc import Collection, Sequence
from filecmp import cmp
from pathlib import Path

from medtune.commands.params_file import Value, check_sections, edit_file, scalar, with_value
from medtune.core.errors import MedtuneError
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import parse_yaml
from medtune.data import ontology
from medtune.data.files import rows_of
from medtune.data.params import DataParams
from medtune.data.tracking import (
    PIPELINE_FILE,
    RAW_FOLDER,
    STAGES,
    declare,
    dvc_file,
    files_at,
    is_pattern,
    named_files,
    unversioned,
)
from medtune.model.params import PromptParams

NEUTRAL_PROMPT = (
    "Answer the medical question in its shortest form. Where choices are given, answer with one of them, "
    "word for word."
)
"""Takes the place of the shipped prompt, which speaks of organ systems."""


def add(places: Sequence[str]) -> str:
    """Have DVC track the files, and name them in params.yaml and dvc.yaml; returns what was done, in lines.

    MedtuneError: a file is not there or cannot be read, or DVC cannot add it; then both are as they were.
    """
    check_sections(PARAMS_FILE)
    done: list[str] = []
    text = PARAMS_FILE.read_text(encoding="utf-8")
    for place in [_below_raw(place, done) for place in places]:
        if not _is_named(place, _data(text)):
            text = _with_source(text, place)
    files = named_files(_data(text))
    for path in files:
        _require_rows(path)
    # Both can be written: nothing is yet.
    difference = edit_file(PARAMS_FILE, lambda _: text, write=False)
    declare(files, write=False)
    if new := unversioned(files):
        _track(new)
        done.append(
            f"tracked by DVC: {', '.join(map(str, new))}; its .dvc file is staged: commit it, and run "
            "`dvc push` for others"
        )
    if declare(files):
        names = ", ".join(map(str, files)) or "no local file"
        done.append(f"{PIPELINE_FILE}: {' and '.join(STAGES)} depend on {names}")
    if difference:
        edit_file(PARAMS_FILE, lambda _: text, write=True)
        done.insert(0, difference)
    return "\n".join(done) or "nothing to do: every file that params.yaml names is tracked and a dependency"


def _data(text: str) -> DataParams:
    return DataParams.of(parse_yaml(text, PARAMS_FILE))


def _below_raw(place: str, done: list[str]) -> str:
    """The place below data/raw; a file from elsewhere is copied there."""
    path, here = Path(place), Path.cwd()
    if not is_pattern(place) and not path.is_file():
        raise MedtuneError(
            f"{place}: a folder; accepted: a file, or a pattern such as '{RAW_FOLDER}/mine-*.csv'"
            if path.is_dir()
            else f"{place}: no such file"
        )
    inside = path.absolute().relative_to(here) if path.absolute().is_relative_to(here) else path
    if inside.is_relative_to(RAW_FOLDER) and ".." not in inside.parts:
        return inside.as_posix()
    if is_pattern(place):
        raise MedtuneError(f"{place}: a pattern of files must lie below {RAW_FOLDER}/")
    _require_rows(path)
    target = RAW_FOLDER / path.name
    if not target.exists():
        # In one step: half a file would be taken for a whole one by whoever tries again.
        partial = target.with_name(f".{target.name}.partial")
        RAW_FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, partial)
        partial.replace(target)
        done.append(f"copied {place} to {target}")
    elif not cmp(path, target, shallow=False):
        raise MedtuneError(f"{target} is there already with other content: rename {place}, or add {target}")
    return target.as_posix()


def _require_rows(path: Path) -> None:
    """Refuse a file that is of no format that is read, broken or empty; its rows are not looked at."""
    next(rows_of(path))


def _is_named(place: str, params: DataParams) -> bool:
    return set(files_at(place, "medtune add: FILE")) <= set(named_files(params))


def _with_source(text: str, place: str) -> str:
    """A params.yaml with a place as a source of its own, or in place of the ontology."""
    content = parse_yaml(text, PARAMS_FILE)
    sources = DataParams.of(content).sources
    name = _free_name(place, sources)
    entry = Value(f" {{path:{scalar(place).text}}}")
    if any(source.origin != "package" for source in sources.values()):
        return with_value(text, ("data", "sources", name), entry)
    text = with_value(text, ("data", "sources"), Value(f"\n   {scalar(name).text}:{entry.text}", 2))
    text = with_value(text, ("data", "kinds"), Value(" null"))
    text = with_value(text, ("data", "near_duplicates"), Value(" 0.8"))
    text = with_value(text, ("evaluate", "set_kinds"), Value(" []"))
    if " ".join(PromptParams.of(content).system.split()) == ontology.SYSTEM_PROMPT:
        text = with_value(text, ("prompt", "system"), scalar(NEUTRAL_PROMPT))
    return text


def _free_name(place: str, known: Collection[str]) -> str:
    stem = re.sub(r"[^\w-]+", "-", Path(place).name.partition(".")[0]).strip("-") or "mine"
    names = [stem, *(f"{stem}-{number}" for number in range(2, len(known) + 3))]
    return next(name for name in names if name not in known)


def _track(files: Sequence[Path]) -> None:
    """Have DVC track the files, and git their .dvc files: an experiment's folder has what git knows."""
    if new := [path for path in files if dvc_file(path) is None]:
        _run("dvc add", sys.executable, "-m", "dvc", "add", *map(str, new))
    _run("git add", "git", "add", "--", *{str(dvc_file(path)) for path in files})


def _run(name: str, *command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if line and not line.startswith("hint: ")]
        raise MedtuneError(f"{name}: {' '.join(said).removeprefix('ERROR: ').removeprefix('fatal: ')}")
