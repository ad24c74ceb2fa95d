from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from medtune.batching import IGNORED, SimilarLengthSampler, encode_examples, pad, split_batch
from medtune.chat import ChatEncoder
from medtune.errors import MedtuneError
from medtune.params import FinetuneParams, PromptParams
from tests.conftest import example

FILE = Path("train.jsonl")


@pytest.fixture
def encoder(chatml_tokenizer: PreTrainedTokenizerFast) -> ChatEncoder:
    return ChatEncoder(chatml_tokenizer, PromptParams(system="S"))


def test_labels_stand_on_the_answer_and_its_end_alone(
    encoder: ChatEncoder, chatml_tokenizer: PreTrainedTokenizerFast, finetune_params: FinetuneParams
) -> None:
    encoded = encode_examples([example()], encoder, finetune_params, FILE)
    row = encoded.rows[0]
    labelled = [label for label in row["labels"] if label != IGNORED]
    assert chatml_tokenizer.decode(labelled) == "A high temperature.<|im_end|>"
    assert row["labels"][-len(labelled) :] == row["input_ids"][-len(labelled) :] == labelled
    assert encoded.answer_tokens == len(labelled)


def test_too_long_is_an_error_or_counted_but_never_cut(
    encoder: ChatEncoder, finetune_params: FinetuneParams, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [example(), example(id="long", answer="temperature " * 99)]
    short = finetune_params.model_copy(update={"max_length": 120})
    with pytest.raises(MedtuneError, match=r"train.jsonl: example 'long' has \d+ tokens, more than fine"):
        encode_examples(examples, encoder, short, FILE)
    dropping = short.model_copy(update={"too_long": "drop"})
    encoded = encode_examples(examples, encoder, dropping, FILE)
    assert (len(encoded.rows), encoded.dropped) == (1, ["long"])
    assert "left out 1 examples over 120 tokens, first long" in capsys.readouterr().out
    with pytest.raises(MedtuneError, match="no example fits"):
        encode_examples(examples[1:], encoder, dropping, FILE)


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


def test_the_sampler_yields_everything_once_in_batches_of_similar_length() -> None:
    lengths = torch.randint(1, 200, (1003,), generator=torch.Generator().manual_seed(0)).tolist()
    sampler = SimilarLengthSampler(lengths, batch_size=8, seed=5)
    order = list(sampler)
    assert sorted(order) == list(range(1003))
    batches = [order[i : i + 8] for i in range(0, len(order), 8)]
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches]
    assert sum(spread) / len(spread) < 12


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = [i % 17 for i in range(100)]
    first, again = (SimilarLengthSampler(lengths, 4, seed=5) for _ in range(2))
    torch.manual_seed(1)
    order = list(first)
    torch.manual_seed(2)
    assert list(again) == order
    again.set_epoch(1)
    assert list(again) != order
    assert list(SimilarLengthSampler(lengths, 4, seed=6)) != order
