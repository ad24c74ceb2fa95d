"""The sections `model` and `prompt` of params.yaml, and the shape of an adapter."""

from typing import Literal

from pydantic import Field

from medtune.core.section import Section, Strict


class ModelParams(Section):
    """The base model and its pins."""

    name = "model"

    source: str = Field(min_length=1)
    license: str = Field(min_length=1)
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class PromptParams(Section):
    """What every question is asked with."""

    name = "prompt"

    system: str
    date: str | None = None


class LoraParams(Strict):
    """The adapter's shape, in PEFT's terms."""

    r: int = Field(ge=1)
    alpha: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    target_modules: Literal["all-linear"] | list[str]
    layers: list[int] | None
    rslora: bool
    dora: bool
