"""Checkpoints that can be trusted: each is sealed by a manifest of hashes, written last.

    checkpoint-25/
    checkpoint-50/
      adapter_model.safetensors optimizer.pt ... trainer_state.json
      manifest.json              {"files": {name: sha256}, "kept": [25, 50], "seconds": 61.3}
    between/checkpoint-63/       made because time had passed

A checkpoint without a manifest, or with a file that does not match it, was cut off or damaged: training
goes on from the one before. `kept` names the checkpoints that a run ending here would leave, so that going
on from it leaves the same. One that was made because time had passed lies apart, so that it is never among
them: what a run leaves must not depend on how fast it was.
"""

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.core.hashing import file_sha256
from medtune.core.outputs import write_json

MANIFEST = "manifest.json"
TRAINER_STATE = "trainer_state.json"


@dataclass(frozen=True)
class Checkpoints:
    """The Trainer's checkpoints in a folder; the last `keep` and the best are kept."""

    folder: Path
    keep: int

    @property
    def between(self) -> Path:
        """Where the Trainer puts checkpoints that are made because time has passed."""
        return self.folder / "between"

    def path(self, step: int) -> Path:
        """Where the Trainer puts the checkpoint of a step."""
        return self.folder / f"checkpoint-{step}"

    def seal(self, step: int, best: int, seconds: float) -> None:
        """Vouch for the checkpoint just written, then delete those that neither it nor the one before needs.

        `seconds` is how long training has taken so far.
        """
        steps = [known for known in self._steps() if known <= step]
        kept = sorted({*steps[-self.keep :], best})
        before = _manifest(self.path(steps[-2])) if len(steps) > 1 else None
        _seal(self.path(step), kept, seconds)
        for unneeded in set(steps) - {*kept, *(before["kept"] if before else [])}:
            shutil.rmtree(self.path(unneeded))
        shutil.rmtree(self.between, ignore_errors=True)

    def seal_between(self, step: int, seconds: float) -> None:
        """Vouch for the checkpoint just written because time had passed, then delete the one before it."""
        steps = [known for known in self._steps() if known < step]
        before = _manifest(self.path(steps[-1])) if steps else None
        _seal(self.between / f"checkpoint-{step}", before["kept"] if before else [], seconds)
        for other in _checkpoints(self.between):
            if _step(other) != step:
                shutil.rmtree(other)

    def latest(self) -> Path | None:
        """The newest checkpoint to go on from: one that is whole, with all those kept beside it.

        Deletes the ones after it.
        """
        found = None
        candidates = [*_checkpoints(self.folder), *_checkpoints(self.between)]
        for checkpoint in sorted(candidates, key=_step, reverse=True):
            if self._is_usable(checkpoint):
                found = checkpoint
                break
            print(f"{checkpoint}: incomplete or damaged, not used", file=sys.stderr)
        for checkpoint in candidates:
            if found is None or _step(checkpoint) > _step(found):
                shutil.rmtree(checkpoint)
        return found

    def last(self) -> int:
        """The newest checkpoint that is there."""
        return self._steps()[-1]

    def publish(self, step: int, target: Path) -> None:
        """Copy what a run that ended at `step` leaves into `target`, without a trace of where it was.

        What an earlier run has left in `target` is deleted: DVC does that too, but not for a run by hand.
        """
        manifest = _manifest(self.path(step))
        assert manifest is not None
        if target.exists():
            shutil.rmtree(target)
        for kept in manifest["kept"]:
            copy = target / self.path(kept).name
            shutil.copytree(self.path(kept), copy, ignore=shutil.ignore_patterns(MANIFEST))
            state = json.loads((copy / TRAINER_STATE).read_text(encoding="utf-8"))
            # The Trainer writes where it kept the best one, which is a folder of this machine.
            best = target / self.path(state["best_global_step"]).name
            state["best_model_checkpoint"] = best.as_posix()
            content = json.dumps(state, indent=2, sort_keys=True) + "\n"
            (copy / TRAINER_STATE).write_text(content, encoding="utf-8")

    def _steps(self) -> list[int]:
        return sorted(map(_step, _checkpoints(self.folder)))

    def _is_usable(self, checkpoint: Path) -> bool:
        manifest = _manifest(checkpoint)
        return manifest is not None and all(
            map(_is_whole, {checkpoint, *(self.path(step) for step in manifest["kept"])})
        )


def seconds_taken(checkpoint: Path) -> float:
    """How long training took up to a sealed checkpoint."""
    manifest = _manifest(checkpoint)
    assert manifest is not None
    return manifest["seconds"]


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _seal(checkpoint: Path, kept: list[int], seconds: float) -> None:
    files = {path.name: file_sha256(path) for path in sorted(checkpoint.iterdir())}
    write_json(checkpoint / MANIFEST, {"files": files, "kept": kept, "seconds": seconds})


def _manifest(checkpoint: Path) -> dict[str, Any] | None:
    try:
        return json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_whole(checkpoint: Path) -> bool:
    manifest = _manifest(checkpoint)
    return manifest is not None and all(
        (checkpoint / name).is_file() and file_sha256(checkpoint / name) == digest
        for name, digest in manifest["files"].items()
    )
