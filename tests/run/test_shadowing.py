"""What lies in the top folder is not imported in place of a library's module, or the run is refused."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest

from medtune.core.errors import MedtuneError
from medtune.core.outputs import write_json
from medtune.core.yaml_file import read_yaml
from medtune.run import code, shadowing
from medtune.run.shadowing import TAKES_A_PLACE, require_no_shadows
from tests.conftest import ROOT, edit_params
from tests.project import attempt
from tests.tiny import TINY

FORGED = "import sys\nprint('forged', file=sys.stderr)\n"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage `prepare` needs of the repository, with questions of its own."""
    folder = tmp_path_factory.mktemp("small")
    for name in code.CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "requirements/runtime.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    edit_params(folder / "params.yaml", {**TINY, "data.kinds": {"sum": {}}})
    rows = [
        {"id": f"{i}", "question": f"{i} + 1?", "answer": f"{i + 1}", "kind": "sum", "group": f"{i}"}
        for i in range(60)
    ]
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/raw/questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    meaning = code.digest("stages.prepare", quantised=False)
    assert not code.is_quantised(read_yaml(folder / "params.yaml"))
    write_json(folder / code.DIGESTS / "prepare.json", meaning)
    return folder


@pytest.fixture
def small(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, as the current folder."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    folder = Path(shutil.copytree(prepared, tmp_path / "small"))
    monkeypatch.chdir(folder)
    return folder


def prepare(folder: Path) -> subprocess.CompletedProcess[str]:
    return attempt("python", "-m", "stages.prepare", cwd=folder)


# One that a library imports, one that this repository imports, and one of Python's own.
@pytest.mark.parametrize("name", ["portalocker.py", "pydantic.py", "numpy/__init__.py", "statistics.py"])
def test_a_stage_beside_a_file_named_like_a_library_is_refused_before_it_imports_any(
    small: Path, name: str
) -> None:
    (small / name).parent.mkdir(exist_ok=True)
    (small / name).write_text(FORGED)
    refused = prepare(small)
    assert refused.returncode == 1
    assert refused.stderr == f"error: {name.partition('/')[0]} {TAKES_A_PLACE}\n"
    assert not (small / "data/prepared").exists()


def test_scripts_folders_and_an_environment_in_the_top_folder_are_no_libraries(small: Path) -> None:
    (small / "my_script.py").write_text(FORGED)
    (small / "test.py").write_text(FORGED)
    # Without `__init__.py` Python prefers the library.
    (small / "numpy").mkdir()
    (small / "numpy/notes.py").write_text(FORGED)
    (small / ".venv").symlink_to(ROOT / ".venv")
    done = prepare(small)
    assert (done.returncode, done.stderr) == (0, "")
    assert (small / "data/prepared/train.jsonl").exists()


def test_an_environment_inside_the_top_folder_is_not_part_of_it(small: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], check=True)
    libraries = next((small / ".venv/lib").glob("python*/site-packages"))
    (libraries / "inside.py").write_text("import sys\nprint('inside', file=sys.stderr)\n")
    (libraries / "inside.pth").write_text(f"{sysconfig.get_path('purelib')}\nimport inside\n")
    done = attempt(str(small / ".venv/bin/python"), "-m", "stages.prepare", cwd=small)
    assert (done.returncode, done.stderr) == (0, "inside\n")


@pytest.mark.parametrize("name", ["extra.py", "extra/part.py"])
def test_a_stage_that_imported_a_file_of_the_top_folder_is_refused(small: Path, name: str) -> None:
    # A library may look for a module that is not installed, and so is nobody's yet.
    (small / name).parent.mkdir(exist_ok=True)
    (small / name).write_text(FORGED)
    module = name.removesuffix(".py").replace("/", ".")
    script = f"import runpy, sys; sys.path.insert(0, ''); import {module}; sys.argv = ['prepare']; "
    refused = attempt(
        "python", "-c", f"{script}runpy.run_module('stages.prepare', run_name='__main__')", cwd=small
    )
    assert refused.returncode == 1
    assert refused.stderr == f"forged\nerror: prepare: imported {name}, which {TAKES_A_PLACE}\n"
    assert not (small / "data/prepared").exists()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, current and the top of a repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shadowing, "ROOT", tmp_path)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("portalocker.py", True),
        ("portalocker.pyc", True),
        (f"portalocker{EXTENSION_SUFFIXES[0]}", True),
        ("portalocker.so", True),
        ("portalocker/__init__.py", True),
        ("portalocker/__init__.pyc", True),
        ("json.py", True),
        ("sitecustomize.py", True),
        # What ruamel.yaml stands in is no package: folders of that name are joined.
        ("ruamel/yaml/__init__.py", True),
        ("ruamel/notes.txt", False),
        ("portalocker.txt", False),
        ("portalocker/notes.py", False),
        ("my_script.py", False),
        ("my-script.py", False),
        ("test.py", False),
        ("tests/__init__.py", False),
    ],
)
def test_whatever_python_would_import_in_place_of_a_library_is_refused(
    folder: Path, name: str, refused: bool
) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    if refused:
        with pytest.raises(MedtuneError, match=f"^{re.escape(Path(name).parts[0])} takes the place of a lib"):
            require_no_shadows()
    else:
        require_no_shadows()


def load(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    module = ModuleType("loaded")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "loaded", module)


@pytest.mark.parametrize("name", ["a.py", "a.pyc", "a.so", "a/__init__.py", "b/a.py", "medtune/a.py"])
def test_whatever_was_imported_from_here_is_to_be_declared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    load(monkeypatch, folder / name)
    assert code.undeclared([]) == [name]
    assert code.undeclared([name]) == []


def test_a_link_counts_where_it_stands_and_where_it_leads_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "here.py").touch()
    (elsewhere / "there.py").touch()
    (folder / "out.py").symlink_to(elsewhere / "there.py")
    (elsewhere / "in.py").symlink_to(folder / "here.py")
    load(monkeypatch, folder / "out.py")
    assert code.undeclared([]) == ["out.py"]
    load(monkeypatch, elsewhere / "in.py")
    assert code.undeclared([]) == ["here.py"]


def test_a_module_of_the_current_folder_is_not_one_of_the_top_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    current = tmp_path_factory.mktemp("current")
    monkeypatch.chdir(current)
    load(monkeypatch, current / "medtune/a.py")
    assert code.undeclared(["medtune/a.py"]) == [str(current / "medtune/a.py")]


@pytest.mark.parametrize(
    ("prefix", "found"), [(".venv", []), (".", ["lib/a.py"]), ("..", ["lib/a.py"]), ("lib", [])]
)
def test_only_an_environment_inside_the_folder_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, found: list[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", str((folder / prefix).resolve()))
    load(monkeypatch, folder / (".venv/lib/a.py" if prefix == ".venv" else "lib/a.py"))
    assert code.undeclared([]) == found
