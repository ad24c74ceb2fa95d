"""Greedy answers to a batch of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from medtune.forward import run_prefix, shared_length

PAD = 0
"""Fills up rows; masked by position, so any token id would do."""


@dataclass(frozen=True)
class Answer:
    """Generated token ids without the end token; `truncated` if the length limit came before it."""

    ids: list[int]
    truncated: bool


def generate_answers(
    model: PreTrainedModel, prompts: Sequence[list[int]], *, end_id: int, max_new_tokens: int
) -> list[Answer]:
    """Continue each prompt greedily until `end_id`; what all of them begin with runs through the model once.

    In float32 the text does not depend on the batch a prompt is in (tests/test_generation.py); in bfloat16
    it would.
    """
    shared = shared_length(prompts)
    longest = max(len(prompt) for prompt in prompts)
    # Padding stands between the shared tokens and a row's own; positions are counted without it.
    padded = [prompt[:shared] + [PAD] * (longest - len(prompt)) + prompt[shared:] for prompt in prompts]
    mask = [[1] * shared + [0] * (longest - len(prompt)) + [1] * (len(prompt) - shared) for prompt in prompts]
    config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=end_id, pad_token_id=end_id
    )
    with torch.inference_mode():
        ids = torch.tensor(padded, device=model.device)
        cache = DynamicCache(config=model.config)
        if shared:
            cache = run_prefix(model, model.get_output_embeddings(), ids[0, :shared], len(prompts))
        output = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.tensor(mask, device=model.device),
            past_key_values=cache,
            generation_config=config,
        )
    answers = []
    for row in output[:, longest:].tolist():
        end = row.index(end_id) if end_id in row else len(row)
        answers.append(Answer(row[:end], truncated=end == len(row) == max_new_tokens))
    return answers
