"""Rows of somebody who withdrew: left out as if they had never been there; unknown ids are refused."""

from pathlib import Path

import pytest

from medtune.core.errors import MedtuneError
from medtune.data import ontology
from medtune.data.params import DataParams
from medtune.data.preparation import Prepared, prepare
from tests.conftest import ROOT
from tests.data.raw import params, write

ROWS = [
    {"id": f"p{number}", "question": f"Is finding {number} of {number * 7} seen?", "answer": f"In {number}."}
    for number in range(60)
]


def without(names: list[str], **source: object) -> DataParams:
    return params(**source).model_copy(update={"without": names})  # type: ignore[arg-type]


def lines(found: Prepared) -> dict[str, list[str]]:
    return {split: [one.model_dump_json() for one in some] for split, some in found.splits.items()}


def test_splits_are_those_of_a_file_that_never_had_the_row(raw: Path) -> None:
    """Every row in turn of some, as one may be the first of a group, and the first 500 are balanced."""
    for gone in ("p0", "p7", "p31", "p59"):
        write(raw / "mine.jsonl", ROWS)
        found = prepare(without([gone]))
        write(raw / "mine.jsonl", [row for row in ROWS if row["id"] != gone])
        assert lines(found) == lines(prepare(params()))
        assert found.report()["left_out"] == {"mine": {"withdrawn": 1}}


def test_it_is_listed_by_its_place_without_its_words(raw: Path) -> None:
    write(raw / "mine.jsonl", ROWS)
    (left_out,) = prepare(without(["p7"])).rejects
    assert (left_out.place, left_out.id) == ("data/raw/mine.jsonl, line 8", "p7")
    assert "finding" not in left_out.detail


def test_an_id_that_no_row_has_is_refused_with_the_nearest(raw: Path) -> None:
    write(raw / "mine.jsonl", ROWS)
    with pytest.raises(MedtuneError, match=r"data\.without has 'p600', an id that no row.*did you mean 'p"):
        prepare(without(["p3", "p600"]))


def test_a_row_of_another_split_with_the_same_number_stays(raw: Path) -> None:
    """Ready-made splits that count anew: it is renamed test/p3 with and without the one of training."""
    write(raw / "train.jsonl", ROWS[:40])
    write(raw / "test.jsonl", [row | {"question": f"Else, {row['question']}"} for row in ROWS[:10]])
    splits = {"train": "data/raw/train.jsonl", "test": "data/raw/test.jsonl"}

    def ids(names: list[str]) -> set[str]:
        chosen = DataParams.model_validate(
            without(names).model_dump() | {"sources": {"mine": {"splits": splits}}}
        )
        return {one.id for some in prepare(chosen).splits.values() for one in some}

    assert ids([]) - ids(["p3"]) == {"p3"}
    assert ids([]) - ids(["test/p3"]) == {"test/p3"}


def test_a_question_of_the_ontology_is_left_out_before_its_group_is_named() -> None:
    shipped = DataParams.load(ROOT / "params.yaml")
    seen: list[str] = []

    def is_first(name: str) -> bool:
        seen.append(name)
        return len(seen) == 1

    found = ontology.examples("hpo", shipped.sources["hpo"], shipped, is_first)
    assert len(found) == len(seen) - 1
    assert seen[0] not in {one.id for one in found}
