"""A question's choices: that there is one to make, and the order in which they are shown."""

from collections.abc import Iterable

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.core.hashing import unit_hash


def shuffled(example: Example, seed: int) -> Example:
    """The example with its choices in an order drawn by the seed and its id, whatever their order was.

    A model that likes the first choice best is then right by chance alone, however a file lists them.
    """
    if example.choices is None:
        return example
    order = sorted(example.choices, key=lambda choice: unit_hash(seed, f"choice:{example.id}:{choice}"))
    return example.model_copy(update={"choices": order})


def require_a_choice(examples: Iterable[Example]) -> None:
    """Refuse a question with a single choice: whatever the model thinks, it would be right."""
    for example in examples:
        if example.choices is not None and len(example.choices) < 2:
            raise MedtuneError(f"the question '{example.id}' has a single choice: give two or more, or none")
