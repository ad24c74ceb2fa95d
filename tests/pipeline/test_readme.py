"""The README tells the truth: its figures are the committed metrics, its tree is the tree."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
TREE = README.split("## The tree")[1].split("```")[1]
LABELS = {
    "organ_system": "organ systems of a finding",
    "medical_term": "medical term for a lay name",
    "definition": "definition of a term",
}


def row(label: str, both: dict[str, Any]) -> str:
    base, tuned = both["base"], both["tuned"]
    cells = [label]
    for figures in (base, tuned):
        cells.append(
            f"{figures['accuracy']:.0%} [{figures['accuracy_low']:.0%}, {figures['accuracy_high']:.0%}]"
        )
    for figures in (base, tuned):
        cells.append(
            f"{figures['token_f1']:.2f} [{figures['token_f1_low']:.2f}, {figures['token_f1_high']:.2f}]"
        )
    return f"| {' | '.join(cells)} |"


def committed(name: str) -> dict[str, Any]:
    """Metrics as committed: a run on another processor may have changed the working tree's."""
    show = ["git", "show", f"HEAD:metrics/{name}.json"]
    return json.loads(subprocess.run(show, cwd=ROOT, check=True, capture_output=True).stdout)


def test_the_result_is_that_of_the_committed_metrics() -> None:
    details, headline = committed("details"), committed("evaluation")
    assert set(details["kinds"]) == set(LABELS)
    for kind, label in LABELS.items():
        assert row(label, details["kinds"][kind]) in README
    assert row("all", details["all"]) in README
    assert f"Asked are {details['all']['tuned']['n']} test questions" in README
    gain = " to ".join(f"{100 * headline[name]:.1f}" for name in ("gain_low", "gain_high"))
    assert f"{100 * headline['gain']:.1f} points (95% interval {gain})" in " ".join(README.split())


def test_the_committed_run_is_better_than_the_base_model() -> None:
    details = committed("details")["kinds"]
    base, tuned = ({kind: figures[model] for kind, figures in details.items()} for model in ("base", "tuned"))
    assert tuned["organ_system"]["accuracy"] >= 0.45
    assert tuned["organ_system"]["accuracy_low"] > base["organ_system"]["accuracy_high"]
    for kind in LABELS:
        assert tuned[kind]["token_f1"] > base[kind]["token_f1"]


def modules(folder: Path) -> set[str]:
    """Those of a package, but for its section of params.yaml, which every package has in params.py."""
    return {path.name for path in folder.glob("*.py")} - {"__init__.py", "params.py"}


@pytest.mark.parametrize("package", sorted(path.parent.name for path in ROOT.glob("medtune/*/__init__.py")))
def test_the_tree_names_every_module_of_a_package_and_no_other(package: str) -> None:
    block = re.split(r"\n {0,2}\w", TREE.partition(f"\n  {package}/")[2], maxsplit=1)[0]
    named = re.findall(r"^ {4}(\w+\.py(?: \w+\.py)*)", block, re.M)
    assert set(" ".join(named).split()) == modules(ROOT / "medtune" / package)


def test_the_tree_names_every_stage_and_what_stands_on_top() -> None:
    block = re.split(r"\nmedtune/", TREE.partition("\nstages/")[2])[0]
    assert set(re.findall(r"^ {2}(\w+\.py)", block, re.M)) == modules(ROOT / "stages")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    on_top = {name.split("/")[0] for name in listed.splitlines()}
    for name in re.findall(r"^([\w.]+)/?", TREE, re.M):
        assert name in on_top


def test_the_tree_tells_the_floors_apart() -> None:
    packages = re.findall(r"^ {2}(\w+)/", TREE, re.M)
    assert packages == ["commands", "verify", "data", "train", "answer", "evaluate", "model", "run", "core"]
