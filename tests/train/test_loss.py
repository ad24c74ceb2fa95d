"""The cheap loss is the plain loss: same value, same gradients."""

from collections.abc import Callable
from itertools import chain

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.attention.bias import CausalBias
from transformers import LlamaForCausalLM

import medtune.model.attention
from medtune.model.attention import implementation, shares_prefix
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


@pytest.fixture(params=["eager", "sdpa", "auto"])
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


@pytest.mark.parametrize("name", BATCHES)
def test_a_head_in_parts_gives_the_same_loss_and_gradients(
    adapted: PeftModel, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = BATCHES[name]
    expected = plain_loss(adapted, batch)
    expected_gradients = gradients(adapted, 3 * expected)
    head = adapted.get_submodule("base_model.model.lm_head")
    monkeypatch.setattr("medtune.train.loss.LOGITS_AT_ONCE", 2)
    seen: list[int] = []
    forward = head.forward

    def noted(hidden: Tensor) -> Tensor:
        seen.append(len(hidden))
        return forward(hidden)

    monkeypatch.setattr(head, "forward", noted)
    loss, count = summed_loss(adapted, head, batch["input_ids"], batch["labels"])
    if count > 2:
        assert max(seen) <= 2 and sum(seen) == count
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(adapted, 3 * loss), expected_gradients, rtol=1e-4, atol=5e-5)
    with torch.inference_mode():
        told, _ = summed_loss(adapted, head, batch["input_ids"], batch["labels"])
    torch.testing.assert_close(told, expected, rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("attention", ["sdpa", "auto"])
def test_training_gives_the_fused_kernel_no_dense_mask(
    tiny_llama: LlamaForCausalLM, name: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA flash attention takes none; what is given does not depend on the device."""
    given: list[tuple[object, object]] = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def record(*args: Tensor, **options: object) -> Tensor:
        given.append((options["attn_mask"], options["is_causal"]))
        return fused(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(medtune.model.attention, "scaled_dot_product_attention", record)
    # Under `auto` plain products would serve rows that short on a processor.
    monkeypatch.setattr(medtune.model.attention, "LONG", 0)
    tiny_llama.set_attn_implementation(implementation(attention))
    batch = BATCHES[name]
    loss, _ = summed_loss(tiny_llama, tiny_llama.lm_head, batch["input_ids"], batch["labels"])
    loss.backward()
    assert given
    for mask, is_causal in given:
        assert isinstance(mask, CausalBias) if mask is not None else is_causal
    shared = shared_prefix_length(batch["input_ids"], batch["labels"])
    assert (shared > 0) == any(isinstance(mask, CausalBias) for mask, _ in given)


def test_a_long_row_takes_the_fused_kernel_and_gives_the_same(
    tiny_llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_llama.set_attn_implementation(implementation("auto"))
    ids = torch.arange(100)[None] % 300
    chosen: list[str] = []

    def noted(name: str) -> Callable[..., object]:
        function = getattr(medtune.model.attention, name)

        def call(*args: object, **options: object) -> object:
            chosen.append(name)
            return function(*args, **options)

        return call

    for name in ("_eager", "_sdpa"):
        monkeypatch.setattr(medtune.model.attention, name, noted(name))
    logits = []
    for most in (100, 99):
        monkeypatch.setattr(medtune.model.attention, "LONG", most)
        logits.append(tiny_llama(input_ids=ids).logits)
    assert chosen == ["_eager"] * 2 + ["_sdpa"] * 2
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("choice", "device", "attention", "capability", "dtype", "expected"),
    [
        ("auto", "cpu", "auto", None, torch.float32, True),
        ("auto", "cuda", "auto", (9, 0), torch.bfloat16, True),
        ("auto", "cuda", "sdpa", (9, 0), torch.float32, False),
        ("auto", "cuda", "sdpa", (7, 5), torch.float16, False),
        ("auto", "cuda", "eager", (7, 5), torch.float16, True),
        ("always", "cuda", "sdpa", (7, 5), torch.float16, True),
        ("never", "cpu", "eager", None, torch.float32, False),
    ],
)
def test_a_prefix_is_shared_where_that_needs_no_mask(
    tiny_llama: LlamaForCausalLM,
    choice: str,
    device: str,
    attention: str,
    capability: tuple[int, int] | None,
    dtype: torch.dtype,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    tiny_llama.set_attn_implementation(implementation(attention))
    assert shares_prefix(choice, tiny_llama.config, dtype, torch.device(device)) == expected
