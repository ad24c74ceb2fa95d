"""Loading the base model and its tokenizer.

A GGUF is dequantised once (about 20 s) into a folder of safetensors outside the repository, named after
its sha256; afterwards it loads in a fraction of a second. `MEDTUNE_CACHE` moves that folder.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from medtune.model_files import ModelFiles, locate
from medtune.params import ComputeParams, ModelParams

# A bar for each load, gone in a tenth of a second, only hides what a stage has to say.
logging.disable_progress_bar()


def base_folder(model: ModelParams) -> Path:
    """The folder to load the base model from, with `from_pretrained`; a GGUF is converted first."""
    files = locate(model)
    return _dequantised(files) if files.is_gguf else files.path


def load_model(
    model: ModelParams, compute: ComputeParams, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The base model in `dtype` on `device`, ready for inference."""
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        base_folder(model),
        dtype=dtype,
        attn_implementation=compute.attention,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    # A model may ship generation settings (a repetition penalty): greedy is to mean greedy.
    loaded.generation_config = GenerationConfig()
    return loaded.to(device)  # type: ignore[arg-type]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer, with its chat template, of a model or adapter folder."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def cache_folder() -> Path:
    """Where converted models are kept: `$MEDTUNE_CACHE`, else `~/.cache/medtune`."""
    return Path(os.environ.get("MEDTUNE_CACHE") or Path.home() / ".cache" / "medtune")


def _dequantised(files: ModelFiles) -> Path:
    """Convert a GGUF unless that was done; the version of the converter is part of the name."""
    folder = cache_folder() / f"{files.sha256}-transformers-{transformers.__version__}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"dequantising {files.path.name} (once) into {folder}", file=sys.stderr)
    # Written aside and renamed: a killed or concurrent conversion never leaves half a model behind.
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        source, name = files.path.parent, files.path.name
        AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(partial)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        model.save_pretrained(partial)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
