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
    "finding": "which of four findings a definition defines",
    "medical_term": "medical term for a lay name",
    "definition": "definition of a term",
}
HALVES = {
    "near_relative": "... with a near relative in training",
    "no_near_relative": "... without one",
}
"""Of the organ systems, the kind of which there are enough for this."""


def row(label: str, models: dict[str, Any], comparison: dict[str, Any]) -> str:
    """Exact answers of the untuned model, the best lookup and the tuned one, and the verdict on that."""
    cells = [label, str(models["tuned"]["n"])]
    for figures in (models[name] for name in ("base", "lookup", "tuned")):
        share, low, high = (figures[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
        cells.append(f"{share:.0%} [{low:.0%}, {high:.0%}]")
    one = comparison["accuracy"]
    verdict = one["verdict"] if one["verdict"] == "not shown" else f"**{one['verdict']}**"
    points = "{difference:+.1f} [{low:+.1f}, {high:+.1f}]".format(
        **{name: 100 * one[name] for name in ("difference", "low", "high")}
    )
    return f"| {' | '.join([*cells, f'{verdict}, {points}'])} |"


def text_row(label: str, models: dict[str, Any]) -> str:
    """Token-F1 and chrF of the untuned and the tuned model."""
    cells = [label]
    for name in ("token_f1", "chrf"):
        for figures in (models[model] for model in ("base", "tuned")):
            cells.append(f"{figures[name]:.2f} [{figures[f'{name}_low']:.2f}, {figures[f'{name}_high']:.2f}]")
    return f"| {' | '.join(cells)} |"


def result_rows(details: dict[str, Any]) -> list[str]:
    against = details["comparisons"]["lookup"]
    rows = [row(label, details["kinds"][kind], against["kinds"][kind]) for kind, label in LABELS.items()]
    halves = [
        row(
            label,
            details[half]["kinds"]["organ_system"],
            details[half]["comparisons"]["lookup"]["kinds"]["organ_system"],
        )
        for half, label in HALVES.items()
    ]
    return [rows[0], *halves, *rows[1:], row("all", details["all"], against["all"])]


def committed(name: str) -> dict[str, Any]:
    """Metrics as committed: a run on another processor may have changed the working tree's."""
    show = ["git", "show", f"HEAD:metrics/{name}.json"]
    return json.loads(subprocess.run(show, cwd=ROOT, check=True, capture_output=True).stdout)


def test_the_result_is_that_of_the_committed_metrics() -> None:
    details = committed("details")
    assert set(details["kinds"]) == set(LABELS)
    for line in result_rows(details):
        assert line in README
    for kind in ("medical_term", "definition"):
        assert text_row(LABELS[kind], details["kinds"][kind]) in README
    counts = committed("data")["examples"]
    text = " ".join(README.split())
    assert f"SmolLM2-135M-Instruct, {sum(counts['train'].values()):,} questions" in text
    assert f"Asked are {details['all']['tuned']['n']} test questions" in text


def test_the_verdict_is_that_of_the_committed_metrics() -> None:
    details = committed("details")
    text = " ".join(README.split())
    far = details["no_near_relative"]
    one = far["comparisons"]["lookup"]["kinds"]["organ_system"]["accuracy"]
    assert one["verdict"] == "better"
    assert (
        f"{one['after']:.0%} of the {one['n']} questions about organ systems without a near relative in "
        f"training exactly, where the best lookup answers {one['before']:.0%}: better by "
        f"{100 * one['difference']:.0f} points (95% interval {100 * one['low']:.0f} to "
        f"{100 * one['high']:.0f}"
    ) in text
    worse = details["comparisons"]["lookup"]["kinds"]["finding"]["accuracy"]
    assert worse["verdict"] == "worse"
    assert f"{worse['after']:.0%} right, where a lookup has {worse['before']:.0%} and chance 25%" in text


def test_the_committed_run_is_better_than_the_base_model() -> None:
    details = committed("details")["kinds"]
    base, tuned = ({kind: figures[model] for kind, figures in details.items()} for model in ("base", "tuned"))
    assert tuned["organ_system"]["accuracy"] >= 0.45
    assert tuned["organ_system"]["accuracy_low"] > base["organ_system"]["accuracy_high"]
    for kind in ("organ_system", "medical_term", "definition"):
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
    assert packages == [
        "commands",
        "verify",
        "explain",
        "export",
        "data",
        "train",
        "answer",
        "evaluate",
        "model",
        "run",
        "core",
    ]
