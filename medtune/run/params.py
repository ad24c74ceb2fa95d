"""The section `compute` of params.yaml."""

from typing import Literal

from pydantic import Field

from medtune.core.section import Section


class ComputeParams(Section):
    """Where and how tensors are computed."""

    name = "compute"

    device: Literal["auto", "cpu", "cuda"]
    threads: int = Field(ge=1)
    attention: Literal["eager", "sdpa"]
    deterministic: bool
    quantization: Literal["nf4"] | None
