"""How far figures scatter between seeds: the band, and the file that holds the values."""

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtune.core.errors import MedtuneError
from medtune.core.outputs import write_json
from medtune.evaluate.seeds import (
    Seeds,
    collect_seeds,
    noise_band,
    read_seeds,
    seeds_fingerprint,
    trained_seed,
)

FINGERPRINT = "0f" * 32


def found() -> Seeds:
    overall = [
        {
            "accuracy": share,
            "gain": share - 0.1,
            "gain_low": 0.0,
            "gain_high": 1.0,
            "verdict": "up",
        }
        for share in (0.5, 0.25, 0.75)
    ]
    kinds = [{"yes/no": {"accuracy": 0.5, "accuracy_low": 0.1}, "all": {"accuracy": i / 4}} for i in range(3)]
    return collect_seeds(FINGERPRINT, [7, 8, 9], overall, kinds)


@pytest.mark.parametrize(
    ("values", "confidence", "quantile"),
    [
        ([0.4, 0.6], 0.95, 12.7062),
        ([0.1, 0.2, 0.4], 0.95, 4.3027),
        ([0.5, 0.52, 0.48, 0.51, 0.5], 0.95, 2.7764),
        ([0.5, 0.52, 0.48, 0.51, 0.5], 0.99, 4.6041),
    ],
)
def test_the_band_is_students_quantile_for_a_difference(
    values: list[float], confidence: float, quantile: float
) -> None:
    """Quantiles as in printed tables of Student's t."""
    expected = quantile * statistics.stdev(values) * math.sqrt(2)
    assert noise_band(values, confidence) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_of_two_further_runs_as_many_lie_within_the_band_as_it_says(n: int) -> None:
    generator = np.random.default_rng(0)
    draws = generator.normal(0.5, 0.02, size=(4000, n + 2))
    within = [abs(one - other) <= (noise_band(runs) or 0) for *runs, one, other in draws.tolist()]
    assert statistics.mean(within) == pytest.approx(0.95, abs=0.012)


def test_equal_values_claim_no_band_of_zero() -> None:
    assert noise_band([0.22] * 5) is None


@pytest.mark.parametrize("values", [[], [0.5]])
def test_one_run_has_no_spread(values: list[float]) -> None:
    with pytest.raises(MedtuneError, match=f"at least 2 runs, not {len(values)}"):
        noise_band(values)


def test_of_every_figure_that_a_seed_can_touch_the_values_are_kept() -> None:
    seeds = found()
    assert list(seeds.all) == ["accuracy", "gain"]
    spread = seeds.all["accuracy"]
    assert (spread.values, spread.mean, spread.low, spread.high) == ([0.5, 0.25, 0.75], 0.5, 0.25, 0.75)
    assert spread.standard_deviation == 0.25
    assert {kind: list(figures) for kind, figures in seeds.kinds.items()} == {
        "all": ["accuracy"],
        "yes/no": ["accuracy"],
    }


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "seeds.json"
    assert read_seeds(path) is None
    write_json(path, found().model_dump())
    assert read_seeds(path) == found()


def set_mean(content: dict[str, Any]) -> None:
    content["all"]["gain"]["mean"] = 0.9


def drop_value(content: dict[str, Any]) -> None:
    content["kinds"]["all"]["accuracy"] = {
        "values": [0.0, 0.5],
        "mean": 0.25,
        "standard_deviation": math.sqrt(0.125),
        "low": 0.0,
        "high": 0.5,
    }


def repeat_seed(content: dict[str, Any]) -> None:
    content["seeds"] = [7, 8, 8]


def take_out(content: dict[str, Any]) -> None:
    del content["fingerprint"]


def put_words(content: dict[str, Any]) -> None:
    content["all"]["gain"]["low"] = "0.1"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (set_mean, r"all\.gain has another mean than its values"),
        (drop_value, "has 2 values of accuracy for 3 seeds"),
        (repeat_seed, "has a seed twice"),
        (take_out, "fingerprint is missing"),
        (put_words, r"all\.gain\.low must be a valid number"),
    ],
)
def test_an_edited_file_is_an_error_that_says_where(
    edit: Callable[[dict[str, Any]], None], expected: str, tmp_path: Path
) -> None:
    content = found().model_dump()
    edit(content)
    write_json(tmp_path / "seeds.json", content)
    with pytest.raises(MedtuneError, match=rf"seeds\.json: not what `medtune seeds` wrote \({expected}"):
        read_seeds(tmp_path / "seeds.json")


@pytest.mark.parametrize("whole", [json.dumps(found().model_dump())])
def test_a_file_cut_short_is_an_error(whole: str, tmp_path: Path) -> None:
    for content in (whole[: len(whole) // 2].encode(), b"", b"\xff\xfe"):
        (tmp_path / "seeds.json").write_bytes(content)
        with pytest.raises(MedtuneError, match=r"seeds\.json: not what `medtune seeds` wrote"):
            read_seeds(tmp_path / "seeds.json")


def stages() -> dict[str, Any]:
    """As in `dvc.lock`."""
    finetune = {"seed": 7, "lora": {"r": 8}}
    return {
        "code": {
            "params": {"params.yaml": {"finetune": finetune}},
            "deps": [{"path": "medtune", "md5": "1.dir"}],
        },
        "finetune": {
            "params": {"params.yaml": {"finetune": finetune, "model": {"source": "./base"}}},
            "deps": [
                {"path": "data/prepared/train.jsonl", "md5": "2"},
                {"path": "digests/finetune.json", "md5": "3"},
                {"path": "configs/accelerate/single.yaml", "md5": "4"},
            ],
        },
        "evaluate": {"deps": [{"path": "models/adapter/adapter_config.json", "md5": "5"}]},
    }


def change(found: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    *parents, last = path.split("/")
    place: Any = found
    for parent in parents:
        place = place[int(parent) if isinstance(place, list) else parent]
    place[last] = value
    return found


@pytest.mark.parametrize(
    ("path", "value", "is_another"),
    [
        ("finetune/params/params.yaml/finetune/seed", 8, False),
        ("code/deps/0/md5", "a comment", False),
        ("evaluate/deps/0/md5", "what a seed made", False),
        ("finetune/params/params.yaml/finetune/lora", {"r": 16}, True),
        ("finetune/params/params.yaml/model/source", "./other", True),
        ("finetune/deps/0/md5", "other questions", True),
        ("finetune/deps/1/md5", "other code", True),
        ("finetune/deps/2/md5", "another launch file", True),
    ],
)
def test_the_fingerprint_names_all_that_decides_a_run_but_its_seed(
    path: str, value: object, is_another: bool
) -> None:
    changed = change(stages(), path, value)
    assert (seeds_fingerprint(changed) != seeds_fingerprint(stages())) == is_another


def test_the_seed_is_that_of_the_training() -> None:
    assert trained_seed(stages()) == 7
