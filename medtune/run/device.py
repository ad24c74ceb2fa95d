"""Device, threads, precision and determinism: what `compute` in `params.yaml` decides."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import set_seed

from medtune.core.errors import MedtuneError
from medtune.run import processes
from medtune.run.params import ComputeParams


def set_up(compute: ComputeParams, seed: int) -> torch.device:
    """Pin threads, seeds and algorithms for this process; return the device to compute on."""
    torch.set_num_threads(compute.threads)
    # cuBLAS is deterministic only with a fixed workspace, which it reads when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # For every shape of a product oneDNN makes code and workspace, about 0.6 MiB, and it and PyTorch each
    # keep the last 1024. A pass needs some dozens, and lengths rarely repeat. Both limits are read at the
    # first product, and no result depends on them.
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "128")
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
    if use_cuda and processes.local_rank() >= torch.cuda.device_count():
        raise MedtuneError(
            f"process {processes.local_rank()} of this machine has no CUDA device: there are "
            f"{torch.cuda.device_count()}; lower num_processes in the launch's file of configs/accelerate"
        )
    device = torch.device("cuda", processes.local_rank()) if use_cuda else torch.device("cpu")
    processes.connect(device)
    return device


def frozen_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of the frozen base model; `auto` takes bfloat16 where the processor computes in it.

    Without AVX512-BF16, AMX or the Arm extension, bfloat16 is emulated and far slower than float32.
    """
    bfloat16 = has_native_bfloat16(device)
    if precision == "auto":
        return torch.bfloat16 if bfloat16 else torch.float32
    if precision == "bfloat16" and not bfloat16:
        others = "auto, float16, float32" if device.type == "cuda" else "auto, float32"
        raise MedtuneError(
            "params.yaml: finetune.precision is 'bfloat16', which this device only emulates, far slower than "
            f"float32; accepted here: {others}"
        )
    if precision == "float16" and device.type != "cuda":
        raise MedtuneError(
            "params.yaml: finetune.precision is 'float16', which needs CUDA; accepted here: auto, "
            f"{'bfloat16, ' if bfloat16 else ''}float32"
        )
    return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[precision]


@contextmanager
def enough_memory(knobs: str) -> Iterator[None]:
    """Turn running out of memory into an error that says which parameters to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (
            isinstance(error, (MemoryError, torch.OutOfMemoryError))
            or "can't allocate memory" in str(error)
            or "Cannot allocate memory" in str(error)
        ):
            raise
        reason = (str(error).splitlines() or ["MemoryError"])[0]
        raise MedtuneError(
            f"out of memory: {knobs}. `medtune plan` counts what is needed ({reason})"
        ) from None


def device_memory_peak(device: torch.device) -> int | None:
    """The most bytes that tensors of this process had on a GPU; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
