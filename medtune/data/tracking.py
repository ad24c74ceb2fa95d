"""The local files that the questions come from, and what DVC and git know of them.

`dvc.yaml` names each as a dependency of `code`, which reads it before DVC deletes anything, and of `prepare`:
so an edit of one reruns these and nothing else does. DVC takes no list of files from params.yaml: `medtune
add` writes them there, and both stages refuse a dvc.yaml that lacks one.
"""

import subprocess
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from medtune.core.errors import MedtuneError
from medtune.core.outputs import write_text
from medtune.core.yaml_file import read_yaml
from medtune.data.params import DataParams

RAW_FOLDER = Path("data/raw")
PIPELINE_FILE = Path("dvc.yaml")
STAGES = ("code", "prepare")
HELD_OUT = "params.yaml: data.held_out"


def is_pattern(place: str) -> bool:
    """Whether a place is a pattern of files rather than one."""
    return any(mark in place for mark in "*?[")


def files_at(place: str, key: str) -> list[Path]:
    """The files of a path or a pattern such as data/raw/mine-*.csv, in alphabetic order.

    MedtuneError: there is none, or it lies elsewhere than below data/raw; `key` is only named in errors.
    """
    # A browser calls a second download "mine[1].csv", which as a pattern would be another file, mine1.csv.
    matches = is_pattern(place) and not place.startswith("/") and not Path(place).is_file()
    try:
        found = sorted(Path().glob(place)) if matches else [Path(place)]
    except (ValueError, NotImplementedError) as error:
        raise MedtuneError(
            f"{key} is '{place}', which is no pattern: {error}; accepted: one such as {RAW_FOLDER}/mine-*.csv"
        ) from None
    if matches:
        found = [path for path in found if path.suffix != ".dvc" and not path.name.startswith(".")]
    if not found:
        raise MedtuneError(f"{key} is '{place}', which matches no file")
    for path in found:
        if not _is_watched(path):
            raise MedtuneError(
                f"{key} is '{place}'; a local file must lie below {RAW_FOLDER}/ (where git "
                "ignores it and DVC has it) and in no linked folder"
            )
        if path.is_dir():
            raise MedtuneError(f"{key} is '{place}', a folder; accepted: a file, or a pattern {place}/*")
    return found


def source_key(name: str, split: str | None) -> str:
    """Where params.yaml names the files of a source, or of a split of it; for errors."""
    return f"params.yaml: data.sources.{name}.{'path' if split is None else f'splits.{split}'}"


def named_files(params: DataParams) -> list[Path]:
    """Every local file that params.yaml names as a source or as held out, each once, in alphabetic order."""
    found: set[Path] = set()
    for name, source, place, split in params.places():
        if source.origin == "files":
            found.update(files_at(place, source_key(name, split)))
    for place in params.held_out:
        found.update(files_at(place, HELD_OUT))
    return sorted(found)


def require_declared(params: DataParams) -> None:
    """Refuse a dvc.yaml that has other files as dependencies than params.yaml names."""
    named = {path.as_posix() for path in named_files(params)}
    for stage in STAGES:
        declared = set(_declared_by(read_yaml(PIPELINE_FILE), stage, PIPELINE_FILE))
        if missing := sorted(named - declared):
            raise MedtuneError(
                f"{PIPELINE_FILE}: {stage} does not depend on {missing[0]}, which params.yaml names, so DVC "
                f"would not notice when it changes: medtune add {' '.join(missing)}"
            )
        if others := sorted(declared - named):
            raise MedtuneError(
                f"{PIPELINE_FILE}: {stage} depends on {others[0]}, which params.yaml does not name (any "
                "more): `medtune add` without a file puts that right"
            )


def declared_files(pipeline: Path = PIPELINE_FILE) -> list[str]:
    """The files below data/raw that dvc.yaml has as dependencies of prepare."""
    return _declared_by(read_yaml(pipeline), "prepare", pipeline)


def declare(files: Iterable[Path], pipeline: Path = PIPELINE_FILE, *, write: bool = True) -> bool:
    """Make these the files below data/raw that the stages depend on; whether that changes dvc.yaml."""
    wanted = sorted(path.as_posix() for path in files)
    # For the words of its errors.
    read_yaml(pipeline)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    content: Any = yaml.load(pipeline.read_text(encoding="utf-8"))
    changed = False
    for stage in STAGES:
        declared = _declared_by(content, stage, pipeline)
        if sorted(declared) == wanted:
            continue
        changed = True
        dependencies = content["stages"][stage]["deps"]
        for path in declared:
            dependencies.remove(path)
        dependencies.extend(wanted)
    if changed and write:
        text = StringIO()
        yaml.dump(content, text)
        write_text(pipeline, text.getvalue())
    return changed


def _declared_by(content: Any, stage: str, pipeline: Path) -> list[str]:
    try:
        dependencies = content["stages"][stage]["deps"]
        return [path for path in dependencies if Path(path).is_relative_to(RAW_FOLDER)]
    except (KeyError, TypeError):
        raise MedtuneError(f"{pipeline}: the stage {stage} is not there, or has no list `deps`") from None


def unversioned(files: Sequence[Path]) -> list[Path]:
    """Those of the files that git has neither itself nor by a .dvc file, so that nobody else can get them."""
    return [path for path in files if not _in_git(dvc_file(path) or path)]


def warnings(files: Sequence[Path]) -> list[str]:
    """What is to be said of files that nobody else can get, an experiment in a folder of its own included."""
    return [
        f"warning: {path} is versioned nowhere, so nobody else can run this: medtune add {path}"
        for path in unversioned(files)
    ]


def dvc_file(path: Path) -> Path | None:
    """The .dvc file by which DVC tracks a file, or a folder that it lies in; None if there is none."""
    found = (Path(f"{place}.dvc") for place in (path, *path.parents))
    return next((file for file in found if file.is_file()), None)


def _in_git(path: Path) -> bool:
    command = ["git", "ls-files", "--error-unmatch", "--", str(path)]
    return subprocess.run(command, capture_output=True).returncode == 0


def _is_watched(path: Path) -> bool:
    """Whether it is a file below data/raw by its real folder; the file itself may be a link, as to DVC's
    cache."""
    folder = path.parent
    if not folder.is_relative_to(RAW_FOLDER) or ".." in folder.parts:
        return False
    return folder.resolve() == RAW_FOLDER.resolve() / folder.relative_to(RAW_FOLDER)
