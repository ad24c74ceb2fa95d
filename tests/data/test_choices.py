"""Choices stand in an order of the question's own, which a source does not decide."""

import json
from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest

from medtune.core.errors import MedtuneError
from medtune.data.choices import require_a_choice, shuffled
from medtune.data.params import DataParams, KindParams
from medtune.data.sources import load_source
from medtune.data.splits import overlaps, split_by_group
from tests.conftest import example

CHOICES = ["A high temperature.", "A rash.", "A cough.", "A fall."]
SOURCE = Path("data/raw/choices.jsonl")
FIELDS: dict[str, object] = {
    "source": str(SOURCE),
    "seed": 3,
    "validation": 0.2,
    "test": 0.2,
    "kinds": {"definition": KindParams()},
}


def order(number: int, choices: list[str] = CHOICES, seed: int = 3) -> list[str]:
    return shuffled(example(id=str(number), choices=choices), seed).choices or []


def test_the_order_does_not_depend_on_that_of_the_file() -> None:
    for number in range(20):
        assert len({tuple(order(number, list(listed))) for listed in permutations(CHOICES)}) == 1


def test_the_order_is_drawn_for_each_question_and_by_the_seed() -> None:
    orders = [tuple(order(number)) for number in range(300)]
    assert set(orders) == set(permutations(CHOICES))
    assert orders == [tuple(order(number)) for number in range(300)]
    assert orders != [tuple(order(number, seed=4)) for number in range(300)]


def test_the_right_choice_stands_at_each_position_equally_often() -> None:
    positions = Counter(order(number).index("A high temperature.") for number in range(4000))
    assert sum((count - 1000) ** 2 / 1000 for count in positions.values()) < 16.3  # chi-squared, p = 0.001
    assert len(positions) == 4


def test_nothing_but_the_order_changes() -> None:
    closed = example(choices=CHOICES, context="A study.")
    assert shuffled(closed, 3).model_copy(update={"choices": CHOICES}) == closed
    assert shuffled(example(), 3) == example()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    SOURCE.parent.mkdir(parents=True)
    rows = [
        example(
            id=str(i), question=f"Question {i // 2}?", choices=CHOICES[:: 1 if i % 2 else -1], group=f"g{i}"
        )
        for i in range(200)
    ]
    SOURCE.write_text("".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows))
    return SOURCE


def test_a_source_gives_shuffled_choices_unless_they_are_to_stay(source: Path) -> None:
    listed = [json.loads(line)["choices"] for line in source.read_text().splitlines()]
    kept = load_source(DataParams.model_validate(FIELDS | {"shuffle_choices": False})).examples
    assert [one.choices for one in kept] == listed
    assert load_source(DataParams.model_validate(FIELDS)).examples == [shuffled(one, 3) for one in kept]


def test_the_splits_are_the_same_with_and_without(source: Path) -> None:
    ids = []
    for shuffle in (True, False):
        params = DataParams.model_validate(FIELDS | {"shuffle_choices": shuffle})
        splits = split_by_group(load_source(params).examples, params)
        assert not any(overlaps(splits).values())
        ids.append({split: [(one.id, one.group) for one in examples] for split, examples in splits.items()})
    assert ids[0] == ids[1]


def test_whatever_is_no_truth_value_is_refused() -> None:
    with pytest.raises(MedtuneError, match=r"data\.shuffle_choices is 'maybe'"):
        DataParams.of({"data": FIELDS | {"kinds": {"definition": {}}, "shuffle_choices": "maybe"}})


def test_a_single_choice_is_none() -> None:
    examples = [example(id=str(number), choices=list("ab"[:number]), answer="a") for number in (2, 1)]
    with pytest.raises(MedtuneError, match="the question '1' has a single choice: give two or more, or none"):
        require_a_choice(examples)
