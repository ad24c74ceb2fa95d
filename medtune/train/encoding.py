"""From examples to rows of token ids and labels: a table of Arrow's, in memory or mapped into it from a file.

As Python lists the tokens of a large training set would take twenty times as much, in every process.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, List, Value, disable_progress_bars

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.core.hashing import file_sha256
from medtune.core.outputs import read_json, write_json
from medtune.model.chat import ChatEncoder, EncodedExample
from medtune.run import processes
from medtune.train.lengths import describe_lengths, shortened
from medtune.train.params import FinetuneParams

IGNORED = -100
"""The label of a position that carries no loss (PyTorch's `ignore_index`)."""
COLUMNS = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})
AT_ONCE = 1000
"""Examples in Python lists at a time."""
ROWS, NOTES, NOTED = "rows.arrow", "notes.json", ("dropped", "shortened", "lengths")


@dataclass(frozen=True)
class EncodedExamples:
    """Rows with the columns `input_ids` and `labels`; ids of examples left out, or with a shortened context.

    `lengths` are the tokens of all examples as they stand in their file.
    """

    rows: Dataset
    dropped: list[str] = field(default_factory=list)
    shortened: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    @property
    def answer_tokens(self) -> int:
        """How many tokens carry a label."""
        # Arrow's own numbers: as Python lists they would take ten times as much memory.
        chunks = self.rows.with_format("arrow")[:]["labels"].chunks
        return sum(int((chunk.flatten().to_numpy() != IGNORED).sum()) for chunk in chunks)

    @property
    def longest(self) -> int:
        """The tokens of the longest example."""
        return max(row_lengths(self.rows))

    @property
    def prompt_tokens(self) -> int:
        """How many tokens carry none."""
        return sum(row_lengths(self.rows)) - self.answer_tokens


def row_lengths(rows: Dataset) -> list[int]:
    """The tokens of each row."""
    chunks = rows.with_format("arrow")[:]["input_ids"].chunks
    lengths: list[int] = np.concatenate([chunk.value_lengths().to_numpy() for chunk in chunks]).tolist()
    return lengths


def encode_examples(
    examples: Sequence[Example],
    encoder: ChatEncoder,
    params: FinetuneParams,
    path: Path,
    folder: Path | None = None,
) -> EncodedExamples:
    """Encode the examples of the file `path`; labels stand on answers and their end tokens.

    An example over `max_length` tokens is an error, left out or shortened, as `too_long` says: cut answers
    would teach the model to stop half-way. The rows are in memory, or in a file in `folder` that is mapped.
    """
    encoding = _Encoding(examples, encoder, params)
    numbers = Dataset.from_dict({"number": range(len(examples))})
    # A bar of its own for what takes a second would only be in the way of others.
    disable_progress_bars()
    rows = numbers.map(
        encoding.encode,
        batched=True,
        batch_size=AT_ONCE,
        writer_batch_size=AT_ONCE,
        remove_columns=["number"],
        features=COLUMNS,
        keep_in_memory=folder is None,
        cache_file_name=None if folder is None else str(folder / ROWS),
        load_from_cache_file=False,
        # Else `datasets` would pickle the encoder to hash it, to name a cache that is not used.
        new_fingerprint="0" * 16,
    )
    encoding.require_fitting(path)
    return EncodedExamples(rows, encoding.dropped, encoding.shortened, encoding.lengths)


def kept_examples(
    read: Callable[[], Sequence[Example]],
    encoder: ChatEncoder,
    params: FinetuneParams,
    path: Path,
    progress: Path,
) -> EncodedExamples:
    """As `encode_examples`, once for all processes and for a run that goes on later.

    The main process encodes what it can `read` to a file below `progress`, a folder for these very examples
    and parameters, unless it is there and whole; all map it into memory.
    """
    folder = progress / path.stem
    if processes.is_main() and not _is_whole(folder):
        # What a killed process has left.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        encoded = encode_examples(read(), encoder, params, path, folder)
        notes = {name: getattr(encoded, name) for name in NOTED}
        # Written last: with the notes the rows are whole.
        write_json(folder / NOTES, {"sha256": file_sha256(folder / ROWS)} | notes)
    processes.wait()
    notes = read_json(folder / NOTES)
    return EncodedExamples(Dataset.from_file(str(folder / ROWS)), **{name: notes[name] for name in NOTED})


def _is_whole(folder: Path) -> bool:
    try:
        return bool(read_json(folder / NOTES)["sha256"] == file_sha256(folder / ROWS))
    except (OSError, ValueError, KeyError):
        return False


class _Encoding:
    """Encodes examples by their numbers, and notes what does not fit."""

    def __init__(self, examples: Sequence[Example], encoder: ChatEncoder, params: FinetuneParams) -> None:
        self.dropped: list[str] = []
        self.shortened: list[str] = []
        self.lengths: list[int] = []
        self._examples = examples
        self._encoder = encoder
        self._params = params

    def encode(self, batch: dict[str, list[int]]) -> dict[str, list[list[int]]]:
        """The rows of those that fit, or do so when shortened."""
        found = [self._fitting(self._examples[number]) for number in batch["number"]]
        kept = [encoded for encoded in found if encoded is not None]
        return {
            "input_ids": [encoded.input_ids for encoded in kept],
            "labels": [labels_of(encoded, self._params) for encoded in kept],
        }

    def _fitting(self, example: Example) -> EncodedExample | None:
        encoded, most = self._encoder.encode(example), self._params.max_length
        if self._params.assistant_turns == "all" and not encoded.alike:
            raise MedtuneError(
                f"example '{example.id}' has 'messages', but the model's chat template opens an earlier "
                "answer in another way than the one that it asks for; set finetune.assistant_turns to last"
            )
        self.lengths.append(len(encoded.input_ids))
        if len(encoded.input_ids) <= most:
            return encoded
        shorter = shortened(example, self._encoder, most) if self._params.too_long == "shorten" else None
        (self.dropped if shorter is None else self.shortened).append(example.id)
        return shorter

    def require_fitting(self, path: Path) -> None:
        """Say what did not fit; a MedtuneError if that is not allowed, or if nothing does."""
        most, dropped, of = self._params.max_length, self.dropped, f"of {len(self.lengths)} examples"
        told = describe_lengths(self.lengths, most)
        if dropped and self._params.too_long == "error":
            first = ", ".join(f"'{name}'" for name in dropped[:3])
            raise MedtuneError(
                f"{path}: {len(dropped)} {of} have more tokens than finetune.max_length ({most}), first "
                f"{first}; {told}; raise it, or set finetune.too_long to drop or shorten"
            )
        if len(dropped) == len(self.lengths):
            raise MedtuneError(f"{path}: no example fits into finetune.max_length ({most}); {told}")
        if dropped:
            print(f"{path}: left out {len(dropped)} {of} over {most} tokens, first {dropped[0]}")
        if self.shortened:
            print(f"{path}: shortened the context of {len(self.shortened)} {of}, first {self.shortened[0]}")


def labels_of(encoded: EncodedExample, params: FinetuneParams) -> list[int]:
    """The label of each token: its own id in answers that are learned, else `IGNORED`."""
    labels = [IGNORED] * len(encoded.input_ids)
    for answer in encoded.answers if params.assistant_turns == "all" else encoded.answers[-1:]:
        labels[answer] = encoded.input_ids[answer]
    return labels
