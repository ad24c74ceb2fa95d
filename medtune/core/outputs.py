"""Writing what a stage leaves: JSON metrics, curves, and wall-clock figures apart from both.

Every file is written aside and then takes the place of the old one: a killed process leaves the old file or
the new one, and where DVC has linked a file to its cache (`cache.type` symlink or hardlink), the link is
replaced and the cached object stays as it is.
"""

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

TIMING_FILE = Path("metrics/timing.json")
"""How long each stage took: no stage's output, so that dvc.lock never depends on a clock."""
ENVIRONMENT_FILE = Path("metrics/environment.json")
"""Where each stage ran: no stage's output, so that dvc.lock never depends on a machine."""


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file to write to, which takes the place of `path` when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text, in one step."""
    with replacing(path) as file:
        file.write(text)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON, in one step. A number that JSON cannot hold (NaN) is a ValueError."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table for `dvc plots`, in one step."""
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read what `write_csv` wrote: a row as the texts of its cells by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def record_timing(
    stage: str, seconds: float, tokens: int | None = None, device_memory: int | None = None
) -> None:
    """Note how long a stage took, its peak of memory and, given its tokens, how many it did a second.

    `device_memory` are the bytes of tensors at their peak on a GPU; without it counts what this process
    had resident.
    """
    peak = resident_peak() if device_memory is None else device_memory
    figures = {"seconds": round(seconds, 1), "peak_memory_gib": round(peak / 2**30, 2)}
    if tokens is not None:
        figures["tokens_per_second"] = round(tokens / seconds, 1)
    _note(TIMING_FILE, stage, figures)


def record_environment(stage: str, environment: Mapping[str, Any]) -> None:
    """Note where a stage ran."""
    _note(ENVIRONMENT_FILE, stage, environment)


def _note(path: Path, stage: str, figures: Mapping[str, Any]) -> None:
    try:
        known = read_json(path)
    except (FileNotFoundError, json.JSONDecodeError):
        known = {}
    write_json(path, dict(sorted((known | {stage: figures}).items())))


def resident_peak() -> int:
    """The most bytes this process ever had resident."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux hands ru_maxrss on to programs that a process starts: the parent's peak would count here.
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    try:
        import resource
    except ImportError:
        # Windows, whose libraries tell another way.
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
