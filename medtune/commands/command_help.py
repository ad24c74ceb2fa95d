"""What `medtune --help` and a shell's TAB say: the commands by what a person wants, and their arguments.

A command is declared in cli.py; here it only gets its place. One that has none stands under OTHERS, which a
test refuses.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from medtune.core.errors import MedtuneError, nearest

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

GROUPS: Mapping[str, tuple[str, ...]] = {
    "try it": ("pull", "ask", "chat", "demo"),
    "bring your own": ("use", "pin", "add", "show", "without"),
    "train": ("check", "plan", "search", "seeds"),
    "judge": ("diff", "runs", "explain", "score"),
    "confirm": ("verify", "attest", "check-remote"),
    "hand over": ("export", "serve", "card", "push-runs"),
    "set up": ("completion",),
}
OTHERS = "others"
ANYWHERE = ("diff", "score")
"""Commands that can do without a repository, for files alone."""
NOWHERE = ("completion",)
"""Commands that look at no repository."""
SHELLS = ("bash", "zsh", "fish")
BESIDE = (("train", "dvc repro", "run the pipeline: whatever an edit affects, and nothing else"),)
"""What is no command of medtune's and what a newcomer looks for here: by group."""
END = "medtune COMMAND --help: what it takes. Each works anywhere in a repository."
FILES = ("--adapter", "--context", "--key", "--keys", "files", "file", "before", "after")
"""Arguments that TAB completes with files."""


class Parser(argparse.ArgumentParser):
    """A parser whose help fails when nobody reads it, as all else that is printed; argparse's is silent."""

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """Print it on standard output, or into a file."""
        print(self.format_help(), end="", file=file)


def describe_groups(
    parser: argparse.ArgumentParser, commands: "argparse._SubParsersAction[argparse.ArgumentParser]"
) -> None:
    """Have the help of `parser` list `commands` by what they are for."""
    # argparse has one list for all, and keeps the short help of a command in it.
    told = {action.dest: action.help or "" for action in commands._choices_actions}
    commands.help = argparse.SUPPRESS
    grouped = {name for names in GROUPS.values() for name in names}
    others = tuple(name for name in told if name not in grouped)
    groups = {**GROUPS, **({OTHERS: others} if others else {})}
    width = max(map(len, [*told, *(name for _, name, _ in BESIDE)]))
    lines = [line for title, names in groups.items() for line in _group(title, names, told, width)]
    parser.epilog = "\n".join([*lines, END])


def _group(title: str, names: Sequence[str], told: Mapping[str, str], width: int) -> Iterator[str]:
    listed = [(name, told[name]) for name in names if name in told]
    listed += [(name, words) for group, name, words in BESIDE if group == title]
    if listed:
        yield f"{title}:"
        yield from (f"    {name:<{width}}  {words}" for name, words in listed)
        yield ""


def parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The arguments; without any the help is shown, and a command that there is not is one line."""
    if not words:
        parser.print_help()
        parser.exit(2)
    known = [name for commands in _commands(parser) for name in commands.choices]
    if not words[0].startswith("-") and words[0] not in known:
        raise MedtuneError(f"no command '{words[0]}'; {nearest(words[0], known)}")
    return parser.parse_args(words)


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """A script that teaches a shell what can follow `medtune`."""
    import shtab

    for commands in _commands(parser):
        commands.help = "what to do"  # Suppressed, it would be left out here as well.
    for one in _parsers(parser):
        for action in one._actions:
            if {action.dest, *action.option_strings} & {*FILES}:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell=shell))


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for commands in _commands(parser):
        yield from commands.choices.values()


def _commands(parser: argparse.ArgumentParser) -> "list[argparse._SubParsersAction[argparse.ArgumentParser]]":
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
