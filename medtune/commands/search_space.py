"""What `medtune search` may try: a file of `searches/`, checked before anything runs.

    seed: 7
    trials: 20
    prune_after: 5
    space:
      finetune.learning_rate: {low: 3e-4, high: 3e-3, log: true}
      finetune.lora.r: [8, 16, 32]

Only settings of the training are searched that leave alone which questions the validation loss is of, and
what it means: losses of other data, another prompt or another model cannot be compared.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from dvc.utils.flatten import flatten
from pydantic import Field, ValidationError

from medtune.core.errors import MedtuneError, nearest, plain_words
from medtune.core.section import PARAMS_FILE, Strict
from medtune.core.yaml_file import read_yaml
from medtune.train.params import FinetuneParams

SEARCHES = Path("searches")
NUMBERS_OF_STEPS = ("finetune.epochs", "finetune.batch_size", "finetune.gradient_accumulation")
"""With these, the same step of two trainings is not the same part of them."""
SEARCHABLE = (
    "finetune.learning_rate",
    "finetune.lora.r",
    "finetune.lora.alpha",
    "finetune.lora.dropout",
    "finetune.lora.target_modules",
    "finetune.lora.rslora",
    "finetune.lora.dora",
    "finetune.warmup",
    "finetune.schedule",
    "finetune.weight_decay",
    "finetune.max_grad_norm",
    *NUMBERS_OF_STEPS,
)
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
Value = None | bool | int | float | str
T = TypeVar("T", bound=Strict)


class Range(Strict):
    """Numbers from `low` to `high`, both included: whole ones if both are."""

    low: int | float
    high: int | float
    step: int | float | None = Field(default=None, gt=0)
    """From `low` on; null: any number in between, or any whole one."""
    log: bool = False
    """Every tenth as likely as every other, as suits learning rates."""

    @property
    def whole(self) -> bool:
        """Whether it has whole numbers only."""
        return all(isinstance(end, int) for end in (self.low, self.high, self.step or 1))


class Search(Strict):
    """The content of a file of `searches/`."""

    seed: int = Field(ge=0, lt=2**32)
    """Of what is tried."""
    trials: int = Field(ge=1)
    """How many runs are made, beside that of the commit."""
    prune_after: int | None = Field(ge=1)
    """From so many finished runs on, a training is stopped whose validation loss is above their median at the
    same step; null: none is."""
    space: dict[str, Any] = Field(min_length=1)
    """For each parameter a range or a list of values."""


Space = Mapping[str, Range | list[Value]]


def read_search(name: str) -> tuple[Search, Space]:
    """Read and check `searches/NAME.yaml`, each of its values as one of params.yaml too."""
    names = sorted(path.stem for path in SEARCHES.glob("*.yaml"))
    path = SEARCHES / f"{name}.yaml"
    if not NAME.fullmatch(name):
        raise MedtuneError(
            f"'{name}' is no name of a search: accepted are a-z, 0-9 and -, as in {SEARCHES}/lora.yaml"
        )
    if not path.is_file():
        raise MedtuneError(f"{path}: no such file; {nearest(name, names)}")
    search = _checked(Search, read_yaml(path), path, "")
    content = read_yaml(PARAMS_FILE)
    known = flatten(content)
    space = {key: _values(key, value, known, path) for key, value in search.space.items()}
    for key, values in space.items():
        for value in values if isinstance(values, list) else (values.low, values.high):
            _require_accepted(content, key, value, path)
    if search.prune_after is not None and (longer := [key for key in NUMBERS_OF_STEPS if key in space]):
        raise MedtuneError(
            f"{path}: {longer[0]} changes how many steps a training has, so that losses at the same step "
            "cannot be compared; accepted with it: prune_after: null"
        )
    return search, space


def _values(key: str, value: Any, known: Mapping[str, Any], path: Path) -> Range | list[Value]:
    if key not in SEARCHABLE:
        # One that params.yaml has is not misspelt.
        hint = f"accepted: {', '.join(SEARCHABLE)}" if key in known else nearest(key, list(SEARCHABLE))
        raise MedtuneError(
            f"{path}: '{key}' is none of the settings between which a validation loss decides; {hint}"
        )
    if isinstance(value, list):
        return _choices(key, value, path)
    found = _checked(Range, value, path, f"space.{key}")
    if found.low >= found.high:
        raise MedtuneError(
            f"{path}: space.{key} has low: {found.low} and high: {found.high}; low must be below high"
        )
    if found.log and (found.low <= 0 or found.step is not None):
        raise MedtuneError(f"{path}: space.{key} has log: true; accepted with it: low above 0, and no step")
    return found


def _choices(key: str, values: list[Any], path: Path) -> list[Value]:
    if len(values) < 2 or any(not isinstance(value, Value) for value in values):
        raise MedtuneError(
            f"{path}: space.{key} must be a list of two or more numbers, words, true, false or null"
        )
    if len({repr(value) for value in values}) < len(values):
        raise MedtuneError(f"{path}: space.{key} has a value twice")
    for value in values:
        if isinstance(value, str) and not re.fullmatch(r"[\w-]+", value):
            raise MedtuneError(
                f"{path}: space.{key} has '{value}': accepted are words of letters, digits, _ and -"
            )
    return values


def _checked(kind: type[T], content: Any, path: Path, place: str) -> T:
    try:
        return kind.model_validate(content)
    except ValidationError as invalid:
        error = min(invalid.errors(), key=lambda one: one["type"] != "extra_forbidden")
        key = ".".join([*([place] if place else []), *map(str, error["loc"][:1])]) or "it"
        if error["type"] == "extra_forbidden":
            hint = nearest(str(error["loc"][0]), list(kind.model_fields))
            raise MedtuneError(f"{path}: unknown key '{key}'; {hint}") from None
        raise MedtuneError(f"{path}: {key} {plain_words(error['msg'])}") from None


def _require_accepted(content: Mapping[str, Any], key: str, value: Value, path: Path) -> None:
    """Refuse a value that params.yaml could not have."""
    changed = deepcopy(dict(content))
    *parents, last = key.split(".")
    place: Any = changed
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise MedtuneError(f"{PARAMS_FILE}: has no {key}, which {path} is to search")
    place[last] = value
    try:
        FinetuneParams.of(changed)
    except MedtuneError as error:
        raise MedtuneError(f"{path}: with {key}: {value}, {error}") from None
