"""The order in which a question's choices are shown."""

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
