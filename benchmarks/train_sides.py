"""The sides of `benchmarks.train`: the same model, data and hyper-parameters, trained in different ways."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from benchmarks.side import run_asked
from medtune.core.examples import read_jsonl
from medtune.model.adapter import attach_lora
from medtune.model.base import base_folder, load_model, load_tokenizer
from medtune.model.chat import ChatEncoder
from medtune.model.params import ModelParams, PromptParams
from medtune.run.device import frozen_dtype, set_up
from medtune.run.params import ComputeParams
from medtune.train.checkpoints import Checkpoints
from medtune.train.encoding import IGNORED, encode_examples
from medtune.train.loss import summed_loss
from medtune.train.params import FinetuneParams
from medtune.train.trainer import AnswerTrainer

TRAIN = Path("data/prepared/train.jsonl")
LONG_PROMPT = (
    "You are a careful assistant who answers medical questions for doctors, nurses and students. Answer in "
    "the shortest form that is complete. For organ systems write only their names, joined by a semicolon and "
    "a space. For a medical term write only the term, without an article. For what something is write one "
    "sentence that defines it. Never give advice on treatment, never guess a diagnosis, and never repeat the "
    "question. If several answers are right, give the most usual one."
)
"""About a hundred tokens."""


class Clock(TrainerCallback):
    """Real (unpadded) tokens and seconds of every step."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.seconds: list[float] = []

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note where the step begins."""
        self._start, self._seen = time.perf_counter(), state.num_input_tokens_seen

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note what it did."""
        self.seconds.append(time.perf_counter() - self._start)
        self.tokens.append(state.num_input_tokens_seen - self._seen)


def medtune(steps: int) -> dict[str, Any]:
    """The stage as it is."""
    return _medtune(steps)


def medtune_float32(steps: int) -> dict[str, Any]:
    """The stage with a float32 base."""
    return _medtune(steps, precision="float32")


def long_prompt(steps: int) -> dict[str, Any]:
    """The stage with a system prompt of about a hundred tokens."""
    return _medtune(steps, system=LONG_PROMPT)


def long_prompt_unshared(steps: int) -> dict[str, Any]:
    """The same without the shared prefix."""
    return _medtune(steps, system=LONG_PROMPT, change=_unshared)


def plain_float32(steps: int) -> dict[str, Any]:
    """The stage's batches through a plain pass: all logits, an attention mask, nothing shared."""
    return _medtune(steps, precision="float32", change=_plain)


def notebook(steps: int) -> dict[str, Any]:
    """The notebook way: transformers' Trainer with its defaults, in float32."""
    model_params, params = ModelParams.load(), FinetuneParams.load()
    folder = base_folder(model_params)
    tokenizer = load_tokenizer(folder)

    def encode(row: dict[str, Any]) -> dict[str, list[int]]:
        prompt: Any = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=False
        )
        ids: Any = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
        return {"input_ids": ids, "labels": [IGNORED] * len(prompt) + ids[len(prompt) :]}

    rows = Dataset.from_list([encode(row) for row in _conversations()])
    set_seed(params.seed)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), _lora(params))
    with TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(output_dir=output, **_hyper_parameters(params, steps)),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        )
        return _timed(trainer)


def trl(steps: int) -> dict[str, Any]:
    """TRL's SFTTrainer with its defaults, which compute in bfloat16 and activations anew."""
    return _trl(steps, {}, {})


def trl_best(steps: int) -> dict[str, Any]:
    """TRL's SFTTrainer with the options that are fastest on a CPU (docs/performance.md)."""
    return _trl(
        steps,
        {
            "gradient_checkpointing": False,
            "train_sampling_strategy": "group_by_length",
            "loss_type": "chunked_nll",
        },
        {"dtype": "bfloat16", "attn_implementation": "eager"},
    )


def matmul_peak(_: int) -> dict[str, Any]:
    """The most bfloat16 FLOP a second that products of matrices of a few shapes reach."""
    compute = ComputeParams.load()
    dtype = frozen_dtype("auto", set_up(compute, 0))
    best = 0.0
    for rows, inner, columns in [
        (1024, 576, 1536),
        (1024, 1536, 576),
        (1024, 1024, 1024),
        (2048, 2048, 2048),
    ]:
        left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
        for _ in range(5):
            left @ right
        times = 2 * 10**11 // (2 * rows * inner * columns)
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(times):
                left @ right
            best = max(best, times * 2 * rows * inner * columns / (time.perf_counter() - start))
    return {"flops": best}


def _unshared(trainer: AnswerTrainer) -> None:
    def summed_loss_unshared(model: nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        head = model.get_base_model().get_output_embeddings()  # type: ignore[operator]
        return summed_loss(model, head, inputs["input_ids"], inputs["labels"], share_prefix=False)

    trainer._summed_loss = summed_loss_unshared  # type: ignore[method-assign]


def _plain(trainer: AnswerTrainer) -> None:
    def summed_loss(model: nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        targets = inputs["labels"][:, 1:]
        total = cross_entropy(
            logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total, int((targets != IGNORED).sum())

    trainer._summed_loss = summed_loss  # type: ignore[method-assign]
    trainer._passes = lambda batch: [batch]  # type: ignore[method-assign]


def _medtune(
    steps: int,
    *,
    precision: str = "auto",
    system: str | None = None,
    change: Callable[[AnswerTrainer], None] | None = None,
) -> dict[str, Any]:
    model_params, prompt = ModelParams.load(), PromptParams.load()
    compute, params = ComputeParams.load(), FinetuneParams.load()
    if system is not None:
        prompt = prompt.model_copy(update={"system": system})
    device = set_up(compute, params.seed)
    tokenizer = load_tokenizer(base_folder(model_params))
    rows = encode_examples(read_jsonl(TRAIN), ChatEncoder(tokenizer, prompt), params, TRAIN).rows
    params = params.model_copy(
        update={
            "epochs": steps / -(-len(rows) // params.batch_size),
            "evaluate_every": steps + 1,
            "log_every": 1,
        }
    )
    base = load_model(model_params, compute, frozen_dtype(precision, device), device)
    model = attach_lora(base, params.lora, model_params)
    computed = 0

    def count(_: nn.Module, __: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        nonlocal computed
        computed += inputs["input_ids"].numel()

    model.register_forward_pre_hook(count, with_kwargs=True)
    with TemporaryDirectory() as folder:
        built = AnswerTrainer(
            model,
            tokenizer,
            rows,
            rows.select([0]),
            params,
            Checkpoints(Path(folder), keep=1),
            device,
        )
        if change is not None:
            change(built)
        measured = _timed(built)
    return measured | {"computed_tokens": computed, "parameters": model.get_nb_trainable_parameters()[1]}


def _trl(steps: int, options: dict[str, Any], load: dict[str, Any]) -> dict[str, Any]:
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    params = FinetuneParams.load()
    folder = base_folder(ModelParams.load())
    with TemporaryDirectory() as output:
        arguments = _hyper_parameters(params, steps) | options
        trainer = SFTTrainer(
            model=str(folder),
            args=SFTConfig(output_dir=output, bf16=True, model_init_kwargs=load, **arguments),
            train_dataset=Dataset.from_list(_conversations()),
            processing_class=load_tokenizer(folder),
            peft_config=_lora(params),
        )
        return _timed(trainer)


def _timed(trainer: Trainer) -> dict[str, Any]:
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"tokens": clock.tokens, "seconds": clock.seconds, "losses": losses}


def _conversations() -> list[dict[str, Any]]:
    system = {"role": "system", "content": PromptParams.load().system.strip()}
    return [
        {
            "prompt": [
                system,
                *(message.model_dump() for message in example.messages or []),
                {"role": "user", "content": example.user_text},
            ],
            "completion": [{"role": "assistant", "content": example.answer}],
        }
        for example in read_jsonl(TRAIN)
    ]


def _lora(params: FinetuneParams) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=params.lora.r,
        lora_alpha=params.lora.alpha,
        lora_dropout=params.lora.dropout,
        target_modules=params.lora.target_modules,
    )


def _hyper_parameters(params: FinetuneParams, steps: int) -> dict[str, Any]:
    return {
        "seed": params.seed,
        "max_steps": steps,
        "per_device_train_batch_size": params.batch_size,
        "learning_rate": params.learning_rate,
        "lr_scheduler_type": params.schedule,
        "warmup_steps": params.warmup,
        "weight_decay": params.weight_decay,
        "max_grad_norm": params.max_grad_norm,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "include_num_input_tokens_seen": "non_padding",
        "use_cpu": not torch.cuda.is_available(),
    }


SIDES: dict[str, Callable[[int], dict[str, Any]]] = {
    side.__name__: side
    for side in (
        medtune,
        medtune_float32,
        long_prompt,
        long_prompt_unshared,
        plain_float32,
        notebook,
        trl,
        trl_best,
        matmul_peak,
    )
}

if __name__ == "__main__":
    run_asked(SIDES)
