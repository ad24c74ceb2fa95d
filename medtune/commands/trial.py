"""What a dry run tries: the largest pass of a stage on the data that is here, as the stage makes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from medtune.answer.batches import cut_batches
from medtune.answer.choices import choice_log_likelihoods
from medtune.answer.generation import generate_answers
from medtune.answer.params import AnswerParams
from medtune.answer.questions import Question
from medtune.answer.shots import drawn_shots
from medtune.core.examples import drawn_indices, read_jsonl
from medtune.model.adapter import attach_lora
from medtune.model.base import base_folder, context_of, load_model, load_tokenizer
from medtune.model.chat import ChatEncoder
from medtune.model.params import ModelParams, PromptParams
from medtune.run.device import frozen_dtype, set_up
from medtune.run.launch import Launch
from medtune.run.params import ComputeParams
from medtune.train.batching import SimilarLengthBatches, pad, shared_prefix_length, split_batch
from medtune.train.checkpoints import Checkpoints
from medtune.train.encoding import IGNORED, encode_examples, row_lengths
from medtune.train.params import FinetuneParams
from medtune.train.trainer import AnswerTrainer, train

TRAIN, TEST = Path("data/prepared/train.jsonl"), Path("data/prepared/test.jsonl")
STEPS = 3
"""Freed blocks that fit nothing new add up over the first steps of a training, and hardly any further."""


@dataclass(frozen=True)
class Trial:
    """What is tried, as sections of params.yaml, and a folder for what a training writes."""

    content: dict[str, Any]
    folder: Path

    def finetune(self) -> None:
        """Train on the largest batch, as the Trainer does."""
        params, compute = FinetuneParams.of(self.content), ComputeParams.of(self.content)
        base_model = ModelParams.of(self.content)
        device = set_up(compute, params.seed)
        tokenizer = load_tokenizer(base_folder(base_model))
        rows = self._largest_batch(ChatEncoder(tokenizer, PromptParams.of(self.content)), params)
        base = load_model(base_model, compute, frozen_dtype(params.precision, device), device)
        model = attach_lora(base, params.lora, base_model)
        changes = {"epochs": float(STEPS), "batch_size": len(rows), "gradient_accumulation": 1}
        once = params.model_copy(update=changes | {"evaluate_every": STEPS, "early_stopping": None})
        checkpoints = Checkpoints(self.folder, keep=1)
        train(AnswerTrainer(model, tokenizer, rows, rows, once, checkpoints, device, self.folder))

    def answer(self, *, quantized: bool) -> None:
        """Answer the largest batch: its prompts, then one token more where the cache is at its longest."""
        params, compute = AnswerParams.of(self.content), ComputeParams.of(self.content)
        base_model = ModelParams.of(self.content)
        device = set_up(compute, params.seed)
        dtype = frozen_dtype(params.precision, device, "answer.precision")
        if not quantized:
            compute, dtype = compute.model_copy(update={"quantization": None}), frozen_dtype("auto", device)
        model: Any = load_model(base_model, compute, dtype, device)
        if compute.quantization or not quantized:
            model = attach_lora(model, FinetuneParams.of(self.content).lora, base_model).eval()
        encoder = ChatEncoder(load_tokenizer(base_folder(base_model)), PromptParams.of(self.content))
        examples = read_jsonl(TEST)
        drawn = [examples[index] for index in drawn_indices(examples, params.seed, params.examples_per_kind)]
        kinds = {example.kind for example in drawn}
        # The adapter, the only one that is asked on an unquantised base, gets no shots.
        count = params.shots if quantized else 0
        shots = drawn_shots(read_jsonl(TRAIN), kinds, params.seed, count)
        questions = sorted((Question.of(one, encoder, shots[one.kind]) for one in drawn), key=len)
        context = context_of(model.config)
        asked = [question for question in questions if question.longest(params.max_new_tokens) <= context]
        free = [one.prompt for one in _largest([one for one in asked if not one.choices], params)]
        closed = _largest([question for question in asked if question.choices], params)
        if free:
            # Rows that are alike but for their last token fill the cache at the price of one row.
            full = [[0] * (max(map(len, free)) + params.max_new_tokens - 1)] * len(free)
            for prompts in (free, full):
                generate_answers(model, prompts, end_ids=(), max_new_tokens=1)
        if closed:
            encoded = [[ids for _, ids in question.choices] for question in closed]
            choice_log_likelihoods(model, [question.prompt for question in closed], encoded)

    @staticmethod
    def _largest_batch(encoder: ChatEncoder, params: FinetuneParams) -> Dataset:
        """The share of one process in the batch that has the largest pass."""
        rows = encode_examples(read_jsonl(TRAIN), encoder, params, TRAIN).rows
        batches = SimilarLengthBatches(
            row_lengths(rows),
            params.batch_size,
            params.seed,
            accumulation=params.gradient_accumulation,
            share=(0, Launch.load(params.launch, "finetune.launch").processes),
        )
        examples = list(rows)

        def size(indices: list[int]) -> int:
            batch = pad([examples[index] for index in indices])
            return max(_pass_size(part) for part in split_batch(batch, params.tokens_per_pass))

        return rows.select(max(batches, key=size))


def _largest(questions: list[Question], params: AnswerParams) -> list[Question]:
    """The batch of questions that takes the most memory."""

    def longest(question: Question) -> int:
        return question.longest(params.max_new_tokens)

    numbered = dict(enumerate(questions))
    bound = (params.tokens_per_batch, longest)
    batches = cut_batches(list(numbered), numbered, params.batch_size, bound)
    largest = max(batches, key=lambda batch: len(batch) * longest(questions[batch[-1]]), default=[])
    return [questions[index] for index in largest]


def _pass_size(part: dict[str, torch.Tensor]) -> int:
    """How large a pass is: the logits of a label take about as much as the activations of a token."""
    shared = shared_prefix_length(part["input_ids"], part["labels"])
    rows, length = part["input_ids"].shape
    return rows * (length - shared) + shared + int((part["labels"] != IGNORED).sum())
