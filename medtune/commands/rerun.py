"""`medtune verify --rerun`: the pipeline again, in a temporary copy, and how the two runs differ."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.numpy import load_file

from medtune.core.errors import MedtuneError
from medtune.run.lock_file import LOCK_FILE, entries, read_lock

PROVENANCE = Path("models/adapter/provenance.json")
WEIGHTS = Path("models/adapter/adapter_model.safetensors")
METRICS = ("training", "baseline", "evaluation")


@dataclass
class Comparison:
    """How a second run differs from the first; differences of metrics are absolute."""

    identical: bool
    outputs: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    weights: float = 0.0
    environment: list[str] = field(default_factory=list)

    def verdict(self, tolerance: float) -> str:
        """identical, within tolerance or different."""
        if self.identical:
            return "identical"
        data_differs = any(name.startswith("data/") for name in self.outputs)
        close = bool(self.metrics) and max(self.metrics.values()) <= tolerance and not data_differs
        return "within tolerance" if close else "different"


def rerun() -> Comparison:
    """Run every stage again, without the caches of this repository, and compare what comes out."""
    read_lock()
    with TemporaryDirectory() as temporary:
        copy = Path(temporary) / "medtune"
        _copy_repository(copy)
        variables = os.environ | {"MEDTUNE_PROGRESS": str(Path(temporary) / "progress")}
        command = [sys.executable, "-m", "dvc", "repro"]
        if subprocess.run(command, cwd=copy, env=variables).returncode != 0:
            raise MedtuneError("the pipeline did not run to its end; see above")
        return compare(Path(), copy)


def compare(first: Path, second: Path) -> Comparison:
    """Compare two finished repositories of one commit."""
    if (first / LOCK_FILE).read_bytes() == (second / LOCK_FILE).read_bytes():
        return Comparison(identical=True)
    recorded = {e.path: e.md5 for e in entries(read_lock(first / LOCK_FILE)) if e.role == "outs"}
    again = {e.path: e.md5 for e in entries(read_lock(second / LOCK_FILE)) if e.role == "outs"}
    comparison = Comparison(
        identical=False,
        outputs=sorted(path for path in recorded | again if recorded.get(path) != again.get(path)),
        environment=list(_environment_differences(first, second)),
    )
    for name in METRICS:
        before, after = (
            dict(_rates(json.loads((folder / "metrics" / f"{name}.json").read_text(encoding="utf-8"))))
            for folder in (first, second)
        )
        for key in before.keys() & after.keys():
            comparison.metrics[f"{name}.{key}"] = abs(before[key] - after[key])
    old, new = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
    if {k: v.shape for k, v in old.items()} == {k: v.shape for k, v in new.items()}:
        comparison.weights = max(float(abs(old[key] - new[key]).max()) for key in old)
    return comparison


def _copy_repository(target: Path) -> None:
    """The files that git knows of, as they are now, and the user's own data; none that a stage made."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode != 0:
        raise MedtuneError(f"not a git repository: {listed.stderr.strip()}")
    made = {entry.path for entry in entries(read_lock()) if entry.role == "outs"} | {str(LOCK_FILE)}
    for name in listed.stdout.split("\0"):
        if name and name not in made and Path(name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, target / name)
    shutil.copytree("data/raw", target / "data/raw", dirs_exist_ok=True)
    subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)


def _rates(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every figure that is not a count, by its dotted name."""
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from _rates(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            yield f"{prefix}{key}", value


def _environment_differences(first: Path, second: Path) -> Iterator[str]:
    before, after = (
        json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))["environment"]
        for folder in (first, second)
    )
    before, after = ({**e, **e.pop("packages")} for e in (before, after))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"{key}: {_shown(before.get(key))} then, {_shown(after.get(key))} now"


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)
