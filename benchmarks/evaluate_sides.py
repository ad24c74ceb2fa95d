"""The sides of `benchmarks.evaluate`: the base model is asked the same questions in different ways."""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.side import run_asked
from medtune.answer.answerer import Answerer
from medtune.answer.params import AnswerParams
from medtune.core.examples import Example, read_jsonl
from medtune.model.base import base_folder, load_tokenizer
from medtune.model.params import ModelParams, PromptParams

TEST = Path("data/prepared/test.jsonl")


def batched(count: int) -> dict[str, Any]:
    """The stage as it is."""
    examples, answerer = _questions(count), Answerer.load(adapter=None)
    answerer.answer(examples[:2])
    start = time.perf_counter()
    answers = answerer.answer(examples)
    return {"seconds": time.perf_counter() - start, "texts": [answer.text for answer in answers]}


def one_at_a_time(count: int) -> dict[str, Any]:
    """The notebook way: the chat template, `generate`, the next question."""
    examples, params, system = _questions(count), AnswerParams.load(), PromptParams.load().system.strip()
    model, tokenizer = _plain_model()

    def answer(example: Example) -> str:
        earlier = [message.model_dump() for message in example.messages or []]
        asked = {"role": "user", "content": example.user_text}
        messages = [{"role": "system", "content": system}, *earlier, asked]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, do_sample=False, max_new_tokens=params.max_new_tokens)
        text = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return str(text).strip()

    answer(examples[0])
    start = time.perf_counter()
    texts = [answer(example) for example in examples]
    return {"seconds": time.perf_counter() - start, "texts": texts}


def choices(count: int) -> dict[str, Any]:
    """The stage as it is, on questions with choices."""
    examples, answerer = _with_choices(_questions(count)), Answerer.load(adapter=None)
    answerer.answer(examples[:2])
    start = time.perf_counter()
    answers = answerer.answer(examples)
    return {
        "seconds": time.perf_counter() - start,
        "log_likelihoods": [
            [
                text + end
                for text, end in zip(
                    answer.log_likelihoods or (), answer.end_log_likelihoods or (), strict=True
                )
            ]
            for answer in answers
        ],
    }


def forward_per_choice(count: int) -> dict[str, Any]:
    """A forward pass for each choice of each question."""
    examples, encoder = _with_choices(_questions(count)), Answerer.load(adapter=None).encoder
    model, _ = _plain_model()

    def log_likelihood(prompt: list[int], choice: list[int]) -> float:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt + choice])).logits[0, len(prompt) - 1 : -1]
        return float(logits.log_softmax(-1).gather(1, torch.tensor(choice).unsqueeze(1)).sum())

    def score(example: Example) -> list[float]:
        prompt = encoder.encode_prompt(example)
        return [log_likelihood(prompt, encoder.encode_answer(choice)) for choice in example.choices or ()]

    score(examples[0])
    start = time.perf_counter()
    figures = [score(example) for example in examples]
    return {"seconds": time.perf_counter() - start, "log_likelihoods": figures}


def _questions(count: int) -> list[Example]:
    """Questions to be answered in words."""
    examples = [example for example in read_jsonl(TEST) if example.choices is None]
    return random.Random(AnswerParams.load().seed).sample(examples, min(count, len(examples)))


def _with_choices(examples: Sequence[Example]) -> list[Example]:
    """The same questions, each with its answer and three of other questions to choose from."""
    chance = random.Random(0)
    asked = []
    for example in examples:
        others = sorted({other.answer for other in examples if other.kind == example.kind} - {example.answer})
        listed = [example.answer, *chance.sample(others, min(3, len(others)))]
        chance.shuffle(listed)
        asked.append(example.model_copy(update={"choices": listed}))
    return asked


def _plain_model() -> tuple[Any, Any]:
    folder = base_folder(ModelParams.load())
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), load_tokenizer(folder)


SIDES: dict[str, Callable[[int], dict[str, Any]]] = {
    side.__name__: side for side in (batched, one_at_a_time, choices, forward_per_choice)
}

if __name__ == "__main__":
    run_asked(SIDES)
