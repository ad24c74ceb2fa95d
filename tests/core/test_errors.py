"""Whatever ends a program, a person reads one line and no traceback."""

import subprocess
import sys

import pytest

from medtune.core.errors import INTERRUPTED
from tests.conftest import ROOT


def program(body: str, *, reader: str = "") -> subprocess.CompletedProcess[str]:
    """Run `body` as the entry point of a program, with its output piped into `reader`."""
    script = f"from medtune.core.errors import MedtuneError, run\ndef main():\n    {body}\nrun(main)\n"
    command = f"{sys.executable} -c '{script}' {reader}"
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True)


def test_bad_input_is_one_line_and_exit_code_1() -> None:
    result = program('raise MedtuneError("a.txt: no such file")')
    assert (result.returncode, result.stderr) == (1, "error: a.txt: no such file\n")


@pytest.mark.parametrize("number", ["ENOSPC", "EACCES"])
def test_a_file_that_cannot_be_written_is_named(number: str) -> None:
    result = program(f'import errno; raise OSError(errno.{number}, "no way", "out.json")')
    assert (result.returncode, result.stderr) == (1, "error: out.json could not be written: no way\n")


def test_ctrl_c_says_that_the_same_command_goes_on() -> None:
    result = program("raise KeyboardInterrupt")
    assert result.returncode == INTERRUPTED
    assert result.stderr == "\ninterrupted; what is done is kept: the same command goes on from there\n"


def test_a_reader_who_has_had_enough_is_no_error() -> None:
    result = program("[print(number) for number in range(100000)]", reader="| head -n 1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n", "")


def test_a_fault_in_the_code_is_shown_as_one() -> None:
    assert "Traceback" in program("raise RuntimeError(3)").stderr
