"""What a source gives: examples, and the words the licence of their origin asks for."""

from dataclasses import dataclass

from medtune.core.examples import Example


@dataclass(frozen=True)
class Source:
    """Every example of a source; `attribution` is Markdown for the data and model cards."""

    examples: list[Example]
    attribution: str
