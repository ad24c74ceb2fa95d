"""Encoded examples, batches of similar length, and padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from torch.utils.data import Sampler

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.model.chat import ChatEncoder, EncodedExample
from medtune.train.params import FinetuneParams

IGNORED = -100
"""The label of a position that carries no loss (PyTorch's `ignore_index`)."""


@dataclass(frozen=True)
class EncodedExamples:
    """Rows with the columns `input_ids` and `labels`, and the ids of the examples left out."""

    rows: Dataset
    dropped: list[str]

    @property
    def answer_tokens(self) -> int:
        """How many tokens carry a label."""
        return sum(label != IGNORED for labels in self.rows["labels"] for label in labels)

    @property
    def longest(self) -> int:
        """The tokens of the longest example."""
        return max(map(len, self.rows["labels"]))

    @property
    def prompt_tokens(self) -> int:
        """How many tokens carry none."""
        return sum(map(len, self.rows["labels"])) - self.answer_tokens


def encode_examples(
    examples: Sequence[Example], encoder: ChatEncoder, params: FinetuneParams, path: Path
) -> EncodedExamples:
    """Encode the examples of the file `path`; labels stand on answers and their end tokens.

    An example over `max_length` tokens is an error, or left out if `too_long` is "drop": cut answers
    would teach the model to stop half-way.
    """
    rows, dropped = [], []
    for example in examples:
        encoded = encoder.encode(example)
        if len(encoded.input_ids) > params.max_length:
            if params.too_long == "error":
                raise MedtuneError(
                    f"{path}: example '{example.id}' has {len(encoded.input_ids)} tokens, more than "
                    f"finetune.max_length ({params.max_length}); raise it, or set finetune.too_long to drop"
                )
            dropped.append(example.id)
            continue
        rows.append({"input_ids": encoded.input_ids, "labels": labels_of(encoded, params)})
    if not rows:
        raise MedtuneError(f"{path}: no example fits into finetune.max_length ({params.max_length})")
    if dropped:
        print(f"{path}: left out {len(dropped)} examples over {params.max_length} tokens, first {dropped[0]}")
    return EncodedExamples(Dataset.from_list(rows), dropped)


def labels_of(encoded: EncodedExample, params: FinetuneParams) -> list[int]:
    """The label of each token: its own id in answers that are learned, else `IGNORED`."""
    labels = [IGNORED] * len(encoded.input_ids)
    for answer in encoded.answers if params.assistant_turns == "all" else encoded.answers[-1:]:
        labels[answer] = encoded.input_ids[answer]
    return labels


def pad(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Stack rows of a batch, padded on the right by position: tensors of shape (batch, longest).

    No rows become one of nothing but padding: a process whose share of a short batch is empty still takes
    its part in what all do together.
    """
    rows = rows or [{"input_ids": [], "labels": []}]
    longest = max(1, *(len(row["input_ids"]) for row in rows))
    batch = {"input_ids": 0, "labels": IGNORED, "attention_mask": 0}
    columns = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in rows]
    return {
        name: torch.tensor([row[name] + [filler] * (longest - len(row[name])) for row in columns])
        for name, filler in batch.items()
    }


def shared_prefix_length(input_ids: torch.Tensor, labels: torch.Tensor) -> int:
    """How many first tokens all rows share and none needs logits at; 0 for a single row."""
    if len(input_ids) == 1:
        return 0
    differs = (input_ids != input_ids[0]).any(dim=0)
    # The logits of a label come from the position before it, which therefore cannot be shared.
    needed = torch.nn.functional.pad((labels[:, 1:] != IGNORED).any(dim=0), (0, 1), value=True)
    return int((differs | needed).int().argmax())


def split_batch(batch: dict[str, torch.Tensor], max_tokens: int) -> list[dict[str, torch.Tensor]]:
    """Cut a padded batch into parts of at most `max_tokens` tokens, or of a single row.

    Counted is what a pass keeps in memory: padded tokens without the shared prefix. Rows of similar
    length go together and each part is trimmed to its longest row.
    """
    lengths = batch["attention_mask"].sum(dim=1)
    own = lengths - shared_prefix_length(batch["input_ids"], batch["labels"])
    parts: list[list[int]] = [[]]
    for row in torch.argsort(lengths, stable=True).tolist():
        if parts[-1] and (len(parts[-1]) + 1) * int(own[row]) > max_tokens:
            parts.append([])
        parts[-1].append(row)
    return [
        {name: tensor[rows, : max(1, int(lengths[rows].max()))] for name, tensor in batch.items()}
        for rows in parts
    ]


class SimilarLengthBatches(Sampler[list[int]]):
    """Yields batches of indices of examples of similar length, in random order.

    The order depends on `seed` and the epoch alone, so that a resumed run sees the same batches. Within
    stretches of `window` steps examples are sorted by length and cut into steps of `accumulation` batches;
    then the steps are shuffled. Of each batch this process gets its `share` (rank, processes): every so
    many-th example, so that all get similar work.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        *,
        accumulation: int = 1,
        share: tuple[int, int] = (0, 1),
        window: int = 50,
    ) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._accumulation = accumulation
        self._share = share
        self._window = window
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        step = self._batch_size * self._accumulation
        steps: list[list[int]] = []
        for stretch in cut(order, step * self._window):
            steps += cut(sorted(stretch, key=self._lengths.__getitem__), step)
        # The short one stays last: an earlier one would shift the batches of every later step.
        full = [indices for indices in steps if len(indices) == step]
        shuffled = [full[position] for position in torch.randperm(len(full), generator=generator).tolist()]
        rank, processes = self._share
        for indices in [*shuffled, *steps[len(full) :]]:
            for batch in cut(indices, self._batch_size):
                yield batch[rank::processes]


def cut(items: list[int], size: int) -> list[list[int]]:
    """Cut a list into lists of `size`; the last may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]
