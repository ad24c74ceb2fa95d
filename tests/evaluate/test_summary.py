import json
from pathlib import Path

import pytest

from medtune.core.answers import AnswerText
from medtune.evaluate.lookups import Relative
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.predictions import Prediction, judge
from medtune.evaluate.summary import (
    accuracy_rows,
    describe,
    details,
    headline,
    in_words,
    lookup_headline,
    with_best_lookup,
    write_kinds,
)
from tests.conftest import example

PARAMS = EvaluateParams(
    seed=1, partial_f1=0.5, choice_rule="sum", near_relative=0.4, set_kinds=["organ_system"]
)
EXAMPLES = [
    example(id=f"{kind}{i}", kind=kind, answer="eye; ear", group=f"group {i // 2}")
    for i in range(4)
    for kind in ("organ_system", "definition")
]
MATCHES = ("exact_matches", "partial_matches", "incorrect")
RELATIVES = [Relative("t1", "like it", 0.4), Relative("t2", "unlike it", 0.39), None, None]


def judged(*texts: str) -> list[Prediction]:
    """Predictions of these texts for the first examples; one that ends in dots was cut off."""
    answers = {
        one.id: AnswerText(text=text, tokens=1, truncated=text.endswith("..."))
        for one, text in zip(EXAMPLES, texts, strict=False)
    }
    return judge(EXAMPLES[: len(texts)], answers, PARAMS)


BASE = judged("no", "no", "ear", "eye; ear")
TUNED = judged("ear; eye", "ear; eye...", "ear", "eye; ear")
MODELS = {"base": BASE, "tuned": TUNED}
WITH_LOOKUPS = with_best_lookup(
    MODELS
    | {
        "most_frequent": judged("eye; ear", "eye; ear", "eye; ear", "no"),
        "nearest": judged("no", "eye; ear", "eye; ear", "eye; ear"),
    }
)


def test_figures_add_up_overall_and_per_kind() -> None:
    found = details(MODELS, RELATIVES, [], PARAMS)
    every = found["all"]["tuned"]
    assert [every[name] for name in MATCHES] == [2, 2, 0]
    assert (every["n"], every["accuracy"], every["truncated"]) == (4, 0.5, 0.25)
    assert every["accuracy_low"] < 0.5 < every["accuracy_high"]
    systems = found["kinds"]["organ_system"]["tuned"]
    assert [systems[name] for name in MATCHES] == [1, 1, 0]
    assert systems["token_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert "chrf" not in systems
    assert systems["by_member"]["labels"] == ["ear", "eye"]
    assert "by_member" not in found["no_near_relative"]["kinds"]["organ_system"]["tuned"]
    assert "chrf" in found["kinds"]["definition"]["tuned"]
    assert list(found["kinds"]) == ["definition", "organ_system"]
    assert [found["kinds"]["organ_system"]["base"][name] for name in MATCHES] == [0, 1, 1]


def test_figures_stand_once_more_for_questions_with_and_without_a_near_relative() -> None:
    found = details(WITH_LOOKUPS, RELATIVES, [], PARAMS)
    near, far = found["near_relative"], found["no_near_relative"]
    assert [near["all"][model]["n"] for model in near["all"]] == [1] * 5
    assert list(near["kinds"]) == ["organ_system"]
    assert near["kinds"]["organ_system"]["tuned"]["accuracy"] == 1
    assert [far["all"]["tuned"][name] for name in MATCHES] == [1, 2, 0]
    assert far["all"]["tuned"]["n"] == 3


def test_the_best_lookup_is_that_of_each_kind() -> None:
    best = {one.example.id: one.answer.text for one in WITH_LOOKUPS["lookup"]}
    assert list(best) == [one.id for one in EXAMPLES[:4]]
    # Equally good at organ systems, where the first of them counts; at definitions the nearest is better.
    assert [one.correct for one in WITH_LOOKUPS["lookup"]] == [True, True, True, True]
    assert "lookup" not in with_best_lookup(MODELS)


def test_the_headline_is_the_adapter_what_it_gained_and_the_verdict() -> None:
    figures = headline(details(WITH_LOOKUPS, RELATIVES, [], PARAMS))
    assert list(figures) == ["accuracy", "gain", "gain_low", "gain_high", "verdict", "token_f1"]
    assert (figures["accuracy"], figures["gain"]) == (0.5, 0.25)
    assert figures["gain_low"] <= 0.25 <= figures["gain_high"]
    assert figures["verdict"] == "not shown"


def test_the_best_lookup_has_its_own_in_the_same_words() -> None:
    figures = lookup_headline(details(WITH_LOOKUPS, RELATIVES, [], PARAMS))
    assert list(figures) == ["accuracy", "gain", "gain_low", "gain_high", "verdict"]
    assert (figures["accuracy"], figures["gain"], figures["verdict"]) == (1, -0.5, "not shown")
    assert lookup_headline(details(MODELS, [None] * 4, [], PARAMS)) == {}


def test_equal_answers_gain_nothing_as_far_as_so_few_can_tell() -> None:
    figures = headline(details({"base": TUNED, "tuned": TUNED}, RELATIVES, [], PARAMS))
    assert figures["gain"] == 0
    assert figures["gain_low"] < 0 < figures["gain_high"]


def test_the_drift_on_another_base_is_measured() -> None:
    others = judged("ear; eye", "ear; eye...", "ear", "nose...")
    found = details(MODELS, RELATIVES, others, PARAMS)
    assert found["unquantized"]["same_answers"] == 0.75
    assert found["unquantized"]["exact_matches"] == 1


def test_a_kind_may_be_called_anything(tmp_path: Path) -> None:
    by_kind = {"kinds": {"yes/no": {"tuned": {"accuracy": 0.5}}, "what is": {"tuned": {"accuracy": 1.0}}}}
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "of another run.json").write_text("{}")
    write_kinds(tmp_path / "kinds", by_kind)
    found = {path.name: json.loads(path.read_text()) for path in (tmp_path / "kinds").iterdir()}
    assert found == {"yes%2Fno.json": {"accuracy": 0.5}, "what is.json": {"accuracy": 1.0}}


def test_the_plot_has_all_models_and_their_intervals() -> None:
    rows = accuracy_rows(details(WITH_LOOKUPS, RELATIVES, [], PARAMS))
    assert [row[:3] for row in rows if row[0] == "definition"] == [
        ["definition", "untuned", 0.5],
        ["definition", "tuned", 0.5],
        ["definition", "most frequent answer", 0.5],
        ["definition", "nearest question", 1.0],
    ]
    assert all(low <= accuracy <= high for _, _, accuracy, low, high in rows)


def test_a_person_reads_a_line_a_kind_and_the_verdicts() -> None:
    lines = describe(details(WITH_LOOKUPS, RELATIVES, [], PARAMS)).splitlines()
    assert lines[1].startswith(
        "organ_system  exact 1 of 2 (untuned 0, most frequent answer 2, nearest question 1)"
    )
    assert "of the 3 questions without a near relative in training 33.3% exact, best lookup 100.0%" in lines
    assert lines[-2].startswith(
        "against the untuned model: not shown, +25.0 points of exact answers, 95% interval "
    )
    assert lines[-1].startswith("against the best lookup: not shown, -50.0 points of exact answers")
    assert lines[-1].endswith("groups of questions are too few (1) to show any")


def test_what_could_have_been_shown_is_said_of_what_was_not() -> None:
    one = {
        "verdict": "not shown",
        "difference": 0.012,
        "low": -0.01,
        "high": 0.034,
        "groups": 9,
        "smallest": 0.05,
    }
    words = "+1.2 points of exact answers, 95% interval -1.0 to +3.4"
    assert in_words(one) == f"not shown, {words}; these questions could have shown 5.0 points"
    assert in_words(one | {"verdict": "better"}) == f"better, {words}"
