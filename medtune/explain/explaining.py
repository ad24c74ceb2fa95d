"""Which of the differences between two revisions changed the result: each tried alone, and taken away."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from medtune.core.errors import MedtuneError
from medtune.explain.differences import Difference, differences, set_parameter
from medtune.explain.outcomes import (
    Outcome,
    Sizes,
    Verdict,
    bounds_of,
    judge,
    sizes,
    worst,
)
from medtune.explain.trees import Tree, tree_of
from medtune.explain.trials import Trials, few_questions, trials

NEUTRAL = ((("finetune", "tokens_per_pass"), 1), (("answer", "batch_size"), 1))
"""Each example in a pass of its own: the same sums in another order, for the bound of rounding."""


@dataclass(frozen=True)
class Effect:
    """How the result of a trial differs from that of a revision; `failed` says why there is none."""

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=lambda: Sizes({}, {}))
    failed: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Of all parts together. What is seen before a trial fails has been seen."""
        found = worst(list(self.verdicts.values()))
        return "not run" if self.failed and found == "same" else found


@dataclass(frozen=True)
class Tried:
    """A difference, put alone into A (`alone`), and taken out of B (`away`); None where it was not tried."""

    difference: Difference
    alone: Effect | None = None
    away: Effect | None = None


@dataclass(frozen=True)
class Explanation:
    """What differs between two revisions, and what of it the trials saw.

    `together` is B beside A. `planned` are the steps of A's whole training. `missed` says why nothing
    was run.
    """

    names: tuple[str, str]
    tried: list[Tried]
    steps: int = 0
    planned: int | None = None
    asked: int = 0
    together: Effect | None = None
    bounds: Mapping[str, float] | None = None
    missed: str | None = None
    stages_run: int = 0


def explain(before: str, after: str, *, steps: int, answers: int, run: bool = True) -> Explanation:
    """Compare two revisions and, if asked to, try every difference that can be tried."""
    with TemporaryDirectory(prefix="medtune-explain-") as temporary:
        folder = Path(temporary).resolve()
        one, other = tree_of(before, folder / "before"), tree_of(after, folder / "after")
        found = differences(one, other)
        names = (before, after)
        can_be_tried = [each for each in found if each.change and each.stages]
        if not run or not can_be_tried:
            why = None if run else "nothing was run, as --no-run says"
            return Explanation(names, [Tried(each) for each in found], missed=why)
        if missing := [*one.missing.values(), *other.missing.values()]:
            return Explanation(names, [Tried(each) for each in found], missed=missing[0])
        with trials(folder, steps) as running:
            return _explained(names, one, other, found, running, answers)


def _explained(
    names: tuple[str, str], one: Tree, other: Tree, found: list[Difference], running: Trials, answers: int
) -> Explanation:
    untried = [Tried(each) for each in found]
    try:
        prepared = [running.prepared(tree.folder) for tree in (one, other)]
    except MedtuneError as error:
        return Explanation(names, untried, running.steps, missed=str(error))
    running.asked = few_questions(prepared[0], prepared[1], answers)
    count = 2 + 2 * sum(each.change is not None and bool(each.stages) for each in found)
    _say(f"trial 1 of {count}: {one.name} as it is")
    first = running.run(one.folder)
    if first.failed:
        return Explanation(
            names, untried, running.steps, missed=f"{one.name} does not run here: {first.failed}"
        )
    _say(f"trial 2 of {count}: {other.name} as it is")
    second = running.run(other.folder)
    made: list[tuple[Difference, Outcome | None, Outcome | None]] = []
    for each in found:
        if each.change is None or not each.stages:
            made.append((each, None, None))
            continue
        number = 2 * sum(alone is not None for _, alone, _ in made) + 3
        _say(f"trials {number} and {number + 1} of {count}: {each.kind} {each.name}")
        alone = _varied(running, each, one, other)
        away = None if second.failed else _varied(running, each, other, one)
        made.append((each, alone, away))
    bounds = _bounds(running, one, first, [second, *(alone for _, alone, _ in made if alone)])
    # Where B learns faster, a rounded sum grows faster too.
    others = _bounds(running, other, second, [away for _, _, away in made if away])
    return Explanation(
        names,
        [
            Tried(each, _effect(first, alone, bounds), _effect(second, away, others))
            for each, alone, away in made
        ],
        steps=len(first.losses),
        planned=first.planned,
        asked=len(next(iter(first.answers.values()), {})),
        together=_effect(first, second, bounds),
        bounds=bounds,
        stages_run=running.ran,
    )


def _varied(running: Trials, difference: Difference, own: Tree, other: Tree) -> Outcome:
    change = difference.change
    assert change is not None
    return running.run(own.folder, lambda place: change(place, own, other))


def _effect(own: Outcome, varied: Outcome | None, bounds: Mapping[str, float] | None) -> Effect | None:
    if varied is None:
        return None
    found = sizes(own, varied)
    return Effect(judge(found, bounds), found, varied.failed)


def _bounds(running: Trials, tree: Tree, outcome: Outcome, others: list[Outcome]) -> dict[str, float] | None:
    """Up to where a difference from a revision is rounding, measured; None if there is none to judge."""
    compared = [size for other in others for size in sizes(outcome, other).numbers.values()]
    if not any(size > 0 for size in compared):
        return None
    _say(f"one more trial: {tree.name} with each example in a pass of its own, for the size of rounding")

    def change(place: Path) -> None:
        for keys, value in NEUTRAL:
            set_parameter(place, keys, value)

    neutral = running.run(tree.folder, change)
    return None if neutral.failed else bounds_of(sizes(outcome, neutral))


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
