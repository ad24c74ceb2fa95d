"""Which base models are trained as they answer: known by their config.json, before a weight is fetched.

Supported is what tests/model/test_architectures.py has run: the loss and gradients of the plain pass, and the
answers of transformers' `generate`. docs/models.md is its table. Imports no torch.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from medtune.core.errors import MedtuneError, nearest

SUPPORTED = {
    "llama": "Llama 2, 3, 3.1, 3.2; TinyLlama, SmolLM and SmolLM 2, R1 distilled into Llama",
    "qwen2": "Qwen 2 and 2.5; R1 distilled into Qwen",
    "qwen3": "Qwen 3",
    "mistral": "Mistral 7B",
    "gemma3_text": "Gemma 3 for text: 270M and 1B",
    "phi3": "Phi 3, 3.5 mini and 4 mini",
    "smollm3": "SmolLM 3",
}
"""Accepted values of `model_type` in a config.json, and the models that have them."""
REASONS = {
    "gemma3": "it reads pictures too; of Gemma 3 the sizes 270M and 1B are text alone",
    "gemma2": "it caps the scores of its attention",
    "mixtral": "its layers are mixtures of experts",
    "qwen3_moe": "its layers are mixtures of experts",
    "gpt_oss": "its layers are mixtures of experts, with sinks in their attention",
    "llama4": "it reads pictures too, and its attention looks at chunks",
}
"""Why models that are often asked for are not supported."""
_OTHERWISE = {
    "is_causal": True,
    "use_bidirectional_attention": False,
    "attention_chunk_size": None,
    "text_config": None,
}
"""What attention may be asked for, as EmbeddingGemma is for both directions, with the one value accepted."""
ROTATIONS = ("default", "linear", "yarn", "llama3")
CHANGING_ROTATIONS = ("dynamic", "longrope", "su")
"""Those that are other ones from some length of a text on."""
QUANTISED_NAME = re.compile(
    r"-(?:unsloth-)?(?:bnb-[48]bit|gptq|awq|fp8|int[48]|gguf|[48]bits?|quantized).*", re.I
)


def require_supported(config: Mapping[str, Any], name: str) -> None:
    """Refuse a base model, by the content of its config.json, that would be trained or asked wrongly.

    `name` is the model's, for the error.
    """
    kind = config.get("model_type")
    if (quantised := config.get("quantization_config")) is not None:
        raise MedtuneError(
            f"{name}: its weights are quantised already ({_method(quantised)}), and what they were is lost; "
            f"set model.source to the original{_original(config, name)}, and compute.quantization to nf4 "
            "for four bits"
        )
    if kind not in SUPPORTED:
        why = f": {REASONS[kind]}" if kind in REASONS else ""
        hint = "" if why else f"; {nearest(str(kind), list(SUPPORTED))}"
        raise MedtuneError(
            f"{name}: model_type '{kind}' of its config.json is not supported{why}{hint}; see docs/models.md"
        )
    for layer in config.get("layer_types") or ():
        if layer not in ("full_attention", "sliding_attention"):
            raise MedtuneError(f"{name}: has layers of {layer}; accepted: full_attention, sliding_attention")
    for key, value in _OTHERWISE.items():
        if config.get(key) not in (None, value):
            raise MedtuneError(
                f"{name}: {key} of its config.json is {config[key]!r}; accepted: {json.dumps(value)}"
            )
    for rope in _rotations(config):
        rotation = rope.get("rope_type", rope.get("type", "default"))
        if rotation not in (*ROTATIONS, *CHANGING_ROTATIONS):
            raise MedtuneError(
                f"{name}: rope_type '{rotation}' of its config.json is not supported; "
                f"{nearest(str(rotation), [*ROTATIONS, *CHANGING_ROTATIONS])}"
            )
    if config.get("num_local_experts") or config.get("num_experts"):
        raise MedtuneError(f"{name}: its layers are mixtures of experts; accepted: dense models")


def context_length(config: Mapping[str, Any]) -> int:
    """The tokens of a text within which all tokens see each other and positions are those of the training.

    A window over the last tokens (Mistral 0.1, Gemma 3, Phi 3 mini) is such a limit: beyond it, a token would
    see others in a batch whose rows share their beginning than alone. So is the length at which a model
    changes its positions (`longrope`, `dynamic`).
    """
    limits = [int(config["max_position_embeddings"])]
    layers = config.get("layer_types")
    slides = "sliding_attention" in layers if layers else config.get("use_sliding_window", True)
    if slides and config.get("sliding_window") is not None:
        limits.append(int(config["sliding_window"]))
    key = "original_max_position_embeddings"
    for rope in _rotations(config):
        if rope.get("rope_type", rope.get("type")) in CHANGING_ROTATIONS:
            limits.append(int(rope.get(key) or config.get(key) or limits[0]))
    return min(limits)


def _rotations(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """How positions are turned into angles; a model may have a way of its own for each kind of layer."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    own = [value for value in rope.values() if isinstance(value, Mapping)]
    return own or [rope]


def _method(quantised: Mapping[str, Any]) -> str:
    method = quantised.get("quant_method", "of an unknown kind")
    bits = "4 bits" if quantised.get("load_in_4bit") or quantised.get("bits") == 4 else ""
    return ", ".join(filter(None, [str(method), bits]))


def _original(config: Mapping[str, Any], name: str) -> str:
    """The name of the model that was quantised, as far as it can be told."""
    stated = str(config.get("_name_or_path") or "")
    own = name.partition(" at ")[0]
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", stated) and stated != own and not QUANTISED_NAME.search(stated):
        return f", {stated}"
    stripped = QUANTISED_NAME.sub("", own)
    return f", such as {stripped}" if stripped != own else ""
