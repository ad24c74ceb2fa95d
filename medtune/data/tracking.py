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


def files_at(place: str, key: str) -> list[Path]:
    """The files of a path or a pattern such as data/raw/mine-*.csv, in alphabetic order.

    MedtuneError: there is none, or it lies elsewhere than below data/raw; `key` is only named in errors.
    """
    is_pattern = any(mark in place for mark in "*?[")
    try:
        found = sorted(Path().glob(place)) if is_pattern and not place.startswith("/") else [Path(place)]
    except (ValueError, NotImplementedError) as error:
        raise MedtuneError(
            f"params.yaml: {key} is '{place}', which is no pattern: {error}; accepted: one such as "
            f"{RAW_FOLDER}/mine-*.csv"
        ) from None
    found = [path for path in found if path.suffix != ".dvc" and path.name != ".gitignore"]
    if is_pattern and not found:
        raise MedtuneError(f"params.yaml: {key} is '{place}', which matches no file")
    for path in found:
        if not _is_watched(path):
            raise MedtuneError(
                f"params.yaml: {key} is '{place}'; a local file must lie below {RAW_FOLDER}/ (where git "
                "ignores it and DVC has it) and in no linked folder"
            )
        if path.is_dir():
            raise MedtuneError(
                f"params.yaml: {key} is '{place}', a folder; accepted: a file, or a pattern {place}/*"
            )
    return found


def named_files(params: DataParams) -> list[Path]:
    """Every local file that params.yaml names as a source or as held out, each once, in alphabetic order."""
    found: set[Path] = set()
    for name, source, place, split in params.places():
        if source.origin == "files":
            key = f"data.sources.{name}.path" if split is None else f"data.sources.{name}.splits.{split}"
            found.update(files_at(place, key))
    for place in params.held_out:
        found.update(files_at(place, "data.held_out"))
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


def declare(files: Iterable[Path], pipeline: Path = PIPELINE_FILE) -> bool:
    """Make these the files below data/raw that the stages depend on; whether dvc.yaml was changed."""
    wanted = sorted(path.as_posix() for path in files)
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
    if changed:
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
    """Those of the files that neither DVC nor git has, so that nobody else can get them."""
    return [
        path
        for path in files
        if not Path(f"{path}.dvc").is_file() and not _in_dvc_folder(path) and not _in_git(path)
    ]


def _in_dvc_folder(path: Path) -> bool:
    return any(Path(f"{folder}.dvc").is_file() for folder in path.parents if folder != Path())


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
