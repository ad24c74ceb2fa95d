import json
from pathlib import Path

import pytest

from medtune.core.answers import AnswerText
from medtune.core.errors import MedtuneError
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.summary import (
    Prediction,
    accuracy_rows,
    describe,
    details,
    headline,
    judge,
    results,
    write_kinds,
)
from tests.conftest import example

PARAMS = EvaluateParams(seed=1, partial_f1=0.5, choice_rule="sum", set_kinds=["organ_system"])
EXAMPLES = [
    example(id=f"{kind}{i}", kind=kind, answer="eye; ear", group=f"group {i // 2}")
    for i in range(4)
    for kind in ("organ_system", "definition")
]
MATCHES = ("exact_matches", "partial_matches", "incorrect")


def judged(*texts: str) -> list[Prediction]:
    """Predictions of these texts for the first examples; one that ends in dots was cut off."""
    answers = {
        one.id: AnswerText(text=text, tokens=1, truncated=text.endswith("..."))
        for one, text in zip(EXAMPLES, texts, strict=False)
    }
    return judge(EXAMPLES[: len(texts)], answers, PARAMS)


BASE = judged("no", "no", "ear", "eye; ear")
TUNED = judged("ear; eye", "ear; eye...", "ear", "eye; ear")


def test_an_unknown_set_kind_is_refused() -> None:
    params = PARAMS.model_copy(update={"set_kinds": ["organ_systems"]})
    with pytest.raises(MedtuneError, match=r"evaluate.set_kinds has 'organ_systems', .* 'organ_system'\?"):
        judge(EXAMPLES, {}, params)


def test_figures_add_up_overall_and_per_kind() -> None:
    found = details(BASE, TUNED, None, PARAMS)
    every = found["all"]["tuned"]
    assert [every[name] for name in MATCHES] == [2, 2, 0]
    assert (every["n"], every["accuracy"], every["truncated"]) == (4, 0.5, 0.25)
    assert every["accuracy_low"] < 0.5 < every["accuracy_high"]
    systems = found["kinds"]["organ_system"]["tuned"]
    assert [systems[name] for name in MATCHES] == [1, 1, 0]
    assert systems["token_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert list(found["kinds"]) == ["definition", "organ_system"]
    assert [found["kinds"]["organ_system"]["base"][name] for name in MATCHES] == [0, 1, 1]


def test_the_headline_is_the_adapter_the_base_and_what_was_gained() -> None:
    figures = headline(BASE, TUNED, PARAMS)
    assert list(figures) == ["accuracy", "base", "gain", "gain_low", "gain_high", "token_f1"]
    assert (figures["accuracy"], figures["base"], figures["gain"]) == (0.5, 0.25, 0.25)
    assert figures["gain_low"] <= 0.25 <= figures["gain_high"]


def test_equal_answers_gain_nothing_as_far_as_so_few_can_tell() -> None:
    figures = headline(TUNED, TUNED, PARAMS)
    assert figures["gain"] == 0
    assert figures["gain_low"] < 0 < figures["gain_high"]


def test_every_prediction_stands_beside_its_reference() -> None:
    content = results(TUNED, [0, 1, 2, 3])
    assert content["selected_indices"] == [0, 1, 2, 3]
    assert content["accuracy"] == 0.5
    assert [content[name] for name in MATCHES] == [2, 2, 0]
    assert content["results"][2] == {
        "id": "organ_system1",
        "kind": "organ_system",
        "group": "group 0",
        "question": "What is fever?",
        "ground_truth": "eye; ear",
        "prediction": "ear",
        "correct": False,
        "match_type": "partial",
        "token_f1": pytest.approx(2 / 3),
        "truncated": False,
    }


def test_the_rule_decides_which_choice_counts_and_both_are_reported() -> None:
    asked = example(
        id="closed", choices=["flu", "pneumonia of the lung"], answer="pneumonia of the lung", kind="x"
    )
    given = {"closed": AnswerText(text="flu", tokens=1, truncated=False, log_likelihoods=[-3.0, -9.0])}
    for rule, text, verdict in (("sum", "flu", "incorrect"), ("per_character", asked.answer, "exact")):
        params = PARAMS.model_copy(update={"set_kinds": [], "choice_rule": rule})
        picked = judge([asked], given, params)
        assert (picked[0].answer.text, picked[0].score.match_type) == (text, verdict)
        figures = details(picked, picked, None, params)["all"]["tuned"]
        assert (figures["accuracy_sum"], figures["accuracy_per_character"]) == (0, 1)


def test_of_several_right_answers_the_closest_counts() -> None:
    asked = example(id="synonyms", answer="Spider fingers", answers=["Arachnodactyly", "long thin fingers"])
    verdicts = []
    for text in ("arachnodactyly", "spider fingers", "thin fingers", "eye"):
        given = {"synonyms": AnswerText(text=text, tokens=1, truncated=False)}
        verdicts += [
            one.score.match_type for one in judge([asked], given, PARAMS.model_copy(update={"set_kinds": []}))
        ]
    assert verdicts == ["exact", "exact", "partial", "incorrect"]


def test_a_question_with_choices_has_no_token_f1() -> None:
    closed = example(id="closed", choices=["O+", "O-"], answer="O-", kind="blood")
    answers = {"closed": AnswerText(text="O+", tokens=1, truncated=False, log_likelihoods=[-1.0, -2.0])}
    params = PARAMS.model_copy(update={"set_kinds": []})
    picked = judge([closed], answers, params)
    assert picked[0].score.match_type == "incorrect"
    assert "token_f1" not in headline(picked, picked, params)
    assert "token_f1" not in results(picked, [0])["results"][0]
    found = details(picked, picked, None, params)
    assert not [name for name in found["all"]["tuned"] if "f1" in name]
    assert describe(headline(picked, picked, params), found).startswith("blood  exact 0 of 1 (base 0)\n")


def test_the_drift_on_another_base_is_measured() -> None:
    others = judged("ear; eye", "ear; eye...", "ear", "nose...")
    found = details(BASE, TUNED, others, PARAMS)
    assert found["unquantized"]["same_answers"] == 0.75
    assert found["unquantized"]["exact_matches"] == 1
    rows = results(TUNED, range(4), others)["results"]
    assert rows[3]["unquantized"] == {"prediction": "nose...", "truncated": True}


def test_a_kind_may_be_called_anything(tmp_path: Path) -> None:
    by_kind = {"kinds": {"yes/no": {"tuned": {"accuracy": 0.5}}, "what is": {"tuned": {"accuracy": 1.0}}}}
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "of another run.json").write_text("{}")
    write_kinds(tmp_path / "kinds", by_kind)
    found = {path.name: json.loads(path.read_text()) for path in (tmp_path / "kinds").iterdir()}
    assert found == {"yes%2Fno.json": {"accuracy": 0.5}, "what is.json": {"accuracy": 1.0}}


def test_the_plot_has_both_models_and_their_intervals() -> None:
    rows = accuracy_rows(details(BASE, TUNED, None, PARAMS))
    assert [row[:3] for row in rows] == [
        ["definition", "base", 0.5],
        ["definition", "tuned", 0.5],
        ["organ_system", "base", 0.0],
        ["organ_system", "tuned", 0.5],
    ]
    assert all(low <= accuracy <= high for _, _, accuracy, low, high in rows)


def test_a_person_reads_a_line_a_kind_and_the_gain() -> None:
    lines = describe(headline(BASE, TUNED, PARAMS), details(BASE, TUNED, None, PARAMS)).splitlines()
    assert lines[1].startswith("organ_system  exact 1 of 2 (base 0), token-F1 0.83 (base 0.33)")
    assert lines[-1].startswith("gain in accuracy +25.0 percentage points, 95% interval ")
