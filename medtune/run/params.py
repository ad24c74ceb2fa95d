"""The section `compute` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from medtune.core.section import Section

MEMORY_KNOBS = {
    "finetune": "lower finetune.tokens_per_pass or finetune.max_length, set "
    "finetune.gradient_checkpointing to true, or compute.quantization to nf4",
    "answer": "lower answer.tokens_per_batch, answer.batch_size or answer.max_new_tokens, or set "
    "compute.quantization to nf4",
    "unquantized": "set answer.unquantized to false",
}
"""What to change if a stage, or a part of one, needs more memory than is there."""


class ComputeParams(Section):
    """Where and how tensors are computed. Read by finetune and the stages that answer."""

    name = "compute"

    device: Literal["auto", "cpu", "cuda", "mps"]
    """auto (CUDA if there is one, else the CPU), cpu, cuda, or mps (Apple's GPU)."""
    threads: Literal["auto"] | Annotated[int, Field(ge=1)]
    """CPU threads; pinned because another count can give other bytes. auto: as many as there are cores."""
    attention: Literal["auto", "eager", "sdpa"]
    """eager (plain products: fastest on a CPU for short texts), sdpa (flash attention on CUDA), or auto: sdpa
    on CUDA and for long texts, else eager."""
    deterministic: bool
    """Only deterministic algorithms: the same bytes on every run."""
    quantization: Literal["nf4"] | None
    """nf4: the frozen weights in 4 bits, doubly quantised (QLoRA), in training and answering; null: as they
    are."""
