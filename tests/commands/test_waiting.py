"""Progress is for people at a terminal; a pipe gets none of it, and programs get nothing but JSON."""

import json
import os
import pty
import subprocess
import sys

from tests.conftest import ROOT

PLAN = (sys.executable, "-m", "medtune.commands.cli", "plan", "--worst", "--json")


def test_at_a_terminal_it_is_said_what_takes_its_time_and_json_stays_pure() -> None:
    outer, inner = pty.openpty()
    env = os.environ | {"TERM": "xterm"}
    process = subprocess.Popen(PLAN, cwd=ROOT, stdout=subprocess.PIPE, stderr=inner, env=env)
    os.close(inner)
    printed, _ = process.communicate(timeout=60)
    shown = os.read(outer, 65536).decode()
    os.close(outer)
    assert "planning" in shown
    assert json.loads(printed)["stages"]


def test_in_a_pipe_there_is_no_control_character_and_no_progress() -> None:
    # Variables with which libraries take a pipe for a terminal.
    env = os.environ | {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    process = subprocess.run(PLAN, cwd=ROOT, capture_output=True, text=True, env=env)
    assert process.stderr == ""
    assert json.loads(process.stdout)["stages"]
