"""A dry run: the largest pass of a stage as the stage itself makes it, to see how much memory that takes.

    python -m medtune.commands.dry_run finetune < sections.json       # or answer, unquantized

`medtune plan` starts it as a process of its own, so that the peak is the stage's; it prints one line of JSON:

    {"peak": 2634022912, "lengths": "data", "weights": "real"}

A base that is not here is tried with one of the same shape whose weights are zero; then, and with `--worst`,
examples are as long as params.yaml allows.
"""

import json
import resource
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from medtune.answer.choices import choice_log_likelihoods
from medtune.answer.generation import generate_answers
from medtune.answer.params import AnswerParams
from medtune.core.errors import MedtuneError, run
from medtune.core.examples import drawn_indices, read_jsonl
from medtune.core.hashing import files_sha256
from medtune.core.outputs import resident_peak
from medtune.model.adapter import attach_lora
from medtune.model.base import base_folder, load_model, load_tokenizer
from medtune.model.chat import ChatEncoder
from medtune.model.files import locate
from medtune.model.memory import Device
from medtune.model.params import ModelParams, PromptParams
from medtune.model.shape import Shape, find_shape
from medtune.run.device import device_memory_peak, enough_memory, frozen_dtype, set_up
from medtune.run.launch import Launch
from medtune.run.libraries import keep_out
from medtune.run.params import ComputeParams
from medtune.train.batching import (
    IGNORED,
    SimilarLengthBatches,
    encode_examples,
    pad,
    shared_prefix_length,
    split_batch,
)
from medtune.train.checkpoints import Checkpoints
from medtune.train.params import FinetuneParams
from medtune.train.trainer import AnswerTrainer, train

TRAIN, TEST = Path("data/prepared/train.jsonl"), Path("data/prepared/test.jsonl")
STEPS = 3
"""Freed blocks that fit nothing new add up over the first steps of a training, and hardly any further."""


@dataclass(frozen=True)
class Trial:
    """What is tried: sections of params.yaml, a base model, and an encoder if lengths are those of the data."""

    content: dict[str, Any]
    base: ModelParams
    tokenizer: PreTrainedTokenizerBase
    encoder: ChatEncoder | None
    folder: Path

    def finetune(self) -> None:
        """Train on the largest batch, as the Trainer does."""
        params, compute = FinetuneParams.of(self.content), ComputeParams.of(self.content)
        device = set_up(compute, params.seed)
        base = load_model(self.base, compute, frozen_dtype(params.precision, device), device)
        model = attach_lora(base, params.lora, self.base)
        rows = self._training_rows(params, base.config.vocab_size)
        changes = {"epochs": float(STEPS), "batch_size": len(rows), "gradient_accumulation": 1}
        once = params.model_copy(update=changes | {"evaluate_every": STEPS, "early_stopping": None})
        checkpoints = Checkpoints(self.folder, keep=1)
        train(AnswerTrainer(model, self.tokenizer, rows, rows, once, checkpoints, device, self.folder))

    def answer(self, *, quantized: bool = True) -> None:
        """Answer the largest batch: its prompts, then one token more where the cache is at its longest."""
        params, compute = AnswerParams.of(self.content), ComputeParams.of(self.content)
        device, dtype = set_up(compute, params.seed), torch.float32
        if not quantized:
            compute, dtype = compute.model_copy(update={"quantization": None}), frozen_dtype("auto", device)
        model: Any = load_model(self.base, compute, dtype, device)
        if compute.quantization or not quantized:
            model = attach_lora(model, FinetuneParams.of(self.content).lora, self.base).eval()
        free, closed, choices = self._prompts(params, model.config.vocab_size)
        if free:
            # Rows that are alike but for their last token fill the cache at the price of one row.
            full = [[0] * (max(map(len, free)) + params.max_new_tokens - 1)] * len(free)
            for prompts in (free, full):
                generate_answers(model, prompts, end_id=-1, max_new_tokens=1)
        if closed:
            choice_log_likelihoods(model, closed, choices)

    def _training_rows(self, params: FinetuneParams, vocabulary: int) -> Dataset:
        """The share of one process in the batch that has the largest pass."""
        processes = Launch.load(params.launch, "finetune.launch").processes
        if self.encoder is None:
            ids = torch.randint(vocabulary, (params.batch_size // processes, params.max_length)).tolist()
            return Dataset.from_list([{"input_ids": row, "labels": row} for row in ids])
        rows = encode_examples(read_jsonl(TRAIN), self.encoder, params, TRAIN).rows
        batches = SimilarLengthBatches(
            [len(ids) for ids in rows["input_ids"]],
            params.batch_size,
            params.seed,
            accumulation=params.gradient_accumulation,
            share=(0, processes),
        )
        examples = list(rows)

        def size(indices: list[int]) -> int:
            batch = pad([examples[index] for index in indices])
            return max(_pass_size(part) for part in split_batch(batch, params.tokens_per_pass))

        return rows.select(max(batches, key=size))

    def _prompts(
        self, params: AnswerParams, vocabulary: int
    ) -> tuple[list[list[int]], list[list[int]], list[list[list[int]]]]:
        """The longest prompts that make a batch: without choices, and with choices, with these."""
        if self.encoder is None:
            length = FinetuneParams.of(self.content).max_length
            return torch.randint(vocabulary, (params.batch_size, length)).tolist(), [], []
        examples = read_jsonl(TEST)
        drawn = drawn_indices(examples, params.seed, params.examples_per_kind)
        asked = [(self.encoder.encode_prompt(examples[index]), examples[index].choices) for index in drawn]
        asked.sort(key=lambda question: len(question[0]))
        free = [prompt for prompt, choices in asked if not choices]
        closed = [(prompt, choices) for prompt, choices in asked if choices][-params.batch_size :]
        encoded = [[self.encoder.encode_answer(choice) for choice in choices] for _, choices in closed]
        return free[-params.batch_size :], [prompt for prompt, _ in closed], encoded


def main() -> None:
    """Try the stage that the command line names."""
    keep_out()
    stage, worst = sys.argv[1], "--worst" in sys.argv[2:]
    content = json.load(sys.stdin)
    model, compute = ModelParams.of(content), ComputeParams.of(content)
    device = Device.find(compute)
    if device.kind == "cpu":
        _stay_within(device.free)
    with TemporaryDirectory() as temporary, enough_memory(stage):
        folder = Path(temporary)
        is_here = _is_here(model)
        if not is_here:
            model = _stand_in(find_shape(model), folder / "base")
        tokenizer = load_tokenizer(base_folder(model))
        from_data = is_here and not worst and TRAIN.is_file() and TEST.is_file()
        encoder = ChatEncoder(tokenizer, PromptParams.of(content)) if from_data else None
        trial = Trial(content, model, tokenizer, encoder, folder / "made")
        trial.folder.mkdir()
        match stage:
            case "finetune":
                trial.finetune()
            case "answer":
                trial.answer()
            case _:
                trial.answer(quantized=False)
    peak = device_memory_peak(torch.device(device.kind)) or resident_peak()
    lengths, weights = "data" if from_data else "longest", "real" if is_here else "zeros"
    print(json.dumps({"peak": peak, "lengths": lengths, "weights": weights}))


def _pass_size(part: dict[str, torch.Tensor]) -> int:
    """How large a pass is: the logits of a label take about as much as the activations of a token."""
    shared = shared_prefix_length(part["input_ids"], part["labels"])
    rows, length = part["input_ids"].shape
    return rows * (length - shared) + shared + int((part["labels"] != IGNORED).sum())


def _stay_within(free: int) -> None:
    """End with an error, or be ended, before anything else on this machine is."""
    resource.setrlimit(resource.RLIMIT_DATA, (free, free))
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text("1000")


def _is_here(model: ModelParams) -> bool:
    """Whether the base is on this machine: `medtune plan` starts this process with HF_HUB_OFFLINE."""
    try:
        locate(model)
    except MedtuneError:
        if model.revision is None:
            raise
        return False
    return True


def _stand_in(shape: Shape, folder: Path) -> ModelParams:
    """A base of this shape with weights of zero, in a file whose zeros take no room on the disk."""
    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())).save_pretrained(folder)
    with torch.device("meta"):
        weights = AutoModelForCausalLM.from_config(config).state_dict()
    header: dict[str, Any] = {}
    end = 0
    for name, weight in weights.items():
        start, end = end, end + 2 * weight.numel()
        header[name] = {"dtype": "BF16", "shape": list(weight.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + end)
    digest = files_sha256([file for file in folder.iterdir() if file.is_file()], folder)
    return ModelParams(source=str(folder), license="none", sha256=digest)


if __name__ == "__main__":
    run(main)
