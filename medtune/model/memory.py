"""How much memory a base model and its adapter need: arithmetic on the model's shape, without torch.

Weights, adapter and cache are exact. What activations add depends on kernels and allocators: `medtune plan`
tries it where the device is there, and takes the upper estimates below where it is not.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from medtune.core.errors import MedtuneError
from medtune.model.params import LOGITS_AT_ONCE, LoraParams, ModelParams, is_named
from medtune.model.shape import Shape, known_shape
from medtune.run.params import MEMORY_KNOBS, ComputeParams

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""One of these is there if a driver for GPUs is: NVIDIA's, AMD's, or that of Windows."""


def weight_bytes(shape: Shape, dtype: str, quantization: str | None) -> float:
    """Bytes of the base model's weights; NF4 has 4 bits a weight and a doubly quantised scale for 64."""
    if quantization is None:
        return BYTES[dtype] * (shape.linear_parameters + shape.other_parameters)
    return BYTES[dtype] * shape.other_parameters + shape.layers * sum(
        _nf4_bytes(inputs * outputs) for inputs, outputs in shape.linears.values()
    )


def adapter_parameters(shape: Shape, lora: LoraParams) -> int:
    """How many weights the adapter has: two thin matrices a linear layer and, for DoRA, its lengths."""
    layers = shape.layers if lora.layers is None else len(set(lora.layers))
    return layers * sum(
        lora.r * (inputs + outputs) + (outputs if lora.dora else 0)
        for name, (inputs, outputs) in shape.linears.items()
        if lora.target_modules == "all-linear" or any(is_named(name, one) for one in lora.target_modules)
    )


def training_parts(shape: Shape, dtype: str, quantization: str | None, lora: LoraParams) -> dict[str, float]:
    """Bytes that a training holds from its first step to its last, by part."""
    # Weights, gradients and AdamW's two moments, each in float32.
    adapter = 16 * adapter_parameters(shape, lora)
    return {"base weights": weight_bytes(shape, dtype, quantization), "adapter": adapter}


def answering_parts(
    shape: Shape, dtype: str, quantization: str | None, lora: LoraParams, positions: int
) -> dict[str, float]:
    """Bytes that answering holds when a batch has `positions` tokens over all its rows, by part."""
    merged = quantization is None and dtype == "float32"
    return {
        "base weights": weight_bytes(shape, dtype, quantization),
        "adapter": 0 if merged else 4 * adapter_parameters(shape, lora),
        "cache": positions * shape.layers * 2 * shape.kv_heads * shape.head_dim * BYTES[dtype],
    }


def training_pass_bytes(
    shape: Shape, dtype: str, rows: int, length: int, *, checkpointing: bool, flash: bool = False
) -> float:
    """At most what a pass keeps for its backward pass if every token has a label: an estimate.

    For a LoRA without dropout and DoRA. Layers keep what goes into and out of their linear layers, two copies
    of the hidden state for the norms, and the attention scores before and after the softmax; the loss keeps,
    of so many positions at once, logits and probabilities in float32 and, in parts and then as a whole, the
    gradient of the logits. With `flash` attention there are no scores, but keys and values of every head,
    the output, and a float32 for the sum of each row of scores.
    """
    size, tokens = BYTES[dtype], rows * length
    linears = sum(inputs + outputs for inputs, outputs in shape.linears.values())
    layer = tokens * (size * (linears + shape.intermediate) + 8 * shape.hidden)
    layer += tokens * shape.heads * (4 + 3 * size * shape.head_dim if flash else length * (4 + size))
    kept = shape.layers * tokens * shape.hidden * size + layer if checkpointing else shape.layers * layer
    return kept + min(tokens, LOGITS_AT_ONCE) * shape.vocabulary * (4 + 3 * size)


def prompt_pass_bytes(shape: Shape, dtype: str, rows: int, length: int) -> float:
    """At most what a pass over prompts needs beside the cache, for one layer at a time: an estimate."""
    size = BYTES[dtype]
    mlp = 3 * size * shape.intermediate
    attention = shape.heads * (8 * length + 2 * size * shape.head_dim)
    tokens = rows * length
    return tokens * (2 * size * shape.hidden + max(mlp, attention)) + 12 * rows * shape.vocabulary


@dataclass(frozen=True)
class Device:
    """Where a stage computes: cpu or cuda, with its memory in bytes, all of it and what is free.

    `capability` is CUDA's; it decides about flash attention.
    """

    kind: str
    name: str
    total: int
    free: int
    capability: tuple[int, int] | None = None

    @classmethod
    def find(cls, compute: ComputeParams) -> "Device":
        """The device that the stages would take on this machine."""
        if compute.device != "cpu" and any(Path(file).exists() for file in GPU_FILES):
            # Imported here: torch takes seconds to load, and without a driver it would find nothing.
            import torch

            if torch.cuda.is_available():
                free, total = torch.cuda.mem_get_info()
                capability = torch.cuda.get_device_capability()
                return cls("cuda", torch.cuda.get_device_name(), total, free, capability)
        if compute.device == "cuda":
            raise MedtuneError(
                "params.yaml: compute.device is 'cuda', but no CUDA device is there; accepted: auto, cpu"
            )
        if not hasattr(os, "sysconf"):
            import psutil

            memory = psutil.virtual_memory()
            return cls("cpu", "CPU", memory.total, memory.available)
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        meminfo = Path("/proc/meminfo")
        if not meminfo.is_file():
            return cls("cpu", "CPU", total, total)
        lines = meminfo.read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        return cls("cpu", "CPU", total, free)

    def has_flash(self, shape: Shape, compute: ComputeParams, dtype: str) -> bool:
        """Whether training holds no attention scores here. Elsewhere that is not known beforehand."""
        if self.capability is None or compute.attention == "eager":
            return False
        # Imported here, where there is a GPU: it takes torch, which the rest of this module does without.
        from medtune.model.attention import FLASH_HEAD, FLASH_SINCE

        is_new = self.capability >= FLASH_SINCE
        return is_new and dtype in ("bfloat16", "float16") and shape.head_dim <= FLASH_HEAD


def least_memory(
    shape: Shape, compute: ComputeParams, precision: str, lora: LoraParams, shards: int = 1
) -> dict[str, float]:
    """Bytes without which no stage runs, by stage: weights and adapter, before the first activation.

    `shards` are the processes that share out the weights in training. `precision: auto` counts as 16 bits.
    """
    dtype = "bfloat16" if precision == "auto" else precision
    training = training_parts(shape, dtype, compute.quantization, lora)
    answering = answering_parts(shape, "float32", compute.quantization, lora, positions=0)
    return {"finetune": sum(training.values()) / shards, "answer": sum(answering.values())}


def require_memory(
    model: ModelParams, compute: ComputeParams, precision: str, lora: LoraParams, shards: int = 1
) -> None:
    """Refuse a device that cannot even hold the weights; a model of unknown size is let pass."""
    shape = known_shape(model)
    if shape is None:
        return
    device = Device.find(compute)
    for stage, needed in least_memory(shape, compute, precision, lora, shards).items():
        if needed > device.total:
            raise MedtuneError(
                f"params.yaml: {stage} does not fit: weights alone need {needed / GIB:.2f} GiB, and "
                f"{device.name} has {device.total / GIB:.2f}; {MEMORY_KNOBS[stage]}"
            )


def _nf4_bytes(weights: int) -> float:
    blocks = math.ceil(weights / 64)
    tables = 4 * (16 + 256 + 1)
    return weights / 2 + blocks + 4 * math.ceil(blocks / 256) + tables
