"""The sides of `benchmarks.evaluate`: the base model is asked the same questions in different ways.

A side is asked for some of its questions, `START:STOP:STEP` of them in order of length, or for `products`.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM

from benchmarks.flops import forward_flops
from benchmarks.side import clock, report, run_asked, turns
from benchmarks.texts import LONG, TEST, long_examples
from benchmarks.turns import compute_params
from medtune.answer.answerer import Answerer
from medtune.answer.params import AnswerParams, Settings
from medtune.core.examples import Example, read_jsonl
from medtune.model.base import base_folder, load_tokenizer
from medtune.model.forward import shared_length
from medtune.model.shape import Shape, find_shape
from medtune.run.device import set_up

PRODUCTS = "products"
LONG_ANSWER = 128
"""Tokens at most of an answer to a long question: a paragraph."""


class Products:
    """The products of a model's linear layers, as they were in a turn: how long they take by themselves."""

    def __init__(self, model: nn.Module) -> None:
        self._passes: Counter[tuple[int, int]] = Counter()
        *self._layers, self._head = [one for one in model.modules() if isinstance(one, nn.Linear)]
        self._rows = 0
        self._layers[0].register_forward_pre_hook(self._enter)
        self._head.register_forward_pre_hook(self._leave)

    def forget(self) -> None:
        """Before a turn: what was noted is of another."""
        self._passes.clear()

    def seconds(self) -> float:
        """Of the same products with weights in the same order, on inputs that are drawn."""
        taken = 0.0
        with torch.inference_mode():
            for (rows, positions), times in sorted(self._passes.items()):
                inputs = {size: torch.randn(rows, size) for size in {one.in_features for one in self._layers}}
                last = torch.randn(positions, self._head.in_features)
                start = clock()
                for _ in range(times):
                    for layer in self._layers:
                        linear(inputs[layer.in_features], layer.weight)
                    linear(last, self._head.weight)
                taken += clock() - start
        return taken

    def flops(self, shape: Shape) -> int:
        """Operations of all of them, padding too."""
        return sum(
            times * forward_flops(shape, rows, positions) for (rows, positions), times in self._passes.items()
        )

    def _enter(self, _: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self._rows = args[0].shape[:-1].numel()

    def _leave(self, _: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self._passes[self._rows, args[0].shape[:-1].numel()] += 1


def batched(texts: str, count: str) -> None:
    """The stage as it is, and the products that it makes."""
    settings = _settings(texts)
    questions, answerer = _questions(texts, int(count)), Answerer.build(settings, adapter=None)
    products, shape = Products(answerer.model), find_shape(settings.model)
    for asked in turns():
        if asked == PRODUCTS:
            # Of the turn before: all that it passed through the layers, as fast as products alone are.
            seconds = products.seconds()
            report({"seconds": seconds, "flops": products.flops(shape)})
            continue
        examples = questions[_chosen(asked)]
        products.forget()
        start = clock()
        answers = answerer.answer(examples)
        seconds = clock() - start
        tokens = sum(answer.tokens + (not answer.truncated) for answer in answers)
        report(
            {
                "seconds": seconds,
                "questions": len(examples),
                "tokens": tokens,
                "flops": _needed(answerer, examples, tokens, shape),
                "texts": {one.id: answer.text for one, answer in zip(examples, answers, strict=True)},
            }
        )


def one_at_a_time(texts: str, count: str) -> None:
    """The notebook way: the chat template, `generate`, the next question."""
    settings = _settings(texts)
    questions, system = _questions(texts, int(count)), settings.prompt.system.strip()
    model, tokenizer = _plain_model(settings)

    def answer(example: Example) -> torch.Tensor:
        earlier = [message.model_dump() for message in example.messages or []]
        asked = {"role": "user", "content": example.user_text}
        messages = [{"role": "system", "content": system}, *earlier, asked]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, do_sample=False, max_new_tokens=settings.answer.max_new_tokens)
        return output[0, inputs["input_ids"].shape[1] :]

    for asked in turns():
        examples = questions[_chosen(asked)]
        start = clock()
        outputs = [answer(example) for example in examples]
        seconds = clock() - start
        decoded = [tokenizer.decode(output, skip_special_tokens=True).strip() for output in outputs]
        report(
            {
                "seconds": seconds,
                "questions": len(examples),
                "tokens": sum(map(len, outputs)),
                "texts": {one.id: text for one, text in zip(examples, decoded, strict=True)},
            }
        )


def choices(texts: str, count: str) -> None:
    """The stage as it is, on questions with choices."""
    answerer = Answerer.build(_settings(texts), adapter=None)
    questions = _with_choices(_questions(texts, int(count)))
    for asked in turns():
        examples = questions[_chosen(asked)]
        start = clock()
        answers = answerer.answer(examples)
        seconds = clock() - start
        sums = [
            [
                text + end
                for text, end in zip(one.log_likelihoods or (), one.end_log_likelihoods or (), strict=True)
            ]
            for one in answers
        ]
        report(_scored(examples, sums, seconds))


def forward_per_choice(texts: str, count: str) -> None:
    """A forward pass for each choice of each question."""
    settings = _settings(texts)
    questions, encoder = _with_choices(_questions(texts, int(count))), Answerer.build(settings, None).encoder
    model, _ = _plain_model(settings)

    def log_likelihood(prompt: list[int], choice: list[int]) -> float:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt + choice])).logits[0, len(prompt) - 1 : -1]
        return float(logits.log_softmax(-1).gather(1, torch.tensor(choice).unsqueeze(1)).sum())

    def score(example: Example) -> list[float]:
        prompt = encoder.encode_prompt(example)
        return [log_likelihood(prompt, encoder.encode_answer(choice)) for choice in example.choices or ()]

    for asked in turns():
        examples = questions[_chosen(asked)]
        start = clock()
        sums = [score(example) for example in examples]
        report(_scored(examples, sums, clock() - start))


def _scored(examples: Sequence[Example], sums: Sequence[Sequence[float]], seconds: float) -> dict[str, Any]:
    found = {one.id: list(values) for one, values in zip(examples, sums, strict=True)}
    return {"seconds": seconds, "questions": len(examples), "log_likelihoods": found}


def _chosen(asked: str) -> slice:
    """`START:STOP:STEP` as a slice."""
    return slice(*(int(part) if part else None for part in asked.split(":")))


def _needed(answerer: Answerer, examples: Sequence[Example], tokens: int, shape: Shape) -> int:
    """Operations of the linear layers for so many answer tokens: beginnings once a batch, no padding."""
    prompts = [answerer.encoder.encode_prompt(example) for example in examples]
    size = answerer.params.batch_size
    needed = 0
    for batch in (prompts[start : start + size] for start in range(0, len(prompts), size)):
        shared = shared_length(batch)
        needed += shared + sum(len(prompt) - shared for prompt in batch)
    # The last token of an answer runs through no layer any more; the logits before it are needed.
    return forward_flops(shape, needed + tokens - len(prompts), tokens)


def _settings(texts: str) -> Settings:
    """Those of params.yaml; long questions are answered at length, without a quantised base."""
    settings = replace(Settings.load(), compute=compute_params())
    if texts != LONG:
        return settings
    return replace(settings, answer=settings.answer.model_copy(update={"max_new_tokens": LONG_ANSWER}))


def _questions(texts: str, count: int) -> list[Example]:
    """So many questions to be answered in words, in order of length."""
    everything = long_examples() if texts == LONG else read_jsonl(TEST)
    examples = [example for example in everything if example.choices is None]
    drawn = random.Random(AnswerParams.load().seed).sample(examples, min(count, len(examples)))
    return sorted(drawn, key=lambda example: len(example.user_text))


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


def _plain_model(settings: Settings) -> tuple[Any, Any]:
    """A model as it is loaded by most, in float32, with its tokenizer."""
    set_up(settings.compute, settings.answer.seed)
    folder = base_folder(settings.model)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), load_tokenizer(folder)


SIDES: dict[str, Callable[[str, str], None]] = {
    side.__name__: side for side in (batched, one_at_a_time, choices, forward_per_choice)
}

if __name__ == "__main__":
    run_asked(SIDES)
