"""Checkpoints that can be trusted: each is sealed by a manifest of hashes, written last.

    checkpoint-25/
    checkpoint-50/
      adapter_model.safetensors optimizer.pt ... trainer_state.json
      manifest.json              {"files": {name: sha256}, "kept": [25, 50], "seconds": 61.3}

A checkpoint without a manifest, or with a file that does not match it, was cut off or damaged: training
goes on from the one before. `kept` names the checkpoints that a run ending here would leave, so that going
on from it leaves the same.
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

    def path(self, step: int) -> Path:
        """Where the Trainer puts the checkpoint of a step."""
        return self.folder / f"checkpoint-{step}"

    def seal(self, step: int, best: int, seconds: float) -> None:
        """Vouch for the checkpoint just written, then delete those that neither it nor the one before needs.

        `seconds` is how long training has taken so far.
        """
        steps = [known for known in self._steps() if known <= step]
        kept = sorted({*steps[-self.keep :], best})
        before = self._manifest(steps[-2]) if len(steps) > 1 else None
        files = {path.name: file_sha256(path) for path in sorted(self.path(step).iterdir())}
        write_json(self.path(step) / MANIFEST, {"files": files, "kept": kept, "seconds": seconds})
        for unneeded in set(steps) - {*kept, *(before["kept"] if before else [])}:
            shutil.rmtree(self.path(unneeded))

    def latest(self) -> int | None:
        """The step to go on from: the newest checkpoint that is whole, with all those kept beside it.

        Deletes the ones after it.
        """
        found = None
        for step in reversed(self._steps()):
            manifest = self._manifest(step)
            if manifest is not None and all(self._is_whole(kept) for kept in manifest["kept"]):
                found = step
                break
            print(f"{self.path(step)}: incomplete or damaged, not used", file=sys.stderr)
        for step in self._steps():
            if found is None or step > found:
                shutil.rmtree(self.path(step))
        return found

    def last(self) -> int:
        """The newest checkpoint that is there."""
        return self._steps()[-1]

    def seconds(self, step: int) -> float:
        """How long training took up to a sealed checkpoint."""
        manifest = self._manifest(step)
        assert manifest is not None
        return manifest["seconds"]

    def publish(self, step: int, target: Path) -> None:
        """Copy what a run that ended at `step` leaves into `target`, without a trace of where it was."""
        manifest = self._manifest(step)
        assert manifest is not None
        for kept in manifest["kept"]:
            copy = target / self.path(kept).name
            shutil.copytree(self.path(kept), copy, ignore=shutil.ignore_patterns(MANIFEST))
            state = json.loads((copy / TRAINER_STATE).read_text(encoding="utf-8"))
            best = target / self.path(state["best_global_step"]).name
            state["best_model_checkpoint"] = best.as_posix()
            content = json.dumps(state, indent=2, sort_keys=True) + "\n"
            (copy / TRAINER_STATE).write_text(content, encoding="utf-8")

    def _steps(self) -> list[int]:
        matches = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def _manifest(self, step: int) -> dict[str, Any] | None:
        try:
            return json.loads((self.path(step) / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _is_whole(self, step: int) -> bool:
        manifest = self._manifest(step)
        return manifest is not None and all(
            (self.path(step) / name).is_file() and file_sha256(self.path(step) / name) == digest
            for name, digest in manifest["files"].items()
        )
