"""The adapter that is to be exported: whole, of its record and its base, and of the run that dvc.lock names.

An export carries the name of a base model, a licence and figures into the world. So it starts from an
adapter for which these are known: the one that the stage `finetune` left. One from elsewhere is exported only
if it is said to be foreign, with the parameters of params.yaml.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from medtune.answer.params import Settings
from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256
from medtune.core.outputs import read_json
from medtune.export.card import AdapterCard
from medtune.export.params import ExportParams
from medtune.export.places import ADAPTER, CARD, RECORD
from medtune.model.adapter import ADAPTER_FILES, WEIGHTS, check_adapter
from medtune.model.base import base_folder, describe_base, load_tokenizer
from medtune.model.chat import ChatEncoder
from medtune.model.naming import Base
from medtune.model.origin import tell_other_prompt
from medtune.model.params import ModelParams, PromptParams
from medtune.run.lock_file import LOCK_FILE, dvc_md5, read_lock
from medtune.run.params import ComputeParams


@dataclass(frozen=True)
class Trained:
    """An adapter with what it was trained with; `record` is None for a foreign one.

    `card` is None for a foreign one too, and for one that was not evaluated.
    """

    folder: Path
    settings: Settings
    record: Mapping[str, Any] | None
    params: ExportParams
    card: AdapterCard | None = None

    @property
    def named_base(self) -> Base:
        """The base model as cards name it."""
        parts = {part.name: part.model_dump() for part in (self.settings.model, self.settings.compute)}
        return Base.of(parts, self.params.base_model)

    @property
    def base_name(self) -> str | None:
        """The hub id of the base model, or of what it was quantised from; None if none is known."""
        return self.named_base.hub_name

    @property
    def base(self) -> Path:
        """The folder of the base model, for `from_pretrained`."""
        return base_folder(self.settings.model)

    def config(self) -> PretrainedConfig:
        """That of the base model."""
        return AutoConfig.from_pretrained(self.base, local_files_only=True, trust_remote_code=False)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's, with a template that writes the prompt of the training by itself."""
        tokenizer = load_tokenizer(self.base)
        template, prompt = self.encoder().template.as_trained(), self.settings.prompt
        given = {"date_string": prompt.date} if prompt.date is not None else {}
        # Also where a runtime gives its own: llama.cpp gives every template today's day, and lets it think.
        pinned = [
            f"{{%- set {name} = {json.dumps(value, ensure_ascii=False)} %}}\n"
            for name, value in sorted((given | prompt.template_options).items())
            if name in template
        ]
        tokenizer.chat_template = "".join([*pinned, template])
        return tokenizer

    def encoder(self) -> ChatEncoder:
        """What writes the tokens that the adapter was trained and evaluated on."""
        return ChatEncoder(load_tokenizer(self.base), self.settings.prompt)


def find_trained(folder: Path = ADAPTER, *, foreign: bool = False) -> Trained:
    """The adapter in a folder; refuse one that is not whole, not of its base, or not of the run recorded.

    With `foreign` it may be of no run that is known here.
    """
    settings = Settings.load()
    asked_for = settings.prompt
    record = None if foreign else _own_record(folder)
    if record is not None:
        settings = _recorded(settings, record, folder)
    origin = check_adapter(folder, settings.model, settings.compute)
    if origin is not None:
        tell_other_prompt(folder, origin.prompt, asked_for)
        settings = replace(settings, prompt=origin.prompt)
    if record is not None and record["base_model"] != (here := describe_base(settings.model)):
        differing = sorted(key for key in here if record["base_model"].get(key) != here[key])
        raise MedtuneError(
            f"{folder.with_name(RECORD)}: its base model's {', '.join(differing)} is not that of "
            f"{settings.model.source} here; run `dvc repro`"
        )
    card = None if record is None else _own_card(folder)
    return Trained(folder, settings, record, ExportParams.load(), card)


def _own_record(folder: Path) -> dict[str, Any]:
    """The record beside the adapter, if both are what dvc.lock has of the stage finetune."""
    foreign = "an adapter of another place is exported with --foreign"
    if not (folder / WEIGHTS).is_file():
        raise MedtuneError(
            f"{folder}: holds no {WEIGHTS}; run `dvc repro` to train it or `dvc pull` to fetch it"
        )
    path, locked = folder.with_name(RECORD), _locked("finetune")
    for file in [*(folder / name for name in ADAPTER_FILES), path]:
        if file.as_posix() not in locked:
            raise MedtuneError(f"{file}: no output of finetune in {LOCK_FILE}; {foreign}")
        if dvc_md5(file) != locked[file.as_posix()]:
            raise MedtuneError(
                f"{file}: not the one that {LOCK_FILE} names; run `dvc checkout` or `dvc repro` ({foreign})"
            )
    record = read_json(path)
    if record.get("adapter") != file_sha256(folder / WEIGHTS):
        raise MedtuneError(f"{path}: the record of another adapter; run `dvc repro` ({foreign})")
    return record


def _locked(stage: str) -> dict[str, str]:
    """The md5 of each output of a stage that dvc.lock names, by its path."""
    return {item["path"]: item["md5"] for item in read_lock().get(stage, {}).get("outs", [])}


def _own_card(folder: Path) -> AdapterCard | None:
    """The card beside the adapter, if it is what dvc.lock has of the stage evaluate, and of this adapter.

    None where nothing was evaluated.
    """
    path, locked = folder / CARD, _locked("evaluate")
    if path.as_posix() not in locked:
        if path.is_file():
            raise MedtuneError(f"{path}: no output of evaluate in {LOCK_FILE}; run `dvc repro`, or delete it")
        return None
    if not path.is_file() or dvc_md5(path) != locked[path.as_posix()]:
        raise MedtuneError(f"{path}: not the one that {LOCK_FILE} names; run `dvc checkout` or `dvc repro`")
    text = path.read_text(encoding="utf-8")
    if file_sha256(folder / WEIGHTS) not in text:
        raise MedtuneError(f"{path}: the card of another adapter; run `dvc repro`")
    try:
        return AdapterCard.read(text)
    except ValueError as error:
        raise MedtuneError(f"{path}: not a card that this medtune wrote ({error}); run `dvc repro`") from None


def _recorded(settings: Settings, record: Mapping[str, Any], folder: Path) -> Settings:
    """The settings that the adapter was trained with, whatever params.yaml has by now."""
    try:
        parts = record["parameters"]
        return Settings(
            ModelParams.model_validate(parts["model"]),
            PromptParams.model_validate(parts["prompt"]),
            ComputeParams.model_validate(parts["compute"]),
            settings.answer,
        )
    except (KeyError, TypeError, ValueError):
        path = folder.with_name(RECORD)
        raise MedtuneError(f"{path}: not a record that this medtune wrote; run `dvc repro`") from None
