"""What dvc.yaml says of stages that were added to the shipped ones: their sections, their digest files.

So a stage of one's own needs no edit of the modules that every stage is made of, which would rerun them all.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medtune.core.yaml_file import read_yaml

PIPELINE_FILE = Path("dvc.yaml")


def declared_sections(pipeline: Path, params_file: str) -> set[str]:
    """The sections of `params_file` that stages have among their `params`; none where `pipeline` is not."""
    return {
        key.partition(".")[0]
        for stage in _stages(pipeline).values()
        for entry in _listed(stage, "params")
        for key in _keys(entry, params_file)
    }


def outputs_in(folder: Path, stage: str, pipeline: Path) -> list[Path]:
    """The outputs of a stage in a folder, in their order; none where `pipeline` is not."""
    entries = _listed(_stages(pipeline).get(stage), "outs")
    paths = [Path(next(iter(entry)) if isinstance(entry, dict) else str(entry)) for entry in entries]
    return [path for path in paths if path.parent == folder]


def _stages(pipeline: Path) -> dict[str, Any]:
    stages = read_yaml(pipeline).get("stages") if pipeline.is_file() else None
    return stages if isinstance(stages, dict) else {}


def _listed(stage: Any, key: str) -> list[Any]:
    """A list of a stage; of one that `foreach` makes many of, what stands under `do`."""
    while isinstance(stage, dict) and "do" in stage:
        stage = stage["do"]
    found = stage.get(key) if isinstance(stage, dict) else None
    return found if isinstance(found, list) else []


def _keys(entry: Any, params_file: str) -> Iterator[str]:
    """The keys of `params_file` in an entry of `params`: a key, or a mapping of a file to its keys."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        yield from (key for key in entry.get(params_file) or () if isinstance(key, str))
