"""The sides of `benchmarks.gpu`: the same base, adapter and batches, trained in different ways."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)

from benchmarks.gpu_base import SHAPES, random_rows
from benchmarks.side import clock, report, run_asked, turns
from benchmarks.turns import Counted, flops_per_second, train_in_turns
from medtune.answer.generation import generate_answers
from medtune.answer.params import AnswerParams
from medtune.core.hashing import file_sha256
from medtune.core.section import PARAMS_FILE
from medtune.model.adapter import WEIGHTS, attach_lora, save_adapter
from medtune.model.base import base_folder, load_model, load_tokenizer
from medtune.model.params import ModelParams
from medtune.model.shape import find_shape
from medtune.run.device import frozen_dtype, set_up
from medtune.run.params import ComputeParams
from medtune.train.batching import SimilarLengthBatches
from medtune.train.checkpoints import Checkpoints
from medtune.train.encoding import IGNORED
from medtune.train.params import FinetuneParams
from medtune.train.trainer import AnswerTrainer

ON_GPU = ((8192, 8192, 8192), (8192, 2048, 8192), (8192, 8192, 2048))
ON_CPU = ((1024, 576, 1536), (1024, 1024, 1024))
QUESTIONS, ANSWER, BATCH = 128, 48, 8
"""How many are asked; tokens of an answer, of which random weights end none; rows that `generate` takes."""


class Bench:
    """What a side is given: sections of the params.yaml in a folder, rows for so many steps."""

    def __init__(self, folder: str, steps: str) -> None:
        path = Path(folder) / PARAMS_FILE
        self.model, self.compute = ModelParams.load(path), ComputeParams.load(path)
        self.steps = int(steps) + 1
        self.params = FinetuneParams.load(path).model_copy(
            update={"epochs": 1.0, "log_every": 1, "evaluate_every": self.steps + 1}
        )
        self.shape, self.device = find_shape(self.model), set_up(self.compute, self.params.seed)
        self.dtype = frozen_dtype(self.params.precision, self.device)
        self.tokenizer = load_tokenizer(base_folder(self.model))
        [name] = [key for key, one in SHAPES.items() if one.config["vocab_size"] == self.shape.vocabulary]
        self.parts = SHAPES[name].parts
        rows = random_rows(name, self.steps * self.params.batch_size, self.shape.vocabulary)
        self.rows = Dataset.from_list(rows)

    @property
    def prompts(self) -> list[list[int]]:
        """Questions: the first rows, up to their answers."""
        rows = self.rows.select(range(min(QUESTIONS, len(self.rows))))
        return [row["input_ids"][: row["labels"].count(IGNORED)] for row in rows]

    @property
    def ordered(self) -> Dataset:
        """The rows in the order in which AnswerTrainer takes them."""
        lengths = [len(ids) for ids in self.rows["input_ids"]]
        batches = SimilarLengthBatches(lengths, self.params.batch_size, self.params.seed)
        return self.rows.select([index for batch in batches for index in batch])

    def plain_model(self) -> Any:
        """Base and adapter as most make them, with the same numbers as medtune's."""
        # As PyTorch comes: any algorithm and any kernel of attention.
        torch.use_deterministic_algorithms(False)
        torch.backends.cuda.enable_mem_efficient_sdp(True)
        torch.backends.cuda.enable_cudnn_sdp(True)
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.params.lora.r,
            lora_alpha=self.params.lora.alpha,
            target_modules=self.params.lora.target_modules,
        )
        base = self.plain_base()
        set_seed(self.params.seed)
        return get_peft_model(base, lora)

    def plain_base(self) -> Any:
        """The base as transformers loads it."""
        options: dict[str, Any] = {"dtype": self.dtype, "device_map": {"": self.device}}
        if self.compute.quantization:
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=self.compute.quantization,
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=self.dtype,
            )
        return AutoModelForCausalLM.from_pretrained(
            base_folder(self.model), attn_implementation=self.compute.attention, **options
        )

    def arguments(self, output: str) -> dict[str, Any]:
        """What AnswerTrainer sets, too."""
        return {
            "output_dir": output,
            "seed": self.params.seed,
            "max_steps": self.steps,
            "per_device_train_batch_size": self.params.batch_size // self.parts,
            "gradient_accumulation_steps": self.parts,
            "train_sampling_strategy": "sequential",
            "learning_rate": self.params.learning_rate,
            "lr_scheduler_type": self.params.schedule,
            "warmup_steps": self.params.warmup,
            "weight_decay": self.params.weight_decay,
            "max_grad_norm": self.params.max_grad_norm,
            "bf16": self.dtype == torch.bfloat16,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "include_num_input_tokens_seen": "non_padding",
            "use_cpu": self.device.type == "cpu",
        }


def medtune(folder: str, steps: str) -> None:
    """The repository's trainer."""
    bench = Bench(folder, steps)
    base = load_model(bench.model, bench.compute, bench.dtype, bench.device)
    set_seed(bench.params.seed)
    model = attach_lora(base, bench.params.lora, bench.model)
    with TemporaryDirectory() as output:
        trainer = AnswerTrainer(
            model,
            bench.tokenizer,
            bench.rows,
            bench.rows.select([0]),
            bench.params,
            Checkpoints(Path(output), keep=1),
            bench.device,
        )
        counted = Counted(trainer, bench.shape, bench.params.lora)

        def more() -> dict[str, Any]:
            save_adapter(model, Path(output) / "adapter")
            return counted.taken() | {"adapter": file_sha256(Path(output) / "adapter" / WEIGHTS)}

        train_in_turns(trainer, more)


def plain(folder: str, steps: str) -> None:
    """transformers' Trainer, as it is."""
    bench = Bench(folder, steps)
    with TemporaryDirectory() as output:
        train_in_turns(
            Trainer(
                model=bench.plain_model(),
                args=TrainingArguments(**bench.arguments(output)),
                train_dataset=bench.ordered,
                data_collator=DataCollatorForSeq2Seq(bench.tokenizer),
            )
        )


def trl(folder: str, steps: str) -> None:
    """TRL's SFTTrainer on the same tokens, with its defaults: activations are computed anew."""
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    bench = Bench(folder, steps)
    with TemporaryDirectory() as output:
        config = SFTConfig(**bench.arguments(output), dataset_kwargs={"skip_prepare_dataset": True})
        train_in_turns(
            SFTTrainer(
                model=bench.plain_model(),
                args=config,
                train_dataset=bench.ordered,
                processing_class=bench.tokenizer,
            )
        )


def answers(folder: str, steps: str) -> None:
    """The repository's way to answer, in batches as params.yaml has them."""
    bench = Bench(folder, steps)
    model = load_model(bench.model, bench.compute, bench.dtype, bench.device)
    size = AnswerParams.load(Path(folder) / PARAMS_FILE).batch_size
    prompts = sorted(bench.prompts, key=len)
    for _ in turns():
        start = clock()
        said = [
            answer
            for first in range(0, len(prompts), size)
            for answer in generate_answers(
                model, prompts[first : first + size], end_ids=[], max_new_tokens=ANSWER
            )
        ]
        report({"seconds": clock() - start, "tokens": sum(len(answer.ids) for answer in said)})


def generate(folder: str, steps: str) -> None:
    """transformers' `generate` on padded batches of 8, in the order of the questions."""
    bench = Bench(folder, steps)
    model = bench.plain_base().eval()
    bench.tokenizer.padding_side = "left"
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": ANSWER, "min_new_tokens": ANSWER}
    for _ in turns():
        start, tokens = clock(), 0
        for first in range(0, len(bench.prompts), BATCH):
            rows = bench.tokenizer.pad(
                {"input_ids": bench.prompts[first : first + BATCH]}, return_tensors="pt"
            ).to(bench.device)
            said = model.generate(**rows, **options)
            tokens += said[:, rows["input_ids"].shape[1] :].numel()
        report({"seconds": clock() - start, "tokens": tokens})


def matmul_peak(folder: str, steps: str) -> None:
    """The most FLOP a second that products of a few shapes reach, in the dtype of the base."""
    bench = Bench(folder, steps)
    sizes = ON_GPU if bench.device.type == "cuda" else ON_CPU
    for _ in turns():
        report({"flops_per_second": flops_per_second(sizes, bench.dtype, bench.device)})


SIDES: dict[str, Callable[[str, str], None]] = {
    side.__name__: side for side in (medtune, plain, trl, matmul_peak, answers, generate)
}

if __name__ == "__main__":
    run_asked(SIDES)
