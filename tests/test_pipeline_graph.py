"""dvc.yaml says what the code does: every module, parameter and file of a stage stands in it."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from medtune.params import Section
from tests.conftest import ROOT

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = PIPELINE["stages"]


def source_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported_modules(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "relative imports are not followed"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def reached(stage: str) -> dict[Path, ast.AST]:
    """Every project file that the stage's command imports, with its syntax tree."""
    match = re.search(r"-m (stages\.\w+)", STAGES[stage]["cmd"])
    assert match is not None
    found: dict[Path, ast.AST] = {}
    todo = [match[1]]
    while todo:
        module = todo.pop()
        file = source_file(module)
        if file is None or file in found:
            continue
        found[file] = ast.parse(file.read_text())
        parents = [module.rsplit(".", n)[0] for n in range(1, module.count(".") + 1)]
        todo += [*parents, *imported_modules(found[file])]
    return found


def names(entries: list[Any]) -> set[str]:
    """The paths of `deps`, `outs`, `metrics` or `plots`, with or without options."""
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


@pytest.mark.parametrize("stage", STAGES)
def test_every_imported_module_is_a_dependency_and_no_other(stage: str) -> None:
    code = {file.relative_to(ROOT).as_posix() for file in reached(stage)}
    declared = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert declared == code


@pytest.mark.parametrize("stage", STAGES)
def test_every_section_read_is_a_parameter_and_no_other(stage: str) -> None:
    sections = {section.__name__: section.name for section in Section.__subclasses__()}
    read = {
        sections[node.func.value.id]
        for tree in reached(stage).values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "load"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in sections
    }
    assert set(STAGES[stage]["params"]) == read


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_in_the_code_is_declared(stage: str) -> None:
    module = STAGES[stage]["cmd"].split()[2]
    declared = set(PIPELINE["metrics"])
    for entries in STAGES.values():
        # baseline and evaluate are one module: each path must belong to one of them.
        if entries["cmd"].split()[2] == module:
            for key in ("deps", "outs", "metrics", "plots"):
                declared |= names(entries.get(key, []))
    paths = {
        literal
        for tree in reached(stage).values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Path"
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(literal := argument.value, str)
        if re.match(r"(data|models|metrics)/", literal)
    }
    assert paths
    for path in paths:
        assert any(known == path or known.startswith(f"{path}/") for known in declared), path


def test_the_pinned_environment_is_a_dependency_of_every_stage() -> None:
    assert all("constraints.txt" in stage["deps"] for stage in STAGES.values())


def test_timing_is_a_metric_of_no_stage() -> None:
    assert PIPELINE["metrics"] == ["metrics/timing.json"]
    for stage in STAGES.values():
        for key in ("outs", "metrics", "plots"):
            assert "metrics/timing.json" not in names(stage.get(key, []))


def test_baseline_and_evaluate_differ_in_the_adapter_alone() -> None:
    assert set(STAGES["evaluate"]["deps"]) - set(STAGES["baseline"]["deps"]) == {"models/adapter"}
    assert STAGES["evaluate"]["params"] == STAGES["baseline"]["params"]
