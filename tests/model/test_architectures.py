"""Every supported architecture, tiny and random, trained and asked as transformers does; docs/models.md."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from medtune.answer.generation import generate_answers
from medtune.core.errors import MedtuneError
from medtune.model.adapter import attach_lora
from medtune.model.architecture import REASONS, SUPPORTED, context_length, require_supported
from medtune.model.attention import implementation
from medtune.model.base import load_model
from medtune.model.params import LoraParams, ModelParams
from medtune.model.shape import Shape
from medtune.run.params import ComputeParams
from medtune.train.loss import summed_loss
from tests.conftest import ROOT
from tests.train.test_loss import BATCHES, PREFIX, gradients, plain_loss

SIZES: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 7,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama, tied": ("LlamaConfig", {"tie_word_embeddings": True}),
    "llama 3": (
        "LlamaConfig",
        {
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "qwen2": ("Qwen2Config", {"use_sliding_window": False, "sliding_window": 16}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "mistral, window": ("MistralConfig", {"sliding_window": 64}),
    "gemma3_text": ("Gemma3TextConfig", {"head_dim": 16, "sliding_window": 64, "sliding_window_pattern": 2}),
    "phi3": ("Phi3Config", {"sliding_window": 64}),
    "smollm3": ("SmolLM3Config", {"no_rope_layer_interval": 2}),
}
LORA = LoraParams(
    r=4, alpha=8, dropout=0.0, target_modules="all-linear", layers=None, rslora=False, dora=False
)
PROMPTS = [
    [*PREFIX, *(number % 300 + 20 for number in range(start, start + length))]
    for start, length in [(0, 9), (50, 3), (100, 17), (200, 1)]
]


def config_of(variant: str) -> PretrainedConfig:
    name, changes = VARIANTS[variant]
    found: PretrainedConfig = getattr(transformers, name)(**SIZES | changes)
    return found


def build(variant: str, attention: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config_of(variant))
    model.set_attn_implementation(attention)
    return model.eval()


def adapted(variant: str, attention: str) -> PeftModel:
    model = build(variant, attention)
    torch.manual_seed(1)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, config).train()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_gradients_are_those_of_transformers(variant: str, attention: str) -> None:
    ours, theirs = adapted(variant, implementation(attention)), adapted(variant, "eager")
    base: Any = ours.get_base_model()
    head = base.get_output_embeddings()
    for batch in BATCHES.values():
        loss, count = summed_loss(ours, head, batch["input_ids"], batch["labels"])
        expected = plain_loss(theirs, batch)
        assert count == int((batch["labels"][:, 1:] >= 0).sum())
        torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(gradients(ours, loss), gradients(theirs, expected), atol=1e-3, rtol=1e-3)


def generated(model: PreTrainedModel, prompts: Sequence[list[int]]) -> list[list[int]]:
    """What transformers' own `generate` answers to each prompt alone."""
    found = []
    for prompt in prompts:
        generate: Any = model.generate
        ids = generate(
            torch.tensor([prompt]), max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=7
        )
        answer = ids[0, len(prompt) :].tolist()
        found.append(answer[:-1] if answer[-1] == 7 else answer)
    return found


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_are_those_of_generate(variant: str, attention: str) -> None:
    expected = generated(build(variant, "eager"), PROMPTS)
    assert len({tuple(ids) for ids in expected}) > 1
    model = build(variant, implementation(attention))
    answers = generate_answers(model, PROMPTS, end_ids=[7], max_new_tokens=6)
    assert [answer.ids for answer in answers] == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_linear_layer_of_the_decoder_is_adapted_and_planned_for(variant: str, tmp_path: Path) -> None:
    model = build(variant, implementation("eager"))
    model.config.save_pretrained(tmp_path)
    shape = Shape.from_config(tmp_path / "config.json")
    attached = attach_lora(model, LORA, ModelParams.load(ROOT / "params.yaml"))
    layers = {name for name in attached.targeted_module_names if ".layers." in name}
    assert layers == {
        f"model.layers.{number}.{name}" for number in range(shape.layers) for name in shape.linears
    }
    planned = shape.layers * sum(LORA.r * sum(sizes) for sizes in shape.linears.values())
    assert attached.get_nb_trainable_parameters()[0] == planned
    frozen = sum(p.numel() for name, p in attached.named_parameters() if "lora_" not in name)
    assert frozen == pytest.approx(shape.linear_parameters + shape.other_parameters, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 512),
        ({"sliding_window": 64}, 64),
        ({"sliding_window": 64, "use_sliding_window": False}, 512),
        ({"sliding_window": 64, "layer_types": ["full_attention"]}, 512),
        ({"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]}, 64),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 128}, 128),
        ({"rope_parameters": {"full_attention": {"rope_type": "dynamic"}}}, 512),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 64},
                    "sliding_attention": {"rope_type": "default"},
                }
            },
            64,
        ),
        ({"rope_parameters": {"rope_type": "llama3", "original_max_position_embeddings": 128}}, 512),
    ],
)
def test_a_window_is_a_limit_of_the_context(changes: dict[str, Any], expected: int) -> None:
    assert context_length({"max_position_embeddings": 512} | changes) == expected


def test_a_text_beyond_the_window_is_an_error_and_no_other_attention() -> None:
    model = build("mistral, window", implementation("eager"))
    model(torch.arange(64)[None])
    with pytest.raises(MedtuneError, match="65 tokens is longer than the attention's window of 64"):
        model(torch.arange(65)[None])


FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True}


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("org/gemma", {"model_type": "gemma3"}, "reads pictures too"),
        ("org/gemma", {"model_type": "gemma2"}, "caps the scores"),
        ("org/lama", {"model_type": "lama"}, "did you mean 'llama'"),
        ("org/none", {}, "model_type 'None'"),
        ("org/x", {"model_type": "llama", "rope_scaling": {"type": "foo"}}, "rope_type 'foo' of its config"),
        ("org/moe", {"model_type": "qwen3_moe"}, "mixtures of experts"),
        ("org/moe", {"model_type": "llama", "num_local_experts": 8}, "mixtures of experts"),
        (
            "org/embedding",
            {"model_type": "gemma3_text", "use_bidirectional_attention": True},
            "use_bidirectional_attention of its config.json is True; accepted: false",
        ),
        (
            "org/both-ways",
            {"model_type": "llama", "is_causal": False},
            "is_causal .* is False; accepted: true",
        ),
        (
            "org/x",
            {"model_type": "llama", "attention_chunk_size": 8},
            "attention_chunk_size .* accepted: null",
        ),
        ("org/x", {"model_type": "qwen3", "layer_types": ["linear_attention"]}, "layers of linear_attention"),
        (
            "unsloth/Llama-3.2-1B-Instruct-bnb-4bit at 1234",
            {"model_type": "llama", "quantization_config": FOUR_BITS},
            "bitsandbytes, 4 bits.*such as unsloth/Llama-3.2-1B-Instruct, and",
        ),
        (
            "org/x-GPTQ-Int4",
            {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}, "_name_or_path": "a/b"},
            "the original, a/b, and",
        ),
    ],
)
def test_what_is_not_supported_is_refused_with_its_reason(
    name: str, config: dict[str, Any], expected: str
) -> None:
    with pytest.raises(MedtuneError, match=expected):
        require_supported(config, name)


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_a_base_in_four_bits_is_refused_before_its_weights_are_read(
    tmp_path: Path, quantization: str | None
) -> None:
    config = config_of("llama").to_dict() | {"quantization_config": FOUR_BITS}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("not looked at")
    compute = ComputeParams.load(ROOT / "params.yaml").model_copy(update={"quantization": quantization})
    base = ModelParams(source=str(tmp_path), license="mit")
    with pytest.raises(MedtuneError, match=r"quantised already \(bitsandbytes, 4 bits\).*to the original"):
        load_model(base, compute, torch.float32, torch.device("cpu"))


def table() -> str:
    """What docs/models.md says of architectures."""
    lines = ["| `model_type` | Models | |", "|---|---|---|"]
    tried = {variant.partition(",")[0].replace("llama 3", "llama") for variant in VARIANTS}
    lines += [
        f"| `{kind}` | {models} | {'trained and asked as by transformers' if kind in tried else 'untried'} |"
        for kind, models in SUPPORTED.items()
    ]
    lines += [f"| `{kind}` | | refused: {reason} |" for kind, reason in REASONS.items()]
    return "\n".join(lines)


def test_the_table_of_the_docs_is_what_is_tested() -> None:
    assert "untried" not in table()
    assert table() in (ROOT / "docs/models.md").read_text(encoding="utf-8")
