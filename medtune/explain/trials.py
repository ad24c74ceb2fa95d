"""A few real steps of a revision, in a folder of its own: its stages, its code, its parameters, its schedule.

Nothing is made smaller that would change a step: `prepare` runs in full, training is stopped after some steps
of the whole run, and of the validation and test questions a few stay. A stage whose code, parameters and
inputs an earlier trial had is not run again.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256, files_sha256
from medtune.core.outputs import read_json
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.data.tracking import PIPELINE_FILE
from medtune.explain.outcomes import Outcome
from medtune.run.code import RUNTIME_LOCK
from medtune.run.shipped import SHIPPED

"""Those that are run; an export is none."""
READ_OF_PREPARE = ("train.jsonl", "validation.jsonl", "test.jsonl", "ATTRIBUTION.md")
"""What other stages read of it."""
PREPARED = Path("data/prepared")
WEIGHTS = Path("models/adapter/adapter_model.safetensors")
ANSWERS = ("answers-base.json", "answers-tuned.json", "answers-shots.json")
DETAILS = Path("metrics/details.json")
STEPS = Path("metrics/explained_steps.json")
"""What the few steps logged: no stage's, and gone with the folder."""
LEFT_OUT = (".git", "tests", "docs", "notebooks", "benchmarks", "digests", "metrics", "models", "dvc.lock")
"""Of a revision: what no stage reads, or what one makes."""


@dataclass
class Trials:
    """Runs trials, and remembers what each stage left by all that it read."""

    folder: Path
    steps: int
    asked: Mapping[str, frozenset[str]] = field(default_factory=dict)
    ran: int = 0
    _known: dict[str, str | None] = field(default_factory=dict)
    _server: "subprocess.Popen[str] | None" = None

    def prepared(self, tree: Path) -> dict[str, list[dict[str, Any]]]:
        """The questions of a revision by split; MedtuneError says why there are none."""
        place = self._copy(tree)
        for stage in SHIPPED[:2]:
            if failed := self._stage(place, stage):
                raise MedtuneError(f"{stage}: {failed}")
        return {
            split: _rows(place / PREPARED / f"{split}.jsonl") for split in ("train", "validation", "test")
        }

    def run(self, tree: Path, change: Callable[[Path], None] | None = None) -> Outcome:
        """What the stages of a revision give, after a change to a copy of its files."""
        place = self._copy(tree)
        if change:
            change(place)
        failed = None
        questions: dict[str, str] = {}
        for stage in SHIPPED:
            if failed := self._stage(place, stage):
                failed = f"{stage}: {failed}"
                break
            if stage == "prepare":
                questions = {name: file_sha256(place / PREPARED / name) for name in READ_OF_PREPARE}
                self._keep_few(place)
        return _outcome(place, questions, failed)

    def _copy(self, tree: Path) -> Path:
        place = self.folder / f"trial-{len(list(self.folder.glob('trial-*')))}"
        shutil.copytree(tree, place, symlinks=True, ignore=_left_out(tree))
        _lock_what_is_installed(place / RUNTIME_LOCK)
        return place

    def _stage(self, place: Path, stage: str) -> str | None:
        """Run a stage in a folder, or put there what it left before; why it failed, if it did."""
        declared = read_yaml(place / PIPELINE_FILE).get("stages", {}).get(stage)
        if declared is None:
            return None if stage == "answer-shots" else f"no such stage in {PIPELINE_FILE}"
        content = read_yaml(place / PARAMS_FILE)
        try:
            key, outputs = _key(place, declared, content), _outputs(stage, declared)
        except (OSError, KeyError, TypeError) as error:
            return f"{PIPELINE_FILE}: {type(error).__name__}: {error}"
        kept = self.folder / "kept" / key
        if key not in self._known:
            if stage == "finetune" and (several := _several_processes(place, content)):
                return several
            self._known[key] = self._start(place, stage, declared["cmd"])
            for path in outputs:
                _move_over(place / path, kept / path)
        for path in outputs:
            _move_over(kept / path, place / path)
        return self._known[key]

    def _start(self, place: Path, stage: str, command: str) -> str | None:
        """Run a stage; None, or why it failed."""
        python, option, module, *arguments = (command.split() + [""] * 3)[: max(3, len(command.split()))]
        if (python, option) != ("python", "-m") or not module.startswith("stages."):
            return f"its command is none of this pipeline: {command}"
        (place / STEPS).parent.mkdir(exist_ok=True)
        log = place / f".{stage}.log"
        request = {
            "folder": str(place),
            "module": module,
            "arguments": arguments,
            "log": str(log),
            "steps": self.steps if stage == "finetune" else None,
            "steps_file": str(place / STEPS),
        }
        self.ran += 1
        assert self._server is not None and self._server.stdin and self._server.stdout
        print(json.dumps(request), file=self._server.stdin, flush=True)
        answer = self._server.stdout.readline().strip()
        if answer == "0":
            return None
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or [
            "no reason given"
        ]
        errors = [line for line in said if line.startswith("error: ")]
        return (errors or said)[-1].removeprefix("error: ")

    def _keep_few(self, place: Path) -> None:
        """Leave of validation and test what is asked, or some others: a split may not be empty."""
        for split, ids in self.asked.items():
            file = place / PREPARED / f"{split}.jsonl"
            rows = _rows(file)
            few = [row for row in rows if row["id"] in ids] or rows[: len(ids)]
            file.write_text(
                "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in few), encoding="utf-8"
            )


@contextmanager
def trials(folder: Path, steps: int) -> Iterator[Trials]:
    """Trials in a folder, with the process that runs their stages."""
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "medtune.explain.stage_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=variables,
        text=True,
    ) as server:
        try:
            yield Trials(folder, steps, _server=server)
        finally:
            assert server.stdin
            server.stdin.close()


def few_questions(
    before: Mapping[str, Sequence[Mapping[str, Any]]],
    after: Mapping[str, Sequence[Mapping[str, Any]]],
    most: int,
) -> dict[str, frozenset[str]]:
    """Ids of validation and test questions to ask: some of each kind, with choices and without.

    They are of those that both revisions have; half as many again are of those that only one has, or has
    otherwise: they are what may differ.
    """
    found = {}
    for split in ("validation", "test"):
        old, new = ({row["id"]: row for row in side[split]} for side in (before, after))
        same = [name for name in old if old[name] == new.get(name)]
        # With choices there are likelihoods, which tell a smaller difference than a text does.
        kinds: dict[tuple[str, bool], list[str]] = {}
        for name in same or list(old):
            kinds.setdefault((old[name]["kind"], "choices" in old[name]), []).append(name)
        each = -(-most // max(1, len(kinds)))
        chosen = [name for names in kinds.values() for name in names[:each]]
        others = [name for name in [*old, *new] if old.get(name) != new.get(name)]
        found[split] = frozenset([*chosen, *others[: max(1, most // 2)]])
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _left_out(tree: Path) -> Callable[[str, list[str]], set[str]]:
    def ignore(folder: str, names: list[str]) -> set[str]:
        if Path(folder) == tree:
            return {name for name in names if name in LEFT_OUT}
        return {name for name in names if name == "__pycache__" or Path(folder, name) == tree / PREPARED}

    return ignore


def _lock_what_is_installed(lock: Path) -> None:
    """Let the lock name the versions that are here: a stage refuses others, and all trials have the same."""

    def installed(match: "re.Match[str]") -> str:
        try:
            return f"{match[1]}=={metadata.version(match[1].partition('[')[0]).partition('+')[0]}"
        except metadata.PackageNotFoundError:
            return match[0]

    text = lock.read_text(encoding="utf-8")
    lock.write_text(
        re.sub(r"^([\w.-]+(?:\[[\w,-]+\])?)==([^\s;#]+)", installed, text, flags=re.MULTILINE),
        encoding="utf-8",
    )


def _key(place: Path, declared: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """A digest of all that a stage reads, and of its command."""
    paths = sorted(_filled_in(path, content) for path in declared.get("deps", []))
    read = {path: _digest(place / path) for path in paths}
    sections = {str(name): content.get(str(name)) for name in declared.get("params", [])}
    said = json.dumps([declared["cmd"], read, sections], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _filled_in(path: str, content: Mapping[str, Any]) -> str:
    """A path of dvc.yaml with the parameters that stand in it, as in ${finetune.launch}."""

    def value(match: "re.Match[str]") -> str:
        found: Any = content
        for key in match[1].split("."):
            found = found[key]
        return str(found)

    return re.sub(r"\$\{([\w.]+)\}", value, path)


def _digest(path: Path) -> str:
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        return files_sha256(files, path)
    return file_sha256(path)


def _outputs(stage: str, declared: Mapping[str, Any]) -> list[str]:
    listed = [one for role in ("outs", "metrics", "plots") for one in declared.get(role, [])]
    found = [one if isinstance(one, str) else next(iter(one)) for one in listed]
    return [*found, str(STEPS)] if stage == "finetune" else found


def _move_over(source: Path, target: Path) -> None:
    """Copy a file or folder, if it is there, in place of another."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _several_processes(place: Path, content: Mapping[str, Any]) -> str | None:
    name = content["finetune"]["launch"]
    path = Path(f"configs/accelerate/{name}.yaml")
    if (place / path).is_file() and read_yaml(place / path).get("num_processes") != 1:
        return f"{path} asks for several processes, of which no few steps are tried"
    return None


def _outcome(place: Path, questions: Mapping[str, str], failed: str | None) -> Outcome:
    logged = read_json(place / STEPS) if (place / STEPS).is_file() else {"log": [], "planned": None}
    log = logged["log"]
    answers = {
        name: {row["id"]: row for row in read_json(place / "metrics" / name)["answers"]}
        for name in ANSWERS
        if (place / "metrics" / name).is_file()
    }
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    return Outcome(
        questions=questions,
        losses=[entry["loss"] for entry in log if "loss" in entry],
        norms=[entry["grad_norm"] for entry in log if "grad_norm" in entry],
        validation_loss=losses[-1] if losses else None,
        planned=logged["planned"],
        weights=place / WEIGHTS if (place / WEIGHTS).is_file() else None,
        answers=answers,
        figures=read_json(place / DETAILS) if (place / DETAILS).is_file() else {},
        failed=failed,
    )
