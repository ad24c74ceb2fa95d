"""Choices stand in an order of the question's own, which a source does not decide."""

import json
from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.data.choices import shuffled
from medtune.data.params import DataParams
from medtune.data.preparation import prepare
from tests.conftest import example

CHOICES = ["A high temperature.", "A rash.", "A cough.", "A fall."]
SOURCE = Path("data/raw/choices.jsonl")
FIELDS: dict[str, object] = {
    "sources": {"definition": {"path": str(SOURCE)}},
    "seed": 3,
    "validation": 0.2,
    "test": 0.2,
    "near_duplicates": None,
    "kinds": {"definition": {}},
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
        example(id=str(i), question=f"Question {i}?", choices=CHOICES[:: 1 if i % 2 else -1], group=f"g{i}")
        for i in range(200)
    ]
    SOURCE.write_text("".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows))
    return SOURCE


def test_a_source_gives_shuffled_choices_unless_they_are_to_stay(source: Path) -> None:
    listed = {row["id"]: row["choices"] for row in map(json.loads, source.read_text().splitlines())}
    kept = everything({"shuffle_choices": False})
    assert {one.id: one.choices for one in kept} == listed
    assert everything({}) == [shuffled(one, 3) for one in kept]


def everything(changes: dict[str, object]) -> list[Example]:
    prepared = prepare(DataParams.model_validate(FIELDS | changes))
    return [example for examples in prepared.splits.values() for example in examples]


def test_the_splits_are_the_same_with_and_without(source: Path) -> None:
    ids = []
    for shuffle in (True, False):
        prepared = prepare(DataParams.model_validate(FIELDS | {"shuffle_choices": shuffle}))
        assert not any(prepared.report()["overlaps"].values())
        ids.append({split: [one.id for one in examples] for split, examples in prepared.splits.items()})
    assert ids[0] == ids[1]


def test_whatever_is_no_truth_value_is_refused() -> None:
    with pytest.raises(MedtuneError, match=r"data\.shuffle_choices is 'maybe'"):
        DataParams.of({"data": FIELDS | {"shuffle_choices": "maybe"}})
