"""Batches of similar length, and padding."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from medtune.train.encoding import IGNORED


def pad(rows: Sequence[dict[str, list[int]]], multiple: int = 1) -> dict[str, torch.Tensor]:
    """Stack rows of a batch, padded on the right by position: tensors of shape (batch, width).

    The width is that of the longest row, rounded up to a multiple.
    No rows become one of nothing but padding: a process whose share of a short batch is empty still takes
    its part in what all do together.
    """
    rows = rows or [{"input_ids": [], "labels": []}]
    width = _rounded(max(1, *(len(row["input_ids"]) for row in rows)), multiple)
    batch = {"input_ids": 0, "labels": IGNORED, "attention_mask": 0}
    columns = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in rows]
    return {
        name: torch.tensor([row[name] + [filler] * (width - len(row[name])) for row in columns])
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


def split_batch(
    batch: dict[str, torch.Tensor], max_tokens: int, multiple: int = 1
) -> list[dict[str, torch.Tensor]]:
    """Cut a padded batch into parts of at most `max_tokens` tokens, or of a single row.

    Counted is what a pass keeps in memory: padded tokens without the shared prefix. Rows of similar
    length go together and each part is trimmed to its longest row, rounded up as in `pad`.
    """
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    widths = [_rounded(max(1, length), multiple) for length in lengths]
    shared = shared_prefix_length(batch["input_ids"], batch["labels"])
    parts: list[list[int]] = [[]]
    # Python's sort is stable: rows of one length stay in their order.
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if parts[-1] and (len(parts[-1]) + 1) * (widths[row] - shared) > max_tokens:
            parts.append([])
        parts[-1].append(row)
    return [
        {name: tensor[rows, : max(widths[row] for row in rows)] for name, tensor in batch.items()}
        for rows in parts
    ]


def _rounded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


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
