"""Loading the base model and its tokenizer.

A GGUF is dequantised once (about 20 s) into a folder of safetensors outside the repository, named after
its sha256 and the versions of what converts it; afterwards it loads in a fraction of a second. Each start
compares the folder with the digest that it got when it was made. `MEDTUNE_CACHE` moves that folder.
"""

import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from peft.import_utils import is_bnb_4bit_available, is_bnb_available
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    GgufConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.import_utils import is_bitsandbytes_available
from transformers.utils.logging import disable_progress_bar

from medtune.core.cache import cache_folder
from medtune.core.errors import MedtuneError
from medtune.core.hashing import files_sha256
from medtune.core.outputs import read_json, write_json
from medtune.model.architecture import context_length, require_supported
from medtune.model.attention import implementation
from medtune.model.files import FLOATS, ModelFiles, locate
from medtune.model.norms import fuse_norms
from medtune.model.params import ModelParams
from medtune.run.libraries import without_hub_kernels
from medtune.run.params import ComputeParams

MANIFEST = "medtune.json"
"""In a converted folder: the digest of the other files."""
# A bar for each load, gone in a tenth of a second, only hides what a stage has to say.
disable_progress_bar()


def base_folder(model: ModelParams) -> Path:
    """The folder to load the base model from, with `from_pretrained`, which holds what is pinned and no more.

    A GGUF is converted first.
    """
    files = locate(model)
    return _dequantised(files) if files.is_gguf else _only_pinned(files)


def describe_base(model: ModelParams) -> dict[str, Any]:
    """Which base model it is, for a record: its files, and of a GGUF also what it was converted to."""
    files = locate(model)
    found: dict[str, Any] = {"source": model.source, "revision": model.revision, "sha256": files.sha256}
    if files.is_gguf:
        found["converted"] = {"sha256": _content_sha256(_dequantised(files))} | _converter()
    return found


def load_model(
    model: ModelParams, compute: ComputeParams, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The base model in `dtype` on `device`, ready for inference.

    Quantised weights are computed with in `dtype` too; each is restored to it where it is used. They are
    quantised from the dtype of the file, so that training and evaluation have the same ones.
    """
    folder = base_folder(model)
    require_supported(read_json(folder / "config.json"), model.source)
    _require_floats(folder, model.source)
    try:
        made: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            output_loading_info=True,
            dtype="auto" if compute.quantization else dtype,
            attn_implementation=implementation(compute.attention),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **_quantisation(compute, dtype, device),
        )
    except RuntimeError as error:
        # So transformers says that shapes differ, of which it prints a table.
        if "mismatched" not in str(error):
            raise
        raise MedtuneError(f"{model.source}: its weights do not fit its config.json") from None
    loaded: PreTrainedModel
    loaded, report = made
    _require_whole(report, model.source)
    if compute.quantization is not None:
        _keep_as_quantised(loaded)
        _compute_in(loaded, dtype)
    # A model may ship generation settings (a repetition penalty): greedy is to mean greedy. End tokens stay.
    loaded.generation_config = GenerationConfig(eos_token_id=loaded.generation_config.eos_token_id)
    if device.type == "cuda":
        fuse_norms(loaded)
    return loaded if compute.quantization else loaded.to(device)  # type: ignore[arg-type]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer, with its chat template, of a model or adapter folder."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def end_ids(model: PreTrainedModel) -> list[int]:
    """The tokens that end what a model says; there may be several (the untuned Llama 3 has three)."""
    found = model.generation_config.eos_token_id if model.generation_config else None
    return found if isinstance(found, list) else [] if found is None else [found]


def context_of(config: PretrainedConfig) -> int:
    """How many tokens a model was made for: what it says to more is no answer."""
    return context_length(config.to_dict())


def require_context(config: PretrainedConfig, tokens: int, advice: str | None = None) -> None:
    """Refuse a text of so many tokens if the model was made for fewer."""
    context = context_of(config)
    if tokens > context:
        raise MedtuneError(
            f"params.yaml: model.source has a context of {context} tokens, but the longest question takes "
            f"{tokens} with its answer; "
            + (advice or "shorten it, or lower finetune.max_length or answer.max_new_tokens")
        )


def _require_whole(report: Mapping[str, Collection[str]], name: str) -> None:
    """Refuse weights that are not those of the config.json: what lacks would be random, what is over unused.

    So would be the weights of an old GPTQ folder, whose config.json does not say that they are quantised.
    """
    # Files of older versions have the frequencies of rotary positions, which follow from the configuration.
    over = [key for key in report["unexpected_keys"] if not key.endswith("rotary_emb.inv_freq")]
    for keys, what in ((report["missing_keys"], "missing"), (over, "not of its config.json")):
        if keys:
            raise MedtuneError(f"{name}: its weights are not whole: {min(keys)} is {what} ({len(keys)} such)")


def _require_floats(folder: Path, name: str) -> None:
    """Refuse weights in integers or in eight bits: without their scales they are other weights."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for key in sorted(file.keys()):
                if (kind := file.get_slice(key).get_dtype()) not in FLOATS:
                    raise MedtuneError(
                        f"{name}: {key} is stored as {kind}; accepted: weights in {', '.join(FLOATS)}"
                    )


def _quantisation(compute: ComputeParams, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Options that load linear layers in 4 bits (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314)."""
    if compute.quantization is None:
        return {}
    _let_bitsandbytes_in()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=compute.quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # FSDP can only shard floats.
        bnb_4bit_quant_storage=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _let_bitsandbytes_in() -> None:
    """Take back what a stage does at its start (`keep_out`), and what others have concluded from it."""
    if sys.modules.get("bitsandbytes", ...) is None:
        del sys.modules["bitsandbytes"]
        for known in (is_bitsandbytes_available, is_bnb_available, is_bnb_4bit_available):
            known.cache_clear()
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MedtuneError(
            "params.yaml: compute.quantization needs bitsandbytes, which is not installed; run: make install"
        )
    with without_hub_kernels():
        importlib.import_module("bitsandbytes")


def _keep_as_quantised(model: PreTrainedModel) -> None:
    """Keep bitsandbytes 0.50 from rewriting weights in use.

    On a processor with AVX512-BF16 it would repack each layer at the first pass without gradients (a
    validation), rounding its scales to bfloat16, for a kernel that passes no gradient on: training would go
    on from there, on other weights and with wrong gradients.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _compute_in(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Bring what is not quantised to `dtype`, and have what is restored to it."""
    for parameter in model.parameters():
        if (state := getattr(parameter, "quant_state", None)) is not None:
            state.dtype = dtype
        else:
            parameter.data = parameter.data.to(dtype)


def _only_pinned(files: ModelFiles) -> Path:
    """A folder of links to the pinned files.

    Transformers reads whatever else it knows that lies beside them, such as the template in
    `additional_chat_templates` or the adapter of an `adapter_config.json`: another model than the pinned one.
    """
    origin = hashlib.sha256(str(files.path.absolute()).encode()).hexdigest()
    folder = cache_folder() / f"{files.sha256}-links-{origin[:8]}"
    wanted = {name: files.path.absolute() / name for name in files.names}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir() or _links(folder) != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name, target in wanted.items():
                (folder / name).symlink_to(target)
    return folder


def _links(folder: Path) -> dict[str, Path | None]:
    return {path.name: path.readlink() if path.is_symlink() else None for path in folder.iterdir()}


def _dequantised(files: ModelFiles) -> Path:
    """The folder with a GGUF's weights as safetensors, converted unless that was done, and checked."""
    folder = cache_folder() / f"{files.sha256}-{'-'.join(f'{k}-{v}' for k, v in _converter().items())}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.exists() and not _is_whole(folder):
            print(f"{folder}: not as it was converted; it is made anew", file=sys.stderr)
            shutil.rmtree(folder)
        if not folder.exists():
            print(f"dequantising {files.path.name} (once) into {folder}", file=sys.stderr)
            # Written aside and renamed: a killed conversion never leaves half a model under this name.
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                _convert(files.path, partial)
                write_json(partial / MANIFEST, {"sha256": _content_sha256(partial)})
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _converter() -> dict[str, str]:
    """What turns a GGUF into weights, with versions: another one may round otherwise."""
    return {"transformers": transformers.__version__, "gguf": version("gguf")}


def _is_whole(folder: Path) -> bool:
    """Whether every file is the one that was converted: a folder of the right name may hold other weights."""
    try:
        return read_json(folder / MANIFEST)["sha256"] == _content_sha256(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _content_sha256(folder: Path) -> str:
    files = [file for file in sorted(folder.iterdir()) if file.name != MANIFEST]
    return _hashed(folder, tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@cache
def _hashed(folder: Path, stamps: tuple[tuple[str, int, int], ...]) -> str:
    """Of files with these names, sizes and times; a stage asks several times, and weights are large."""
    return files_sha256([folder / name for name, _, _ in stamps], folder)


def _convert(source: Path, target: Path) -> None:
    folder, name = source.parent, source.name
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)
    made: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        output_loading_info=True,
        gguf_file=name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    model, report = made
    _require_whole(report, name)
    model.save_pretrained(target)
