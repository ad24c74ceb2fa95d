"""Where a stage computes: device, threads, precision and determinism, as `compute` in `params.yaml` decides.

The rest is found here: `metrics/environment.json` tells it, beside the clock and like it no output of any
stage. What is the same in two runs decides that they give the same bytes; what differs may explain why not.
"""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import torch
from transformers import set_seed

from medtune.core.errors import MedtuneError
from medtune.run import processes
from medtune.run.params import ComputeParams

PACKAGES = ("accelerate", "datasets", "numpy", "peft", "safetensors", "tokenizers", "torch", "transformers")
"""Those whose versions the environment names."""


def set_up(compute: ComputeParams, seed: int) -> torch.device:
    """Pin threads, seeds and algorithms for this process; return the device to compute on."""
    torch.set_num_threads(_threads(compute))
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
    device = choose_device(compute)
    processes.connect(device)
    return device


def choose_device(compute: ComputeParams) -> torch.device:
    """The device of this process that `compute.device` names."""
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise MedtuneError(
            "params.yaml: compute.device is 'cuda', but no CUDA device is there; accepted: auto, cpu"
        )
    if compute.device == "mps":
        return _mps(compute)
    if compute.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if processes.local_rank() >= torch.cuda.device_count():
        raise MedtuneError(
            f"process {processes.local_rank()} of this machine has no CUDA device: there are "
            f"{torch.cuda.device_count()}; lower num_processes in the launch's file of configs/accelerate"
        )
    return torch.device("cuda", processes.local_rank())


def _mps(compute: ComputeParams) -> torch.device:
    """Apple's GPU, if what is asked for can be done there."""
    if not torch.backends.mps.is_available():
        raise MedtuneError(
            "params.yaml: compute.device is 'mps', but PyTorch finds no GPU of Apple's here; accepted: auto, "
            "cpu"
        )
    if compute.quantization is not None:
        raise MedtuneError("params.yaml: compute.quantization has no kernels on mps; accepted there: null")
    return torch.device("mps")


def _threads(compute: ComputeParams) -> int:
    """The threads of this process; it is said where they are fewer than there are cores, or not pinned."""
    cores = cores_here()
    share = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    chosen = share if compute.threads == "auto" else compute.threads
    if processes.is_main() and compute.device != "mps" and not torch.cuda.is_available():
        if compute.threads == "auto":
            told = f"{chosen} threads (compute.threads: auto); another number of them can give other bytes"
            print(told, file=sys.stderr)
        elif 2 * chosen < share:
            told = f"{chosen} of {cores} cores are used, as compute.threads says; auto would use all of them"
            print(told, file=sys.stderr)
    return chosen


def cores_here() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def frozen_dtype(precision: str, device: torch.device, key: str = "finetune.precision") -> torch.dtype:
    """The dtype of the frozen base model; `auto` takes bfloat16 where the processor computes in it.

    Without AVX512-BF16, AMX or the Arm extension, bfloat16 is emulated and far slower than float32. `key` is
    the parameter's, for errors.
    """
    bfloat16 = has_native_bfloat16(device)
    if precision == "auto":
        return torch.bfloat16 if bfloat16 else torch.float32
    if precision == "bfloat16" and not bfloat16:
        others = "auto, float16, float32" if device.type == "cuda" else "auto, float32"
        raise MedtuneError(
            f"params.yaml: {key} is 'bfloat16', which this device only emulates, far slower than float32; "
            f"accepted here: {others}"
        )
    if precision == "float16" and device.type != "cuda":
        raise MedtuneError(
            f"params.yaml: {key} is 'float16', which needs CUDA; accepted here: auto, "
            f"{'bfloat16, ' if bfloat16 else ''}float32"
        )
    return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[precision]


class NotEnoughMemoryError(MedtuneError):
    """A stage needs more memory than it gets."""


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
        raise NotEnoughMemoryError(
            f"out of memory: {knobs}. `medtune plan` counts what is needed ({reason})"
        ) from None


def device_memory_peak(device: torch.device) -> int | None:
    """The most bytes that tensors of this process had on a GPU; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    features = torch.cpu.get_capabilities()
    return any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def describe_environment(device: torch.device, dtype: torch.dtype, *, quantised: bool) -> dict[str, Any]:
    """Processor, versions, device and threads, as JSON values; `dtype` is that of the frozen base."""
    packages = [*PACKAGES, *(["bitsandbytes"] if quantised else [])]
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "machine": platform.machine(),
        "processor_features": processor_features(),
        "instruction_set": {
            "pytorch": torch.backends.cpu.get_cpu_capability(),
            "onednn_at_most": os.environ.get("ONEDNN_MAX_CPU_ISA", "any"),
            "mkl_branch": os.environ.get("MKL_CBWR", "any"),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "threads": torch.get_num_threads(),
        "attention_kernels": attention_kernels(),
        "base_dtype": str(dtype).removeprefix("torch."),
    }


def attention_kernels() -> list[str]:
    """The kernels that `compute.attention: sdpa` may use on CUDA."""
    enabled = {
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
        "memory_efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
    }
    return sorted(name for name, value in enabled.items() if value)


def processor_features() -> list[str]:
    """Instruction sets of this processor: they choose kernels, and so the last bits of a result."""
    return sorted(name for name, value in torch.cpu.get_capabilities().items() if value is True)
