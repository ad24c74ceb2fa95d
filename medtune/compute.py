"""Device, threads, precision and determinism: what `compute` in `params.yaml` decides."""

import os

import torch
from transformers import set_seed

from medtune.errors import MedtuneError
from medtune.params import ComputeParams


def set_up(compute: ComputeParams, seed: int) -> torch.device:
    """Pin threads, seeds and algorithms for this process; return the device to compute on."""
    torch.set_num_threads(compute.threads)
    # cuBLAS is deterministic only with a fixed workspace, which it reads when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(compute.deterministic)
    # A debugging aid that fills every new tensor: costs time, and no result depends on it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not compute.deterministic
    # `sdpa` on CUDA picks a kernel by the chip and the shapes. Left to it are flash attention, whose
    # backward pass heeds the line above, and, where flash does not apply, the plain kernel.
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    set_seed(seed)
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise MedtuneError(
            "params.yaml: compute.device is 'cuda', but no CUDA device is there; accepted: auto, cpu"
        )
    use_cuda = compute.device == "cuda" or (compute.device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_cuda else "cpu")


def frozen_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of the frozen base model; `auto` takes bfloat16 where the processor computes in it.

    Without AVX512-BF16, AMX or the Arm extension, bfloat16 is emulated and far slower than float32.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    return torch.bfloat16 if has_native_bfloat16(device) else torch.float32


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
