"""Picks by either rule, and figures about a model's odds, against values by hand."""

import math

import pytest

from medtune.evaluate.choices import Ballot, calibration_error, choice_figures, pick


def test_a_long_choice_is_less_likely_as_a_whole_and_may_be_more_so_per_character() -> None:
    choices, log_likelihoods = ["flu", "community-acquired pneumonia"], [-3.0, -9.0]
    assert pick(choices, log_likelihoods, "sum") == 0
    assert pick(choices, log_likelihoods, "per_character") == 1
    assert pick(["a", "b"], [-1.0, -1.0], "sum") == 0


def test_figures_are_those_by_hand() -> None:
    found = choice_figures(
        [
            Ballot(["a", "b"], [math.log(0.9), math.log(0.1)], right=0),
            Ballot(["a", "b"], [math.log(0.4), math.log(0.6)], right=0),
            Ballot(["aa", "b"], [-1.2, -1.0], right=0),
        ]
    )
    assert found["choices"] == 3
    assert found["chance"] == 0.5
    assert found["accuracy_sum"] == pytest.approx(1 / 3)
    assert found["accuracy_per_character"] == pytest.approx(2 / 3)
    third = 1 / (1 + math.exp(0.2))
    by_hand = [0.1**2 + 0.1**2, 0.6**2 + 0.6**2, (1 - third) ** 2 * 2]
    assert found["brier"] == pytest.approx(sum(by_hand) / 3)
    assert found["calibration_error"] == pytest.approx((0.1 + abs(0 - 0.6) + abs(0 - (1 - third))) / 3)
    assert found["right_positions"] == [3]
    assert found["picked_positions"] == [1, 2]


def test_one_who_is_as_often_right_as_said_is_calibrated() -> None:
    assert calibration_error([0.75] * 4, [1, 1, 1, 0]) == pytest.approx(0)
    assert calibration_error([1.0] * 4, [1, 1, 0, 0]) == pytest.approx(0.5)
    assert calibration_error([0.55, 0.95], [1, 0]) == pytest.approx((0.45 + 0.95) / 2)
