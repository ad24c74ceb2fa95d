"""`params.yaml`, typed: one class a section, each field with its accepted values.

A stage loads only the sections that `dvc.yaml` lists for it, so DVC reruns it when, and only when,
one of them changes:

    data = DataParams.load()
"""

import re
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from medtune.errors import MedtuneError, nearest

PARAMS_FILE = Path("params.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Section(_Strict):
    """A top-level section of `params.yaml`."""

    name: ClassVar[str]

    @classmethod
    def load(cls, path: Path = PARAMS_FILE) -> Self:
        """Read and check this section of the file at `path`; the other sections are not looked at."""
        content = read_yaml(path)
        known = [section.name for section in Section.__subclasses__()]
        for key in content:
            if key not in known:
                raise MedtuneError(f"{path}: unknown section '{key}'; {nearest(str(key), known)}")
        if cls.name not in content:
            raise MedtuneError(f"{path}: the section '{cls.name}' is missing")
        try:
            return cls.model_validate(content[cls.name])
        except ValidationError as invalid:
            raise MedtuneError(f"{path}: {_explain(cls, content[cls.name], invalid.errors()[0])}") from None


class KindParams(_Strict):
    """How one kind of question is asked and how many examples of it each split gets at most."""

    question: str | None = None
    train: int | None = Field(default=None, ge=0)
    validation: int | None = Field(default=None, ge=0)
    test: int | None = Field(default=None, ge=0)


class DataParams(Section):
    """Where the questions come from and how they are split."""

    name = "data"

    source: str = Field(min_length=1)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    seed: int = Field(ge=0, lt=2**32)
    validation: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    kinds: dict[str, KindParams] = Field(min_length=1)

    @model_validator(mode="after")
    def _shares_leave_training_data(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("'validation' and 'test' are shares of the whole and must add up to less than 1")
        return self


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


class ComputeParams(Section):
    """Where and how tensors are computed."""

    name = "compute"

    device: Literal["auto", "cpu", "cuda"]
    threads: int = Field(ge=1)
    attention: Literal["eager", "sdpa"]
    deterministic: bool
    quantization: Literal["nf4"] | None


class LoraParams(_Strict):
    """The adapter's shape, in PEFT's terms."""

    r: int = Field(ge=1)
    alpha: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    target_modules: Literal["all-linear"] | list[str]
    layers: list[int] | None
    rslora: bool
    dora: bool


class EarlyStoppingParams(_Strict):
    """When to stop before the last epoch."""

    patience: int = Field(ge=1)
    min_improvement: float = Field(ge=0)


class FinetuneParams(Section):
    """How the adapter is trained."""

    name = "finetune"

    seed: int = Field(ge=0, lt=2**32)
    launch: str = Field(pattern=r"^[\w-]+$")
    precision: Literal["auto", "bfloat16", "float16", "float32"]
    gradient_checkpointing: bool
    lora: LoraParams
    epochs: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    gradient_accumulation: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup: float = Field(ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant_with_warmup"]
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    tokens_per_pass: int = Field(ge=1)
    max_length: int = Field(ge=8)
    too_long: Literal["error", "drop"]
    log_every: int = Field(ge=1)
    evaluate_every: int = Field(ge=1)
    keep_checkpoints: int = Field(ge=1)
    early_stopping: EarlyStoppingParams | None


class EvaluateParams(Section):
    """Which test questions are asked and how answers are judged."""

    name = "evaluate"

    launch: str = Field(pattern=r"^[\w-]+$")
    seed: int = Field(ge=0, lt=2**32)
    examples_per_kind: int | None = Field(ge=1)
    batch_size: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    partial_f1: float = Field(gt=0, le=1)
    set_kinds: list[str]
    unquantized: bool


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it: `5e-4` is a number (PyYAML alone: text), a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                mark = key_node.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' stands twice", mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; anything else is an error that names the file and the line."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise MedtuneError(f"{path}: no such file; run this in the top folder of the repository") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise MedtuneError(f"{path}, line {line}: {error.problem}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MedtuneError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(content, dict):
        raise MedtuneError(f"{path}: expected a mapping of sections")
    return content


def _explain(section: type[Section], content: Any, error: ErrorDetails) -> str:
    """One line for a validation error: the key, the value found, what is accepted."""
    path, model = [section.name], section  # type: list[str], type[BaseModel]
    for part in error["loc"]:
        if isinstance(content, dict) and (part in content or error["type"] == "missing"):
            content = content.get(part)
            path.append(str(part))
            if part in model.model_fields:
                model = _model_in(model.model_fields[str(part)].annotation) or model
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {nearest(path[-1], list(model.model_fields))}"
    if error["type"] == "missing":
        return f"the key '{key}' is missing"
    return f"{key} is {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model class that an annotation such as `LoraParams | None` or `dict[str, Kind]` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
