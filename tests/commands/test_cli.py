"""The command line: quick help, and one line for every mistake."""

import os
import re
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
    for name in (
        "ask",
        "chat",
        "serve",
        "use",
        "plan",
        "check",
        "show",
        "runs",
        "diff",
        "score",
        "seeds",
        "verify",
        "check-remote",
        "push-runs",
    ):
        assert re.search(rf"^    {name}\s", shown.stdout, re.MULTILINE)
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


@pytest.mark.parametrize("arguments", [("--help",), ("use", "--list")])
def test_a_reader_that_has_had_enough_is_no_error(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "medtune.commands.cli", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("ask", "Fever?"), "error: params.yaml: no such file; run this in the top folder"),
        (("check",), "error: params.yaml: no such file; run this in the top folder"),
        (("plan",), "error: params.yaml: no such file; run this in the top folder"),
        (("runs",), "error: DVC cannot list runs here: you are not inside of a DVC repository"),
        (("seeds",), "error: params.yaml: no such file; run this in the top folder"),
        (("verify",), "error: Python imports medtune from"),
        (("check-remote",), "error: remote (default): you are not inside of a DVC repository"),
        (("push-runs",), "error: remote (default): you are not inside of a DVC repository"),
    ],
)
def test_outside_the_repository_it_says_where_to_run(
    tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    result = medtune(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
