"""Writes the formats that are asked for, has each asked in its runtime, and keeps those that pass.

A format is made in a folder of another name. It takes its place, `models/export/FORMAT/`, when its runtime
answers as the adapter did when it was evaluated; if not, it is moved to `models/export/refused-FORMAT/`,
where nobody takes it for good. `metrics/export.json` has the figures and the digest of the files they are of.
"""

import gc
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256
from medtune.core.outputs import read_json, write_json, write_text
from medtune.evaluate.params import EvaluateParams
from medtune.export.card import export_card
from medtune.export.drift import Reference, measure, reference
from medtune.export.folders import require_base_name, write_adapter, write_companions, write_merged
from medtune.export.gguf_file import PRECISIONS, Origin, require_writable, write_gguf
from medtune.export.llama_cpp import llama_cpp, require_llama_cpp
from medtune.export.ollama import modelfile
from medtune.export.params import Form
from medtune.export.places import (
    CARD,
    EXPORT,
    FORMATS,
    METRICS,
    Format,
    folder_sha256,
    partial_folder,
    refused_folder,
    trained_sha256,
)
from medtune.export.runtimes import Transformers
from medtune.export.trained import Trained, find_trained
from medtune.model.adapter import WEIGHTS, load_adapter, merge
from medtune.model.base import load_model
from medtune.run.device import choose_device, set_up

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FORMS: dict[Format, tuple[Form, ...]] = {
    "merged": ("merged",),
    "gguf": ("gguf-f16", "gguf-q8_0"),
    "adapter": ("adapter",),
}
"""What of each format is asked."""


@dataclass(frozen=True)
class Options:
    """What `medtune export` was told beside the formats; `questions` overrides `export.questions`."""

    questions: int | None = None
    dtype: str | None = None
    foreign: bool = False


def export(formats: Sequence[Format], options: Options) -> dict[str, Any]:
    """Write, ask and keep; returns the content of metrics/export.json.

    MedtuneError, before any weight is read: what is here is not the adapter of its record, or a format cannot
    be written right.
    """
    trained = find_trained(foreign=options.foreign)
    _require_possible(trained, formats)
    rules = EvaluateParams.load()
    known = reference(trained, options.questions or trained.params.questions)
    # Before anything is made: of an adapter that changes meanwhile a push then finds that it has changed.
    found = _kept(trained, formats)
    _make(trained, formats, options)
    for kind in formats:
        print(f"export: {kind} is asked {len(known.examples)} questions", file=sys.stderr)
        found["formats"][kind] = _settled(trained, kind, _measured(trained, kind, known, rules))
        write_json(METRICS, found)
    return found


def _require_possible(trained: Trained, formats: Sequence[Format]) -> None:
    if "adapter" in formats:
        require_base_name(trained)
    if "gguf" in formats:
        require_llama_cpp()
        tokenizer = trained.tokenizer()
        require_writable(trained.config(), tokenizer)
        modelfile(trained, tokenizer, trained.encoder().end_id, file_name("q8_0"))


def _kept(trained: Trained, formats: Sequence[Format]) -> dict[str, Any]:
    """What metrics/export.json has of formats that are not made now, if it is of this adapter."""
    adapter = file_sha256(trained.folder / WEIGHTS)
    of = {
        "adapter": adapter,
        "trained": trained_sha256(),
        "foreign": trained.record is None,
        "prompt": trained.settings.prompt.model_dump(),
    }
    fresh: dict[str, Any] = of | {"formats": {}}
    try:
        before = read_json(METRICS)
        if {key: before[key] for key in of} == of:
            fresh["formats"] = {
                kind: one
                for kind, one in before["formats"].items()
                if kind in FORMATS and kind not in formats
            }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return fresh


def _make(trained: Trained, formats: Sequence[Format], options: Options) -> None:
    """Write each format into its folder of another name."""
    for kind in formats:
        # What lies there is of another export: it is gone whether this one passes or not.
        for folder in (EXPORT / kind, partial_folder(kind), refused_folder(kind)):
            shutil.rmtree(folder, ignore_errors=True)
    if "adapter" in formats:
        write_adapter(trained, partial_folder("adapter"))
    if {"gguf", "merged"} & set(formats):
        model = merged(trained)
        if "gguf" in formats:
            _write_gguf_folder(trained, model, partial_folder("gguf"))
        if "merged" in formats:
            write_merged(trained, model, _dtype(trained, options), partial_folder("merged"))
        del model
        gc.collect()


def merged(trained: Trained) -> PreTrainedModel:
    """The adapter merged into the base as its files have it, in float32 on the CPU."""
    settings = trained.settings
    set_up(settings.compute, settings.answer.seed)
    plain = settings.compute.model_copy(update={"quantization": None})
    base = load_model(settings.model, plain, torch.float32, torch.device("cpu"))
    return merge(load_adapter(base, trained.folder), trained.encoder().probes())


def _dtype(trained: Trained, options: Options) -> torch.dtype:
    """The dtype that was asked for, or that of the base's files."""
    if options.dtype:
        return DTYPES[options.dtype]
    found = trained.config().dtype
    return found if isinstance(found, torch.dtype) else torch.float32


def _write_gguf_folder(trained: Trained, model: PreTrainedModel, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, encoder = trained.tokenizer(), trained.encoder()
    origin = Origin(
        name="medtune",
        license=trained.settings.model.license,
        base=trained.base_name or f"sha256 {trained.settings.model.sha256}",
    )
    weights = model.state_dict()
    for precision in PRECISIONS:
        file = folder / file_name(precision)
        write_gguf(file, weights, trained.config(), tokenizer, precision, origin, encoder.end_id)
    smallest = file_name(PRECISIONS[-1])
    write_text(folder / "Modelfile", modelfile(trained, tokenizer, encoder.end_id, smallest))
    write_companions(trained, "gguf", tokenizer, encoder.end_id, folder)


def file_name(precision: str) -> str:
    """Of a GGUF in its folder."""
    return f"model-{precision}.gguf"


def _measured(
    trained: Trained, kind: Format, known: Reference, rules: EvaluateParams
) -> dict[str, dict[str, Any]]:
    """What each form of a format is off by; refuse files that changed while they were asked."""
    asked = folder_sha256(partial_folder(kind))
    found: dict[str, dict[str, Any]] = {
        form: measure(runtime, form, known, trained.params.tolerance(form), rules)
        for form, runtime in _runtimes(trained, kind, known.context)
    }
    if folder_sha256(partial_folder(kind)) != asked:
        raise MedtuneError(f"{partial_folder(kind)}: changed while it was asked; run `medtune export {kind}`")
    return found


def _runtimes(trained: Trained, kind: Format, context: int) -> Iterator[tuple[Form, Any]]:
    folder, compute = partial_folder(kind), trained.settings.compute
    if kind == "gguf":
        for precision in PRECISIONS:
            with llama_cpp(folder / file_name(precision), context, threads=1) as served:
                yield ("gguf-f16" if precision == "f16" else "gguf-q8_0"), served
        return
    base = trained.base if kind == "adapter" else None
    yield ("adapter" if base else "merged"), Transformers(folder, choose_device(compute), base)


def _settled(trained: Trained, kind: Format, forms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Give a format its card and, if it passes, its place, and say of which bytes that is told."""
    partial = partial_folder(kind)
    prompt = trained.settings.prompt.model_dump()
    write_text(partial / CARD, export_card(kind, trained.named_base, prompt, trained.card, forms))
    passed = not any(one["exceeded"] for one in forms.values())
    target = EXPORT / kind if passed else refused_folder(kind)
    digest = folder_sha256(partial)
    partial.rename(target)
    return {"sha256": digest, "passed": passed, "forms": forms}
