"""What a process of medtune's own runs is the source that is there."""

import os
import shutil
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of the code, compiled."""
    for name in ("medtune", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_an_edit_that_is_taken_back_within_the_second_is_not_run(code: Path) -> None:
    module = code / "medtune/evaluate/statistics.py"
    original = module.read_text()
    script = "import {}; from medtune.evaluate.statistics import mean; print(mean([1.0, 2.0]))"
    edited = original.replace("def mean(", "mean = lambda _: 7\ndef kean(")
    assert edited != original
    # The same second and the same size: Python takes what it has compiled of the one for the other.
    edited += "#" * (len(original) - len(edited) - 1) + "\n" if len(edited) < len(original) else ""
    original += "#" * (len(edited) - len(original) - 1) + "\n" if len(edited) > len(original) else ""
    second = module.stat().st_mtime_ns // 10**9 * 10**9
    module.write_text(edited)
    os.utime(module, ns=(second, second))
    assert python(code, script.format("medtune")) == "7"
    module.write_text(original)
    os.utime(module, ns=(second + 5 * 10**8, second + 5 * 10**8))
    compiled = next(module.parent.glob("__pycache__/statistics.*.pyc"))
    os.utime(compiled, ns=(second + 3 * 10**8, second + 3 * 10**8))
    assert python(code, script.format("medtune")) == "7", "Python alone is taken in"
    assert python(code, script.format("stages")) == "1.5"


def test_compiled_code_that_cannot_be_deleted_is_named(code: Path) -> None:
    module = code / "medtune/evaluate/statistics.py"
    # No file, which not even root deletes as one.
    compiled = Path(cache_from_source(str(module)))
    compiled.mkdir(parents=True)
    os.utime(compiled, ns=(0, 0))
    for command in (["-m", "stages.prepare"], ["-m", "medtune.commands.cli", "use"]):
        refused = started(code, *command)
        said = f"error: {compiled}: may be of older code and cannot be deleted "
        assert refused.returncode == 1
        assert refused.stderr.startswith(said)
        assert refused.stderr.count("\n") == 1
    with pytest.raises(subprocess.CalledProcessError) as raised:
        python(code, "import stages")
    assert "MedtuneError" in raised.value.stderr.splitlines()[-1], "a process of the user's own may catch it"


def started(code: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=code,
        env=env | {"PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
    )


def python(code: Path, script: str) -> str:
    ended = started(code, "-c", script)
    ended.check_returncode()
    return ended.stdout.strip()
