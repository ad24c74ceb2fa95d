"""What stands in an export beside its weights, and the formats that are folders: `merged` and `adapter`."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from medtune.core.errors import MedtuneError
from medtune.core.outputs import read_json, write_json, write_text
from medtune.export.places import RECORD
from medtune.export.trained import Trained
from medtune.model.adapter import CONFIG, WEIGHTS
from medtune.model.base import end_ids

TOKENIZER_CONFIG = "tokenizer_config.json"
_OF_THIS_MACHINE = ("backend", "is_local", "local_files_only", "name_or_path")
_PATH = re.compile(r"(\.{0,2}|~)/")


def write_merged(trained: Trained, model: PreTrainedModel, dtype: torch.dtype, folder: Path) -> None:
    """Write a merged model, rounded to `dtype`, with all that `from_pretrained` needs.

    The model itself is left in `dtype`.
    """
    encoder, tokenizer = trained.encoder(), trained.tokenizer()
    ends = {encoder.end_id: None} | dict.fromkeys(end_ids(model))
    model.to(dtype)  # type: ignore[arg-type]
    # As PEFT or the GGUF named it: often a path.
    model.config._name_or_path = ""
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(ends),
        pad_token_id=encoder.end_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )
    model.config.eos_token_id = list(ends)
    model.save_pretrained(folder)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", _for_older(config))
    for file in folder.glob("*.safetensors"):
        # Written by a temporary file of one's own, which nobody else may read.
        file.chmod(0o644)
    write_companions(trained, "merged", tokenizer, encoder.end_id, folder)


def _for_older(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json that transformers 4 reads too.

    Version 5 keeps what rotary positions need under a new name. Version 4 passes that over without a word and
    rotates by its default.
    """
    rotary = dict(config.get("rope_parameters") or {})
    found = {key: value for key, value in config.items() if not key.startswith("_")}
    if "rope_theta" in rotary:
        found["rope_theta"] = rotary.pop("rope_theta")
        found["rope_scaling"] = rotary if rotary.get("rope_type", "default") != "default" else None
    if "dtype" in config:
        found["torch_dtype"] = config["dtype"]
    return dict(sorted(found.items()))


def write_adapter(trained: Trained, folder: Path) -> None:
    """Write the adapter for PEFT's and vLLM's loaders, with a base name that they can resolve."""
    name = require_base_name(trained)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(trained.folder / WEIGHTS, folder / WEIGHTS)
    named = {"base_model_name_or_path": name, "revision": trained.settings.model.revision}
    configuration = read_json(trained.folder / CONFIG) | named
    # An older PEFT warns of each key that it does not know, of those that are not set too.
    write_json(folder / CONFIG, {key: value for key, value in configuration.items() if value is not None})
    write_companions(trained, "adapter", trained.tokenizer(), trained.encoder().end_id, folder)


def require_base_name(trained: Trained) -> str:
    """The hub id of the base model; refuse one that has none, as no loader would find it."""
    if trained.base_name is None:
        raise MedtuneError(
            f"params.yaml: export.base_model is null, and model.source '{trained.settings.model.source}' is "
            "no hub id: set it to that of the base model (org/name), or export merged or gguf alone"
        )
    return trained.base_name


def write_companions(
    trained: Trained, kind: str, tokenizer: PreTrainedTokenizerBase, end_id: int, folder: Path
) -> None:
    """Write what each folder of a format has: its record, tokenizer and template (a GGUF has them)."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind != "gguf":
        _write_tokenizer(tokenizer, end_id, folder)
    if trained.record is not None:
        write_json(folder / RECORD, _without_paths(trained.record))


def _write_tokenizer(tokenizer: PreTrainedTokenizerBase, end_id: int, folder: Path) -> None:
    tokenizer.save_pretrained(folder)
    config = read_json(folder / TOKENIZER_CONFIG)
    for key in _OF_THIS_MACHINE:
        config.pop(key, None)
    # transformers 5 calls it TokenizersBackend, which transformers 4 does not know; 5 knows both names.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    # Version 4 would make token types beside, which a Llama refuses.
    config["model_input_names"] = ["input_ids", "attention_mask"]
    # What ends an answer is what was trained, whatever the base's tokenizer calls its end.
    config["eos_token"] = tokenizer.convert_ids_to_tokens(end_id)
    text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    write_text(folder / TOKENIZER_CONFIG, text)


def _without_paths(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record that does not tell where on a machine the base model lay; its sha256 stays."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                key: "a folder" if key == "source" and _is_path(inner) else plain(inner)
                for key, inner in value.items()
            }
        return value

    return plain(record)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and _PATH.match(value) is not None
