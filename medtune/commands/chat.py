"""medtune chat: a conversation in the terminal, or with whatever is at the other end of a pipe."""

import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from medtune.answer.answerer import Answerer
from medtune.answer.conversation import Conversation
from medtune.commands.tables import without_control
from medtune.commands.text_file import read_file
from medtune.commands.waiting import waiting
from medtune.core.errors import Interrupted, MedtuneError, nearest
from medtune.core.notices import NOT_MEDICAL_ADVICE

PROMPT = ">>> "
COMMANDS = ["/quit", "/reset"]
HELP = "/reset begins anew, /quit or Ctrl-D ends, Ctrl-C stops an answer"


def chat(adapter: Path | None, context: Path | None = None) -> None:
    """Answer what is typed, line by line, with an adapter (None: the base model) until the end of input.

    `context` is a file whose text stands before the first question. In a pipe nothing but answers goes to
    standard output, each ended by a newline, and a question that cannot be answered is a MedtuneError; at a
    terminal it is told, and the conversation stays as it was.
    """
    text = None if context is None else _read_context(context)
    with waiting("loading the model"):
        conversation = Conversation(Answerer.load(adapter), text)
    print(NOT_MEDICAL_ADVICE.replace("*", ""), file=sys.stderr)
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if at_terminal:
        print(HELP, file=sys.stderr)
    for line in _typed() if at_terminal else _piped():
        if line == "/quit":
            return
        try:
            if line == "/reset":
                conversation.reset()
            else:
                _require_no_command(line)
                _answer(conversation, line, at_terminal=at_terminal)
        except MedtuneError as error:
            if not at_terminal:
                raise
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            if not at_terminal:
                raise Interrupted("what was answered stands above") from None
            print("\n(stopped)", file=sys.stderr)


def _answer(conversation: Conversation, question: str, *, at_terminal: bool) -> None:
    with closing(conversation.ask(question)) as pieces:
        for piece in pieces:
            print(without_control(piece) if at_terminal else piece, end="", flush=True)
    print(flush=True)
    if conversation.truncated:
        most = conversation.answerer.params.max_new_tokens
        print(f"cut off at {most} tokens (answer.max_new_tokens in params.yaml)", file=sys.stderr)


def _typed() -> Iterator[str]:
    """Lines typed at a terminal, with editing and the arrow keys where Python has them."""
    with suppress(ImportError):
        import readline  # noqa: F401  # `input` uses it once it is there
    while True:
        try:
            line = input(PROMPT).strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print(f"\n{HELP}", file=sys.stderr)
            continue
        except UnicodeDecodeError:
            print("error: what was typed is not UTF-8 text", file=sys.stderr)
            continue
        if line:
            yield line


def _piped() -> Iterator[str]:
    try:
        yield from (line.strip() for line in sys.stdin if line.strip())
    except UnicodeDecodeError:
        raise MedtuneError("standard input is not UTF-8 text") from None


def _require_no_command(line: str) -> None:
    """A line that looks like a command and is none is no question."""
    if line.startswith("/") and len(line.split()) == 1:
        raise MedtuneError(f"unknown command {line}; {nearest(line, COMMANDS)}")


def _read_context(path: Path) -> str:
    text = read_file(path).strip()
    if not text:
        raise MedtuneError(f"{path}: is empty; accepted: a text that is shown before the first question")
    return text
