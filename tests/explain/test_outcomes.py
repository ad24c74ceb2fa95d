"""The same, within rounding, or truly: how two outcomes of a few steps are told apart."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from medtune.explain.outcomes import CEILING, FLOOR, Outcome, bounds_of, judge, sizes, worst

ROW = {"text": "fever", "tokens": 2, "log_likelihoods": [-1.0, -2.0]}


def outcome(**changes: object) -> Outcome:
    fields: dict[str, object] = {
        "questions": {"train.jsonl": "a"},
        "losses": [2.0, 1.5],
        "norms": [1.0, 1.0],
        "answers": {"answers-base.json": {"1": ROW}},
        "figures": {"all": {"n": 1, "accuracy": 1.0}},
    }
    return Outcome(**(fields | changes))  # type: ignore[arg-type]


def test_equal_outcomes_are_the_same_in_every_part() -> None:
    verdicts = judge(sizes(outcome(), outcome()), None)
    assert verdicts == dict.fromkeys(("training", "answers", "figures"), "same")


def test_the_last_bit_of_a_loss_is_a_difference() -> None:
    found = sizes(outcome(), outcome(losses=[2.0, float(np.nextafter(1.5, 2))]))
    assert judge(found, None)["training"] == "truly"
    assert judge(found, {"loss": FLOOR})["training"] == "within rounding"


def test_a_difference_beyond_the_bound_is_no_rounding() -> None:
    found = sizes(outcome(), outcome(losses=[2.0, 1.5001]))
    assert judge(found, {"loss": 1e-5})["training"] == "truly"


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("answers", {"answers": {"answers-base.json": {"1": ROW | {"text": "cold"}}}}),
        ("answers", {"answers": {"answers-base.json": {"2": ROW}}}),
        ("questions", {"questions": {"train.jsonl": "b"}}),
        ("training", {"losses": [2.0]}),
        ("training", {"losses": [2.0, float("nan")]}),
    ],
    ids=["another text", "another question", "another file", "fewer steps", "no number"],
)
def test_what_has_no_size_is_never_rounding(part: str, changes: dict[str, object]) -> None:
    bounds = dict.fromkeys(("loss", "gradient norm", "log-likelihood", "figure"), 1.0)
    assert judge(sizes(outcome(), outcome(**changes)), bounds)[part] == "truly"


def test_only_what_both_have_made_is_compared() -> None:
    found = sizes(outcome(), outcome(answers={}, figures={}, failed="answer-base: no"))
    assert set(judge(found, None)) == {"training"}


def test_no_bound_is_wider_than_its_ceiling_but_that_of_the_adapter() -> None:
    wide = sizes(outcome(), outcome(losses=[3.0, 1.0]))
    assert bounds_of(wide)["loss"] == CEILING
    assert bounds_of(sizes(outcome(), outcome()))["loss"] == FLOOR


def test_an_adapter_is_measured_by_what_it_learned(tmp_path: Path) -> None:
    """The random matrices A are larger by far, and would hide that B has doubled."""
    random, learned = np.full((4, 4), 100, np.float32), np.full((4, 4), 1, np.float32)
    for name, b in (("one", learned), ("other", 2 * learned)):
        save_file({"x.lora_A.weight": random, "x.lora_B.weight": b}, tmp_path / name)
    found = sizes(outcome(weights=tmp_path / "one"), outcome(weights=tmp_path / "other"))
    assert found.numbers["adapter"] == pytest.approx(1.0)
    save_file({"x.lora_A.weight": random, "x.lora_B.weight": learned[:2]}, tmp_path / "small")
    found = sizes(outcome(weights=tmp_path / "one"), outcome(weights=tmp_path / "small"))
    assert judge(found, {"adapter": 9.0})["training"] == "truly"


def test_the_worst_part_is_the_verdict() -> None:
    assert worst(["same", "truly", "within rounding"]) == "truly"
    assert worst([]) == "same"
