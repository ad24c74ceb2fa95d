"""The section `compute` of params.yaml."""

from typing import Literal

from pydantic import Field

from medtune.core.section import Section

MEMORY_KNOBS = {
    "finetune": "lower finetune.tokens_per_pass or finetune.max_length, set "
    "finetune.gradient_checkpointing to true, or compute.quantization to nf4",
    "answer": "lower answer.batch_size or answer.max_new_tokens, or set compute.quantization to nf4",
    "unquantized": "set answer.unquantized to false",
}
"""What to change if a stage, or a part of one, needs more memory than is there."""


class ComputeParams(Section):
    """Where and how tensors are computed. Read by finetune and the stages that answer."""

    name = "compute"

    device: Literal["auto", "cpu", "cuda"]
    """auto (CUDA if there is one), cpu or cuda."""
    threads: int = Field(ge=1)
    """CPU threads; pinned because another count can give other bytes."""
    attention: Literal["eager", "sdpa"]
    """eager (fastest on a CPU for short texts) or sdpa."""
    deterministic: bool
    """Only deterministic algorithms: the same bytes on every run."""
    quantization: Literal["nf4"] | None
    """nf4: the frozen weights in 4 bits, doubly quantised (QLoRA), in training and answering; null: as they
    are."""
