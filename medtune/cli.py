"""The `medtune` command."""

import argparse
from pathlib import Path

from medtune.errors import MedtuneError, run


def main() -> None:
    """Entry point of the console script."""
    run(_main)


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="medtune", description="Reproducible LoRA fine-tuning on medical questions."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    ask = commands.add_parser("ask", help="answer a question with the adapter")
    ask.add_argument("question", help='such as "What is arachnodactyly?"')
    ask.add_argument("--context", help="text shown to the model before the question")
    ask.add_argument("--base", action="store_true", help="ask the untuned model instead")
    ask.add_argument("--adapter", type=Path, default=Path("models/adapter"), help="default: %(default)s")
    ask.set_defaults(call=_ask)
    arguments = parser.parse_args()
    arguments.call(arguments)


def _ask(arguments: argparse.Namespace) -> None:
    if not arguments.question.strip():
        raise MedtuneError("the question is empty")
    # Imported here: torch takes seconds to load, and `medtune --help` does not need it.
    from medtune.answering import Answerer

    answerer = Answerer.load(adapter=None if arguments.base else arguments.adapter)
    print(answerer.ask(arguments.question, arguments.context))


if __name__ == "__main__":
    main()
