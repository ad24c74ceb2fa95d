"""Training examples for the prompt of the untuned model: does it need tuning, or only to be shown how?"""

from collections.abc import Collection, Sequence
from typing import Any

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.core.hashing import unit_hash

Shots = dict[str, list[Example]]
"""Examples by the kind of question that they are shown before, in the order of the prompt."""


def drawn_shots(training: Sequence[Example], kinds: Collection[str], seed: int, count: int) -> Shots:
    """For each kind of question `count` of its training examples, drawn by `seed`."""
    return {kind: _drawn(training, kind, seed, count) for kind in sorted(kinds)}


def shots_record(shots: Shots | None) -> dict[str, Any]:
    """What the record of answers says of shots: their ids by kind."""
    if not shots:
        return {}
    return {"shots": {kind: [example.id for example in shown] for kind, shown in shots.items()}}


def _drawn(training: Sequence[Example], kind: str, seed: int, count: int) -> list[Example]:
    pool = [example for example in training if example.kind == kind]
    if len(pool) < count:
        raise MedtuneError(
            f"params.yaml: answer.shots is {count}, but of '{kind}' there are {len(pool)} training examples; "
            f"lower it, or raise data.kinds.{kind}.train"
        )
    return sorted(pool, key=lambda example: unit_hash(seed, f"shot:{example.id}"))[:count]
