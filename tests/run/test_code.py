"""A digest file says what a stage's code means: it changes with the meaning, and with nothing else."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medtune.core.errors import MedtuneError
from medtune.core.outputs import read_json
from medtune.core.yaml_file import read_yaml
from medtune.run import code
from tests.conftest import ROOT

CODE = """
import os

LIMIT = 3
"""
SAME = [
    "import os\n\nLIMIT = 3  # and no more\n",
    "'''What it is.'''\nimport os\nLIMIT = 3\n'''A limit.'''\n",
    "import os\nLIMIT = (\n    3\n)\n",
    "import os\nLIMIT = 0x3\n",
]
OTHER = [
    "import os\n\nLIMIT = 4\n",
    "import os\n\nLIMIT = 3.0\n",
    "import os\n\nLIMIT = True\n",
    "import os\n\nLIMIT = '3'\n",
    "import os\n\nLIMIT = None\n",
    "import sys\n\nLIMIT = 3\n",
    "import os\n\nlimit = 3\n",
    "import os\n\nLIMIT: int = 3\n",
]


def meaning(text: str) -> str:
    return code._read("a.py", text.encode()).meaning


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code of this repository, to be edited."""
    for name in code.CODE:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / code.RUNTIME_LOCK).parent.mkdir()
    shutil.copy(ROOT / code.RUNTIME_LOCK, tmp_path / code.RUNTIME_LOCK)
    return tmp_path


def changed(copy: Path, edit: Callable[[Path], None], *, quantised: bool = False) -> set[str]:
    """The entry points whose digest an edit of the copy changes."""

    def digests() -> dict[str, object]:
        return {
            name: code.digest(f"stages.{name}", quantised=quantised, root=copy) for name in code.ENTRY_POINTS
        }

    before = digests()
    edit(copy)
    after = digests()
    return {name for name in code.ENTRY_POINTS if before[name] != after[name]}


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(copy: Path) -> None:
        text = (copy / name).read_text()
        assert old in text
        (copy / name).write_text(text.replace(old, new, 1))

    edit.__name__ = f"{name}: {new}"
    return edit


def version_changed(package: str) -> Callable[[Path], None]:
    def edit(copy: Path) -> None:
        lock = copy / code.RUNTIME_LOCK
        lines = lock.read_text().splitlines()
        assert any(line.startswith(f"{package}==") for line in lines)
        edited = [f"{package}==999.0" if line.startswith(f"{package}==") else line for line in lines]
        lock.write_text("\n".join(edited) + "\n")

    edit.__name__ = f"another {package}"
    return edit


@pytest.mark.parametrize("text", SAME)
def test_comments_docstrings_and_formatting_mean_nothing(text: str) -> None:
    assert meaning(text) == meaning(CODE)


@pytest.mark.parametrize("text", OTHER)
def test_whatever_python_would_do_otherwise_means_something_else(text: str) -> None:
    assert meaning(text) != meaning(CODE)


def test_every_other_module_means_something_else() -> None:
    files = [*(ROOT / "medtune").rglob("*.py"), *(ROOT / "stages").glob("*.py")]
    bodies = {file: ast.dump(ast.parse(file.read_text())) for file in files}
    digests = {meaning(file.read_text()) for file in files if len(bodies[file]) > 300}
    assert len(digests) == len([file for file in files if len(bodies[file]) > 300])


def test_a_docstring_may_stand_for_a_body() -> None:
    assert meaning("class Error(Exception):\n    pass\n") == meaning("class Error(Exception):\n    'Bad.'\n")


@pytest.mark.parametrize("python", ["python3.12", "python3.13"])
def test_every_version_of_python_finds_the_same_meaning(python: str, tmp_path: Path) -> None:
    managed = sorted(Path.home().glob(f".pyenv/versions/{python.removeprefix('python')}*/bin/python"))
    program = str(managed[-1]) if managed else shutil.which(python)
    if program is None:
        pytest.skip(f"{python} is not here")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, types\n"
        "errors = types.ModuleType('medtune.core.errors'); errors.MedtuneError = Exception\n"
        "shadowing = types.ModuleType('medtune.run.shadowing'); shadowing.ROOT = None\n"
        "for name in ('medtune', 'medtune.core', 'medtune.run'): sys.modules[name] = types.ModuleType(name)\n"
        "pipeline = types.ModuleType('medtune.core.pipeline_file')\n"
        "pipeline.PIPELINE_FILE = pipeline.outputs_in = None\n"
        "sys.modules['medtune.core.errors'] = errors; sys.modules['medtune.run.shadowing'] = shadowing\n"
        "sys.modules['medtune.core.pipeline_file'] = pipeline\n"
        f"source = open({str(ROOT / 'medtune/run/code.py')!r}).read()\n"
        "module = types.ModuleType('code_digests')\n"
        f"module.__file__ = {str(ROOT / 'medtune/run/code.py')!r}\n"
        "sys.modules['code_digests'] = module; exec(source, module.__dict__)\n"
        "for file in sys.argv[1:]: print(module._read(file, open(file, 'rb').read()).meaning)\n"
    )
    files = sorted(str(file) for name in code.CODE for file in (ROOT / name).rglob("*.py"))
    command = [program, str(script), *files]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found == [meaning(Path(file).read_text()) for file in files]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (replaced("medtune/train/loss.py", '"""', '"""Also: '), set()),
        (replaced("medtune/train/loss.py", 'reduction="sum"', 'reduction="mean"'), {"finetune"}),
        (replaced("medtune/evaluate/scoring.py", "f1 >= partial_f1", "f1 > partial_f1"), {"evaluate"}),
        (replaced("medtune/evaluate/card.py", "LoRA adapter for", "An adapter for"), {"evaluate"}),
        (replaced("medtune/data/card.py", "Medical questions", "# Questions"), {"prepare"}),
        (replaced("medtune/answer/generation.py", "STILL_GOING = 0.9", "STILL_GOING = 0.8"), {"answer"}),
        (replaced("medtune/model/chat.py", ".strip()", ".rstrip()"), {"finetune", "answer"}),
        (replaced("medtune/evaluate/params.py", "gt=0", "gt=0.1"), {"evaluate"}),
        (replaced("medtune/commands/check.py", "nothing is wrong", "all is well"), set()),
        (version_changed("torch"), {"finetune", "answer"}),
        (version_changed("transformers"), {"finetune", "answer"}),
        (version_changed("peft"), {"finetune", "answer"}),
        (version_changed("tokenizers"), {"finetune", "answer"}),
        (version_changed("obonet"), {"prepare"}),
        (version_changed("dvc"), set()),
        (version_changed("bitsandbytes"), set()),
    ],
    ids=lambda value: " ".join(sorted(value)) if isinstance(value, set) else value.__name__,
)
def test_an_edit_changes_the_digests_of_the_stages_that_it_reaches(
    copy: Path, edit: Callable[[Path], None], expected: set[str]
) -> None:
    assert changed(copy, edit) == expected


@pytest.mark.parametrize("name", ["report.css", "report.js", "report.html.jinja"])
def test_what_a_page_is_made_of_counts_beside_modules(copy: Path, name: str) -> None:
    module = "medtune.evaluate.report"
    before = code.digest(module, quantised=False, root=copy)
    file = copy / "medtune/evaluate/page" / name
    file.write_text(file.read_text() + " ")
    (copy / "medtune/evaluate/page/notes.txt").write_text("of an editor")
    after = code.digest(module, quantised=False, root=copy)
    changed = {name for name in after["modules"] if before["modules"].get(name) != after["modules"][name]}
    assert changed == {file.relative_to(copy).as_posix()}
    assert {"itables", "jinja2", "vl-convert-python"} <= after["packages"].keys()


def test_bitsandbytes_counts_where_it_quantises(copy: Path) -> None:
    assert changed(copy, version_changed("bitsandbytes"), quantised=True) == {"finetune", "answer"}


def test_what_can_change_no_output_reaches_no_stage() -> None:
    for module in code.entry_points():
        reached = code.closure(f"stages.{module}")
        # Commands, and the estimate of what a run will need.
        assert not [
            name for name in reached if name.startswith(("medtune/commands/", "medtune/model/memory"))
        ]


def test_the_shipped_digest_files_are_those_of_the_shipped_code() -> None:
    for name, meant in code.digests_of(read_yaml(ROOT / "params.yaml")).items():
        assert read_json(ROOT / code.DIGESTS / f"{name}.json") == meant


def test_what_a_type_checker_alone_imports_does_not_count(tmp_path: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import numpy\n"
    (tmp_path / "a.py").write_text(text)
    assert code.closure("a", tmp_path)["a.py"].imports == {"typing", "typing.TYPE_CHECKING", "numpy"}


def test_a_package_nobody_has_judged_is_refused(copy: Path) -> None:
    with pytest.raises(
        MedtuneError, match=r"medtune/train/loss.py imports pandas: medtune/run/code.py is to say"
    ):
        changed(copy, replaced("medtune/train/loss.py", "import torch\n", "import torch\nimport pandas\n"))


def test_a_relative_import_is_refused(copy: Path) -> None:
    with pytest.raises(MedtuneError, match=r"medtune/train/loss.py, line \d+: a relative import"):
        changed(
            copy, replaced("medtune/train/loss.py", "import torch\n", "import torch\nfrom . import params\n")
        )


def test_another_version_than_the_locked_one_is_refused() -> None:
    with pytest.raises(MedtuneError, match=r"torch \S+ is installed, but requirements/runtime.txt has 1.0"):
        code.require_installed({"torch": "1.0"})
    with pytest.raises(MedtuneError, match=r"no-such-package is not installed"):
        code.require_installed({"no-such-package": "1.0"})


def test_what_was_imported_and_is_not_named_is_found() -> None:
    loaded = set(code.undeclared([]))
    assert {"medtune/run/code.py", "medtune/core/errors.py"} <= loaded
    assert code.undeclared(loaded) == []
    assert Path(sys.modules["medtune.run.code"].__file__ or "") == ROOT / "medtune/run/code.py"


def test_a_digest_file_that_code_writes_makes_its_module_an_entry_point(copy: Path) -> None:
    assert code.entry_points(copy) == code.ENTRY_POINTS
    written = "stages: {code: {outs: [digests/prepare.json, digests/mine.json: {cache: false}]}}\n"
    (copy / "dvc.yaml").write_text(written)
    with pytest.raises(MedtuneError, match=r"code has digests/mine.json .* there is no stages/mine.py"):
        code.entry_points(copy)
    (copy / "stages/mine.py").write_text("import math\n")
    assert code.entry_points(copy) == (*code.ENTRY_POINTS, "mine")
