"""`medtune verify --rerun`: the pipeline again, in a temporary copy, and how the two runs differ."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from safetensors.numpy import load_file

from medtune.core.errors import Interrupted, MedtuneError
from medtune.core.outputs import ENVIRONMENT_FILE, read_json
from medtune.core.section import PARAMS_FILE
from medtune.data.tracking import declared_files
from medtune.run.lock_file import LOCK_FILE, entries, read_lock
from medtune.run.params import ComputeParams

WEIGHTS = Path("models/adapter/adapter_model.safetensors")
METRICS = ("evaluation", "training", "details")


@dataclass
class Comparison:
    """How a second run differs from the first; differences of metrics are absolute.

    `outputs` are those whose bytes differ. `weights` is the largest difference of a weight of the adapter, or
    None where its shape is another.
    """

    outputs: list[str]
    metrics: dict[str, float] = field(default_factory=dict)
    weights: float | None = 0.0
    environment: list[str] = field(default_factory=list)
    deterministic: bool = True
    ran: list[str] = field(default_factory=list)

    def verdict(self, tolerance: float) -> str:
        """identical, within tolerance or different.

        In the same environment the same bytes are promised, and no tolerance is given.
        """
        if not self.outputs:
            return "identical"
        data_differs = any(name.startswith("data/") for name in self.outputs)
        may_differ = bool(self.environment) or not self.deterministic
        close = bool(self.metrics) and max(self.metrics.values()) <= tolerance and not data_differs
        return "within tolerance" if close and may_differ and self.weights is not None else "different"

    def describe(self, tolerance: float) -> str:
        """What ran again, the verdict, and where the two runs differ."""
        lines = ["", f"ran again: {', '.join(self.ran)}", f"run again: {self.verdict(tolerance)}"]
        if self.outputs:
            lines.append(f"other outputs: {', '.join(self.outputs)}")
            name, largest = max(self.metrics.items(), key=lambda item: item[1], default=("none", 0.0))
            weights = "other shapes" if self.weights is None else f"{self.weights:.3g} in a weight"
            lines.append(f"largest difference: {largest:.3g} in a metric ({name}), {weights} of the adapter")
            lines += [f"may be why: {difference}" for difference in self.environment]
            lines += (
                []
                if self.environment
                else ["the recorded environments are the same, and so should the bytes be"]
            )
        return "\n".join(lines)


def rerun(output: TextIO) -> Comparison:
    """Run every stage again, with no cache but the copy's own, and compare what comes out.

    What the stages print goes to `output`.
    """
    stages = list(read_lock())
    with TemporaryDirectory(prefix="medtune-rerun-") as temporary:
        copy = Path(temporary) / "medtune"
        _copy_repository(copy)
        ran = run_all(copy, Path(temporary), output)
        require_all_ran(stages, ran)
        comparison = compare(Path(), copy)
        comparison.ran = ran
        return comparison


def require_all_ran(stages: Iterable[str], ran: Sequence[str]) -> None:
    """Refuse to say anything of a run in which DVC has left a stage out."""
    if missing := [stage for stage in stages if stage not in ran]:
        raise MedtuneError(
            f"DVC ran {', '.join(ran) or 'nothing'} again, but not {', '.join(missing)}: nothing is shown"
        )


def compare(first: Path, second: Path) -> Comparison:
    """Compare two finished repositories of one commit."""
    before, after = (
        {entry.path: entry.md5 for entry in entries(read_lock(folder / LOCK_FILE)) if entry.role == "outs"}
        for folder in (first, second)
    )
    outputs = sorted(path for path in before | after if before.get(path) != after.get(path))
    if not outputs:
        return Comparison(outputs)
    return Comparison(
        outputs,
        metrics=dict(_metric_differences(first, second)),
        weights=_weight_difference(first, second),
        environment=list(_environment_differences(first, second)),
        deterministic=ComputeParams.load(first / PARAMS_FILE).deterministic,
    )


def _copy_repository(target: Path) -> None:
    """The repository's files as they are now, and the user's own data; none that a stage made."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode != 0:
        raise MedtuneError(f"not a git repository: {listed.stderr.strip()}")
    made = {entry.path for entry in entries(read_lock()) if entry.role == "outs"} | {str(LOCK_FILE)}
    for name in listed.stdout.split("\0"):
        if name and Path(name).is_file() and not any(Path(name).is_relative_to(path) for path in made):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, target / name)
    for name in declared_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, target / name)
    subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)


def run_all(copy: Path, outside: Path, output: TextIO, changes: Mapping[str, str] | None = None) -> list[str]:
    """Run every stage of a copy and hand on what is printed; returns the names of those that ran.

    The cache is the copy's own: a cache that is shared (`cache.dir`) has results of earlier runs, and DVC
    would hand them out instead of running anything. Cache and progress lie in the folder `outside`;
    `changes` are variables that the stages get besides.
    """
    dvc = [sys.executable, "-m", "dvc"]
    variables = own_variables() | {
        "MEDTUNE_PROGRESS": str(outside / "progress"),
        "PYTHONUNBUFFERED": "1",
        **(changes or {}),
    }
    configure = [*dvc, "config", "--quiet", "--local", "cache.dir", str(outside / "cache")]
    subprocess.run(configure, cwd=copy, env=variables, check=True)
    ran = []
    command = [*dvc, "repro", "--force", "--no-run-cache"]
    with subprocess.Popen(command, cwd=copy, env=variables, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True, file=output)
                if match := re.match(r"Running stage '(.+)'", line):
                    ran.append(match[1])
        except KeyboardInterrupt:
            # DVC was told as well, and is to be gone before the folder that it works in.
            process.wait()
            raise Interrupted("the copy is deleted: a rerun starts anew") from None
    if process.returncode != 0:
        raise MedtuneError("the pipeline did not run to its end; see above")
    return ran


def own_variables() -> dict[str, str]:
    """This process's variables for a program that runs in a copy: of this Python, with the copy's modules."""
    # The stages' `python` is to be this one, also where its environment was not activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    # With it, modules from elsewhere would come before those of the copy.
    return {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | {"PATH": path}


def _metric_differences(first: Path, second: Path) -> Iterator[tuple[str, float]]:
    for name in METRICS:
        before, after = (
            dict(_rates(read_json(folder / f"metrics/{name}.json"))) for folder in (first, second)
        )
        for key in sorted(before.keys() & after.keys()):
            yield f"{name}.{key}", abs(before[key] - after[key])


def _rates(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every figure that is not a count, by its dotted name."""
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from _rates(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            yield f"{prefix}{key}", value


def _weight_difference(first: Path, second: Path) -> float | None:
    old, new = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
    if {name: one.shape for name, one in old.items()} != {name: one.shape for name, one in new.items()}:
        return None
    return max(float(abs(old[name] - new[name]).max()) for name in old)


def _environment_differences(first: Path, second: Path) -> Iterator[str]:
    """What is another about where the stages ran; in the same words for several stages, once."""
    before, after = _environment(first), _environment(second)
    if not before:
        yield f"where the first run was made is not known: {ENVIRONMENT_FILE} does not say"
        return
    differences = (
        f"{key}: {_shown(before.get((stage, key)))} then, {_shown(after.get((stage, key)))} now"
        for stage, key in sorted(before.keys() | after.keys())
        if before.get((stage, key)) != after.get((stage, key))
    )
    yield from dict.fromkeys(differences)


def _environment(folder: Path) -> dict[tuple[str, str], Any]:
    """What is noted of where each stage ran, by stage and key; nothing if the file is not there or broken.

    No hash vouches for that file, since it depends on the machine.
    """
    try:
        noted = read_json(folder / ENVIRONMENT_FILE)
        flat = ((stage, key, value) for stage, facts in noted.items() for key, value in facts.items())
        return {
            (stage, f"{key}.{part}".removesuffix(".")): content
            for stage, key, value in flat
            for part, content in (value.items() if isinstance(value, dict) else [("", value)])
        }
    except (OSError, ValueError, AttributeError):
        return {}


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
