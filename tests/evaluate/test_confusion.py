import pytest
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from medtune.core.answers import AnswerText
from medtune.evaluate.confusion import by_answer, by_member
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.predictions import Prediction, predict
from tests.conftest import example

PARAMS = EvaluateParams(seed=1, partial_f1=0.5, choice_rule="sum", near_relative=0.4, set_kinds=["system"])


def judged(pairs: list[tuple[str, str]], **fields: object) -> list[Prediction]:
    """Predictions from pairs of the right answer and what was said."""
    return [
        predict(
            example(id=str(number), answer=right, **fields),
            AnswerText(text=text, tokens=1, truncated=False),
            PARAMS,
        )
        for number, (right, text) in enumerate(pairs)
    ]


RIGHT = ["yes"] * 13 + ["no"] * 8 + ["maybe"] * 3
SAID = ["yes"] * 11 + ["no", "perhaps"] + ["yes"] * 7 + ["no"] + ["yes", "yes", "maybe"]


def test_a_model_that_says_yes_to_everything_is_seen_to_and_scikit_learn_agrees() -> None:
    found = by_answer(judged(list(zip(RIGHT, SAID, strict=True))))
    assert found is not None
    labels = ["maybe", "no", "yes"]
    assert found["labels"] == labels
    table = confusion_matrix(RIGHT, SAID, labels=[*labels, "perhaps"])
    assert found["confusion"] == table[:3].tolist()
    assert found["recall"] == pytest.approx(recall_score(RIGHT, SAID, labels=labels, average=None))
    assert found["macro_f1"] == pytest.approx(f1_score(RIGHT, SAID, labels=labels, average="macro"))
    assert found["most_frequent"] == 13 / 24


def test_spelling_makes_no_other_answer_and_a_synonym_counts_as_the_answer() -> None:
    found = by_answer(
        judged([("Yes", "yes."), ("yes", "YES"), ("no", "No"), ("no", "nope")], answers=["nope"])
    )
    assert found is not None
    assert (found["labels"], found["confusion"]) == (["Yes", "no"], [[2, 0, 0], [0, 2, 0]])


def test_many_answers_and_a_single_one_have_no_confusion() -> None:
    assert by_answer(judged([(f"term {number}", "x") for number in range(5)])) is None
    assert by_answer(judged([(f"term {number // 2}", "x") for number in range(22)])) is None
    assert by_answer(judged([("yes", "yes")] * 5)) is None


def test_of_sets_a_member_that_is_missed_stands_beside_what_was_named_instead() -> None:
    found = by_member(judged([("eye; ear", "ear; skin"), ("skin", "nothing"), ("eye", "EYE")], kind="system"))
    assert found is not None
    assert found["labels"] == ["ear", "eye", "skin"]
    assert found["confusion"] == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert found["recall"] == [1, 0.5, 0]
    # Named twice each, right twice each but skin: 2/(1+1), 2/(2+1), 0.
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
