"""The README tells the truth: its figures are the committed metrics, its tree is the tree."""

import json
import re
import subprocess
from typing import Any

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
LABELS = {
    "organ_system": "organ systems of a finding",
    "medical_term": "medical term for a lay name",
    "definition": "definition of a term",
}


def row(kind: str, base: dict[str, Any], tuned: dict[str, Any]) -> str:
    cells = [LABELS[kind]]
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
    base, tuned = committed("baseline"), committed("evaluation")
    assert set(base["kinds"]) == set(LABELS)
    for kind in LABELS:
        assert row(kind, base["kinds"][kind], tuned["kinds"][kind]) in README
    assert f"Asked are {base['n']} test questions" in README


def test_the_committed_run_is_better_than_the_base_model() -> None:
    base, tuned = committed("baseline")["kinds"], committed("evaluation")["kinds"]
    assert tuned["organ_system"]["accuracy"] >= 0.45
    assert tuned["organ_system"]["accuracy_low"] > base["organ_system"]["accuracy_high"]
    for kind in LABELS:
        assert tuned[kind]["token_f1"] > base[kind]["token_f1"]


def test_the_tree_names_every_module_and_nothing_else() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    named = set(re.findall(r"[\w/.-]+\.(?:py|yaml|toml|txt|lock)", tree.replace("sources/ ", "")))
    for name in named:
        assert any((ROOT / place / name).is_file() for place in (".", "stages", "medtune", "medtune/sources"))
    modules = {path.name for path in (ROOT / "medtune").glob("*.py")} - {"__init__.py"}
    assert modules <= named
