"""RMS norms in one kernel on CUDA (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

transformers' own turn to float32, square, average, scale and turn back, each a pass through memory. PyTorch
has a fused kernel for CUDA, and none for processors.
"""

from types import MethodType

from torch import Tensor, nn
from torch.nn.functional import rms_norm

FUSED = ("Llama", "Mistral", "Phi3", "Qwen2", "Qwen3", "SmolLM3")
"""Whose norms are `weight * x / rms(x)`; Gemma's, for one, scale by `1 + weight`."""


def fuse_norms(model: nn.Module) -> None:
    """Let the norms of a Llama and its kin, known by their names, use PyTorch's kernel."""
    names = {f"{family}RMSNorm" for family in FUSED}
    for module in model.modules():
        if type(module).__name__ in names:
            module.forward = MethodType(_fused, module)


def _fused(module: nn.Module, hidden: Tensor) -> Tensor:
    """Map (..., hidden) to the same shape and dtype; rounded once, after the product with the weight."""
    weight = module.get_parameter("weight")
    return rms_norm(hidden, weight.shape, weight, module.variance_epsilon)  # type: ignore[arg-type]
