"""Which attention, and how many tokens in a pass, train fastest at which length.

    python -m benchmarks.attention [--lengths 64 256 1024] [--rounds 5] [--passes] [--cpu-time]

One training pass, forward and backward, of the base model with the adapter of params.yaml: as many rows of a
length as `finetune.tokens_per_pass` takes, after the beginning that all prompts of params.yaml share. The
model is one, only its attention changes between turns. What stands in the rows is drawn: the speed does not
depend on it. `--passes` compares values of `finetune.tokens_per_pass` instead, over a batch of 4,096 tokens.
On a machine that others use, `--cpu-time` counts the seconds that the processor worked, on one thread, which
waits for none. The last line is JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import side
from benchmarks.rounds import Spread, in_turns, ratios
from medtune.core.examples import Example
from medtune.model.adapter import attach_lora
from medtune.model.attention import implementation
from medtune.model.base import base_folder, load_model, load_tokenizer
from medtune.model.chat import ChatEncoder
from medtune.model.params import ModelParams, PromptParams
from medtune.run.device import frozen_dtype, set_up
from medtune.run.params import ComputeParams
from medtune.train.batching import split_batch
from medtune.train.encoding import IGNORED
from medtune.train.loss import summed_loss
from medtune.train.params import FinetuneParams

LENGTHS = (64, 128, 256, 512, 1024)
ATTENTIONS = ("eager", "sdpa")
PASSES = (512, 1024, 2048, 4096)
BATCH = 4096
"""Tokens of the batch that is cut into passes."""
LABELLED = 4
"""One of so many tokens has a label, at the end of its row."""


@dataclass(frozen=True)
class Trained:
    """A model as `finetune` trains it, the tokens that every prompt begins with, and the vocabulary."""

    model: Any
    prefix: list[int]
    vocabulary: int
    device: torch.device
    clock: Callable[[], float] = time.perf_counter

    @classmethod
    def load(cls, *, cpu_time: bool = False) -> "Trained":
        """As params.yaml has it; timed by the processor, on one thread, if `cpu_time` asks for it."""
        model_params, params, compute = ModelParams.load(), FinetuneParams.load(), ComputeParams.load()
        device = set_up(compute.model_copy(update={"threads": 1}) if cpu_time else compute, params.seed)
        encoder = ChatEncoder(load_tokenizer(base_folder(model_params)), PromptParams.load())
        dtype = frozen_dtype(params.precision, device)
        base = load_model(model_params, compute, dtype, device)
        vocabulary = int(base.config.vocab_size)
        model = attach_lora(base, params.lora, model_params).train()
        clock = time.process_time if cpu_time else time.perf_counter
        return cls(model, _beginning(encoder), vocabulary, device, clock)

    def batch(self, rows: int, length: int) -> dict[str, Tensor]:
        """Rows of `length` tokens of their own after the prefix; a single row has the prefix as well."""
        generator = torch.Generator().manual_seed(length)
        own = torch.randint(self.vocabulary, (rows, length), generator=generator)
        # Rows that happened to begin alike would share more than the prefix.
        own[:, 0] = torch.arange(rows)
        ids = torch.cat([torch.tensor(self.prefix).expand(rows, -1), own], dim=1)
        labels = ids.clone()
        labels[:, : len(self.prefix) + length - max(1, length // LABELLED)] = IGNORED
        batch = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def seconds(self, parts: Sequence[dict[str, Tensor]], attention: str) -> float:
        """How long the passes take, forward and backward, with an attention."""
        self.model.get_base_model().set_attn_implementation(implementation(attention))
        self._wait()
        start = self.clock()
        for part in parts:
            self._pass(part)
        self._wait()
        return self.clock() - start

    def _pass(self, part: dict[str, Tensor]) -> None:
        head = self.model.get_base_model().get_output_embeddings()
        dtype = head.weight.dtype
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            total, count = summed_loss(self.model, head, part["input_ids"], part["labels"])
        (total / count).backward()
        self.model.zero_grad()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _beginning(encoder: ChatEncoder) -> list[int]:
    """What the prompts of two questions that share no word begin with."""
    prompts = [
        encoder.encode_prompt(Example(id="-", question=text, answer="-", kind="-", group="-"))
        for text in ("What is it?", "Does fever ache?")
    ]
    length = next(number for number, (one, other) in enumerate(zip(*prompts, strict=False)) if one != other)
    return prompts[0][:length]


def main() -> None:
    parser = argparse.ArgumentParser(description="Attention and passes by length.")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", action="store_true", help="compare values of finetune.tokens_per_pass")
    parser.add_argument("--cpu-time", action="store_true", help="by the processor, on one thread")
    arguments = parser.parse_args()
    trained = Trained.load(cpu_time=arguments.cpu_time)
    sides_of = passes if arguments.passes else attentions
    print(f"{len(trained.prefix)} tokens of the prompt are shared\n")
    found = {}
    for length in arguments.lengths:
        sides = sides_of(trained, length)
        # What is compiled and allocated for a shape comes with its first pass.
        in_turns(sides, 1)
        found[length] = in_turns(sides, arguments.rounds)
        print(f"{length} tokens: {fastest(found[length])}", file=sys.stderr, flush=True)
    columns = ["tokens of a row", "fastest", *next(iter(found.values()))]
    side.print_table(columns, [row(length, seconds) for length, seconds in found.items()])
    print("Seconds, and how many times those of the fastest (quartiles of the rounds).\n")
    print(json.dumps({length: summary(seconds) for length, seconds in found.items()}))


def attentions(trained: Trained, length: int) -> dict[str, Callable[[], float]]:
    """Each attention, on the pass that `finetune.tokens_per_pass` makes of rows of this length."""
    batch = trained.batch(max(1, FinetuneParams.load().tokens_per_pass // length), length)
    return {name: partial(trained.seconds, [batch], name) for name in ATTENTIONS}


def passes(trained: Trained, length: int) -> dict[str, Callable[[], float]]:
    """Each number of tokens a pass, with the attention of params.yaml."""
    attention, batch = ComputeParams.load().attention, trained.batch(max(1, BATCH // length), length)
    return {str(size): partial(trained.seconds, split_batch(batch, size), attention) for size in PASSES}


def fastest(seconds: Mapping[str, Sequence[float]]) -> str:
    """The side with the lowest median."""
    return min(seconds, key=lambda name: Spread.of(seconds[name]).median)


def row(length: int, seconds: Mapping[str, Sequence[float]]) -> list[str]:
    """A line of the table: a side's seconds, and the ratio of the rounds to the fastest side."""
    best = fastest(seconds)
    cells = [
        f"{Spread.of(taken).median:.2f}, {ratios(taken, seconds[best]).shown()}" for taken in seconds.values()
    ]
    return [str(length), best, *cells]


def summary(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The fastest side, the median seconds, and how many times those of the fastest, with quartiles."""
    best = seconds[fastest(seconds)]
    times = {name: ratios(taken, best) for name, taken in seconds.items()}
    return {
        "fastest": fastest(seconds),
        "seconds": {name: Spread.of(taken).median for name, taken in seconds.items()},
        "times": {name: spread.median for name, spread in times.items()},
        "spread": {name: spread.as_list() for name, spread in times.items()},
    }


if __name__ == "__main__":
    main()
