"""The sides of `benchmarks.train`: the same model, data and hyper-parameters, trained in different ways."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)

from benchmarks.side import report, run_asked, turns
from benchmarks.texts import LONG, TRAIN, long_examples
from benchmarks.turns import Counted, compute_params, flops_per_second, train_in_turns
from medtune.core.examples import Example, read_jsonl
from medtune.model.adapter import attach_lora
from medtune.model.base import base_folder, load_model, load_tokenizer
from medtune.model.chat import ChatEncoder
from medtune.model.params import ModelParams, PromptParams
from medtune.model.shape import find_shape
from medtune.run.device import frozen_dtype, set_up
from medtune.train.checkpoints import Checkpoints
from medtune.train.encoding import IGNORED, encode_examples
from medtune.train.loss import summed_loss
from medtune.train.params import FinetuneParams
from medtune.train.trainer import AnswerTrainer

LONG_PROMPT = (
    "You are a careful assistant who answers medical questions for doctors, nurses and students. Answer in "
    "the shortest form that is complete. For organ systems write only their names, joined by a semicolon and "
    "a space. For a medical term write only the term, without an article. For what something is write one "
    "sentence that defines it. Never give advice on treatment, never guess a diagnosis, and never repeat the "
    "question. If several answers are right, give the most usual one."
)
"""About a hundred tokens."""


LONG_BATCH = 4
"""Examples of a batch of long ones, for every side: sixteen would take the plain sides over 20 GiB."""
MOST_STEPS = 1000
MATMULS = ((1024, 576, 1536), (1024, 1536, 576), (1024, 1024, 1024), (2048, 2048, 2048))


def medtune(texts: str) -> None:
    """The stage as it is."""
    _medtune(texts)


def medtune_float32(texts: str) -> None:
    """The stage with a float32 base."""
    _medtune(texts, precision="float32")


def long_prompt(texts: str) -> None:
    """The stage with a system prompt of about a hundred tokens."""
    _medtune(texts, system=LONG_PROMPT)


def long_prompt_unshared(texts: str) -> None:
    """The same without the shared prefix."""
    _medtune(texts, system=LONG_PROMPT, change=_unshared)


def plain_float32(texts: str) -> None:
    """The stage's batches through a plain pass: all logits, an attention mask, nothing shared."""
    _medtune(texts, precision="float32", change=_plain)


def notebook(texts: str) -> None:
    """The notebook way: transformers' Trainer with its defaults, in float32."""
    model_params, params = ModelParams.load(), _params(texts)
    folder = base_folder(model_params)
    tokenizer = load_tokenizer(folder)

    def encode(row: dict[str, Any]) -> dict[str, list[int]]:
        prompt: Any = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=False
        )
        ids: Any = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
        return {"input_ids": ids, "labels": [IGNORED] * len(prompt) + ids[len(prompt) :]}

    rows = Dataset.from_list([encode(row) for row in _conversations(texts)])
    set_seed(params.seed)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), _lora(params))
    with TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(output_dir=output, **_hyper_parameters(params)),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        )
        train_in_turns(trainer)


def trl(texts: str) -> None:
    """TRL's SFTTrainer with its defaults, which compute in bfloat16 and activations anew."""
    _trl(texts, {}, {})


def trl_best(texts: str) -> None:
    """TRL's SFTTrainer with the options that are fastest on a CPU (docs/performance.md)."""
    _trl(
        texts,
        {
            "gradient_checkpointing": False,
            "train_sampling_strategy": "group_by_length",
            "loss_type": "chunked_nll",
        },
        {"dtype": "bfloat16", "attn_implementation": "eager"},
    )


def matmul_peak(_: str) -> None:
    """The most FLOP a second that products of matrices of a few shapes reach, in the dtype of the base."""
    device = set_up(compute_params(), 0)
    dtype = frozen_dtype("auto", device)
    for _asked in turns():
        report({"flops_per_second": flops_per_second(MATMULS, dtype, device)})


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
    texts: str,
    *,
    precision: str = "auto",
    system: str | None = None,
    change: Callable[[AnswerTrainer], None] | None = None,
) -> None:
    model_params, prompt = ModelParams.load(), PromptParams.load()
    compute, params = compute_params(), _params(texts)
    if system is not None:
        prompt = prompt.model_copy(update={"system": system})
    device = set_up(compute, params.seed)
    tokenizer = load_tokenizer(base_folder(model_params))
    rows = encode_examples(_examples(texts), ChatEncoder(tokenizer, prompt), params, TRAIN).rows
    params = params.model_copy(
        update={
            "epochs": MOST_STEPS / -(-len(rows) // params.batch_size),
            "evaluate_every": MOST_STEPS + 1,
            "log_every": 1,
        }
    )
    base = load_model(model_params, compute, frozen_dtype(precision, device), device)
    model = attach_lora(base, params.lora, model_params)
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
        train_in_turns(built, Counted(built, find_shape(model_params), params.lora).taken)


def _trl(texts: str, options: dict[str, Any], load: dict[str, Any]) -> None:
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    params = _params(texts)
    folder = base_folder(ModelParams.load())
    with TemporaryDirectory() as output:
        arguments = _hyper_parameters(params) | {"max_length": params.max_length} | options
        trainer = SFTTrainer(
            model=str(folder),
            args=SFTConfig(output_dir=output, bf16=True, model_init_kwargs=load, **arguments),
            train_dataset=Dataset.from_list(_conversations(texts)),
            processing_class=load_tokenizer(folder),
            peft_config=_lora(params),
        )
        train_in_turns(trainer)


def _params(texts: str) -> FinetuneParams:
    """Those of params.yaml; of long texts fewer are in a batch."""
    params = FinetuneParams.load()
    longer = {"max_length": 2 * params.max_length, "batch_size": LONG_BATCH}
    return params.model_copy(update=longer) if texts == LONG else params


def _examples(texts: str) -> list[Example]:
    return long_examples() if texts == LONG else read_jsonl(TRAIN)


def _conversations(texts: str) -> list[dict[str, Any]]:
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
        for example in _examples(texts)
    ]


def _lora(params: FinetuneParams) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=params.lora.r,
        lora_alpha=params.lora.alpha,
        lora_dropout=params.lora.dropout,
        target_modules=params.lora.target_modules,
    )


def _hyper_parameters(params: FinetuneParams) -> dict[str, Any]:
    return {
        "seed": params.seed,
        "max_steps": MOST_STEPS,
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


SIDES: dict[str, Callable[[str], None]] = {
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
    disable_progress_bars()
    run_asked(SIDES)
