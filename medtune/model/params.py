"""The sections `model` and `prompt` of params.yaml, and the shape of an adapter."""

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from medtune.core.errors import MedtuneError, nearest
from medtune.core.section import Section, Strict

LOGITS_AT_ONCE = 1024
"""Positions whose logits a training holds at a time (medtune/train/loss.py; for the estimate, memory.py)."""


class ModelParams(Section):
    """The base model and its pins. Read by finetune and the stages that answer."""

    name = "model"

    source: str = Field(min_length=1)
    """package:NAME==VERSION/FILE.gguf, a hub id (org/name, with its revision) or a folder (./path, /path)."""
    license: str = Field(min_length=1)
    """Carried into the model card."""
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    """A hub id needs the full commit hash: a branch or tag can change under you. Otherwise null."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the GGUF, or of the folder's files; a wrong value's error prints the right one."""


class PromptParams(Section):
    """What every question is asked with, in training, answering and `medtune ask`."""

    name = "prompt"

    system: str
    """States the form of the answer, so that the untuned model is compared fairly."""
    date: str | None = None
    """For templates that write the date into the prompt (Llama 3.2): pinned, or tomorrow's tokens differ."""
    template_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Options that the model's chat template reads: {enable_thinking: false} of Qwen 3 and SmolLM3."""
    template: str | None = Field(default=None, min_length=1)
    """A chat template in Jinja, in place of the model's own; null: that one."""


TIED = ("lm_head", "embed_tokens")
"""What is not adapted: in many a model both are the same weights."""


class LoraParams(Strict):
    """The adapter's shape, in PEFT's terms."""

    r: int = Field(ge=1)
    """Rank of the update: higher learns more and costs more."""
    alpha: int = Field(ge=1)
    """The update is scaled by alpha / r."""
    dropout: float = Field(ge=0, lt=1)
    """Share of an adapter's inputs that training leaves out at random."""
    target_modules: Literal["all-linear"] | list[str]
    """all-linear (every linear layer but the output head) or a list of names: [q_proj, v_proj]."""
    layers: list[int] | None
    """Numbers of the decoder layers that get an adapter, from 0: [20, 21]; null: all."""
    rslora: bool
    """Scale the update by alpha / sqrt(r) instead, for high ranks (rsLoRA)."""
    dora: bool
    """Learn the direction and the length of the update apart (DoRA): better at low ranks, slower."""

    def require_layers(self, linears: Collection[str], layers: int) -> None:
        """Refuse layers that a model does not have, which PEFT would leave out without a word.

        `linears` are the names of the linear layers in each of its `layers` decoder layers.
        """
        if isinstance(self.target_modules, list):
            if not self.target_modules:
                raise MedtuneError("params.yaml: finetune.lora.target_modules is empty; accepted: all-linear")
            for name in self.target_modules:
                if name in TIED:
                    raise MedtuneError(
                        f"params.yaml: finetune.lora.target_modules has '{name}': embeddings and output head "
                        "often share their weights, so that a merge would change both; accepted: layers of "
                        "the decoder"
                    )
                if not any(is_named(layer, name) for layer in linears):
                    known = sorted({layer.rpartition(".")[2] for layer in linears})
                    raise MedtuneError(
                        f"params.yaml: finetune.lora.target_modules has '{name}', but the model has no such "
                        f"layer; {nearest(name, known)}"
                    )
        for number in self.layers or []:
            if not 0 <= number < layers:
                raise MedtuneError(
                    f"params.yaml: finetune.lora.layers has {number}; accepted: 0 to {layers - 1}"
                )
        if self.layers == []:
            raise MedtuneError("params.yaml: finetune.lora.layers is empty; accepted: null (all) or numbers")


def is_named(layer: str, name: str) -> bool:
    """Whether `name` in PEFT's `target_modules` means this layer: it compares ends of names."""
    return f".{layer}".endswith(f".{name}")
