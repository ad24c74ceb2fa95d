"""What an adapter was trained with, as its weights' file says in its header: it travels with them.

An adapter is right for one base, asked in one way. Its configuration names the base, but not which bytes
that were; a file beside it would be left behind. The header of a safetensors file has room for both.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from medtune.core.errors import MedtuneError
from medtune.model.params import PromptParams

_KEY = "medtune"
SCALED_BY = ("r", "lora_alpha", "use_rslora", "use_dora", "alpha_pattern", "rank_pattern")
"""What in an adapter's configuration decides how its weights are added, and no tensor tells."""


@dataclass(frozen=True)
class Origin:
    """The digest of the base's files, its quantisation, and the prompt of an adapter's training."""

    base_sha256: str
    quantization: str | None
    prompt: PromptParams


def write_with_origin(weights: Path, config: Path, origin: Origin, target: Path) -> None:
    """Write the file `weights` to `target`, with what the tensors were trained with in the header."""
    content = asdict(origin) | {"prompt": origin.prompt.model_dump(), "scaled_by": _scaled_by(config)}
    header, tensors = _parts(weights)
    content["tensors"] = _tensors_sha256(header, tensors)
    header["__metadata__"][_KEY] = json.dumps(content, sort_keys=True)
    # By hand: safetensors writes what stands in the metadata in hash order, other bytes in every run.
    written = json.dumps(header, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)
    target.write_bytes(len(written).to_bytes(8, "little") + written + tensors)


def read_origin(weights: Path, config: Path) -> Origin | None:
    """What the header of an adapter's weights says, None if nothing: then medtune did not train it.

    A file that is not whole is a MedtuneError, as are tensors that are not those that were trained, and a
    configuration that scales them otherwise.
    """
    try:
        # Reads the header alone: its lengths tell a file that was cut off.
        with safe_open(weights, framework="numpy") as file:
            header = file.metadata() or {}
    except SafetensorError as error:
        raise MedtuneError(f"{weights}: not a whole safetensors file: {error}") from None
    if _KEY not in header:
        return None
    try:
        content = json.loads(header[_KEY])
        scaled_by, stated = content.pop("scaled_by"), content.pop("tensors")
        origin = Origin(**content | {"prompt": PromptParams.model_validate(content["prompt"])})
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        raise MedtuneError(
            f"{weights}: its header does not say what it was trained with; train it anew"
        ) from None
    if stated != _tensors_sha256(*_parts(weights)):
        raise MedtuneError(f"{weights}: its tensors are not those that were trained")
    for name, found in _scaled_by(config).items():
        if found != scaled_by.get(name):
            raise MedtuneError(
                f"{config}: {name} is {found}, but the weights were trained with {scaled_by.get(name)}"
            )
    return origin


def differing_prompt(trained: PromptParams, here: PromptParams) -> str:
    """The parameters in which two prompts differ, as `prompt.system, prompt.date`; empty if in none."""
    # As they are written: a template writes 1, 1.0 and true otherwise, and Python calls them equal.
    before, now = (
        {name: json.dumps(value, sort_keys=True) for name, value in prompt.model_dump().items()}
        for prompt in (trained, here)
    )
    return ", ".join(f"prompt.{name}" for name in before if before[name] != now[name])


def tell_other_prompt(adapter: Path | str, trained: PromptParams, here: PromptParams) -> None:
    """Say on standard error that an adapter is asked as it was trained, if params.yaml has it otherwise."""
    if names := differing_prompt(trained, here):
        told = f"asked as {adapter} was trained: params.yaml has another prompt ({names})"
        print(told, file=sys.stderr)


def _parts(weights: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and the bytes of its tensors."""
    raw = weights.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:end]), raw[end:]


def _tensors_sha256(header: Mapping[str, Any], tensors: bytes) -> str:
    """Of names, shapes, places and bytes of the tensors: of all that the metadata do not say."""
    places = json.dumps({name: header[name] for name in sorted(header) if name != "__metadata__"})
    return hashlib.sha256(places.encode() + tensors).hexdigest()


def _scaled_by(config: Path) -> dict[str, Any]:
    content = json.loads(config.read_text(encoding="utf-8"))
    return {name: content.get(name) or False for name in SCALED_BY}
