"""Batched greedy answers equal those of one prompt at a time."""

import torch
from transformers import LlamaForCausalLM

from medtune.generation import generate_answers

PROMPTS = [
    [i % 300 + 20 for i in range(start, start + length)]
    for start, length in [(0, 9), (50, 3), (100, 17), (7, 9), (200, 1), (33, 5)]
]


def by_hand(model: LlamaForCausalLM, prompt: list[int], end_id: int, limit: int) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + limit:
        following = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if following == end_id:
            break
        ids.append(following)
    return ids[len(prompt) :]


def test_batches_give_the_text_of_single_prompts_in_order(tiny_llama: LlamaForCausalLM) -> None:
    expected = [by_hand(tiny_llama, prompt, end_id=7, limit=6) for prompt in PROMPTS]
    assert len({tuple(ids) for ids in expected}) > 3
    for batch_size in (1, 2, 6):
        answers = generate_answers(tiny_llama, PROMPTS, end_id=7, max_new_tokens=6, batch_size=batch_size)
        assert [answer.ids for answer in answers] == expected


def test_an_answer_stops_at_the_end_token_and_is_not_truncated(tiny_llama: LlamaForCausalLM) -> None:
    unbounded = by_hand(tiny_llama, PROMPTS[0], end_id=-1, limit=6)
    end_id = next(token for token in unbounded if token != unbounded[0])
    length = unbounded.index(end_id)
    for limit, truncated in [(6, False), (length + 1, False), (length, True)]:
        [answer] = generate_answers(
            tiny_llama, PROMPTS[:1], end_id=end_id, max_new_tokens=limit, batch_size=1
        )
        assert (answer.ids, answer.truncated) == (unbounded[:length], truncated)
