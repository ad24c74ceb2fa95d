"""Which column of a file holds what: what params.yaml says, else what the names tell.

Known forms of files come first, by columns that are theirs alone: MedMCQA's `opa` to `opd` with `cop`,
MedQA's `options` with `answer_idx`, PubMedQA's `final_decision`, alpaca's `instruction`, `input` and
`output`, ShareGPT's `conversations`. Then each field is looked up by the names that it often has. A guess is
printed; where two columns may be the answer nothing is guessed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from medtune.core.errors import MedtuneError, nearest
from medtune.data.params import ColumnParams, SourceParams

YES_NO_MAYBE = ("yes", "no", "maybe")
SPLIT_COLUMNS = ("split", "subset", "fold", "partition")
"""Names of columns that say to which split a row belongs, in lower case."""


@dataclass(frozen=True)
class Form:
    """A form of files that is known by the columns in `marks`: what they hold, beside the common names."""

    name: str
    marks: tuple[str, ...]
    holds: Mapping[str, str | list[str]]
    choices: tuple[str, ...] | None = None
    looks: str = ""
    second_answer: str | None = None


FORMS = (
    Form(
        "MedMCQA",
        ("opa", "opb", "opc", "opd", "cop"),
        {"choices": ["opa", "opb", "opc", "opd"], "answer": "cop"},
        looks='{"question": "...?", "opa": "...", "opb": "...", "opc": "...", "opd": "...", "cop": 0}',
    ),
    Form(
        "MedQA",
        ("question", "options", "answer_idx"),
        {"choices": "options", "answer": "answer_idx"},
        looks='{"question": "...?", "options": {"A": "...", "B": "..."}, "answer_idx": "A"}',
        second_answer="answer",
    ),
    Form(
        "ARC",
        ("question", "choices", "answerkey"),
        {"choices": "choices", "answer": "answerkey"},
        looks='{"question": "...?", "choices": {"text": ["..."], "label": ["A"]}, "answerKey": "A"}',
    ),
    Form(
        "PubMedQA",
        ("question", "final_decision"),
        {"answer": "final_decision"},
        YES_NO_MAYBE,
        looks='{"question": "...?", "context": "...", "final_decision": "yes"}',
    ),
    Form(
        "alpaca",
        ("instruction", "output"),
        {"question": "instruction", "context": "input", "answer": "output"},
        looks='{"instruction": "...", "input": "...", "output": "..."}',
    ),
    Form(
        "conversation",
        ("messages",),
        {"messages": "messages"},
        looks='{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}',
    ),
    Form(
        "ShareGPT",
        ("conversations",),
        {"messages": "conversations"},
        looks='{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}',
    ),
)
NAMES: dict[str, tuple[str, ...]] = {
    "id": ("id", "pubid", "pmid", "qid", "question_id", "uid", "uuid", "_id"),
    "question": ("question", "query", "prompt", "instruction", "input", "user"),
    "answer": (
        "answer",
        "output",
        "response",
        "completion",
        "target",
        "label",
        "answer_idx",
        "answer_index",
        "correct_answer",
        "correct_option",
        "long_answer",
        "assistant",
    ),
    "answers": ("answers",),
    "context": ("context", "contexts", "passage", "abstract"),
    "choices": ("choices", "options"),
    "kind": ("kind",),
    "group": ("group",),
    "system": ("system",),
    "messages": ("messages",),
}
"""Names by which each field is known, the likeliest first; capitals do not matter."""
_KNOWN = {name for names in NAMES.values() for name in names} | {
    mark for form in FORMS for mark in form.marks
}
_STEMS = [f"{word}{sign}" for word in ("option", "choice", "opt", "op") for sign in ("", "_", " ")]
LETTERED = (
    *((stem, "abcdefghij") for stem in ("", *_STEMS, "answer", "answer_", "answer ")),
    *((stem, digits) for stem in _STEMS for digits in ("0123456789", "123456789")),
)
"""How columns of one choice each are named: what all begin with, what follows while there are columns."""


@dataclass(frozen=True)
class Columns:
    """The columns of a source, resolved: each field's place in a row, or None.

    `second_answer` is a column that says again, in words, which choice is right.
    """

    params: ColumnParams
    choices: tuple[str, ...] | None
    form: str | None
    ignored: tuple[str, ...]
    second_answer: str | None = None
    seen: frozenset[str] = frozenset()
    meant: frozenset[str] = frozenset()
    """Names in lower case that would have been read if the first rows had had such a column."""

    def late(self, row: Mapping[str, Any]) -> str | None:
        """A column that would be read, and of which the first rows have none; None if there is no such."""
        return next(
            (
                name
                for name in row
                if name not in self.seen and name.lower() in self.meant and row[name] is not None
            ),
            None,
        )

    def describe(self, source: str) -> str:
        """What is printed: the guess, and what is not looked at."""
        held = {name: place for name, place in self.params.model_dump().items() if place is not None}
        words = ", ".join(
            f"{name}: {place if isinstance(place, str) else '+'.join(place)}" for name, place in held.items()
        )
        form = f" (a file of the form {self.form})" if self.form else ""
        fixed = f"; choices of every question: {', '.join(self.choices)}" if self.choices else ""
        second = f"; {self.second_answer} has to say the same" if self.second_answer else ""
        ignored = f"; not looked at: {', '.join(self.ignored)}" if self.ignored else ""
        drawn = [name for name in self.ignored if name.lower() in SPLIT_COLUMNS]
        again = (
            f"; rows are split anew, whatever '{drawn[0]}' says: to keep ready-made splits, give each a file "
            f"and name these in data.sources.{source}.splits"
            if drawn
            else ""
        )
        return f"data.sources.{source}{form} reads {words}{fixed}{second}{ignored}{again}"


def resolve_columns(
    source: str,
    params: SourceParams,
    rows: Sequence[Mapping[str, Any]],
    where: str,
    *,
    answered: bool = True,
) -> Columns:
    """The columns of a source, told by params.yaml or guessed from its first rows; the answer's too unless
    it is not needed.

    MedtuneError: a column that is told is not there, or no column for the question or its answer is found.
    """
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    told = {key: value for key, value in params.columns.model_dump().items() if value is not None}
    _require_there(source, told, rows, names, where)
    by_name = _by_name(names, told, where)
    form = next((form for form in FORMS if all(mark in by_name for mark in form.marks)), None)
    if form is not None and form.name == "conversation" and "question" in by_name and "answer" in by_name:
        # Examples as medtune writes them, whose messages are the turns before the question.
        form = None
    if form is not None and "answer" in told and told["answer"] != by_name.get(str(form.holds.get("answer"))):
        # Of a PubMedQA file the long answer may be wanted: then its yes or no are no choices.
        form = None
    held: dict[str, Any] = dict(told)
    fields = [name for name in ColumnParams.model_fields if answered or name not in ("answer", "answers")]
    for field in fields:
        found = _of_form(form, field, by_name)
        # Of an alpaca file whose `input` is told to be the question, it is no context besides.
        if field not in told and found is not None and found not in told.values():
            held[field] = found
    is_conversation = "messages" in held and "question" not in told
    for field in fields:
        if field not in held and not (is_conversation and field not in ("id", "kind", "group", "system")):
            found = _guess(field, by_name, held, source, where)
            if found is not None:
                held[field] = found
    if not is_conversation:
        _require_question(source, held, names, where, answered=answered)
    _look_inside(held, rows)
    second = by_name.get(form.second_answer or "") if form else None
    used = {second} | {str(place).partition(".")[0] for value in held.values() for place in _listed(value)}
    choices = params.choices or (form.choices if form and "choices" not in held else None)
    return Columns(
        ColumnParams(**held),
        tuple(choices) if choices else None,
        form.name if form else None,
        tuple(name for name in names if name.strip() and name not in used),
        second,
        frozenset(names),
        _meant(held, told, is_conversation=is_conversation),
    )


def value_at(row: Mapping[str, Any], place: str) -> Any:
    """What stands at a place such as "context" or "context.contexts"; None if nothing does."""
    if place in row:
        return row[place]
    found: Any = row
    for part in place.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def _listed(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _require_there(
    source: str, told: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], names: list[str], where: str
) -> None:
    for field, value in told.items():
        for place in _listed(value):
            column = place.partition(".")[0]
            if place in names or any(value_at(row, place) is not None for row in rows):
                continue
            valid = names
            if column in names:
                valid = [f"{column}.{key}" for row in rows[:1] for key in _keys(row.get(column))] or names
            raise MedtuneError(
                f"params.yaml: data.sources.{source}.columns.{field} is '{place}', a column that {where} "
                f"lacks; {nearest(place, valid)}"
            )


def _keys(value: Any) -> list[str]:
    return list(map(str, value)) if isinstance(value, Mapping) else []


def _by_name(names: list[str], told: Mapping[str, Any], where: str) -> dict[str, str]:
    """Columns by their names in lower case."""
    by_name: dict[str, str] = {}
    used = {place for value in told.values() for place in _listed(value)}
    for name in names:
        other = by_name.setdefault(name.lower(), name)
        if other != name and name.lower() in _KNOWN and not used & {name, other}:
            raise MedtuneError(
                f"{where}: the columns '{other}' and '{name}' differ in capitals alone; accepted: one of "
                "them, or say in params.yaml which column holds what: data.sources.NAME.columns"
            )
    return by_name


def _of_form(form: Form | None, field: str, by_name: Mapping[str, str]) -> str | list[str] | None:
    if form is None or field not in form.holds:
        return None
    found = form.holds[field]
    return by_name.get(found) if isinstance(found, str) else [by_name[name] for name in found]


def _guess(
    field: str, by_name: Mapping[str, str], held: Mapping[str, Any], source: str, where: str
) -> str | list[str] | None:
    taken = {place for value in held.values() for place in _listed(value)}
    known = [by_name[name] for name in NAMES[field] if name in by_name and by_name[name] not in taken]
    if field == "answer" and len(known) > 1:
        raise MedtuneError(
            f"{where}: more than one column may hold the answer: {', '.join(known)}; say which in "
            f"params.yaml: data.sources.{source}.columns.answer"
        )
    if not known and field == "choices":
        return _lettered(by_name)
    return known[0] if known else None


def _lettered(by_name: Mapping[str, str]) -> list[str] | None:
    """Columns of one choice each, such as A, B, C, D or option_a to option_d."""
    for stem, marks in LETTERED:
        found = list(takewhile(by_name.__contains__, (f"{stem}{mark}" for mark in marks)))
        if len(found) > 1:
            return [by_name[name] for name in found]
    return None


def _meant(held: Mapping[str, Any], told: Mapping[str, Any], *, is_conversation: bool) -> frozenset[str]:
    of_any = ("group", "system", "kind")
    missing = [field for field in (of_any if is_conversation else NAMES) if field not in held]
    names = {name for field in missing for name in NAMES[field] if field != "id"}
    if is_conversation:
        return frozenset(names)
    if "answer" not in told:
        names |= {*NAMES["answer"], "cop", "answerkey", "final_decision", "conversations"}
    if "choices" not in held:
        names |= {f"{stem}{mark}" for stem, marks in LETTERED for mark in marks}
    return frozenset(names)


def _require_question(
    source: str, held: Mapping[str, Any], names: list[str], where: str, *, answered: bool
) -> None:
    needed = ("question", "answer") if answered else ("question",)
    missing = [field for field in needed if field not in held]
    if missing == ["answer"] and "answers" in held:
        return
    if missing:
        hints = [f"data.sources.{source}.columns.{field}: {_like(field, names)}" for field in missing]
        forms = "; ".join(f"{form.name} {form.looks}" for form in FORMS[:2] + FORMS[4:])
        raise MedtuneError(
            f"{where}: no column for the {' and the '.join(missing)}: it has {', '.join(names)}; say which "
            f"in params.yaml: {', '.join(hints)}. Known without: a question with its answer "
            f'{{"question": "...?", "answer": "..."}}, {forms}'
        )


def _like(field: str, names: list[str]) -> str:
    hint = nearest(field, names)
    return hint.removeprefix("did you mean '").removesuffix("'?") if hint.startswith("did") else "NAME"


def _look_inside(held: dict[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """PubMedQA's context is a mapping with a list `contexts`, SQuAD's answers are one with a list `text`."""
    for field, inside in (("context", "contexts"), ("answers", "text")):
        place = held.get(field)
        found = next((value for row in rows if place and (value := value_at(row, place)) is not None), None)
        if isinstance(found, Mapping) and inside in found:
            held[field] = f"{place}.{inside}"
