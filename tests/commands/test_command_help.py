"""What a shell completes, in the shell itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

from medtune.commands.cli import _parser
from medtune.commands.command_help import GROUPS, SHELLS, completion
from tests.project import attempt

COMPLETE = r"""
source "$1"; shift
complete -p medtune > /dev/null
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
"$(complete -p medtune | sed -E 's/.*-F (\S+).*/\1/')" medtune "${@: -1}" "${@: -2:1}"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "medtune.bash"
    path.write_text(completion(_parser(), "bash"))
    return path


def completed(script: Path, *words: str, cwd: Path) -> set[str]:
    """What bash offers for the last of the words."""
    done = attempt("bash", "--norc", "-c", COMPLETE, "bash", str(script), *words, cwd=cwd)
    assert done.stderr == ""
    return {line.strip() for line in done.stdout.splitlines()}


def test_bash_completes_commands_options_choices_and_files(script: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").touch()
    assert completed(script, "medtune", "ve", cwd=tmp_path) == {"verify"}
    assert completed(script, "medtune", "p", cwd=tmp_path) >= {"plan", "pin", "pull"}
    assert completed(script, "medtune", "verify", "--rer", cwd=tmp_path) == {"--rerun"}
    assert completed(script, "medtune", "serve", "--precision", "q", cwd=tmp_path) == {"q8_0"}
    assert completed(script, "medtune", "score", "mi", cwd=tmp_path) == {"mine.jsonl"}
    assert completed(script, "medtune", "chat", "--context", "mi", cwd=tmp_path) == {"mine.jsonl"}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_every_command(shell: str, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(completion(_parser(), shell))
    for name in ("ask", "check-remote", "verify"):
        assert name in path.read_text()
    if program := shutil.which(shell):
        subprocess.run([program, "-n", path], check=True)


def test_no_command_stands_in_two_groups() -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))
