"""The section `finetune` of params.yaml."""

from typing import Literal

from pydantic import Field

from medtune.core.section import Section, Strict
from medtune.model.params import LoraParams


class EarlyStoppingParams(Strict):
    """When to stop before the last epoch."""

    patience: int = Field(ge=1)
    min_improvement: float = Field(ge=0)


class FinetuneParams(Section):
    """How the adapter is trained."""

    name = "finetune"

    seed: int = Field(ge=0, lt=2**32)
    launch: str = Field(pattern=r"^[\w-]+$")
    precision: Literal["auto", "bfloat16", "float16", "float32"]
    gradient_checkpointing: bool
    lora: LoraParams
    epochs: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    gradient_accumulation: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup: float = Field(ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant_with_warmup"]
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    tokens_per_pass: int = Field(ge=1)
    max_length: int = Field(ge=8)
    too_long: Literal["error", "drop"]
    log_every: int = Field(ge=1)
    evaluate_every: int = Field(ge=1)
    keep_checkpoints: int = Field(ge=1)
    early_stopping: EarlyStoppingParams | None
