"""How far figures scatter between runs that differ in `finetune.seed` alone: `metrics/seeds.json`.

`medtune seeds` writes it (medtune/commands/seeds.py). It belongs to every run of the same fingerprint, which
names all that decides a run but the seed:

    seeds = read_seeds()
    if seeds and seeds.fingerprint == seeds_fingerprint(read_lock()):
        band = noise_band(seeds.all["accuracy"].values)
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.stats import t

from medtune.core.errors import MedtuneError, plain_words
from medtune.core.section import PARAMS_FILE
from medtune.evaluate.statistics import CONFIDENCE, mean
from medtune.run.progress import fingerprint

SEEDS_FILE = Path("metrics/seeds.json")
"""Git keeps it; it is no stage's output, as it needs runs of other seeds."""
DECIDE = ("digests/", "data/prepared/", "configs/accelerate/")
"""What decides a run beside its parameters: code, questions, launch files. The rest follows from these."""
FEWEST = 2
ENDS = ("_low", "_high")

Figures = Mapping[str, float]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Spread(_Checked):
    """A figure in every run, in the order of the seeds, and what that comes to, all in the figure's unit."""

    values: list[float] = Field(min_length=FEWEST)
    mean: float
    standard_deviation: float
    """That of a sample, with n - 1."""
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of the values of at least two runs."""
        return cls.model_validate({"values": list(values)} | _summary(values))

    @model_validator(mode="after")
    def _is_that_of_its_values(self) -> Self:
        for name, value in _summary(self.values).items():
            if not math.isclose(getattr(self, name), value, rel_tol=1e-9, abs_tol=1e-12):
                raise ValueError(f"has another {name} than its values")
        return self


class Seeds(_Checked):
    """The content of `metrics/seeds.json`: each figure of all questions, and of each kind."""

    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    seeds: list[int] = Field(min_length=FEWEST)
    all: dict[str, Spread]
    kinds: dict[str, dict[str, Spread]]

    @model_validator(mode="after")
    def _has_a_value_for_each_seed(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("has a seed twice")
        for figures in (self.all, *self.kinds.values()):
            for name, spread in figures.items():
                if len(spread.values) != len(self.seeds):
                    raise ValueError(f"has {len(spread.values)} values of {name} for {len(self.seeds)} seeds")
        return self


def noise_band(values: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """The largest difference to be expected between two runs that differ in their seed alone.

    In the unit of the values, which are those of n such runs: t s sqrt(2), with their standard deviation s
    and Student's quantile t at (1 + confidence) / 2 and n - 1 degrees of freedom. This is the prediction
    interval for the difference of two single runs that are not among the n, of normally distributed figures
    (Meeker, Hahn and Escobar 2017, Statistical Intervals, chapter 4, https://doi.org/10.1002/9781118594841).

    None where all values are equal: that no spread was seen in a few runs does not make it zero.
    """
    if len(values) < FEWEST:
        raise MedtuneError(f"a noise band needs the values of at least {FEWEST} runs, not {len(values)}")
    if len(set(values)) == 1:
        return None
    quantile = float(t.ppf((1 + confidence) / 2, len(values) - 1))
    return quantile * _standard_deviation(values) * math.sqrt(2)


def seeds_fingerprint(stages: Mapping[str, Any]) -> str:
    """What names all that decides a run but `finetune.seed`; `stages` are those of its `dvc.lock`."""
    parameters: dict[str, Any] = {}
    for stage in stages.values():
        parameters |= stage.get("params", {}).get(PARAMS_FILE.name, {})
    parameters["finetune"] = {
        key: value for key, value in parameters.get("finetune", {}).items() if key != "seed"
    }
    inputs = {
        item["path"]: item["md5"]
        for stage in stages.values()
        for item in stage.get("deps", ())
        if item["path"].startswith(DECIDE)
    }
    return fingerprint({"parameters": parameters, "inputs": inputs})


def trained_seed(stages: Mapping[str, Any]) -> int:
    """The `finetune.seed` of the run whose `dvc.lock` has these stages."""
    return stages["finetune"]["params"][PARAMS_FILE.name]["finetune"]["seed"]


def collect_seeds(
    fingerprint: str,
    seeds: Sequence[int],
    overall: Sequence[Mapping[str, Any]],
    kinds: Sequence[Mapping[str, Mapping[str, Any]]],
) -> Seeds:
    """From the figures of each run, of all questions and of each kind, to their spread."""
    by_kind = {kind: _spreads([run.get(kind, {}) for run in kinds]) for kind in sorted(kinds[0])}
    return Seeds(fingerprint=fingerprint, seeds=list(seeds), all=_spreads(overall), kinds=by_kind)


def read_seeds(path: Path = SEEDS_FILE) -> Seeds | None:
    """Read and check what `medtune seeds` wrote; None if it is not there."""
    try:
        return parse_seeds(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _not_ours(str(path), str(error)) from None


def parse_seeds(text: str, name: str) -> Seeds:
    """Check the text of such a file, as of another revision; `name` is only named in errors."""
    try:
        return Seeds.model_validate_json(text)
    except ValidationError as invalid:
        error = invalid.errors()[0]
        place = ".".join(map(str, error["loc"]))
        raise _not_ours(name, f"{place} {plain_words(error['msg'])}".strip()) from None


def _not_ours(name: str, detail: str) -> MedtuneError:
    return MedtuneError(
        f"{name}: not what `medtune seeds` wrote ({detail}); run it again or take the file out"
    )


def _spreads(runs: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    """Of every figure that all runs have; neither the ends of intervals nor words."""
    names = [name for name in runs[0] if not name.endswith(ENDS)]
    return {
        name: Spread.of([float(run[name]) for run in runs])
        for name in names
        if all(_is_number(run.get(name)) for run in runs)
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": mean(values),
        "standard_deviation": _standard_deviation(values),
        "low": min(values),
        "high": max(values),
    }


def _standard_deviation(values: Sequence[float]) -> float:
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))
