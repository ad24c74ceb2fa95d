"""Splitting by group, so that no fact stands in two splits, and the proof that none does.

Every choice is a hash of the seed and the example's own id or group. An example therefore keeps its
split when others are added, and the order of the input does not matter.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import networkx as nx

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.core.hashing import unit_hash
from medtune.data.params import DataParams

SPLITS = ("train", "validation", "test")
Splits = dict[str, list[Example]]

_TOKEN = re.compile(r"(?<!\S)[<>≤≥±+-]+(?=\d)|\w+")

LONG_ANSWER_WORDS = 8
"""An answer of at least so many words states a fact by itself; shorter ones recur by right."""


def split_by_group(examples: Iterable[Example], params: DataParams) -> Splits:
    """Assign whole groups to splits by their shares, then draw each kind's number of examples.

    Groups that share a question or a long answer are joined first, whatever the source called them.
    """
    pools: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in _join_groups(examples):
        pools[_split_of(example.group, params), example.kind].append(example)
    splits: Splits = {}
    for split in SPLITS:
        drawn = [
            example
            for kind, sizes in params.kinds.items()
            for example in _draw(pools[split, kind], getattr(sizes, split), split, kind, params.seed)
        ]
        splits[split] = sorted(drawn, key=lambda example: unit_hash(params.seed, f"order:{example.id}"))
        if not drawn:
            shares = "data.validation, data.test" if split == "train" else f"data.{split}"
            raise MedtuneError(f"params.yaml: the split '{split}' is empty; see {shares} and data.kinds")
    return splits


def overlaps(splits: Splits) -> dict[str, int]:
    """How many groups, questions and long answers stand in more than one split (all must be 0)."""
    keys: dict[str, Callable[[Example], Iterable[str]]] = {
        "groups": lambda example: [example.group],
        "questions": lambda example: [_question_key(example)],
        "long_answers": _answer_keys,
    }
    return {
        name: sum(
            count > 1
            for count in Counter(
                value
                for examples in splits.values()
                for value in {value for example in examples for value in key(example) if value}
            ).values()
        )
        for name, key in keys.items()
    }


def _split_of(group: str, params: DataParams) -> str:
    position = unit_hash(params.seed, f"split:{group}")
    if position < params.test:
        return "test"
    return "validation" if position < params.test + params.validation else "train"


def _share(split: str) -> str:
    if split == "train":
        return "data.validation and data.test leave"
    return f"data.{split} gives to this split"


def _draw(pool: list[Example], size: int | None, split: str, kind: str, seed: int) -> list[Example]:
    if not pool and size is None:
        raise MedtuneError(
            f"params.yaml: of data.kinds.{kind} no example is in the groups that {_share(split)}: raise that "
            f"share, or set data.kinds.{kind}.{split} to 0"
        )
    if size is not None and size > len(pool):
        raise MedtuneError(
            f"params.yaml: data.kinds.{kind}.{split} asks for {size} examples; {len(pool)} of them are in "
            f"the groups that {_share(split)}; lower it, or null takes all there are"
        )
    return sorted(pool, key=lambda example: unit_hash(seed, f"draw:{example.id}"))[:size]


def _question_key(example: Example) -> str:
    """What is asked: with other choices or another context the same words are another question."""
    return _normalise(" ".join([example.context or "", example.question, *sorted(example.choices or [])]))


def _normalise(text: str) -> str:
    """Lower case words and signed numbers, single spaces, no leading article; symbols if all is symbols.

    Scoring has its own: mending a metric must not move a question from one split to another.
    """
    tokens = _TOKEN.findall(text.lower())
    if len(tokens) > 1 and tokens[0] in ("a", "an", "the"):
        del tokens[0]
    return " ".join(tokens) or text.strip().lower()


def _answer_keys(example: Example) -> list[str]:
    found = map(_normalise, example.right_answers)
    return [words for words in found if len(words.split()) >= LONG_ANSWER_WORDS]


def _join_groups(examples: Iterable[Example]) -> list[Example]:
    """Give the examples of each joined group the same `group`: the smallest of the names joined."""
    examples = list(examples)
    graph = nx.Graph()
    for example in examples:
        group = ("group", example.group)
        graph.add_edge(group, ("question", _question_key(example)))
        for answer in _answer_keys(example):
            graph.add_edge(group, ("answer", answer))
    joined: dict[str, str] = {}
    for component in nx.connected_components(graph):
        names = [name for node, name in component if node == "group"]
        joined.update(dict.fromkeys(names, min(names)))
    return [example.model_copy(update={"group": joined[example.group]}) for example in examples]
