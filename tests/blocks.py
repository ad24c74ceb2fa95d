"""The code blocks of a Markdown page, with the mark that says how each is tried.

A mark is an HTML comment above a block, which no reader sees:

    <!-- run -->                                      a test runs the block, in the order of the page
    <!-- run by: tests/verify/test_remotes.py -->     that file of tests does
    <!-- not run: needs a GPU -->                     nobody does, and why
    <!-- but for `make test`: takes an hour -->       below `run`: lines with such a beginning are left out

Use: `for block in blocks(ROOT / "docs/experiments.md"): if block.runs: run_block(block, folder)`.
tests/pipeline/test_blocks.py refuses a block of commands without a mark, in every page.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from tests.project import run

COMMANDS = frozenset(["bash", "console", "python", "sh", "shell"])
"""Languages of blocks that a reader is meant to run."""
LEFT_OUT = re.compile(r"^but for `(.+?)`: .+")


@dataclass(frozen=True)
class Block:
    """A fenced block: its text, its mark ("" without one), the number of its first line, its language."""

    text: str
    mark: str
    line: int
    language: str
    left_out: tuple[str, ...] = ()

    @property
    def is_commands(self) -> bool:
        """Whether a reader is meant to run it."""
        return self.language in COMMANDS

    @property
    def runs(self) -> bool:
        """Whether it is marked to be run."""
        return self.mark == "run"

    @property
    def script(self) -> str:
        """The text without the lines that the mark leaves out."""
        kept = [line for line in self.text.splitlines() if not line.strip().startswith(self.left_out)]
        return "\n".join(kept) + "\n"


def blocks(path: Path) -> list[Block]:
    """Every fenced block of a page, in order, also those in lists and quotes."""
    found, comments = list[Block](), list[str]()
    for token in MarkdownIt().parse(path.read_text(encoding="utf-8")):
        if token.type == "html_block":
            found_here = re.findall(r"<!--(.+?)-->", token.content, re.DOTALL)
            comments += [" ".join(comment.split()) for comment in found_here]
        elif token.type == "fence":
            assert token.map is not None
            left_out = tuple(match[1] for comment in comments if (match := LEFT_OUT.match(comment)))
            mark = " ".join(comment for comment in comments if not LEFT_OUT.match(comment))
            language = (token.info.split() or [""])[0]
            found.append(Block(token.content, mark, token.map[0] + 1, language, left_out))
            comments = []
        else:
            comments = []
    return found


def run_block(block: Block, folder: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a block's lines in a folder as one script, which ends at the first that fails; what it printed."""
    if block.language == "python":
        return run("python", "-c", block.script, cwd=folder, env=env)
    # What asks for input finds its end: a test waits for nobody.
    return run("bash", "-euo", "pipefail", "-c", f"exec < /dev/null\n{block.script}", cwd=folder, env=env)
