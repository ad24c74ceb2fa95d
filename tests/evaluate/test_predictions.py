import pytest

from medtune.core.answers import AnswerText
from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.evaluate.figures import figures
from medtune.evaluate.lookups import Relative
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.predictions import judge, require_known_kinds
from medtune.evaluate.results import results
from tests.conftest import example

PARAMS = EvaluateParams(seed=1, partial_f1=0.5, choice_rule="sum", near_relative=0.4, set_kinds=[])


def said(text: str, likelihoods: list[float] | None = None) -> AnswerText:
    return AnswerText(text=text, tokens=1, truncated=False, log_likelihoods=likelihoods)


def closed(*choices: str, answer: str, **fields: object) -> Example:
    return example(choices=list(choices), answer=answer, **fields)


def test_an_unknown_set_kind_is_refused() -> None:
    params = PARAMS.model_copy(update={"set_kinds": ["organ_systems"]})
    with pytest.raises(MedtuneError, match=r"evaluate.set_kinds has 'organ_systems', .* 'organ_system'\?"):
        require_known_kinds([example(kind="organ_system")], params)


def test_of_several_right_answers_the_closest_counts() -> None:
    asked = example(answer="Spider fingers", answers=["Arachnodactyly", "long thin fingers"])
    texts = ("arachnodactyly", "spider fingers", "thin fingers", "eye")
    verdicts = [judge([asked], {asked.id: said(text)}, PARAMS)[0].score.match_type for text in texts]
    assert verdicts == ["exact", "exact", "partial", "incorrect"]


def test_the_rule_decides_which_choice_counts_and_both_are_reported() -> None:
    asked = closed("flu", "pneumonia of the lung", answer="pneumonia of the lung")
    given = {asked.id: said("flu", [-3.0, -9.0])}
    for rule, text, verdict in (("sum", "flu", "incorrect"), ("per_character", asked.answer, "exact")):
        params = PARAMS.model_copy(update={"choice_rule": rule})
        picked = judge([asked], given, params)
        assert (picked[0].answer.text, picked[0].score.match_type) == (text, verdict)
        found = figures(picked, params)
        assert (found["accuracy_sum"], found["accuracy_per_character"]) == (0, 1)


@pytest.mark.parametrize("likelihoods", [None, [-1.0, -2.0]])
def test_a_choice_is_never_partly_right_and_has_no_token_f1(likelihoods: list[float] | None) -> None:
    asked = closed("no evidence of O+", "no evidence of O-", answer="no evidence of O-")
    picked = judge([asked], {asked.id: said("no evidence of O+", likelihoods)}, PARAMS)
    assert picked[0].score.match_type == "incorrect"
    assert not [name for name in figures(picked, PARAMS) if "f1" in name or "chrf" in name]
    assert "token_f1" not in results(picked, [0])["results"][0]


def test_only_what_is_answered_is_judged_where_a_lookup_answers_some() -> None:
    examples = [example(id=name, kind="other") for name in "abc"]
    found = judge(examples, {"b": said("eye")}, PARAMS)
    assert [one.example.id for one in found] == ["b"]


def test_every_prediction_stands_beside_its_reference() -> None:
    params = PARAMS.model_copy(update={"set_kinds": ["organ_system"]})
    asked = example(id="one", kind="organ_system", answer="eye; ear", group="group 0")
    other = closed("A", "B", answer="B", id="two", group="group 1", context="Given.", kind="letter")
    given = {"one": said("ear"), "two": said("A", [-1.0, -3.0])}
    predictions = judge([asked, other], given, params)
    content = results(predictions, [4, 5], [Relative("t", "What is a fever?", 0.75), None])
    assert content["selected_indices"] == [4, 5]
    assert [content[name] for name in ("accuracy", "exact_matches", "partial_matches", "incorrect")] == [
        0,
        0,
        1,
        1,
    ]
    assert content["results"] == [
        {
            "id": "one",
            "kind": "organ_system",
            "group": "group 0",
            "question": "What is fever?",
            "ground_truth": "eye; ear",
            "prediction": "ear",
            "correct": False,
            "match_type": "partial",
            "token_f1": pytest.approx(2 / 3),
            "truncated": False,
            "nearest": {"id": "t", "similarity": 0.75},
        },
        {
            "id": "two",
            "kind": "letter",
            "group": "group 1",
            "context": "Given.",
            "question": "What is fever?",
            "choices": ["A", "B"],
            "ground_truth": "B",
            "prediction": "A",
            "correct": False,
            "match_type": "incorrect",
            "truncated": False,
            "log_likelihoods": {"A": -1.0, "B": -3.0},
        },
    ]


def test_what_the_unquantised_base_says_stands_beside() -> None:
    asked = example(id="one")
    one, other = (judge([asked], {"one": said(text)}, PARAMS) for text in ("eye", "toe"))
    row = results(one, [0], None, other)["results"][0]
    assert row["unquantized"] == {"prediction": "toe", "truncated": False}
