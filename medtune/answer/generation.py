"""Greedy answers to a batch of prompts."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad
from transformers import Cache, DynamicCache, PreTrainedModel

from medtune.model.forward import require_numbers, run_prefix, shared_length

PAD = 0
"""Fills up rows; masked by position, so any token id would do."""
STILL_GOING = 0.9
"""At this share of a batch or less its rows that go on are copied together, with the whole cache."""


@dataclass(frozen=True)
class Answer:
    """Generated token ids without the end token; `truncated` if the length limit came before it."""

    ids: list[int]
    truncated: bool


def generate_answers(
    model: PreTrainedModel, prompts: Sequence[list[int]], *, end_ids: Collection[int], max_new_tokens: int
) -> list[Answer]:
    """Continue each prompt greedily until one of `end_ids`; what all begin with runs through the model once.

    Answers that have ended leave the batch, so that the long ones cost only themselves. In float32 the text
    does not depend on the batch a prompt is in (tests/answer/test_generation.py); in bfloat16 it would.
    """
    shared = shared_length(prompts)
    longest = max(len(prompt) for prompt in prompts)
    # Padding stands between the shared tokens and a row's own; positions are counted without it.
    padded = [prompt[:shared] + [PAD] * (longest - len(prompt)) + prompt[shared:] for prompt in prompts]
    mask = [[1] * shared + [0] * (longest - len(prompt)) + [1] * (len(prompt) - shared) for prompt in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    with torch.inference_mode():
        ids, seen = (torch.tensor(rows, device=model.device) for rows in (padded, mask))
        cache: Cache = DynamicCache(config=model.config)
        if shared:
            cache = run_prefix(model, model.get_output_embeddings(), ids[0, :shared], len(prompts))
        ids, positions = ids[:, shared:], (seen.cumsum(dim=1) - 1)[:, shared:]
        in_batch = list(range(len(prompts)))
        while True:
            logits = model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=seen,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            following = logits[:, -1].argmax(dim=-1)
            # Of numbers of which one is NaN, that is the largest: it would be said as token 0.
            require_numbers(logits[:, -1].gather(1, following.unsqueeze(1)))
            for index, token in zip(in_batch, following.tolist(), strict=True):
                if not _has_ended(answers[index], end_ids, max_new_tokens):
                    answers[index].append(token)
            going = [
                row
                for row, index in enumerate(in_batch)
                if not _has_ended(answers[index], end_ids, max_new_tokens)
            ]
            if not going:
                break
            if len(going) <= STILL_GOING * len(in_batch):
                kept = torch.tensor(going, device=model.device)
                cache.batch_select_indices(kept)
                following, positions, seen = following[kept], positions[kept], seen[kept]
                in_batch = [in_batch[row] for row in going]
            ids, positions, seen = following.unsqueeze(1), positions[:, -1:] + 1, pad(seen, (0, 1), value=1)
    return [Answer(ids[:-1], False) if ids[-1] in end_ids else Answer(ids, truncated=True) for ids in answers]


def _has_ended(answer: list[int], end_ids: Collection[int], max_new_tokens: int) -> bool:
    return len(answer) == max_new_tokens or (bool(answer) and answer[-1] in end_ids)
