"""A stage, and one run of it: what it reads is read once, and counts only if it is the same at the end.

DVC notes parameters and dependencies after the command has run. Edited in between, they would stand in
`dvc.lock` beside outputs that they did not make. So a run takes the digest of everything it reads when it
starts, and compares before it writes an output and once more when it ends; what differs is an error, and
`dvc.lock` stays as it was.

    STAGE = Stage("prepare", inputs=(Path("data/raw"),), sections=(DataParams,), outputs=(...))

    def main(run: Run) -> None:
        params = run.params(DataParams)
        ...
        run.confirm()
        write_jsonl(...)

    if __name__ == "__main__":
        run_stage(STAGE, main)
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from medtune.core.errors import MedtuneError, run
from medtune.core.examples import Example, read_jsonl
from medtune.core.hashing import file_sha256, files_sha256
from medtune.core.section import PARAMS_FILE, Section
from medtune.core.yaml_file import read_yaml
from medtune.run.code import CODE, DIGESTS, digest, is_quantised, require_installed, undeclared
from medtune.run.shadowing import TAKES_A_PLACE, require_no_shadows

P = TypeVar("P", bound=Section)

LAUNCH_FILES = Path("configs/accelerate")
LOCKS = Path(".dvc/tmp")


@dataclass(frozen=True)
class Stage:
    """What dvc.yaml says of a stage, for the stage itself (tests/pipeline/test_graph.py compares the two).

    `module` is its entry point in `stages/`. `launch` is the section that names its launch file, if any does.
    `named_inputs` are those inputs that the content of params.yaml names.
    """

    name: str
    module: str
    sections: tuple[type[Section], ...]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    launch: str | None = None
    named_inputs: Callable[[Mapping[str, Any]], Sequence[Path]] = lambda _: ()

    @property
    def digest_file(self) -> Path:
        """What the code of this stage means."""
        return DIGESTS / f"{self.module}.json"


@dataclass(frozen=True)
class Run:
    """One run of a stage, with what it read when it started: parameters, and the digests of its inputs."""

    stage: Stage
    content: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: Mapping[str, Mapping[str, str]]
    sections: dict[type[Section], Section] = field(default_factory=dict)

    @classmethod
    def begin(cls, stage: Stage) -> "Run":
        """Read what the stage depends on; refuse code that is not the code of its digest file."""
        require_no_shadows()
        content = read_yaml(PARAMS_FILE)
        sections: dict[type[Section], Section] = {kind: kind.of(content) for kind in stage.sections}
        found = cls(stage, content, {}, _code(stage, content), sections)
        found._require_declared_code()
        require_installed(dict(found.code["packages"]))
        return cls(stage, content, _digests(found), found.code, sections)

    def params(self, section: type[P]) -> P:
        """A section of params.yaml as it was when the run started."""
        found = self.sections[section]
        assert isinstance(found, section)
        return found

    @property
    def launch_file(self) -> Path | None:
        """The file that says where the stage runs, if that is to be chosen."""
        section = self.stage.launch
        return LAUNCH_FILES / f"{self.content[section]['launch']}.yaml" if section else None

    @property
    def started_with(self) -> str:
        """A digest of everything the run has read."""
        content = [self._sections_read(self.content), dict(self.inputs), dict(self.code)]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """What goes in, as JSON values: the digest of every dependency, and the parameters as understood."""
        return {
            "inputs": dict(self.inputs),
            "parameters": {kind.name: self.params(kind).model_dump() for kind in self.stage.sections},
        }

    def examples(self, path: Path) -> list[Example]:
        """The examples in a file among the inputs, as it was when the run started."""
        return read_jsonl(path, self.inputs[path.as_posix()])

    def confirm(self) -> None:
        """Refuse to go on if anything that was read is not what it was when the run started."""
        try:
            changed = self._changed()
        except MedtuneError as error:
            changed = [str(error)]
        if changed:
            names = ", ".join(changed)
            raise MedtuneError(
                f"{self.stage.name}: changed while it ran: {names}. DVC would record its outputs as made "
                "with what is there now, so none is kept; progress is. Undo the change and run `dvc repro` "
                "again to go on, or leave it to start anew"
            )
        if hidden := undeclared(self.code["modules"]):
            self._refuse(hidden[0])

    def _refuse(self, hidden: str) -> None:
        """Raise MedtuneError for a file that was imported and that the digest file does not name."""
        if hidden.partition("/")[0] not in CODE:
            raise MedtuneError(f"{self.stage.name}: imported {hidden}, which {TAKES_A_PLACE}")
        raise MedtuneError(
            f"{self.stage.name}: imported {hidden}, which {self.stage.digest_file} does not name: "
            "import it by its name in a module, so that a change of it reruns the stage"
        )

    def _changed(self) -> list[str]:
        now = read_yaml(PARAMS_FILE)
        before, after = self._sections_read(self.content), self._sections_read(now)
        changed = [
            f"{PARAMS_FILE} ({key})" for name in before for key in _differing(name, before[name], after[name])
        ]
        digests = _digests(self)
        changed += [name for name, known in self.inputs.items() if digests.get(name) != known]
        modules = _code(self.stage, now)["modules"]
        known = dict(self.code["modules"])
        return changed + [name for name in sorted(known | modules) if known.get(name) != modules.get(name)]

    def _sections_read(self, content: Mapping[str, Any]) -> dict[str, Any]:
        return {section.name: content.get(section.name) for section in self.stage.sections}

    def _require_declared_code(self) -> None:
        path = self.stage.digest_file
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            written = None
        if written != self.code:
            raise MedtuneError(
                f"{path} is not that of the code that is here; run `dvc repro`, which writes it first "
                "(by hand: python -m stages.code)"
            )


def run_stage(stage: Stage, main: Callable[[Run], None]) -> None:
    """Call the entry point of a stage that is one process; bad input becomes one line and exit code 1.

    For stages that may be several there is `medtune.run.launch.run_launched`.
    """

    def start() -> None:
        with only_here(stage.name):
            run_whole(Run.begin(stage), main)

    run(start)


def run_whole(begun: Run, main: Callable[[Run], None]) -> None:
    """Call an entry point, then see once more that nothing it read has changed.

    Between this look and DVC's own there is only the end of the process.
    """
    main(begun)
    begun.confirm()


@contextmanager
def only_here(stage: str) -> Iterator[None]:
    """Refuse to start a stage that still runs in this folder: it would write over the outputs.

    The lock of DVC ends with DVC, even if a stage that it started lives on.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(LOCKS / f"medtune-{stage}.lock"), LOCKS / f"medtune-{stage}.pid"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MedtuneError(
            f"{stage} still runs in this folder, as process {note.read_text(encoding='utf-8')}; "
            "wait for it or end it, then run `dvc repro` again: it goes on from what is done"
        ) from None
    with lock:
        note.write_text(str(os.getpid()), encoding="utf-8")
        yield


def _code(stage: Stage, content: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return digest(f"stages.{stage.module}", quantised=is_quantised(content))


def _digests(begun: Run) -> dict[str, str]:
    """Digests of what the stage depends on, by path: its inputs, its digest file, its launch file."""
    launch = [begun.launch_file] if begun.launch_file else []
    stage = begun.stage
    paths = [stage.digest_file, *stage.inputs, *stage.named_inputs(begun.content), *launch]
    return {path.as_posix(): _digest(path) for path in sorted(paths)}


def _digest(path: Path) -> str:
    if path.is_dir():
        return files_sha256((file for file in path.rglob("*") if file.is_file()), path)
    if not path.is_file():
        raise MedtuneError(f"{path}: not there; run `dvc repro` to make it or `dvc pull` to fetch it")
    return file_sha256(path)


def _differing(key: str, before: Any, after: Any) -> list[str]:
    """Dotted keys whose values differ."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return [] if before == after else [key]
    names = [*before, *(name for name in after if name not in before)]
    return [
        found for name in names for found in _differing(f"{key}.{name}", before.get(name), after.get(name))
    ]
