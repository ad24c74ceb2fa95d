import math
from typing import get_args

import pytest

from medtune.core.answers import AnswerText
from medtune.evaluate.comparison import METRICS, compare
from medtune.evaluate.params import EvaluateParams, MetricName
from medtune.evaluate.predictions import Prediction, predict
from tests.conftest import example

PARAMS = EvaluateParams(seed=1, partial_f1=0.5, choice_rule="sum", near_relative=0.4, set_kinds=[])


def judged(right: list[bool], kind: str = "term", per_group: int = 1) -> list[Prediction]:
    return [
        predict(
            example(id=f"{kind}{number}", kind=kind, answer="eye", group=f"{kind}{number // per_group}"),
            AnswerText(text="eye" if hit else "toe", tokens=1, truncated=False),
            PARAMS,
        )
        for number, hit in enumerate(right)
    ]


def accuracy(before: list[Prediction], after: list[Prediction], kind: str | None = None) -> dict[str, object]:
    found = compare(before, after, seed=1)
    return found["all"]["accuracy"] if kind is None else found["kinds"][kind]["accuracy"]


def test_a_gain_is_better_a_loss_worse_and_the_two_mirror_each_other() -> None:
    before, after = judged([False] * 60), judged([True] * 20 + [False] * 40)
    gain, loss = accuracy(before, after), accuracy(after, before)
    assert (gain["verdict"], loss["verdict"]) == ("better", "worse")
    assert (gain["gained"], gain["lost"], loss["gained"], loss["lost"]) == (20, 0, 0, 20)
    assert gain["difference"] == -loss["difference"] == pytest.approx(1 / 3)  # type: ignore[operator]
    assert gain["mcnemar_p"] == gain["p_value"] == pytest.approx(2 / 2**20)


def test_equal_sides_and_small_changes_are_not_shown() -> None:
    before = judged([True, False] * 30)
    same = accuracy(before, before)
    assert (same["verdict"], same["p_value"], same["difference"]) == ("not shown", 1, 0)
    assert same["low"] < 0 < same["high"]  # type: ignore[operator]
    little = accuracy(before, judged([True, True] + [True, False] * 29))
    assert little["verdict"] == "not shown"
    assert little["smallest"] is not None


def test_what_is_certain_for_single_questions_is_chance_for_a_few_groups_of_them() -> None:
    before, after = [False] * 60, [True] * 20 + [False] * 40
    alone = accuracy(judged(before), judged(after))
    grouped = accuracy(judged(before, per_group=10), judged(after, per_group=10))
    assert (alone["verdict"], grouped["verdict"]) == ("better", "not shown")
    assert (grouped["groups"], grouped["mcnemar_p"]) == (6, alone["mcnemar_p"])


def test_of_many_kinds_one_has_to_convince_the_more() -> None:
    gain = [True] * 7 + [False] * 53
    alone = accuracy(judged([False] * 60), judged(gain), "term")
    assert alone["verdict"] == "better"
    before, after = judged([False] * 60), judged(gain)
    for kind in "abcd":
        before += judged([False] * 60, kind)
        after += judged([False] * 60, kind)
    among = accuracy(before, after, "term")
    assert among["p_value"] == alone["p_value"]
    assert among["p_adjusted"] == pytest.approx(5 * 2 / 2**7)
    assert among["verdict"] == "not shown"


def test_one_question_and_one_group_give_a_verdict_without_a_bare_number() -> None:
    for before, after in (
        (judged([False]), judged([True])),
        (judged([False] * 9, per_group=9), judged([True] * 9, per_group=9)),
    ):
        found = accuracy(before, after)
        assert (found["verdict"], found["smallest"], found["p_value"]) == ("not shown", None, 1)
        assert all(math.isfinite(found[name]) for name in ("low", "high", "difference"))  # type: ignore[arg-type]


def closed(odds: list[float]) -> list[Prediction]:
    """Questions with two choices, the first one right and of such probability."""
    return [
        predict(
            example(id=str(number), answer="a", choices=["a", "b"], group=str(number)),
            AnswerText(text="a", tokens=1, truncated=False, log_likelihoods=[math.log(p), math.log(1 - p)]),
            PARAMS,
        )
        for number, p in enumerate(odds)
    ]


def test_of_the_brier_score_less_is_better_and_choices_have_no_token_f1() -> None:
    found = compare(closed([0.6, 0.7, 0.65] * 10), closed([0.8, 0.9, 0.85] * 10), seed=1)["all"]
    assert set(found) == {"accuracy", "brier"}
    assert found["brier"]["difference"] < 0
    assert found["brier"]["verdict"] == "better"
    assert found["accuracy"]["verdict"] == "not shown"
    assert found["brier"]["gained"] is None


def test_a_loss_can_be_tolerated_of_every_metric_that_is_compared() -> None:
    assert [metric.name for metric in METRICS] == list(get_args(MetricName))
