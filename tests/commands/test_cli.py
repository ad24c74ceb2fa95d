"""The command line: quick help, and one line for every mistake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def medtune(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medtune.commands.cli", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_help_names_the_commands_and_imports_no_torch() -> None:
    shown = medtune("--help")
    assert shown.returncode == 0
    assert "ask" in shown.stdout
    script = (
        "import sys, medtune.commands.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("ask", " "), "error: the question is empty"),
        (("ask", "Fever?", "--adapter", "no/where"), "error: no/where: holds no adapter_config.json"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(arguments: tuple[str, ...], expected: str) -> None:
    result = medtune(*arguments)
    assert result.returncode == 1
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_outside_the_repository_it_says_where_to_run(tmp_path: Path) -> None:
    result = medtune("ask", "Fever?", cwd=tmp_path)
    assert result.returncode == 1
    assert "error: params.yaml: no such file; run this in the top folder" in result.stderr
