"""Two sets of predictions side by side: by example id, on the questions that both answer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import networkx as nx

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.evaluate.prediction_files import Given


@dataclass(frozen=True)
class Alignment:
    """The answers of two sides to the same questions, in one order; how many questions were left out.

    `only` counts those that one side alone has, `differing` those that read differently or have another
    answer.
    """

    before: list[Given]
    after: list[Given]
    only: tuple[int, int]
    differing: int

    @property
    def left_out(self) -> int:
        """Questions of either side that are not compared."""
        return sum(self.only) + self.differing


def align(
    before: Sequence[Given], after: Sequence[Given], names: tuple[str, str], *, common: bool
) -> Alignment:
    """Pair by id; sets of other questions are refused, unless only the `common` ones are to be compared."""
    ours, theirs = ({example.id: (example, answer) for example, answer in side} for side in (before, after))
    shared = [name for name in ours if name in theirs]
    same = [name for name in shared if _asked(ours[name][0]) == _asked(theirs[name][0])]
    groups = _joined_groups((ours[name][0], theirs[name][0]) for name in same)
    pairs = [
        tuple(
            (example.model_copy(update={"group": groups[example.id]}), answer)
            for example, answer in (ours[name], theirs[name])
        )
        for name in same
    ]
    found = Alignment(
        [pair[0] for pair in pairs],
        [pair[1] for pair in pairs],
        (len(ours) - len(shared), len(theirs) - len(shared)),
        len(shared) - len(same),
    )
    if not same:
        raise MedtuneError(f"{names[0]} and {names[1]} have no question in common: nothing to compare")
    if found.left_out and not common:
        raise MedtuneError(
            f"{names[0]} and {names[1]} answer different test questions: {_difference(found, names)}; "
            f"--common compares the {len(same)} that they share"
        )
    return found


def _difference(found: Alignment, names: tuple[str, str]) -> str:
    parts = [f"{count} only in {name}" for count, name in zip(found.only, names, strict=True) if count]
    if found.differing:
        parts.append(f"{found.differing} with one id that read differently or have another answer")
    return ", ".join(parts)


def _asked(example: Example) -> tuple[object, ...]:
    """What makes a question the same one: the order of its choices does not."""
    choices = None if example.choices is None else tuple(sorted(example.choices))
    answers = (example.answer, *sorted(example.answers or ()))
    return example.kind, example.context, example.question, choices, answers


def _joined_groups(pairs: Iterable[tuple[Example, Example]]) -> dict[str, str]:
    """The group of each id, where the two sides may group differently: what either takes for one fact."""
    graph = nx.Graph()
    for one, other in pairs:
        graph.add_edges_from([(("id", one.id), ("a", one.group)), (("id", one.id), ("b", other.group))])
    return {
        # One name may be a group of either side, and another fact there.
        name: min(f"{side}: {group}" for side, group in component if side != "id")
        for component in nx.connected_components(graph)
        for kind, name in component
        if kind == "id"
    }
