"""What made an adapter: `models/adapter/provenance.json`.

Only what decides the result or may explain a difference; nothing that changes between identical runs.
"""

import hashlib
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from medtune.core.hashing import file_sha256
from medtune.core.section import Section
from medtune.model.files import ModelFiles

PACKAGES = (
    "accelerate",
    "datasets",
    "numpy",
    "peft",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)


def describe_run(
    base: ModelFiles,
    data: list[Path],
    sections: list[Section],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Digests of data, base model, code and parameters, and the environment, as JSON values."""
    parameters = {section.name: section.model_dump() for section in sections}
    return {
        "base_model": {"source": parameters["model"]["source"], "sha256": base.sha256},
        "data": {path.as_posix(): file_sha256(path) for path in data},
        "code": loaded_code(),
        "parameters": parameters,
        "parameters_sha256": _json_sha256(parameters),
        "environment": {
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in _packages(parameters)},
            "machine": platform.machine(),
            "processor_features": processor_features(),
            "instruction_set": {
                "pytorch": torch.backends.cpu.get_cpu_capability(),
                "onednn_at_most": os.environ.get("ONEDNN_MAX_CPU_ISA", "any"),
            },
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
            "threads": torch.get_num_threads(),
            "attention_kernels": attention_kernels(),
            "base_dtype": str(dtype).removeprefix("torch."),
        },
    }


def _packages(parameters: dict[str, Any]) -> list[str]:
    quantized = parameters.get("compute", {}).get("quantization") is not None
    return [*PACKAGES, *(["bitsandbytes"] if quantized else [])]


def loaded_code() -> dict[str, str]:
    """The digest of every module of this repository that the process has imported."""
    root = Path(__file__).resolve().parent.parent
    files = {
        Path(module.__file__).resolve()
        for module in list(sys.modules.values())
        if getattr(module, "__file__", None) and module.__file__ is not None
    }
    return {
        file.relative_to(root).as_posix(): file_sha256(file)
        for file in sorted(files)
        if file.is_relative_to(root / "medtune") or file.is_relative_to(root / "stages")
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


def _json_sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
