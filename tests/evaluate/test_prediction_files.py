import json

import pytest

from medtune.core.answers import AnswerText
from medtune.core.errors import MedtuneError
from medtune.evaluate import prediction_files
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.prediction_files import KIND, Given, read_results
from medtune.evaluate.predictions import judge
from medtune.evaluate.results import results
from tests.conftest import EARLIER, example

CHOICES = {"choices": ["yes", "no"]}
ROW = {"id": "1", "question": "Is fever a symptom?", "ground_truth": "yes", "prediction": "Yes."}


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def without(*fields: str) -> dict[str, object]:
    return {name: value for name, value in ROW.items() if name not in fields}


def test_a_line_needs_no_more_than_a_question_an_answer_and_a_prediction() -> None:
    [(asked, answer, _)] = read_results(lines(without("id")), "mine.jsonl")
    assert (asked.id, asked.question) == ("Is fever a symptom?",) * 2
    assert (asked.answer, asked.kind, asked.group) == ("yes", KIND, asked.id)
    assert answer.text == "Yes."


def test_an_id_may_stand_for_the_question_and_answers_for_the_ground_truth() -> None:
    row = {
        "id": 7,
        "answers": ["yes", "indeed"],
        "prediction": "",
        "group": 3,
        "kind": "closed",
        "model": "x",
    }
    [(asked, _, _)] = read_results(lines(row), "mine.jsonl")
    assert (asked.id, asked.question, asked.group, asked.kind) == ("7", "7", "3", "closed")
    assert asked.right_answers == ["yes", "indeed"]
    [(asked, _, _)] = read_results(lines(ROW | {"answers": ["yes", "sure"]}), "mine.jsonl")
    assert asked.right_answers == ["yes", "sure"]


def test_an_optional_field_may_be_null() -> None:
    optional = [name for name in prediction_files._Row.model_fields if name not in ROW]
    assert {"kind", "group", "choices", "truncated"} <= set(optional)
    nothing = dict.fromkeys(optional)
    assert read_results(lines(ROW | nothing), "mine.jsonl") == read_results(lines(ROW), "mine.jsonl")
    both = {"id": None, "answers": ["yes"], "ground_truth": None}
    assert read_results(lines(ROW | both), "mine.jsonl")[0].example.answer == "yes"


@pytest.mark.parametrize("said", ["yes", "no"])
def test_of_equally_likely_choices_any_may_be_the_prediction(said: str) -> None:
    # Of unequal lengths they are equally likely as they stand, and not per character.
    row = ROW | {"choices": ["yes", "no", "or"], "log_likelihoods": [-1.0, -1.0, -9.0], "prediction": said}
    assert read_results(lines(row), "mine.jsonl")[0].answer.text == said
    with pytest.raises(MedtuneError, match="line 1: `prediction` is not the likeliest choice, nor one that"):
        read_results(lines(row | {"prediction": "or"}), "mine.jsonl")


@pytest.mark.parametrize("odds", [[-1.0, -2.0], {"no": -2.0, "yes": -1.0}])
def test_likelihoods_stand_in_the_order_of_the_choices_or_by_name(odds: object) -> None:
    row = ROW | {"choices": ["yes", "no"], "prediction": "yes", "log_likelihoods": odds}
    assert read_results(lines(row), "mine.jsonl")[0][1].log_likelihoods == [-1.0, -2.0]


def test_what_evaluate_writes_is_read_as_it_was_judged() -> None:
    params = EvaluateParams(seed=1, partial_f1=0.5, choice_rule="sum", near_relative=0.4, set_kinds=[])
    examples = [
        example(id="a", answers=["other"], context="Given.", messages=EARLIER),
        example(id="b", choices=["A", "B"], answer="B", kind="closed"),
    ]
    answers = {
        "a": AnswerText(text="x", tokens=0, truncated=True),
        "b": AnswerText(text="A", tokens=0, truncated=False, log_likelihoods=[-1.0, -3.0]),
    }
    text = json.dumps(results(judge(examples, answers, params), [0, 1]))
    assert read_results(text, "metrics/evaluation_results.json") == [
        Given(one, answers[one.id], picks=True) for one in examples
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no prediction"),
        ("[1]\n", "line 1: expected a JSON object with prediction"),
        (lines(ROW) + '{"id": "2", "ques', "line 2: not JSON"),
        (lines(without("prediction")), "line 1: the field 'prediction' is missing"),
        (lines(ROW | {"prediction": None}), "line 1: the field 'prediction' must be a valid string"),
        (lines(ROW | {"prediction": 5}), "line 1: the field 'prediction' must be a valid string"),
        (lines(without("ground_truth")), "line 1: either `ground_truth` or `answers`"),
        (lines(without("ground_truth") | {"answers": []}), "line 1: either `ground_truth` or `answers`"),
        (
            lines(without("ground_truth") | {"answers": "yes"}),
            "line 1: the field 'answers' must be a valid list",
        ),
        (lines(without("id", "question")), "line 1: either `id` or `question` is needed"),
        (lines(ROW | {"question": " "}), "line 1: the field 'question' must have at least 1 character"),
        (lines(ROW, ROW | {"prediction": "no"}), "line 2: '1' is answered in line 1 too"),
        (lines(without("id"), without("id")), r"answered in line 1 too \(give each its own `id`\)"),
        (lines(ROW | {"choices": ["no", "maybe"]}), "line 1: the answer 'yes' is none of the choices"),
        (lines(ROW | {"choises": ["no", "yes"]}), "unknown field 'choises'; did you mean 'choices'"),
        (lines(ROW | {"messages": [{"role": "user"}]}), "line 1: the field 'messages.0.content' is missing"),
        (lines(ROW | {"messages": EARLIER[:1]}), "line 1: 'messages' ends with a turn of the user"),
        (lines(ROW | {"Kind": "x"}), "unknown field 'Kind'; did you mean 'kind'"),
        (
            lines(ROW | {"choices": ["yes", "no"], "log_likelihoods": [-1.0]}),
            "must have one for each of `choices`",
        ),
        (lines(ROW | {"log_likelihoods": [-1.0]}), "must have one for each of `choices`"),
        (
            lines(ROW | CHOICES | {"prediction": "no", "log_likelihoods": [-1.0, -9.0]}),
            "`prediction` is not the likeliest choice",
        ),
        (
            '{"ground_truth": "yes", "prediction": "yes", "choices": ["yes"], "log_likelihoods": [NaN]}',
            "line 1: not JSON: NaN is no number",
        ),
        (
            '{"id": "1", "id": "2", "ground_truth": "x", "prediction": "x"}',
            "the field 'id' stands there twice",
        ),
    ],
)
def test_a_bad_file_is_one_clear_error(text: str, words: str) -> None:
    with pytest.raises(MedtuneError, match=f"mine.jsonl.*{words}"):
        read_results(text, "mine.jsonl")


@pytest.mark.parametrize("text", ["", "{}", '{"results": 3}', '{"results": [{"id": "a', '{"accuracy": NaN}'])
def test_a_results_file_cut_short_is_an_error_that_names_the_command(text: str) -> None:
    with pytest.raises(MedtuneError, match=r"^r.json: .*`dvc (repro|pull)`"):
        read_results(text, "r.json")


def test_a_bad_result_is_named_by_its_number() -> None:
    with pytest.raises(MedtuneError, match=r"r\.json, result 2: the field 'prediction' is missing"):
        read_results(json.dumps({"results": [ROW, without("prediction")]}), "r.json")
