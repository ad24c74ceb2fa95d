"""The cheap loss is the plain loss: same value, same gradients."""

from itertools import chain

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import LlamaForCausalLM

from medtune.model.attention import implementation
from medtune.train.batching import pad, shared_prefix_length
from medtune.train.encoding import IGNORED
from medtune.train.loss import summed_loss

PREFIX = [11, 12, 13, 14, 15, 16]


def rows(*tails: tuple[list[int], list[int]]) -> dict[str, Tensor]:
    """A batch of rows PREFIX + prompt + answer."""
    return pad(
        [
            {
                "input_ids": PREFIX + prompt + answer,
                "labels": [IGNORED] * (len(PREFIX) + len(prompt)) + answer,
            }
            for prompt, answer in tails
        ]
    )


def conversations(*rows_of_turns: list[list[int]]) -> dict[str, Tensor]:
    """A batch of rows PREFIX + turns, of which every other is an answer."""
    batch = []
    for turns in rows_of_turns:
        labels = [turn if number % 2 else [IGNORED] * len(turn) for number, turn in enumerate(turns)]
        batch.append(
            {"input_ids": [*PREFIX, *chain(*turns)], "labels": [IGNORED] * len(PREFIX) + [*chain(*labels)]}
        )
    return pad(batch)


BATCHES = {
    "different lengths": rows(([1, 2], [3, 4, 5]), ([6], [7]), ([8, 9, 10], [11, 12])),
    "no question": rows(([], [3, 4]), ([], [5])),
    "a single row": rows(([1, 2], [3, 4, 5])),
    "equal rows": rows(([1, 2], [3]), ([1, 2], [3])),
    "conversations": conversations([[1, 2], [3, 4], [5], [6]], [[1, 2], [3, 4], [7, 8], [9]], [[1, 2], [3]]),
}


@pytest.fixture(params=["eager", "sdpa"])
def adapted(tiny_llama: LlamaForCausalLM, request: pytest.FixtureRequest) -> PeftModel:
    torch.manual_seed(1)
    tiny_llama.set_attn_implementation(implementation(request.param))
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(tiny_llama, config).train()


def plain_loss(model: PeftModel, batch: dict[str, Tensor]) -> Tensor:
    """All logits, the mask, no sharing: transformers' own way."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1),
        batch["labels"][:, 1:].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )


def gradients(model: PeftModel, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", BATCHES)
def test_loss_and_gradients_are_those_of_the_plain_way(adapted: PeftModel, name: str) -> None:
    batch = BATCHES[name]
    head = adapted.get_submodule("base_model.model.lm_head")
    expected = plain_loss(adapted, batch)
    expected_gradients = gradients(adapted, expected)
    loss, count = summed_loss(adapted, head, batch["input_ids"], batch["labels"])
    assert count == int((batch["labels"] != IGNORED).sum())
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert expected_gradients.norm() > 1
    torch.testing.assert_close(gradients(adapted, loss), expected_gradients, rtol=1e-4, atol=1e-5)


def test_activations_computed_anew_change_nothing(adapted: PeftModel) -> None:
    batch = BATCHES["different lengths"]
    expected = gradients(adapted, plain_loss(adapted, batch))
    adapted.gradient_checkpointing_enable()
    head = adapted.get_submodule("base_model.model.lm_head")
    loss, _ = summed_loss(adapted, head, batch["input_ids"], batch["labels"])
    torch.testing.assert_close(gradients(adapted, loss), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("different lengths", len(PREFIX)),
        ("no question", len(PREFIX) - 1),
        ("a single row", 0),
        ("equal rows", len(PREFIX) + 1),
        ("conversations", len(PREFIX) + 1),
    ],
)
def test_the_prefix_ends_before_the_first_row_differs_or_needs_a_logit(name: str, expected: int) -> None:
    batch = BATCHES[name]
    assert shared_prefix_length(batch["input_ids"], batch["labels"]) == expected
