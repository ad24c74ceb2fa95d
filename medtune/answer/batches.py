"""Questions answered in batches: of similar length, shared by the processes, written down as they come.

A killed evaluation goes on with the next batch. Batches stay whole: a half-answered one is asked again with
the same examples, so that an answer never depends on where a run was killed.
"""

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from medtune.core.answers import AnswerText
from medtune.run import processes

Q = TypeVar("Q", bound=Sized)
"""A question, whose length is in tokens."""


class AnswerLog:
    """Finished batches in an append-only JSONL file, by the indices of their examples.

    One line a batch, with a digest of itself: a line that was cut off or damaged counts as not written.
    `seconds` is the time that all batches took.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batches: dict[tuple[int, ...], list[AnswerText]] = {}
        self.seconds = 0.0
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            self._read(line)

    def get(self, indices: Sequence[int]) -> list[AnswerText] | None:
        """The answers of a batch, in the order of its indices, if it is finished."""
        return self._batches.get(tuple(indices))

    def add(self, indices: Sequence[int], answers: list[AnswerText], seconds: float) -> None:
        """Write a finished batch down."""
        rows = [answer.model_dump() for answer in answers]
        content = json.dumps({"indices": list(indices), "answers": rows, "seconds": seconds})
        self.seconds += seconds
        with self._path.open("a", encoding="utf-8") as file:
            # The newline comes first, or this line would be glued to one that was cut off.
            file.write(f"\n{_digest(content)} {content}")

    def _read(self, line: str) -> None:
        digest, _, content = line.partition(" ")
        if digest == _digest(content):
            batch = json.loads(content)
            self._batches[tuple(batch["indices"])] = [AnswerText(**row) for row in batch["answers"]]
            self.seconds += batch["seconds"]


def answer_in_batches(
    questions: Mapping[int, Q],
    answer: Callable[[list[Q]], list[AnswerText]],
    *,
    batch_size: int,
    tokens: tuple[int, Callable[[Q], int]] | None = None,
    beginning: Callable[[Q], str] = lambda _: "",
    progress: str | None = None,
    log: AnswerLog | None = None,
) -> dict[int, AnswerText]:
    """Answer questions, given and returned by the indices of their examples.

    Batches that the log has are not asked again. Several processes share the batches; all get all answers,
    which are those that one process would give. Questions with the same `beginning` are asked together, as
    far as batches come out, so that it runs through the model once. `tokens` bounds those of a batch: how
    many, and how long a question may get with its answer. `progress` names a progress bar.
    """
    order = sorted(questions, key=lambda index: (beginning(questions[index]), len(questions[index])))
    batches = cut_batches(order, questions, batch_size, tokens)
    share = batches[processes.rank() :: processes.count()]
    answers: dict[int, AnswerText] = {}
    hidden = progress is None or not questions or not processes.is_main()
    # In a log file nothing is drawn over: a first bar at 0% would stand there for good.
    delay = 0 if sys.stderr.isatty() else 1e-3
    total, known = sum(map(len, share)), sum(len(batch) for batch in share if log and log.get(batch))
    if known and not hidden:
        tqdm.write(f"{progress}: going on after {known} of {total} questions")
    with tqdm(total=total, desc=progress, unit="example", disable=hidden, delay=delay) as bar:
        for batch in share:
            start_time = time.monotonic()
            given = log.get(batch) if log else None
            if given is None:
                given = answer([questions[index] for index in batch])
                if log:
                    log.add(batch, given, time.monotonic() - start_time)
            answers |= dict(zip(batch, given, strict=True))
            bar.update(len(batch))
    for others in processes.gather(answers):
        answers |= others
    return answers


def cut_batches(
    order: Sequence[int],
    questions: Mapping[int, Q],
    batch_size: int,
    tokens: tuple[int, Callable[[Q], int]] | None,
) -> list[list[int]]:
    """Questions in their order, cut into batches of bounded size, each of at least one."""
    most, length = tokens or (math.inf, len)
    batches: list[list[int]] = []
    longest = 0
    for index in order:
        longest = max(longest, length(questions[index]))
        if not batches or len(batches[-1]) == batch_size or (len(batches[-1]) + 1) * longest > most:
            batches.append([])
            longest = length(questions[index])
        batches[-1].append(index)
    return batches


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
