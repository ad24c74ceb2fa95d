import pytest

from medtune.core.errors import MedtuneError
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.summary import detail, predict, select_indices, summarise
from tests.conftest import example

PARAMS = EvaluateParams(
    launch="single",
    seed=1,
    examples_per_kind=2,
    batch_size=4,
    max_new_tokens=8,
    partial_f1=0.5,
    set_kinds=["organ_system"],
    unquantized=True,
)
EXAMPLES = [
    example(id=f"{kind}{i}", kind=kind, answer="eye; ear")
    for i in range(5)
    for kind in ("organ_system", "definition")
]


def test_selection_takes_so_many_of_each_kind_and_is_seeded() -> None:
    indices = select_indices(EXAMPLES, PARAMS)
    assert indices == sorted(indices) == select_indices(EXAMPLES, PARAMS)
    assert [EXAMPLES[i].kind for i in indices].count("definition") == 2
    assert len(indices) == 4
    assert len({tuple(select_indices(EXAMPLES, PARAMS.model_copy(update={"seed": s}))) for s in range(9)}) > 1
    everything = PARAMS.model_copy(update={"examples_per_kind": None})
    assert select_indices(EXAMPLES, everything) == list(range(10))


def test_an_unknown_set_kind_is_refused() -> None:
    with pytest.raises(MedtuneError, match=r"evaluate.set_kinds has 'organs'; kinds of the test split: def"):
        select_indices(EXAMPLES, PARAMS.model_copy(update={"set_kinds": ["organs"]}))


def test_figures_add_up_overall_and_per_kind() -> None:
    predictions = [
        predict(EXAMPLES[0], "ear; eye", False, PARAMS),
        predict(EXAMPLES[2], "ear", False, PARAMS),
        predict(EXAMPLES[1], "ear; eye", True, PARAMS),
        predict(EXAMPLES[3], "no", True, PARAMS),
    ]
    summary = summarise(predictions, PARAMS)
    matches = ("exact_matches", "partial_matches", "incorrect")
    assert [summary[name] for name in matches] == [1, 2, 1]
    assert (summary["n"], summary["accuracy"], summary["truncated"]) == (4, 0.25, 0.5)
    assert summary["accuracy_low"] < 0.25 < summary["accuracy_high"]
    systems = summary["kinds"]["organ_system"]
    assert [systems[name] for name in matches] == [1, 1, 0]
    assert systems["token_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert set(systems) == set(summary) - {"kinds"}
    assert list(summary["kinds"]) == ["definition", "organ_system"]

    results = detail(predictions, [0, 2, 1, 3])
    assert results["selected_indices"] == [0, 2, 1, 3]
    assert [results[name] for name in matches] == [1, 2, 1]
    assert results["results"][1] == {
        "id": "organ_system1",
        "kind": "organ_system",
        "question": "What is fever?",
        "ground_truth": "eye; ear",
        "prediction": "ear",
        "correct": False,
        "match_type": "partial",
        "token_f1": pytest.approx(2 / 3),
        "truncated": False,
    }


def test_the_drift_on_another_base_is_measured() -> None:
    predictions = [predict(EXAMPLES[i], "eye; ear", False, PARAMS) for i in range(4)]
    others = [*predictions[:3], predict(EXAMPLES[3], "nose", True, PARAMS)]
    summary = summarise(predictions, PARAMS, others)
    assert summary["unquantized"]["same_answers"] == 0.75
    assert summary["unquantized"]["exact_matches"] == 3
    assert set(summary["unquantized"]) == set(summarise(predictions, PARAMS)) - {"kinds"} | {"same_answers"}
    rows = detail(predictions, range(4), others)["results"]
    assert rows[3]["unquantized"] == {"prediction": "nose", "truncated": True}
