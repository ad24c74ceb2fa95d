"""What differs between two folders, and that a difference is put in alone, and taken out again."""

import json
from pathlib import Path

import pytest

from medtune.core.yaml_file import read_yaml
from medtune.explain.differences import Difference, _machines, _parameters, differences
from medtune.explain.trees import Tree

PIPELINE = """\
stages:
  code: {cmd: python -m stages.code, params: [model, finetune, diff], deps: [medtune]}
  prepare: {cmd: python -m stages.prepare, deps: [digests/prepare.json]}
  finetune: {cmd: python -m stages.finetune, params: [model, finetune]}
"""
BEFORE = """\
model: {source: org/one, revision: a, sha256: b, license: mit}
finetune: {lora: {r: 8}, epochs: 1, early_stopping: null}
diff: {tolerated_loss: {accuracy: 0.0}}
"""
AFTER = """\
model: {source: org/other, revision: c, sha256: d, license: mit}
finetune: {lora: {r: 8, dora: true}, epochs: 1.0, early_stopping: {patience: 3}}
diff: {tolerated_loss: {accuracy: 0.5}}
"""


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Tree, Tree]:
    made = []
    for name, params in (("A", BEFORE), ("B", AFTER)):
        folder = tmp_path / name
        (folder / "metrics").mkdir(parents=True)
        (folder / "dvc.yaml").write_text(PIPELINE)
        (folder / "params.yaml").write_text(params)
        noted = {"finetune": {"threads": 2, "cpu": {"model": name}}, "answer-base": {"cpu": {"model": name}}}
        (folder / "metrics/environment.json").write_text(json.dumps(noted))
        made.append(Tree(name, folder, None))
    return made[0], made[1]


def by_name(found: list[Difference]) -> dict[str, Difference]:
    return {one.name: one for one in found}


def test_parameters_differ_leaf_by_leaf_and_a_base_goes_with_its_pins(trees: tuple[Tree, Tree]) -> None:
    """1 and 1.0 are two texts to DVC, and the one is no whole number to a step counter."""
    found = by_name(list(_parameters(*trees)))
    assert set(found) == {
        "base model",
        "finetune.lora.dora",
        "finetune.epochs",
        "finetune.early_stopping",
        "diff.tolerated_loss.accuracy",
    }
    assert found["base model"].detail.startswith("model.source: org/one -> org/other; model.revision: a -> c")
    assert found["finetune.lora.dora"].detail == "finetune.lora.dora: not set -> True"
    assert found["finetune.epochs"].stages == ("finetune",)
    # The check before all stages looks at it and leaves nothing of it.
    assert found["diff.tolerated_loss.accuracy"].stages == ()


@pytest.mark.parametrize("name", ["base model", "finetune.lora.dora", "finetune.early_stopping"])
def test_a_parameter_is_changed_alone_and_back(trees: tuple[Tree, Tree], name: str) -> None:
    before, after = trees
    original = read_yaml(before.folder / "params.yaml")
    change = by_name(list(_parameters(before, after)))[name].change
    assert change is not None
    change(before.folder, before, after)
    assert list(by_name(list(_parameters(before, after)))) != []
    assert name not in by_name(list(_parameters(before, after)))
    (after.folder / "params.yaml").write_text(BEFORE)
    change(before.folder, before, after)
    assert read_yaml(before.folder / "params.yaml") == original


def test_another_machine_is_told_once_for_all_stages_and_is_not_tried(trees: tuple[Tree, Tree]) -> None:
    (found,) = _machines(*trees)
    assert (found.name, found.stages, found.change) == ("cpu.model", ("finetune", "answer-base"), None)
    assert found.detail == "A -> B, by metrics/environment.json"
    (trees[1].folder / "metrics/environment.json").write_text("{")
    assert not list(_machines(*trees))


ADDED = """\
stages:
  code:
    cmd: python -m stages.code
    params: [model, finetune, diff, own]
    deps: [medtune]
    outs: [digests/prepare.json, {digests/own.json: {cache: false, persist: true}}]
  prepare: {cmd: python -m stages.prepare, deps: [digests/prepare.json, words.txt]}
  finetune: {cmd: python -m stages.finetune, params: [model, finetune], outs: [models/adapter]}
  count:
    cmd: python -m stages.own
    params: [own]
    deps: [digests/own.json, models/adapter, table, medtune/own]
"""


def test_what_an_added_stage_reads_is_listed_and_is_never_called_unseen(trees: tuple[Tree, Tree]) -> None:
    """No trial runs it: that its result was the same in a few steps was said of whatever it read."""
    for number, tree in enumerate(trees):
        files = {
            "dvc.yaml": ADDED,
            "params.yaml": f"{BEFORE}own: {{longest: {number}}}\n",
            "stages/own.py": f"LONGEST = {number}\n",
            "requirements/runtime.txt": "torch==2.13.0\n",
            "words.txt": f"{number}\n",
            "table/rows.csv": f"{number}\n",
            "medtune/own/comment.py": f"# {number}\n",
            # What a stage makes is compared by what it is made of.
            "digests/own.json": f"{number}",
            "models/adapter/weights": f"{number}",
        }
        for name, text in files.items():
            (tree.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tree.folder / name).write_text(text)
        (tree.folder / "metrics/environment.json").unlink()
    found = by_name(differences(*trees))
    assert {name: one.stages for name, one in found.items()} == {
        "own.longest": ("count",),
        "stages/own.py": ("count",),
        "words.txt": ("prepare",),
        "table": ("count",),
        "medtune/own": ("count",),
    }
    for name in ("own.longest", "stages/own.py"):
        assert found[name].change is None
        assert found[name].untried == "trials run the shipped stages, and count is none"
    change = found["words.txt"].change
    assert change is not None
    change(trees[0].folder, *trees)
    assert "words.txt" not in by_name(differences(*trees))
