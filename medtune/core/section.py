"""`params.yaml`, typed: one class a section, each field with its accepted values.

The class of a section lies beside the code that reads it (`medtune/train/params.py`), so that a change of one
reruns no stage that never looks at it:

    data = DataParams.load()
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from medtune.core.errors import MedtuneError, nearest, plain_words
from medtune.core.pipeline_file import PIPELINE_FILE, declared_sections
from medtune.core.yaml_file import read_yaml

PARAMS_FILE = Path("params.yaml")
SECTIONS = ("data", "model", "prompt", "compute", "finetune", "answer", "evaluate", "diff", "export")
"""The shipped sections of params.yaml, in its order. Those of stages of one's own stand in dvc.yaml."""


class Strict(BaseModel):
    """Parameters of which none may be unknown, and none is converted to another type.

    The text below a field is its explanation, which stands above its key in params.yaml too.
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Section(Strict):
    """A top-level section of `params.yaml`."""

    name: ClassVar[str]

    @classmethod
    def load(cls, path: Path = PARAMS_FILE) -> Self:
        """Read and check this section of the file at `path`; the other sections are not looked at."""
        return cls.of(read_yaml(path), path)

    @classmethod
    def of(cls, content: Mapping[str, Any], path: Path = PARAMS_FILE) -> Self:
        """Check this section of a file that was read already; `path` is only named in errors."""
        _require_known(content, cls.name, path)
        if cls.name not in content:
            raise MedtuneError(f"{path}: the section '{cls.name}' is missing")
        try:
            return cls.model_validate(content[cls.name])
        except ValidationError as invalid:
            # A misspelt key is missing too; how it is spelt is the better hint.
            errors = invalid.errors()
            first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
            raise MedtuneError(f"{path}: {_explain(cls, content[cls.name], first, errors)}") from None


def _require_known(content: Mapping[str, Any], own: str, path: Path) -> None:
    """Refuse a section that neither medtune nor a stage of the pipeline has; `own` is that of the caller."""
    unknown = [str(key) for key in content if key not in (*SECTIONS, own)]
    declared = declared_sections(PIPELINE_FILE, PARAMS_FILE.name) if unknown else set()
    for key in unknown:
        if key not in declared:
            raise MedtuneError(
                f"{path}: unknown section '{key}'; {nearest(key, [*SECTIONS, *sorted(declared)])} "
                f"(or one that a stage of {PIPELINE_FILE} has among its params)"
            )


def _explain(section: type[Section], content: Any, error: ErrorDetails, errors: list[ErrorDetails]) -> str:
    """One line for a validation error: the key, the value found, what is accepted.

    A key of several types has an error of each among `errors`.
    """
    path, model, annotation = _place(section, content, error)
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {nearest(path[-1], list(model.model_fields))}"
    if error["type"] == "missing":
        return f"the key '{key}' is missing"
    found = "null" if error["input"] is None else repr(error["input"])
    if isinstance(error["input"], date):
        # Unquoted, YAML takes 2024-07-26 for one.
        found = f"{error['input']}, a date: put it in quotes"
    accepted = [plain_words(one["msg"]) for one in errors if _place(section, content, one)[0] == path]
    if type(None) in get_args(annotation):
        accepted.append("null")
    return f"{key} is {found}: {', or '.join(accepted)}"


def _place(
    section: type[Section], content: Any, error: ErrorDetails
) -> tuple[list[str], type[BaseModel], Any]:
    """The keys that lead to the value of an error, the class that it is in, and the type of its field."""
    path, model, annotation = [section.name], section, None  # type: list[str], type[BaseModel], Any
    for part in error["loc"]:
        if isinstance(content, dict) and (part in content or error["type"] == "missing"):
            content = content.get(part)
            path.append(str(part))
            if part in model.model_fields:
                annotation = model.model_fields[str(part)].annotation
                model = _model_in(annotation) or model
    return path, model, annotation


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model class that an annotation such as `LoraParams | None` or `dict[str, Kind]` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
