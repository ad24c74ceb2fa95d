from itertools import chain

import torch

from medtune.train.batching import SimilarLengthBatches, pad, split_batch
from medtune.train.encoding import IGNORED


def test_padding_is_masked_by_position_not_by_token() -> None:
    batch = pad([{"input_ids": [5, 0], "labels": [IGNORED, 0]}, {"input_ids": [7], "labels": [7]}])
    assert batch["input_ids"].tolist() == [[5, 0], [7, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 0], [7, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_split_batch_keeps_every_row_within_the_bound() -> None:
    lengths = [3, 9, 2, 9, 4, 30]
    rows = [{"input_ids": [i + 1] * n, "labels": [i + 1] * n} for i, n in enumerate(lengths)]
    parts = split_batch(pad(rows), max_tokens=18)
    assert all(part["input_ids"].numel() <= 18 or len(part["input_ids"]) == 1 for part in parts)
    found = [
        (int(row[0]), int(mask.sum()))
        for part in parts
        for row, mask in zip(part["input_ids"], part["attention_mask"], strict=True)
    ]
    assert sorted(found) == [(i + 1, n) for i, n in enumerate(lengths)]
    for part in parts:
        assert part["attention_mask"].sum(dim=1).max() == part["input_ids"].shape[1]


def test_split_batch_does_not_count_a_shared_prefix() -> None:
    rows = [{"input_ids": [9] * 20 + [i], "labels": [IGNORED] * 20 + [i]} for i in range(6)]
    parts = split_batch(pad(rows), max_tokens=12)
    assert [part["input_ids"].shape for part in parts] == [(6, 21)]


def test_everything_is_in_one_batch_of_similar_lengths() -> None:
    lengths = torch.randint(1, 200, (1003,), generator=torch.Generator().manual_seed(0)).tolist()
    loader = SimilarLengthBatches(lengths, batch_size=8, seed=5)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert sorted(index for batch in batches for index in batch) == list(range(1003))
    assert [len(batch) for batch in batches] == [8] * 125 + [3]
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches]
    assert sum(spread) / len(spread) < 12


def test_the_batches_of_a_step_are_of_similar_length_too() -> None:
    lengths = torch.randint(1, 200, (960,), generator=torch.Generator().manual_seed(0)).tolist()
    batches = list(SimilarLengthBatches(lengths, batch_size=8, seed=5, accumulation=4))
    steps = [list(chain(*batches[i : i + 4])) for i in range(0, len(batches), 4)]
    spread = [max(lengths[i] for i in step) - min(lengths[i] for i in step) for step in steps]
    assert sum(spread) / len(spread) < 12


def test_processes_share_the_batches_of_one_and_similar_work() -> None:
    lengths = torch.randint(1, 200, (101,), generator=torch.Generator().manual_seed(0)).tolist()
    whole = list(SimilarLengthBatches(lengths, 8, seed=5))
    shares = [list(SimilarLengthBatches(lengths, 8, seed=5, share=(rank, 4))) for rank in range(4)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(chain(*parts)) == sorted(batch)
    tokens = [sum(lengths[i] for batch in share for i in batch) for share in shares]
    assert max(tokens) / min(tokens) < 1.1


def test_an_empty_share_is_padding_alone() -> None:
    batch = pad([])
    assert batch["attention_mask"].sum() == 0 and (batch["labels"] == IGNORED).all()
    assert [part["input_ids"].shape for part in split_batch(batch, 100)] == [(1, 1)]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = [i % 17 for i in range(100)]
    first, again = (SimilarLengthBatches(lengths, 4, seed=5) for _ in range(2))
    torch.manual_seed(1)
    order = list(first)
    torch.manual_seed(2)
    assert list(again) == order
    again.set_epoch(1)
    assert list(again) != order
    assert list(SimilarLengthBatches(lengths, 4, seed=6)) != order


def test_widths_are_multiples_and_the_rows_stay_whole() -> None:
    batch = pad([{"input_ids": [size] * size, "labels": [size] * size} for size in (3, 17, 9)], multiple=8)
    assert batch["input_ids"].shape == (3, 24)
    parts = split_batch(batch, 24, multiple=8)
    assert [tuple(part["input_ids"].shape) for part in parts] == [(1, 8), (1, 16), (1, 24)]
    assert [int(part["attention_mask"].sum()) for part in parts] == [3, 9, 17]
