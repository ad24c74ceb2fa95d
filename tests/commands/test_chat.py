"""`medtune chat`: in a pipe answers and nothing else, at a terminal commands, Ctrl-C and Ctrl-D."""

import io
import os
import pty
import re
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from medtune.answer.answerer import Answerer
from medtune.answer.conversation import Conversation
from medtune.commands.chat import chat
from medtune.core.errors import Interrupted, MedtuneError
from medtune.model.chat import ChatEncoder
from tests.answer.test_answerer import ANSWER, PROMPT
from tests.conftest import ROOT, edit_params
from tests.project import environment
from tests.tiny import TINY, build_tiny_base

TOLD = "Not medical advice. Answers may be wrong and are no basis for any decision about health."


@pytest.fixture
def answerer(
    tiny_llama: LlamaForCausalLM, chatml_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> Answerer:
    found = Answerer(tiny_llama, ChatEncoder(chatml_tokenizer, PROMPT), ANSWER)
    monkeypatch.setattr(Answerer, "load", lambda adapter: found)
    return found


def pipe(monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> None:
    raw = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))


def test_in_a_pipe_answers_are_all_that_is_printed(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(monkeypatch, "What is fever?\n\n  /reset \nWhy?\n/reset\nWhat is fever?\n/quit\nNever asked?\n")
    chat(None)
    printed = capsys.readouterr()
    fever, why = answerer.ask("What is fever?"), answerer.ask("Why?")
    assert printed.out == f"{fever}\n{why}\n{fever}\n"
    assert printed.err.startswith(TOLD)
    assert "cut off at 8 tokens (answer.max_new_tokens in params.yaml)" in printed.err
    assert ">>>" not in printed.err


def test_ctrl_c_in_a_pipe_ends_it(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(self: Conversation, question: str) -> Iterator[str]:
        yield "A high"
        raise KeyboardInterrupt

    pipe(monkeypatch, "What is fever?\nWhy?\n")
    monkeypatch.setattr(Conversation, "ask", stopped)
    with pytest.raises(Interrupted, match="what was answered stands above"):
        chat(None)
    assert capsys.readouterr().out == "A high"


def test_a_file_of_context_stands_before_the_first_question(
    answerer: Answerer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "context.txt").write_text("Fever is hot.\n")
    pipe(monkeypatch, "What is fever?\n")
    chat(None, tmp_path / "context.txt")
    assert capsys.readouterr().out == answerer.ask("What is fever?", "Fever is hot.") + "\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file"),
        (b" \n", "is empty; accepted: a text"),
        (b"fi\xe8vre", "not UTF-8 text: save the file as UTF-8"),
    ],
)
def test_a_context_that_cannot_be_read_is_one_line(
    answerer: Answerer, tmp_path: Path, content: bytes | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / "context.txt").write_bytes(content)
    with pytest.raises(MedtuneError, match=rf"context\.txt: {expected}"):
        chat(None, tmp_path / "context.txt")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("/rset", "unknown command /rset; did you mean '/reset'?"),
        ("Fever? " * 500, "the conversation takes .* begin a new one, or ask more briefly"),
        (b"fi\xe8vre?", "standard input is not UTF-8 text"),
    ],
)
def test_in_a_pipe_a_question_that_cannot_be_answered_is_an_error_after_the_answers_before_it(
    answerer: Answerer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str | bytes,
    expected: str,
) -> None:
    raw = typed.encode() if isinstance(typed, str) else typed
    # So far before it that it is read apart.
    pipe(monkeypatch, b"What is fever?\n" + b"\n" * 10_000 + raw + b"\n")
    with pytest.raises(MedtuneError, match=expected):
        chat(None)
    assert capsys.readouterr().out == answerer.ask("What is fever?") + "\n"


class Terminal:
    """`medtune chat --base` at a terminal of its own, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.screen = ""
        pid, self._terminal = pty.fork()
        if pid == 0:
            os.chdir(folder)
            command = [sys.executable, "-m", "medtune.commands.cli", "chat", "--base"]
            os.execvpe(command[0], command, environment({"PYTHONPATH": str(ROOT), "TERM": "dumb"}))
        self._pid = pid

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def until(self, pattern: str, seconds: float = 60) -> str:
        """Read until a pattern comes; what was on the screen up to its end is no longer looked at."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.screen)):
            assert time.monotonic() < end, f"no {pattern!r} in {self.screen!r}"
            if select.select([self._terminal], [], [], 0.1)[0]:
                self.screen += os.read(self._terminal, 4096).decode()
        seen, self.screen = self.screen[: found.end()], self.screen[found.end() :]
        return seen

    def exit_code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def test_at_a_terminal_ctrl_c_stops_an_answer_and_ctrl_d_ends(tmp_path: Path) -> None:
    params = TINY | build_tiny_base(tmp_path / "base") | {"answer.max_new_tokens": 380}
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    edit_params(tmp_path / "params.yaml", params)
    terminal = Terminal(tmp_path)
    assert TOLD in terminal.until(">>> ")
    # Ctrl-C
    terminal.type("\x03")
    terminal.until("Ctrl-C stops an answer(.|\n)*>>> ")
    terminal.type("/rset\n")
    terminal.until("error: unknown command /rset; did you mean '/reset'(.|\n)*>>> ")
    terminal.type("Fever? " * 200 + "\n")
    terminal.until("error: the question takes (.|\n)*>>> ")
    # Its answer has no end: all 380 tokens.
    terminal.type("What is 16 + 16?\n")
    terminal.until(r"16 \+ 16\?\r\n[^\r]")
    terminal.type("\x03")
    assert "Traceback" not in terminal.until(r"\(stopped\)(.|\n)*>>> ")
    # Ctrl-D
    terminal.type("\x04")
    assert terminal.exit_code() == 0
