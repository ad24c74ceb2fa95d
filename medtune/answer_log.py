"""Answers written down as they come, so that a killed evaluation goes on with the next batch.

One line a batch, with a digest of itself: a line that was cut off or damaged counts as not written.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class AnswerLog:
    """Finished batches in an append-only JSONL file, by the indices of their examples.

    Batches stay whole: a half-answered one is asked again with the same examples, so that an answer never
    depends on where a run was killed. `seconds` is the time that all of them took.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batches: dict[tuple[int, ...], list[Any]] = {}
        self.seconds = 0.0
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            self._read(line)

    def get(self, indices: Sequence[int]) -> list[Any] | None:
        """The answers of a batch, in the order of its indices, if it is finished."""
        return self._batches.get(tuple(indices))

    def add(self, indices: Sequence[int], answers: list[Any], seconds: float) -> None:
        """Write a finished batch down."""
        content = json.dumps({"indices": list(indices), "answers": answers, "seconds": seconds})
        self.seconds += seconds
        with self._path.open("a", encoding="utf-8") as file:
            # The newline comes first, or this line would be glued to one that was cut off.
            file.write(f"\n{_digest(content)} {content}")

    def _read(self, line: str) -> None:
        digest, _, content = line.partition(" ")
        if digest == _digest(content):
            batch = json.loads(content)
            self._batches[tuple(batch["indices"])] = batch["answers"]
            self.seconds += batch["seconds"]


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
