import pytest

from medtune.core.answers import AnswerText
from medtune.core.errors import MedtuneError
from medtune.evaluate.alignment import align
from medtune.evaluate.prediction_files import KIND, Given
from tests.conftest import EARLIER, example

NAMES = ("A", "B")


def given(name: str, **fields: object) -> Given:
    return Given(example(id=name, **fields), AnswerText(text="x", tokens=0, truncated=False))


def test_questions_are_paired_by_id_in_whatever_order_they_come() -> None:
    found = align([given("1"), given("2")], [given("2"), given("1")], NAMES, common=False)
    assert [one.example.id for one in found.before] == [one.example.id for one in found.after] == ["1", "2"]
    assert found.left_out == 0


def test_the_order_of_choices_makes_no_other_question() -> None:
    ours = given("1", choices=["a", "b"], answer="a")
    theirs = given("1", choices=["b", "a"], answer="a")
    found = align([ours], [theirs], NAMES, common=False)
    assert found.after[0].example.choices == ["b", "a"]


@pytest.mark.parametrize(
    "fields",
    [
        {"question": "What is a cold?"},
        {"answer": "other"},
        {"kind": "other"},
        {"choices": ["a", "b"], "answer": "a"},
        {"messages": [{"role": "user", "content": "Other?"}, {"role": "assistant", "content": "Yes."}]},
    ],
)
def test_one_id_with_another_question_is_not_one_question(fields: dict[str, object]) -> None:
    asked = {"messages": EARLIER} if "messages" in fields else {}
    ours, theirs = [given("1", **asked), given("2")], [given("1", **fields), given("2")]
    with pytest.raises(
        MedtuneError,
        match=r"1 of one id that differ in question, .*--common compares the 1 that",
    ):
        align(ours, theirs, NAMES, common=False)
    found = align(ours, theirs, NAMES, common=True)
    assert ([one.example.id for one in found.before], found.differing, found.left_out) == (["2"], 1, 1)


def test_other_test_sets_are_refused_unless_the_common_questions_are_asked_for() -> None:
    ours, theirs = [given("1"), given("2"), given("3")], [given("2"), given("4")]
    with pytest.raises(
        MedtuneError, match=r"A and B answer different test questions: 2 only in A, 1 only in B; --"
    ):
        align(ours, theirs, NAMES, common=False)
    assert align(ours, theirs, NAMES, common=True).only == (2, 1)


@pytest.mark.parametrize("common", [False, True])
def test_nothing_in_common_is_nothing_to_compare(common: bool) -> None:
    with pytest.raises(MedtuneError, match="A and B have no question in common"):
        align([given("1")], [given("2")], NAMES, common=common)


def test_what_either_side_takes_for_one_fact_is_one_group() -> None:
    ours = [given("1", group="a"), given("2", group="a"), given("3", group="b"), given("4", group="c")]
    theirs = [given("1", group="x"), given("2", group="y"), given("3", group="y"), given("4", group="a")]
    found = align(ours, theirs, NAMES, common=False)
    groups = [one.example.group for one in found.before]
    assert groups[0] == groups[1] == groups[2] != groups[3]
    assert groups == [one.example.group for one in found.after]


def test_a_file_need_not_repeat_what_the_other_side_knows() -> None:
    ours = given(
        "1", kind="closed", context="Given.", messages=EARLIER, choices=["a", "b"], answer="a", group="g"
    )
    asked = ours.example.question
    for theirs in (
        given("1", kind=KIND, answer="a", group="1"),
        given("1", kind=KIND, question="1", answer="a", group="1"),
        given(asked, kind=KIND, question=asked, answer="a", group=asked),
    ):
        for sides in ((ours, theirs), (theirs, ours)):
            found = align([sides[0]], [sides[1]], NAMES, common=False)
            for [one] in (found.before, found.after):
                example = one.example
                assert (example.id, example.kind, example.context) == ("1", "closed", "Given.")
                assert (example.question, example.choices) == (asked, ["a", "b"])
                assert example.messages == ours.example.messages


def test_words_that_stand_there_twice_name_no_question() -> None:
    ours, asked = [given("1"), given("2")], given("1").example.question
    with pytest.raises(MedtuneError, match="no question in common"):
        align(ours, [given(asked, question=asked)], NAMES, common=True)


def test_likelihoods_keep_the_order_of_their_side() -> None:
    one = given("1", choices=["a", "b"], answer="a")
    other = given("1", choices=["b", "a"], answer="a")
    found = align([one], [other], NAMES, common=False)
    assert (found.before[0].example.choices, found.after[0].example.choices) == (["a", "b"], ["b", "a"])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [({"context": "Given."}, {"context": "Other."}), ({"answers": ["more"]}, {"answers": ["less"]})],
)
def test_what_both_sides_know_has_to_agree(ours: dict[str, object], theirs: dict[str, object]) -> None:
    with pytest.raises(MedtuneError, match="1 of one id that differ in question, right answer, kind"):
        align([given("1", **ours)], [given("1", **theirs)], NAMES, common=True)
