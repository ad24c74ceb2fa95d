"""Two sets of predictions side by side: by example id, on the questions that both answer.

A file from elsewhere need not repeat what the other side knows: without an id a question is found by its
words, and kind, context, earlier turns, choices, other right answers and group are those of the side that has
them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.evaluate.prediction_files import KIND, Given

DIFFERING = "of one id that differ in question, right answer, kind, context or choices"


@dataclass(frozen=True)
class Alignment:
    """The answers of two sides to the same questions, in one order; how many questions were left out.

    `only` counts those that one side alone has, `differing` those of one id that differ in what is asked.
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
    pairs = list(_pairs(before, after))
    merged = [_merged(one.example, other.example) for one, other in pairs]
    same = [(example, *pair) for example, pair in zip(merged, pairs, strict=True) if example is not None]
    groups = _joined_groups((example.id, one.example, other.example) for example, one, other in same)
    examples = [example.model_copy(update={"group": groups[example.id]}) for example, _, _ in same]
    found = Alignment(
        [_as_asked(one, example) for example, (_, one, _) in zip(examples, same, strict=True)],
        [_as_asked(other, example) for example, (_, _, other) in zip(examples, same, strict=True)],
        (len(before) - len(pairs), len(after) - len(pairs)),
        len(pairs) - len(same),
    )
    if not pairs:
        raise MedtuneError(f"{names[0]} and {names[1]} have no question in common: nothing to compare")
    if found.left_out and not (common and same):
        hint = f"; --common compares the {len(same)} that they share" if same else ": nothing to compare"
        raise MedtuneError(
            f"{names[0]} and {names[1]} answer different test questions: {_difference(found, names)}{hint}"
        )
    return found


def _difference(found: Alignment, names: tuple[str, str]) -> str:
    parts = [f"{count} only in {name}" for count, name in zip(found.only, names, strict=True) if count]
    if found.differing:
        parts.append(f"{found.differing} {DIFFERING}")
    return ", ".join(parts)


def _pairs(before: Sequence[Given], after: Sequence[Given]) -> Iterable[tuple[Given, Given]]:
    """Those of one id; one that has no id of its own, with the only one of the same words."""
    by_id = {other.example.id: other for other in after}
    asked = Counter(other.example.question for other in after)
    by_words = {other.example.question: other for other in after if asked[other.example.question] == 1}
    nameless = {other.example.id for other in after if _has_no_id(other.example)}
    ours = Counter(one.example.question for one in before)
    for one in before:
        other = by_id.get(one.example.id)
        if other is None and ours[one.example.question] == 1:
            found = by_words.get(one.example.question)
            if found and (_has_no_id(one.example) or found.example.id in nameless):
                other = found
        if other is not None:
            yield one, other


def _has_no_id(example: Example) -> bool:
    return example.id == example.question


def _merged(one: Example, other: Example) -> Example | None:
    """What both ask, with what either knows; None if they contradict each other."""
    asks = [example for example in (one, other) if not _has_no_id(example)] or [one]
    fields: dict[str, Any] = {"id": asks[0].id}
    spoken = {example.question for example in (one, other) if not _has_no_id(example)}
    # Of two sides without words, or one, the id stands for them.
    fields["question"] = next(iter(spoken), one.question)
    if len(spoken) > 1 or one.answer != other.answer:
        return None
    kinds = {example.kind for example in (one, other)} - {KIND}
    contexts = {example.context for example in (one, other)} - {None}
    turns = {tuple(example.earlier_turns) for example in (one, other)} - {()}
    choices = {tuple(sorted(example.choices)) for example in (one, other) if example.choices}
    answers = {tuple(sorted(example.answers)) for example in (one, other) if example.answers}
    if any(len(known) > 1 for known in (kinds, contexts, turns, choices, answers)):
        return None
    fields |= {
        "kind": next(iter(kinds), KIND),
        "context": next(iter(contexts), None),
        "messages": one.messages or other.messages,
        "choices": one.choices or other.choices,
        "answers": one.answers or other.answers,
    }
    if fields["choices"] and (one.answer not in fields["choices"] or fields["answers"]):
        return None
    return one.model_copy(update=fields)


def _as_asked(given: Given, example: Example) -> Given:
    """An answer to the merged question, whose choices keep the order that this side's likelihoods have."""
    choices = given.example.choices or example.choices
    return given._replace(example=example.model_copy(update={"choices": choices}))


def _joined_groups(pairs: Iterable[tuple[str, Example, Example]]) -> dict[str, str]:
    """The group of each id, where the two sides may group differently: what either takes for one fact."""
    graph = nx.Graph()
    for name, one, other in pairs:
        graph.add_edges_from([(("id", name), ("a", one.group)), (("id", name), ("b", other.group))])
    return {
        # One name may be a group of either side, and another fact there.
        name: min(f"{side}: {group}" for side, group in component if side != "id")
        for component in nx.connected_components(graph)
        for kind, name in component
        if kind == "id"
    }
