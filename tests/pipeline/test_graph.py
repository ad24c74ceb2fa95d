"""dvc.yaml says what the code does: every module, parameter and file of a stage stands in it."""

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from medtune.core.section import Section
from tests.conftest import ROOT
from tests.project import run

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = PIPELINE["stages"]


def source_file(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
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


def reached(stage: str, root: Path = ROOT) -> dict[str, ast.AST]:
    """Every project file below `root` that the stage's command imports, with its syntax tree."""
    match = re.search(r"-m (stages\.\w+)", STAGES[stage]["cmd"])
    assert match is not None
    found: dict[str, ast.AST] = {}
    todo = [match[1]]
    while todo:
        module = todo.pop()
        file = source_file(module, root)
        if file is None or (name := file.relative_to(root).as_posix()) in found:
            continue
        found[name] = ast.parse(file.read_text())
        parents = [module.rsplit(".", n)[0] for n in range(1, module.count(".") + 1)]
        todo += [*parents, *imported_modules(found[name])]
    return found


def sections_read(stage: str, root: Path = ROOT) -> set[str]:
    """The sections of params.yaml that the stage's code loads."""
    sections = {section.__name__: section.name for section in Section.__subclasses__()}
    return {
        sections[node.func.value.id]
        for tree in reached(stage, root).values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "load"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in sections
    }


def names(entries: list[Any]) -> set[str]:
    """The paths of `deps`, `outs`, `metrics` or `plots`, with or without options."""
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def files(root: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path; DVC's own are left out."""
    paths = (path for path in root.rglob("*") if path.is_file())
    relative = {path.relative_to(root): path for path in paths}
    return {name.as_posix(): path.read_bytes() for name, path in relative.items() if name.parts[0] != ".dvc"}


def modules_declared(stage: str) -> set[str]:
    return {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}


@pytest.mark.parametrize("stage", STAGES)
def test_every_imported_module_is_a_dependency_and_no_other(stage: str) -> None:
    assert modules_declared(stage) == set(reached(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_every_section_read_is_a_parameter_and_no_other(stage: str) -> None:
    assert set(STAGES[stage]["params"]) == sections_read(stage)


@pytest.mark.parametrize(
    ("line", "module", "section"),
    [
        ("import medtune.run.lock_file", "medtune/run/lock_file.py", None),
        ("from medtune import lock_file", "medtune/run/lock_file.py", None),
        ("from medtune.core.params import EvaluateParams; EvaluateParams.load()", None, "evaluate"),
    ],
)
def test_what_is_added_to_a_module_deep_down_is_noticed(
    tmp_path: Path, line: str, module: str | None, section: str | None
) -> None:
    for name in ("medtune", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name)
    with (tmp_path / "medtune/train/batching.py").open("a") as file:
        file.write(f"\n\ndef added():\n    {line}\n")
    assert set(reached("finetune", tmp_path)) - modules_declared("finetune") == ({module} - {None})
    assert sections_read("finetune", tmp_path) - set(STAGES["finetune"]["params"]) == ({section} - {None})


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


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_needs_and_leaves_what_it_declares_and_nothing_else(
    stage: str, finished_project: Path, tmp_path: Path
) -> None:
    declared = STAGES[stage]
    for name in names(declared["deps"]):
        source, target = finished_project / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
    params = yaml.safe_load((finished_project / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({key: params[key] for key in declared["params"]}))
    before = files(tmp_path)

    run(*declared["cmd"].split(), cwd=tmp_path, env={"PYTHONDONTWRITEBYTECODE": "1"})

    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    made = {name: content for name, content in after.items() if name not in before}
    del made["metrics/timing.json"]
    outputs = names([entry for key in ("outs", "metrics", "plots") for entry in declared.get(key, [])])
    expected = {
        name: content
        for name, content in files(finished_project).items()
        if any(name == output or name.startswith(f"{output}/") for output in outputs)
    }
    assert expected
    assert made == expected


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
