"""The command line: quick help, and one line for every mistake."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medtune.commands.cli import _parser
from medtune.commands.command_help import OTHERS, _commands
from medtune.commands.reader import NOBODY_READS
from tests.conftest import ROOT

COMMANDS = [name for commands in _commands(_parser()) for name in commands.choices]


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
    for name in COMMANDS:
        assert re.search(rf"^    {name}\s+\S", shown.stdout, re.MULTILINE)
    script = (
        "import sys, medtune.commands.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_importing_the_command_leaves_the_process_as_it_was_and_calling_it_keeps_out_what_costs() -> None:
    script = (
        "import sys; from medtune.commands import cli; assert 'bitsandbytes' not in sys.modules; "
        "sys.argv[1:] = ['use', '--list']; cli.main(); sys.exit(sys.modules['bitsandbytes'] is not None)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _parser().parse_args([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: medtune {command} ")


def test_every_command_has_its_place_in_the_help_and_a_line_of_the_terminal() -> None:
    shown = _parser().format_help()
    assert f"{OTHERS}:" not in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_without_a_command_the_help_is_shown() -> None:
    shown = medtune()
    assert shown.returncode == 2
    assert shown.stdout == medtune("--help").stdout


@pytest.mark.parametrize(
    ("typed", "said"), [("vrify", "did you mean 'verify'?"), ("train", "accepted: ask, chat,")]
)
def test_a_command_that_there_is_not_is_one_line(typed: str, said: str) -> None:
    result = medtune(typed)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: no command '{typed}'; {said}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("use", "llama-3.2-1b", "--dry-run"),
        ("completion", "bash"),
        ("diff", "metrics/no.jsonl"),
    ],
)
@pytest.mark.parametrize("closed", ["stdout", "both"])
def test_a_reader_that_has_had_enough_ends_it_as_it_ends_other_programs(
    arguments: tuple[str, ...], closed: str
) -> None:
    command = [sys.executable, "-m", "medtune.commands.cli", *arguments]
    errors = subprocess.STDOUT if closed == "both" else subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None
        process.stdout.close()
        said = process.stderr.read() if process.stderr else b""
    if arguments[0] == "diff" and closed == "stdout":
        # It printed nothing, and so did not notice.
        assert (process.returncode, said) == (1, b"error: metrics/no.jsonl: no such file\n")
    else:
        assert (process.returncode, said) == (NOBODY_READS, b"")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("ask", " "), "error: the question is empty"),
        (("ask", "Fever?", "--adapter", "no/where"), "error: no/where: holds no adapter_config.json"),
        (("serve", "--base", "--port", "70000"), "error: --port is 70000; accepted: 0 (a free one) to 65535"),
        (("serve", "--threads", "0"), "error: --threads is 0: must be 1 or more"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(arguments: tuple[str, ...], expected: str) -> None:
    result = medtune(*arguments)
    assert result.returncode == 1
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


NO_REPOSITORY = "error: {}: in no medtune repository (no folder from it up to / has .dvc); run this in"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("check",), NO_REPOSITORY),
        (("verify", "--json"), NO_REPOSITORY),
        (("use", "--list"), NO_REPOSITORY),
        (("diff", "HEAD"), "error: 'HEAD' is no file of predictions (.json, .jsonl), and here is no rep"),
        (("score", "mine.jsonl"), "error: mine.jsonl: no such file"),
    ],
)
def test_outside_the_repository_it_says_so_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    result = medtune(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(expected.format(tmp_path))
    assert result.stderr.count("\n") == 1
