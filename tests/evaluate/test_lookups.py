from itertools import product

import numpy as np
import pytest

from medtune.core.examples import Example
from medtune.evaluate.lookups import LOOKUPS, Relative, look_up
from medtune.evaluate.params import EvaluateParams
from tests.conftest import EARLIER, example

PARAMS = EvaluateParams(seed=1, partial_f1=0.5, choice_rule="sum", near_relative=0.4, set_kinds=["system"])


def said(examples: list[Example], training: list[Example], lookup: str) -> list[str]:
    found = look_up(examples, training, PARAMS).answers[lookup]
    return [found[one.id].text for one in examples if one.id in found]


def asked(*questions: str, **fields: object) -> list[Example]:
    return [example(id=question, question=question, **fields) for question in questions]


def known(*pairs: tuple[str, str], **fields: object) -> list[Example]:
    return [
        example(id=f"t{i}", question=one, answer=answer, **fields) for i, (one, answer) in enumerate(pairs)
    ]


def test_the_most_frequent_answer_is_that_of_the_kind_however_it_is_spelt() -> None:
    training = known(("a", "Eye; ear"), ("b", "ear; eye"), ("c", "skin"), ("d", "skin"), kind="system")[:3]
    training += known(("e", "no"), ("f", "no"), ("g", "no"), kind="yes_no")
    assert said(asked("q", kind="system"), training, "most_frequent") == ["Eye; ear"]
    assert said(asked("q", kind="yes_no"), training, "most_frequent") == ["no"]


def test_of_choices_the_most_frequent_one_is_picked_and_the_first_of_equal_ones() -> None:
    training = known(("a", "maybe"), ("b", "maybe"), ("c", "yes"), kind="closed")
    questions = asked("q", kind="closed", answer="no", choices=["no", "yes"])
    assert said(questions, training, "most_frequent") == ["yes"]
    questions = asked("q", kind="closed", answer="B", choices=["A", "B"])
    assert said(questions, training, "most_frequent") == ["A"]


def test_the_nearest_question_is_that_with_the_most_common_n_grams() -> None:
    training = known(
        ("Is fever common?", "yes"), ("Is a short toe rare?", "no"), ("Is a long toe rare?", "perhaps")
    )
    questions = asked("Is a long TOE, common?", "Is fever rare?")
    assert said(questions, training, "nearest") == ["perhaps", "yes"]
    relatives = look_up(questions, training, PARAMS).relatives
    assert [relative.id for relative in relatives if relative] == ["t2", "t0"]


def grams(text: str) -> set[str]:
    text = f" {text.lower()} "
    return {text[start : start + 4] for start in range(len(text) - 3)}


def test_similarity_is_the_jaccard_index_of_four_characters() -> None:
    questions, training = asked("short distal toe"), known(("short toe", "x"), ("long finger", "y"))
    relative = look_up(questions, training, PARAMS).relatives[0]
    one, other = grams("short distal toe"), grams("short toe")
    assert relative == Relative("t0", "short toe", len(one & other) / len(one | other))


def test_the_wording_that_all_questions_share_makes_none_a_relative() -> None:
    words = [f"{a}{b}{c}{d}" for a, b, c, d in product("bdf", "aei", "lmn", "ou")]
    training = known(*((f"Which organ systems does {word} affect?", "eye") for word in words))
    questions = asked("Which organ systems does zzzzz affect?", "Which organ systems does balo affect?")
    far, near = (
        relative.similarity if relative else None
        for relative in look_up(questions, training, PARAMS).relatives
    )
    assert far == 0
    assert near == 1


def test_a_question_that_stands_in_training_has_a_relative_however_few_there_are() -> None:
    relative = look_up(asked("Is it so?"), known(("Is it so?", "yes")), PARAMS).relatives[0]
    assert relative is not None
    assert relative.similarity == 1


def test_for_choices_the_nearest_question_is_one_answered_with_a_choice() -> None:
    training = known(("a long toe", "no"), ("a long finger", "yes"), kind="closed")
    questions = asked("a long toe", kind="closed", answer="yes", choices=["maybe", "yes"])
    assert said(questions, training, "nearest") == ["yes"]
    questions = asked("a long toe", kind="closed", answer="A", choices=["A", "B"])
    assert said(questions, training, "nearest") == [""]


def test_the_choice_that_stands_in_the_question_is_picked_by_overlap() -> None:
    questions = asked("An eye that is red.", kind="closed", answer="Ear", choices=["Ear", "Red eye"])
    assert said(questions, known(("x", "y")), "overlap") == ["Red eye"]
    assert said(asked("An eye that is red."), known(("x", "y")), "overlap") == []


def test_a_kind_without_training_questions_has_no_lookup_and_no_relative() -> None:
    found = look_up(asked("q", kind="other"), known(("q", "yes")), PARAMS)
    assert found.relatives == [None]
    assert [dict(found.answers[lookup]) for lookup in LOOKUPS] == [{}, {}, {}]


def test_the_context_counts_for_the_nearest_question() -> None:
    training = [
        *known(("Was it effective?", "no"), context="Aspirin in migraine."),
        example(id="t9", question="Was it effective?", answer="yes", context="Insulin in diabetes."),
    ]
    assert said(asked("Was it effective?", context="Insulin in rare diabetes."), training, "nearest") == [
        "yes"
    ]


def test_earlier_turns_count_for_the_nearest_question() -> None:
    other = [{"role": "user", "content": "Insulin in diabetes?"}, {"role": "assistant", "content": "Works."}]
    training = [
        *known(("And in children?", "no"), messages=EARLIER),
        example(id="t9", question="And in children?", answer="yes", messages=other),
    ]
    asks = asked("And in children?", messages=other)
    assert said(asks, training, "nearest") == ["yes"]


@pytest.mark.parametrize("rows", [1, 7])
def test_how_many_are_compared_at_once_makes_no_difference(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(1)
    texts = ["".join(generator.choice(list("abcd "), 30)) for _ in range(60)]
    training = known(*((text, str(number)) for number, text in enumerate(texts[:40])))
    expected = look_up(asked(*texts[40:]), training, PARAMS)
    monkeypatch.setattr("medtune.evaluate.lookups.ROWS", rows)
    assert look_up(asked(*texts[40:]), training, PARAMS) == expected
