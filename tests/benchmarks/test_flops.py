import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

from benchmarks.flops import Work, forward_flops, training_flops
from medtune.model.adapter import attach_lora
from medtune.model.params import LoraParams, ModelParams
from medtune.model.shape import Shape
from medtune.train.batching import shared_prefix_length
from medtune.train.encoding import IGNORED
from medtune.train.loss import summed_loss

TINY = Shape(32, 2, 4, 2, 8, 64, 400, tied=False)
"""As tests/conftest.py builds it."""
LENGTH = 12


def lora(**changes: object) -> LoraParams:
    fields: dict[str, object] = {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
    return LoraParams.model_validate(fields | {"layers": None, "rslora": False, "dora": False} | changes)


@pytest.mark.parametrize("changes", [{}, {"layers": [1]}, {"r": 1}])
def test_a_step_is_what_pytorch_counts(tiny_llama: LlamaForCausalLM, changes: dict[str, object]) -> None:
    adapter = lora(**changes)
    model = attach_lora(tiny_llama, adapter, ModelParams(source="./base", license="mit")).train()
    ids = torch.randint(400, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = torch.arange(3)
    labels = ids.clone()
    labels[:, :8] = IGNORED
    assert shared_prefix_length(ids, labels) == 0
    with FlopCounterMode(display=False) as counter:
        total, _ = summed_loss(model, tiny_llama.lm_head, ids, labels)
        total.backward()
    # Eager attention computes what the mask hides, too.
    work = Work(tokens=3 * LENGTH, labels=3 * 4, pairs=3 * LENGTH * LENGTH)
    assert training_flops(TINY, adapter, work) == counter.get_total_flops()


def test_a_forward_pass_is_what_pytorch_counts(tiny_llama: LlamaForCausalLM) -> None:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        tiny_llama(input_ids=torch.zeros(2, LENGTH, dtype=torch.long), logits_to_keep=1)
    attention = 2 * 2 * TINY.layers * TINY.heads * TINY.head_dim * 2 * LENGTH * LENGTH
    counted = counter.get_total_flops() - attention
    assert forward_flops(TINY, 2 * LENGTH, logits=2) == counted


def test_padding_and_what_rows_share_are_counted_once_or_apart() -> None:
    attention_mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    labels = torch.tensor([[IGNORED] * 3 + [7, 8], [IGNORED, IGNORED, 9, IGNORED, IGNORED]])
    # Two tokens for both, three and one of their own. The two are in three pairs; the three see the two each,
    # and are in six pairs among them; the one sees the two and itself.
    assert Work.of(attention_mask, labels, shared=2) == Work(tokens=6, labels=3, pairs=3 + 12 + 3, padding=2)
    assert Work.of(attention_mask, labels, shared=0) == Work(tokens=8, labels=3, pairs=15 + 6, padding=2)
