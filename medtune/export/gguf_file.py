"""A merged model as a GGUF file, for llama.cpp and whatever is built on it.

What the file says of rotary positions and of the tokenizer decides about every token, and a runtime takes a
wrong one without a word. So only what is known to be written right is accepted, and `require_writable`
refuses the rest by name, before any weight is touched. Equal weights and tokenizers give equal bytes: no
dates and no paths are written.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from medtune.core.errors import MedtuneError

Precision = Literal["f16", "q8_0"]
PRECISIONS: tuple[Precision, ...] = ("f16", "q8_0")

_FILE_TYPES = {"f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
_BLOCK = 32
"""Weights that share a scale in q8_0: a row is to be a multiple of it."""
_GPT_2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BYTES_ALONE = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
_COMPOSES = "NFC"
"""Qwen's normalizer: letters and their accents become one character. llama.cpp takes a text as it comes."""
_MARKS = ("continuing_subword_prefix", "end_of_word_suffix")
_FLAGS = ("single_word", "lstrip", "rstrip")
"""Of added tokens: where they are read, and whether they take blanks beside them away."""
_COUNTS = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "head_count",
    "num_key_value_heads": "head_count_kv",
}
"""Fields of a config and what GGUF calls them."""


@dataclass(frozen=True)
class _Architecture:
    """How llama.cpp has a family: its name there, and which rotary positions it can be told of.

    `interleaves`: whether it rotates every other number of a head against the next, as it does Llama's, or
    the first half against the second, as transformers always does. `sizes_heads`: whether heads may have
    another size than their share of the hidden size.
    """

    name: gguf.MODEL_ARCH
    rotary: tuple[str, ...]
    interleaves: bool
    sizes_heads: bool = True


_ARCHITECTURES = {
    "llama": _Architecture(gguf.MODEL_ARCH.LLAMA, ("default", "linear", "llama3"), interleaves=True),
    "qwen2": _Architecture(
        gguf.MODEL_ARCH.QWEN2, ("default", "linear"), interleaves=False, sizes_heads=False
    ),
    "qwen3": _Architecture(gguf.MODEL_ARCH.QWEN3, ("default", "linear"), interleaves=False),
    "smollm3": _Architecture(gguf.MODEL_ARCH.SMOLLM3, ("default", "linear"), interleaves=True),
}
"""By transformers' `model_type`."""


@dataclass(frozen=True)
class Origin:
    """What a file says of where it comes from."""

    name: str
    license: str
    base: str


def require_writable(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a model or a tokenizer that a GGUF of this module would not be right for."""
    _require_architecture(config)
    described = _described(tokenizer)
    _pre_tokenizer(described)
    _tokens(described, config.vocab_size)


def write_gguf(
    path: Path,
    weights: Mapping[str, torch.Tensor],
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    precision: Precision,
    origin: Origin,
    end_id: int,
) -> None:
    """Write the weights, by their names in transformers, as the architecture that llama.cpp has for them.

    `end_id` is the token with which the model was trained to end an answer. Matrices get the precision that
    is asked for, norms stay in float32.
    """
    require_writable(config, tokenizer)
    architecture = _ARCHITECTURES[config.model_type].name
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    try:
        _write_origin(writer, origin, precision)
        _write_shape(writer, config)
        _write_tokenizer(writer, tokenizer, config.vocab_size, end_id)
        for name, array, kind in _tensors(weights, config, precision):
            raw = kind if kind == GGMLQuantizationType.Q8_0 else None
            writer.add_tensor(name, array, raw_dtype=raw)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _require_architecture(config: PretrainedConfig) -> None:
    if config.model_type not in _ARCHITECTURES:
        raise _refusal("model_type", config.model_type, tuple(_ARCHITECTURES))
    architecture = _ARCHITECTURES[config.model_type]
    share = config.hidden_size // config.num_attention_heads
    # llama.cpp has it in its code, not in the file, which layers of SmolLM 3 rotate nothing.
    every_fourth = [int(number % 4 != 0) for number in range(1, config.num_hidden_layers + 1)]
    found: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "hidden_act": (getattr(config, "hidden_act", None), ("silu",)),
        "attention_bias": (getattr(config, "attention_bias", False), (False,)),
        "mlp_bias": (getattr(config, "mlp_bias", False), (False,)),
        "head_dim": (head_size(config), (head_size(config) if architecture.sizes_heads else share,)),
        "use_sliding_window": (getattr(config, "use_sliding_window", False), (False,)),
        "no_rope_layers": (getattr(config, "no_rope_layers", None), (None, every_fourth)),
        "layer_types": (_layer_types(config), (["full_attention"],)),
        "rope_type": (_rotary(config)["rope_type"], architecture.rotary),
        "partial_rotary_factor": (_rotary(config).get("partial_rotary_factor", 1.0), (1.0,)),
    }
    for name, (value, accepted) in found.items():
        if value not in accepted:
            raise _refusal(name, value, accepted)
    rotary = _rotary(config)
    if rotary["rope_type"] == "llama3" and rotary["low_freq_factor"] >= rotary["high_freq_factor"]:
        raise MedtuneError(
            f"gguf: the base model's rope_parameters.low_freq_factor is {rotary['low_freq_factor']}; "
            f"accepted: less than high_freq_factor, which is {rotary['high_freq_factor']}"
        )


def _layer_types(config: PretrainedConfig) -> list[str]:
    """The kinds of attention that its layers have; what a Llama's config says of them is never read."""
    named = None if config.model_type == "llama" else getattr(config, "layer_types", None)
    return sorted(set(named or ["full_attention"]))


def _refusal(name: str, value: object, accepted: tuple[Any, ...]) -> MedtuneError:
    return MedtuneError(
        f"gguf: the base model's {name} is {value!r}; accepted: {', '.join(map(str, accepted))}. "
        "The formats merged and adapter take any model that trains"
    )


def _rotary(config: PretrainedConfig) -> dict[str, Any]:
    return {"rope_type": "default"} | dict(config.rope_parameters or {})


def _write_origin(writer: gguf.GGUFWriter, origin: Origin, precision: Precision) -> None:
    writer.add_type("model")
    writer.add_name(origin.name)
    writer.add_license(origin.license)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, origin.base)
    writer.add_file_type(_FILE_TYPES[precision])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write_shape(writer: gguf.GGUFWriter, config: PretrainedConfig) -> None:
    for field, name in _COUNTS.items():
        getattr(writer, f"add_{name}")(getattr(config, field))
    rotary, size = _rotary(config), head_size(config)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(size)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_freq_base(rotary["rope_theta"])
    if rotary["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rotary["factor"])


def head_size(config: PretrainedConfig) -> int:
    """Numbers in a query of one head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _tensors(
    weights: Mapping[str, torch.Tensor], config: PretrainedConfig, precision: Precision
) -> Iterator[tuple[str, np.ndarray, GGMLQuantizationType]]:
    """Every tensor with its name there, in an order of its own."""
    architecture = _ARCHITECTURES[config.model_type]
    names = gguf.get_tensor_name_map(architecture.name, config.num_hidden_layers)
    if _rotary(config)["rope_type"] == "llama3":
        yield "rope_freqs.weight", rotary_factors(config), GGMLQuantizationType.F32
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in sorted(weights.items()):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise MedtuneError(f"gguf: llama.cpp's {config.model_type} has no place for the tensor '{name}'")
        array = tensor.to(torch.float32).numpy()
        layer = name.split(".")[-2]
        if architecture.interleaves and layer in heads:
            array = interleaved(array, heads[layer])
        yield target, *_stored(name, array, precision)


def interleaved(matrix: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query's or key's matrix in the order in which llama.cpp rotates them.

    transformers turns the first half of a head against the second, llama.cpp every other number against the
    next. Scores are the same if both queries and keys are reordered.
    """
    parts = matrix.reshape(heads, 2, -1, matrix.shape[1])
    return np.ascontiguousarray(parts.swapaxes(1, 2).reshape(matrix.shape))


def rotary_factors(config: PretrainedConfig) -> np.ndarray:
    """What llama.cpp divides the frequencies of rotary positions by: Llama 3's scaling to long contexts."""
    rotary, size = _rotary(config), head_size(config)
    frequencies = rotary["rope_theta"] ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    waves = 2 * math.pi / frequencies
    original, factor = rotary["original_max_position_embeddings"], rotary["factor"]
    low, high = rotary["low_freq_factor"], rotary["high_freq_factor"]
    smooth = (original / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    found = np.where(waves < original / high, 1.0, np.where(waves > original / low, factor, between))
    return found.astype(np.float32)


def _stored(name: str, array: np.ndarray, precision: Precision) -> tuple[np.ndarray, GGMLQuantizationType]:
    if array.ndim == 1:
        return array, GGMLQuantizationType.F32
    if precision == "q8_0" and array.shape[-1] % _BLOCK == 0:
        return gguf.quants.quantize(array, GGMLQuantizationType.Q8_0), GGMLQuantizationType.Q8_0
    if np.abs(array).max() > np.finfo(np.float16).max:
        raise MedtuneError(f"gguf: '{name}' has a weight that float16 cannot hold; accepted: up to 65504")
    return array.astype(np.float16), GGMLQuantizationType.F16


def _described(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The content of its tokenizer.json."""
    if not tokenizer.is_fast:
        raise MedtuneError("gguf: the base model's tokenizer has no tokenizer.json; accepted: byte-level BPE")
    return json.loads(tokenizer.backend_tokenizer.to_str())


def _pre_tokenizer(described: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a text is cut before its pieces are merged."""
    model, normalizer = described["model"], described["normalizer"]
    if model["type"] != "BPE" or model.get("byte_fallback") or any(map(model.get, _MARKS)):
        raise MedtuneError(
            f"gguf: the base model's tokenizer is {_family(described)}; accepted: byte-level BPE, as of "
            "SmolLM2 and Llama 3. The formats merged and adapter take any tokenizer that trains"
        )
    if model.get("dropout"):
        raise MedtuneError(f"gguf: the base model's tokenizer has dropout {model['dropout']}; accepted: none")
    if model.get("unk_token") and not set(ByteLevel.alphabet()) <= set(model["vocab"]):
        raise MedtuneError(
            "gguf: the base model's tokenizer lacks some bytes and writes its unknown token for them, which "
            "llama.cpp leaves out; accepted: all 256 bytes"
        )
    rewrites = normalizer and normalizer["type"]
    if rewrites not in (None, _COMPOSES):
        raise MedtuneError(
            f"gguf: the base model's tokenizer rewrites a text first ({rewrites}); accepted: none, and NFC"
        )
    ignores_merges = bool(model.get("ignore_merges"))
    steps = _steps(described["pre_tokenizer"])
    for name, expected, ignoring in _KNOWN:
        if steps == expected and ignores_merges == ignoring:
            return name
    raise MedtuneError(
        "gguf: the base model's tokenizer cuts a text in a way that is not known from llama.cpp; accepted: "
        f"that of {', '.join(name for name, _, _ in _KNOWN)}"
    )


_DIGITS = {"type": "Digits", "individual_digits": True}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


_KNOWN: tuple[tuple[str, list[dict[str, Any]], bool], ...] = (
    ("gpt-2", [_GPT_2], False),
    ("smollm", [_DIGITS, _GPT_2], False),
    ("llama-bpe", [_split(LLAMA_3), _BYTES_ALONE], True),
    ("qwen2", [_split(QWEN_2), _BYTES_ALONE], False),
)
"""llama.cpp's name, the steps as tokenizer.json has them, whether a word that is a token skips the merges."""


def _steps(found: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    steps = [found] if found and found["type"] != "Sequence" else (found or {}).get("pretokenizers", [])
    # Offsets are no matter of which tokens there are.
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps if step]


def _family(described: Mapping[str, Any]) -> str:
    if described["model"].get("byte_fallback"):
        return "SentencePiece's (Llama 2, Mistral)"
    return str(described["model"]["type"])


def _tokens(described: Mapping[str, Any], size: int) -> tuple[list[str], list[TokenType]]:
    """Texts and types by id; ids that the tokenizer has not are there in the embeddings all the same."""
    texts = {number: text for text, number in described["model"]["vocab"].items()}
    kinds = dict.fromkeys(texts, TokenType.NORMAL)
    for token in described["added_tokens"]:
        if acts := [name for name in _FLAGS if token.get(name)]:
            raise MedtuneError(
                f"gguf: the tokenizer's token '{token['content']}' has {acts[0]}, which llama.cpp does not "
                "heed; accepted: tokens that take nothing beside them away and stand anywhere"
            )
        texts[token["id"]] = token["content"]
        kinds[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    _require_apart([token["content"] for token in described["added_tokens"]])
    if max(texts) >= size:
        raise MedtuneError(f"gguf: the tokenizer has {max(texts) + 1} tokens, the model's embeddings {size}")
    return (
        [texts.get(number, f"[PAD{number}]") for number in range(size)],
        [kinds.get(number, TokenType.UNUSED) for number in range(size)],
    )


def _require_apart(added: list[str]) -> None:
    """Refuse added tokens of which one may begin within another: which is read then differs."""
    beginning: dict[str, set[str]] = defaultdict(set)
    for token in added:
        for length in range(1, len(token)):
            beginning[token[:length]].add(token)
    for token in added:
        met = {other for other in added if other in token}
        met |= {other for start in range(1, len(token)) for other in beginning.get(token[start:], ())}
        if others := sorted(met - {token}):
            raise MedtuneError(
                f"gguf: the tokenizer's added tokens '{token}' and '{others[0]}' overlap, and llama.cpp may "
                "read the other one; accepted: tokens of which none begins within another"
            )


def begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer writes its BOS before a text; a template that begins with one has its own."""
    return bool(tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id])


def _write_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int, end_id: int
) -> None:
    described = _described(tokenizer)
    texts, kinds = _tokens(described, size)
    merges = described["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(described))
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_add_bos_token(begins_with_bos(tokenizer))
    writer.add_add_space_prefix(False)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    # The end that was trained, whatever the base's file calls its end: there generation stops.
    writer.add_eos_token_id(end_id)
    writer.add_eot_token_id(end_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_chat_template(tokenizer.get_chat_template())
