"""Writing what a stage leaves: JSON metrics, curves, and wall-clock figures apart from both."""

import csv
import json
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TIMING_FILE = Path("metrics/timing.json")
"""No stage's output: `dvc.yaml` lists it among the metrics only, so dvc.lock never depends on a clock."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON, in one step: a killed process leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def write_curve(path: Path, log: Sequence[Mapping[str, float]], columns: Sequence[str]) -> None:
    """Write those entries of a training log that have all `columns`, as CSV for `dvc plots`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(
            [entry[column] for column in columns]
            for entry in log
            if all(column in entry for column in columns)
        )


def record_timing(
    stage: str, seconds: float, tokens: int | None = None, device_memory: int | None = None
) -> None:
    """Note how long a stage took, its peak of memory and, given its tokens, how many it did a second.

    `device_memory` are the bytes of tensors at their peak on a GPU; without it counts what this process
    had resident.
    """
    try:
        timing = json.loads(TIMING_FILE.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        timing = {}
    peak = resident_peak() if device_memory is None else device_memory
    figures = {"seconds": round(seconds, 1), "peak_memory_gib": round(peak / 2**30, 2)}
    if tokens is not None:
        figures["tokens_per_second"] = round(tokens / seconds, 1)
    write_json(TIMING_FILE, dict(sorted((timing | {stage: figures}).items())))


def resident_peak() -> int:
    """The most bytes this process ever had resident."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux hands ru_maxrss on to programs that a process starts: the parent's peak would count here.
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
