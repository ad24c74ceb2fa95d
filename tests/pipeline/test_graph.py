"""dvc.yaml says what the code does: every parameter and file of a stage, and the digest of its code."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from medtune.run.code import closure, entry_points
from medtune.run.stage import Stage
from tests.conftest import ROOT
from tests.project import run

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
DECLARED: dict[str, Any] = PIPELINE["stages"]


def stages_of(module: str) -> list[Stage]:
    """The stages of a module of `stages`: its STAGE, or, of several, its STAGES."""
    found = importlib.import_module(f"stages.{module}")
    return list(found.STAGES.values()) if hasattr(found, "STAGES") else [found.STAGE]


STAGES = {stage.name: stage for module in entry_points() for stage in stages_of(module)}
"""Those that were added included, if they are of this repository's code."""
each_stage = pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
FLOORS = [
    ("core",),
    ("run",),
    ("model",),
    ("data", "train", "answer", "evaluate"),
    ("verify", "explain", "export"),
    ("commands",),
    ("stages",),
]
"""Packages from the ground up: none imports from a floor above it, or from a neighbour on its own."""


def names(entries: list[Any]) -> set[str]:
    """The paths of `deps`, `outs`, `metrics` or `plots`, with or without options."""
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def outputs(stage: str) -> set[str]:
    declared = DECLARED[stage]
    return names([entry for key in ("outs", "metrics", "plots") for entry in declared.get(key, [])])


def dependencies(stage: str) -> set[str]:
    """With the launch file that the shipped parameters name."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    return {
        re.sub(r"\$\{(\w+)\.(\w+)\}", lambda match: params[match[1]][match[2]], name)
        for name in names(DECLARED[stage]["deps"])
    }


def files(root: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path; DVC's own are left out."""
    paths = (path for path in root.rglob("*") if path.is_file())
    relative = {path.relative_to(root): path for path in paths}
    return {name.as_posix(): path.read_bytes() for name, path in relative.items() if name.parts[0] != ".dvc"}


def floor(package: str) -> int:
    return next(number for number, packages in enumerate(FLOORS) if package in packages)


def test_the_stages_are_those_of_dvc_yaml() -> None:
    ours = [name for name, stage in DECLARED.items() if stage["cmd"].startswith("python -m stages.")]
    assert ours == ["code", *STAGES]


@each_stage
def test_a_stage_reads_the_sections_that_it_declares_and_no_other(stage: Stage) -> None:
    assert DECLARED[stage.name]["params"] == [section.name for section in stage.sections]
    text = (ROOT / f"stages/{stage.module}.py").read_text()
    read = set(re.findall(r"run\.params\((\w+)\)", text))
    assert read == {section.__name__ for section in stage.sections}


@each_stage
def test_no_module_of_a_stage_reads_parameters_on_its_own(stage: Stage) -> None:
    sections = {section.__name__ for each in STAGES.values() for section in each.sections}
    callers = {
        (name, node.func.value.id)
        for name in closure(f"stages.{stage.module}")
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "load"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in sections
    }
    # For users of `Answerer.load`; the stage hands its parameters on.
    assert {name for name, _ in callers} <= {"medtune/answer/params.py"}


@each_stage
def test_the_dependencies_are_what_the_stage_reads(stage: Stage) -> None:
    launch = {"configs/accelerate/single.yaml"} if stage.launch else set()
    inputs = {path.as_posix() for path in stage.inputs}
    assert dependencies(stage.name) == {stage.digest_file.as_posix()} | inputs | launch


@each_stage
def test_the_outputs_are_what_the_stage_writes(stage: Stage) -> None:
    assert outputs(stage.name) == {path.as_posix() for path in stage.outputs}


@each_stage
def test_every_run_of_a_stage_goes_into_the_run_cache(stage: Stage) -> None:
    # DVC leaves out those with an output that only git keeps, if it is neither metric nor plot.
    for output in DECLARED[stage.name].get("outs", []):
        assert isinstance(output, str)


@each_stage
def test_every_path_in_the_code_is_declared(stage: Stage) -> None:
    # Those named answer-* are one module: each path must belong to one of them.
    same_module = [other for other in STAGES.values() if other.module == stage.module]
    declared = {path.as_posix() for other in same_module for path in (*other.inputs, *other.outputs)}
    unrecorded = {"metrics/timing.json", "metrics/environment.json"}
    paths = {
        literal
        for name in closure(f"stages.{stage.module}")
        if name.startswith("stages/")
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Path"
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(literal := argument.value, str)
        if re.match(r"(data|models|metrics)/", literal)
    }
    assert paths
    for path in paths - unrecorded:
        assert any(known == path or known.startswith(f"{path}/") for known in declared), path


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("import medtune.evaluate.scoring", "medtune/evaluate/scoring.py"),
        ("from medtune.data import splits", "medtune/data/splits.py"),
    ],
)
def test_what_is_added_to_a_module_deep_down_is_noticed(tmp_path: Path, line: str, module: str) -> None:
    for name in ("medtune", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name)
    with (tmp_path / "medtune/train/batching.py").open("a") as file:
        file.write(f"\n\ndef added():\n    {line}\n")
    added = set(closure("stages.finetune", tmp_path)) - set(closure("stages.finetune"))
    assert module in added


@pytest.mark.parametrize("package", [package for packages in FLOORS for package in packages])
def test_no_package_imports_from_a_floor_above_or_beside(package: str) -> None:
    folder = ROOT / package if package == "stages" else ROOT / "medtune" / package
    for file in folder.glob("*.py"):
        for imported in re.findall(r"^\s*(?:from|import) (medtune\.\w+|stages)\b", file.read_text(), re.M):
            other = imported.removeprefix("medtune.")
            assert other == package or floor(other) < floor(package), f"{file} imports {imported}"


@pytest.mark.parametrize("package", ["medtune.core", "medtune.evaluate", "medtune.data"])
def test_core_data_and_evaluate_import_no_torch(package: str) -> None:
    folder = ROOT.joinpath(*package.split("."))
    modules = [f"{package}.{file.stem}" for file in folder.glob("*.py") if file.stem != "__init__"]
    script = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@pytest.mark.parametrize("stage", ["code", "prepare", "answer", "evaluate"])
def test_the_quick_stages_import_no_torch(stage: str) -> None:
    script = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@pytest.mark.slow
@each_stage
def test_a_stage_needs_and_leaves_what_it_declares_and_nothing_else(
    stage: Stage, finished_project: Path, tmp_path: Path
) -> None:
    for name in dependencies(stage.name):
        source, target = finished_project / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
    params = yaml.safe_load((finished_project / "params.yaml").read_text())
    sections = DECLARED[stage.name]["params"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({key: params[key] for key in sections}))
    before = files(tmp_path)

    code_is_elsewhere = {"PYTHONPATH": str(finished_project), "PYTHONDONTWRITEBYTECODE": "1"}
    run(*DECLARED[stage.name]["cmd"].split(), cwd=tmp_path, env=code_is_elsewhere)

    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    made = {name: content for name, content in after.items() if name not in before}
    del made["metrics/timing.json"]
    made.pop("metrics/environment.json", None)
    expected = {
        name: content
        for name, content in files(finished_project).items()
        if any(name == output or name.startswith(f"{output}/") for output in outputs(stage.name))
    }
    assert expected
    assert made == expected


def test_the_runtime_lock_and_the_code_are_dependencies_of_the_first_stage_alone() -> None:
    code = {"medtune", "stages", "requirements/runtime.txt"}
    assert code <= names(DECLARED["code"]["deps"])
    for stage in STAGES:
        assert not code & names(DECLARED[stage]["deps"])


def test_the_committed_lock_has_these_stages_and_no_other() -> None:
    locked = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert locked.keys() == DECLARED.keys()


def test_clock_and_machine_are_outputs_of_no_stage() -> None:
    for stage in DECLARED:
        assert not {"metrics/timing.json", "metrics/environment.json"} & outputs(stage)


def test_the_answers_differ_in_the_adapter_or_in_the_shots_alone() -> None:
    base, tuned, shots = (DECLARED[f"answer-{name}"] for name in ("base", "tuned", "shots"))
    difference = set(tuned["deps"]) - set(base["deps"])
    assert difference == {"models/adapter/adapter_model.safetensors", "models/adapter/adapter_config.json"}
    assert set(shots["deps"]) - set(base["deps"]) == {"data/prepared/train.jsonl"}
    assert base["params"] == tuned["params"] == shots["params"]
