"""What so many questions can show: as often as is said, and as an evaluation says afterwards."""

import json
from pathlib import Path

import numpy as np
import pytest

from medtune.commands.power import ASSUMED, Sides, describe_power, smallest_difference
from medtune.evaluate.statistics import sign_flip_p, sign_test_p
from tests.conftest import ROOT

DRAWS = 2000


@pytest.mark.parametrize(
    ("questions", "discordance"), [(300, 0.25), (1273, 0.25), (590, 0.43), (100, 0.57), (200, 0.1)]
)
def test_the_difference_is_shown_as_often_as_is_said(questions: int, discordance: float) -> None:
    difference = smallest_difference(questions, discordance)
    assert difference is not None
    generator = np.random.default_rng(7)
    gains = (discordance + difference) / 2
    drawn = generator.multinomial(questions, [gains, discordance - gains, 1 - discordance], size=DRAWS)
    shown = np.mean([sign_test_p(gained, gained + lost) < 0.05 for gained, lost, _ in drawn.tolist()])
    # McNemar's exact test keeps below its level, and so shows a little less than the formula has it.
    assert 0.74 <= shown <= 0.83


def test_groups_that_answer_alike_show_as_much_as_the_design_effect_leaves() -> None:
    """Pairs of questions of which both have the same outcome: twice as many are needed."""
    groups, discordance = 150, 0.25
    difference = smallest_difference(2 * groups / 2, discordance)
    assert difference is not None
    generator = np.random.default_rng(7)
    gains = (discordance + difference) / 2
    outcomes = generator.choice(
        [1.0, -1.0, 0.0], p=[gains, discordance - gains, 1 - discordance], size=(300, groups)
    )
    names = [str(group) for group in range(groups) for _ in range(2)]
    shown = np.mean([sign_flip_p(np.repeat(one, 2).tolist(), names, 7) < 0.05 for one in outcomes])
    assert 0.7 <= shown <= 0.86


def test_a_medical_exam_shows_what_a_tuning_gains_and_a_small_test_does_not() -> None:
    assert smallest_difference(300, ASSUMED) == pytest.approx(0.08, abs=0.002)
    assert smallest_difference(1273, ASSUMED) == pytest.approx(0.04, abs=0.002)
    assert smallest_difference(10, ASSUMED) is None
    assert smallest_difference(1000, 0.0) is None


def test_the_last_evaluation_says_the_same_of_its_own_questions() -> None:
    """It has the questions themselves, and Student's quantiles; a difference that is near zero is alike."""
    one = json.loads((ROOT / "metrics/details.json").read_text())["comparisons"]["lookup"]["all"]["accuracy"]
    if abs(one["difference"]) > 0.03:
        pytest.skip("the two formulas are for a small difference alike")
    sides = Sides.of(one)
    found = smallest_difference(one["n"] / sides.design_effect, sides.discordance)
    assert found == pytest.approx(one["smallest"], rel=0.05)


def test_without_an_evaluation_it_is_said_what_is_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = describe_power({"open": 300})
    assert "assumed, that two sides differ on 25% of the questions: 300 show 8.1 points" in said
    said = describe_power(None)
    assert "not known before `dvc repro prepare`" in said
    assert "300 questions: 8.1 points" in said
