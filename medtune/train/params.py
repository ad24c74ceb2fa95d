"""The section `finetune` of params.yaml."""

from typing import Literal

from pydantic import Field

from medtune.core.section import Section, Strict
from medtune.model.params import LoraParams


class EarlyStoppingParams(Strict):
    """When to stop before the last epoch."""

    patience: int = Field(ge=1)
    """So many validations in a row without a gain end the training."""
    min_improvement: float = Field(ge=0)
    """A gain is a validation loss lower by at least so much, in nats per answer token."""


class FinetuneParams(Section):
    """How the adapter is trained. Read by finetune."""

    name = "finetune"

    seed: int = Field(ge=0, lt=2**32)
    """Initial adapter weights, dropout and the order of batches."""
    launch: str = Field(pattern=r"^[\w-]+$")
    """Where it runs, a file of configs/accelerate: single (this process), ddp, fsdp or fsdp-qlora."""
    precision: Literal["auto", "bfloat16", "float16", "float32"]
    """Of the frozen base: bfloat16, float16 (CUDA only), float32, or auto (bfloat16 where the processor has
    it). The adapter is float32."""
    gradient_checkpointing: bool
    """Compute activations anew in the backward pass: less memory, about a third more time."""
    lora: LoraParams
    """The adapter's shape."""
    epochs: float = Field(gt=0)
    """How often training sees each example; parts of an epoch are fine."""
    batch_size: int = Field(ge=1)
    """Examples of a batch, over all processes together; their number must divide it."""
    gradient_accumulation: int = Field(ge=1)
    """Batches per optimizer step."""
    tokens_per_pass: int = Field(ge=1)
    """A batch with more tokens (padded, the shared prompt not counted) runs in several passes: the same
    gradient in less memory."""
    share_prefix: Literal["auto", "always", "never"] = "auto"
    """Compute once what the examples of a batch begin with. auto: unless CUDA would need a mask for it, where
    flash attention does not apply; what was done is in metrics/environment.json."""
    learning_rate: float = Field(gt=0)
    """The highest one, at the end of the warm-up."""
    warmup: float = Field(ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"]
    """How it falls afterwards: cosine, linear or constant_with_warmup (not at all)."""
    weight_decay: float = Field(ge=0)
    """AdamW's pull of the weights towards zero."""
    max_grad_norm: float = Field(gt=0)
    """A gradient longer than this is shortened to it."""
    max_length: int = Field(ge=8)
    """Tokens of an example, prompt and answer together."""
    assistant_turns: Literal["all", "last"]
    """Of an example with earlier turns: learn all answers in it, or the last."""
    too_long: Literal["error", "drop", "shorten"]
    """An example over max_length: error, drop, or shorten: its context is cut from the end, nothing else ever
    is, and it is dropped if it does not fit without. Both are counted in metrics/training_details.json.
    Contexts of the test are not shortened."""
    log_every: int = Field(ge=1)
    """Steps between points of the training curve."""
    evaluate_every: int = Field(ge=1)
    """Steps between validations; each is a checkpoint too, and the best one becomes the adapter."""
    keep_checkpoints: int = Field(ge=1)
    """The last so many; the best is kept besides."""
    early_stopping: EarlyStoppingParams | None
    """null, or `patience: 3` (validations in a row without a gain of at least) `min_improvement: 0.01`."""
