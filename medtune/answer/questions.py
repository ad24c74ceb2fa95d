"""A question as a model sees it, in token ids, and whether its context has room for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from medtune.core.examples import Example
from medtune.model.chat import ChatEncoder


@dataclass(frozen=True)
class Question:
    """An example's prompt and its choices, if it has any, with their token ids.

    Questions with the same `beginning` begin with the same shots, if with any.
    """

    prompt: list[int]
    choices: list[tuple[str, list[int]]]
    beginning: str = ""

    @classmethod
    def of(cls, example: Example, encoder: ChatEncoder, shots: Sequence[Example] = ()) -> "Question":
        """As it is asked: `shots` are examples of its kind that are shown before it."""
        choices = [(choice, encoder.encode_answer(choice)) for choice in example.choices or ()]
        return cls(encoder.encode_prompt(example, shots), choices, example.kind if shots else "")

    def __len__(self) -> int:
        return len(self.prompt) + sum(len(ids) for _, ids in self.choices)

    def longest(self, max_new_tokens: int) -> int:
        """The most tokens that it may take with an answer."""
        choices = [len(ids) for _, ids in self.choices]
        return len(self.prompt) + (max(choices) if choices else max_new_tokens)
