"""The base of `benchmarks.gpu`: a Llama of a known shape with random weights, and random tokens for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SHARED = 64
"""Tokens that all rows begin with."""
LABELLED = 4
"""One of so many tokens has a label, at the end of its row."""


@dataclass(frozen=True)
class Bench:
    """A shape as LlamaConfig names it, and the sections `compute` and `finetune` that it is trained with."""

    config: Mapping[str, Any]
    compute: Mapping[str, Any]
    finetune: Mapping[str, Any]
    lengths: tuple[int, int] = field(default=(128, 512))
    parts: int = 1
    """Batches that others cut a step into, as they hold the logits of all tokens."""


SHAPES = {
    "llama-3.2-1b": Bench(
        config={
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
        compute={"device": "auto", "attention": "sdpa"},
        finetune={"batch_size": 64, "tokens_per_pass": 32768, "max_length": 512},
        parts=8,
    ),
    "tiny": Bench(
        config={
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
        },
        compute={"device": "cpu", "threads": 1, "attention": "eager"},
        finetune={"batch_size": 4, "tokens_per_pass": 512, "max_length": 128, "precision": "float32"},
        lengths=(80, 128),
    ),
}


def save_base(shape: str, folder: Path) -> None:
    """Write the model, in bfloat16, and a tokenizer, which only has to be there."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() and shape != "tiny" else "cpu"
    with torch.device(device):
        model: Any = LlamaForCausalLM(LlamaConfig(**SHAPES[shape].config))
    model.to(torch.bfloat16).save_pretrained(folder)
    del model
    # The sides need the memory, which this process would keep.
    torch.cuda.empty_cache()
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(folder)


def random_rows(shape: str, count: int, vocabulary: int) -> list[dict[str, list[int]]]:
    """Rows of token ids and labels that begin alike, always the same."""
    generator = torch.Generator().manual_seed(0)

    def drawn(low: int, high: int, length: int) -> list[int]:
        return torch.randint(low, high, (length,), generator=generator).tolist()

    low, high = SHAPES[shape].lengths
    beginning = drawn(2, vocabulary, SHARED)
    rows = []
    for length in drawn(low, high + 1, count):
        ids = beginning + drawn(2, vocabulary, length - SHARED)
        answer = length // LABELLED
        rows.append({"input_ids": ids, "labels": [-100] * (length - answer) + ids[-answer:]})
    return rows
