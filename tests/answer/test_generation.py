"""Batched greedy answers equal those of one prompt at a time."""

import dataclasses

import pytest
import torch
from transformers import LlamaForCausalLM

from medtune.answer.answerer import Answerer
from medtune.answer.choices import choice_log_likelihoods
from medtune.answer.generation import generate_answers
from medtune.core.errors import MedtuneError
from tests.conftest import example

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
    for size in (1, 2, 6):
        batches = [PROMPTS[start : start + size] for start in range(0, len(PROMPTS), size)]
        answers = [
            answer.ids
            for batch in batches
            for answer in generate_answers(tiny_llama, batch, end_ids=[7], max_new_tokens=6)
        ]
        assert answers == expected


def test_a_shared_beginning_changes_nothing(tiny_llama: LlamaForCausalLM) -> None:
    prompts = [[9, 8, 7, 6, 5, *prompt] for prompt in PROMPTS] + [[9, 8, 7, 6, 5]]
    expected = [by_hand(tiny_llama, prompt, end_id=7, limit=6) for prompt in prompts]
    answers = generate_answers(tiny_llama, prompts, end_ids=[7], max_new_tokens=6)
    assert [answer.ids for answer in answers] == expected


def test_an_answer_stops_at_the_end_token_and_is_not_truncated(tiny_llama: LlamaForCausalLM) -> None:
    unbounded = by_hand(tiny_llama, PROMPTS[0], end_id=-1, limit=6)
    end_id = next(token for token in unbounded if token != unbounded[0])
    length = unbounded.index(end_id)
    for limit, truncated in [(6, False), (length + 1, False), (length, True)]:
        [answer] = generate_answers(tiny_llama, PROMPTS[:1], end_ids=[end_id, -1], max_new_tokens=limit)
        assert (answer.ids, answer.truncated) == (unbounded[:length], truncated)


@pytest.mark.slow
def test_smollm2_gives_the_same_text_alone_and_in_a_batch() -> None:
    answerers = [
        dataclasses.replace(answerer, params=answerer.params.model_copy(update=changes))
        for answerer in [Answerer.load(adapter=None)]
        for changes in ({"batch_size": 1, "max_new_tokens": 16}, {"batch_size": 8, "max_new_tokens": 16})
    ]
    questions = [
        example(question=f"What is {term}?")
        for term in ("fever", "arachnodactyly", "a rather long name of a rare finding", "pain", "gout")
    ]
    alone, together = ([answer.text for answer in answerer.answer(questions)] for answerer in answerers)
    assert alone == together
    assert len(set(alone)) == len(questions)


def test_what_is_no_number_is_an_error_and_no_answer(tiny_llama: LlamaForCausalLM) -> None:
    tiny_llama.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(MedtuneError, match="logits are not numbers"):
        generate_answers(tiny_llama, PROMPTS, end_ids=[7], max_new_tokens=6)
    with pytest.raises(MedtuneError, match="logits are not numbers"):
        choice_log_likelihoods(tiny_llama, PROMPTS[:1], [[[5, 7], [6, 7]]])
