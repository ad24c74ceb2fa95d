"""From a row to an example: question and answer, a question with choices, or a conversation.

The answer to a question with choices may stand there as text, as a letter ("B", "(b)") or as a number:

    {"question": "...?", "options": {"A": "Iron", "B": "Zinc"}, "answer_idx": "B"}   -> answer "Zinc"
    {"question": "...?", "choices": ["Iron", "Zinc"], "answer": 1}                   -> "Zinc", counted from 0

If it can be read in two ways that differ, the row is a fault, not a guess; so it is if a second column says
otherwise.
"""

import ast
import io
import json
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medtune.data.columns import Columns, value_at
from medtune.data.faults import Fault
from medtune.data.params import SourceParams
from medtune.data.text import joined, required, text_of

ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
}
"""Who speaks, by the names that files have for it."""
_TURNS = (
    'accepted: [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}], by turns, '
    "perhaps a system prompt before them"
)
_PLAIN: dict[str, tuple[Any, ...]] = {
    "weight": (None, 1, True),
    "train": (None, True, 1),
    "tool_calls": (None, []),
    "function_call": (None,),
}
"""What turns may have beside their text, and the values that ask for nothing more."""
_LETTER = re.compile(r"\(?([A-Za-z])[.):]?\)?")
_OWN_LETTER = re.compile(r"\(?([A-Za-z])[.):]\)?\s")
_POINTERS = ("cop", "answer_idx", "answer_index", "correct_option", "label")
"""Columns that rather point to a choice than repeat it."""
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBER = re.compile(r"([0-9]{1,9})(?:\.0)?")
"""As pandas writes it too, which makes floats of integers where a cell of the column is empty."""
NO_ANSWER = "-"
"""Stands in for the answer where none is read."""
_TEXT_BY_TEXT = re.compile(r"""['"]\s+[bru]?['"]""")


@dataclass(frozen=True)
class Form:
    """How the rows of one source become examples."""

    source: str
    params: SourceParams
    columns: Columns
    first_choice: int | None = None
    answered: bool = True
    """False: only what is asked is read, and the answer is a stand-in, as benchmarks keep theirs back."""

    def example(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of an example, absent ones left out; `id` and `group` only if the row has them.

        Fault: the row is none.
        """
        held = self.columns.params
        if late := self.columns.late(row):
            raise Fault(
                "broken",
                f"has '{late}', a column that none of the first rows has, by which it is told how a file is "
                "read; accepted: it in one of those too (null will do), or a source of its own",
            )
        found: dict[str, Any] = {
            name: text_of(value_at(row, place), place)
            for name in ("id", "group", "system")
            if (place := getattr(held, name)) is not None
        }
        if held.context is not None:
            found["context"] = joined(self._context(row, held.context), held.context)
        if held.messages is not None and held.question is None:
            found |= _conversation(value_at(row, held.messages), held.messages)
        else:
            found |= self._question(row)
        kind = text_of(value_at(row, held.kind), held.kind) if held.kind else None
        found["kind"] = self.params.kind or kind or self.source
        if self.params.system is not None and not found.get("system"):
            found["system"] = self.params.system
        return {name: value for name, value in found.items() if value is not None}

    def answer_number(self, row: Mapping[str, Any]) -> tuple[int, int] | None:
        """The answer's number and how many choices there are, if the answer is a number."""
        held = self.columns.params
        if held.answer is None or self.params.answer_as in ("text", "letter"):
            return None
        try:
            choices = self._choices(row)
            answer = text_of(value_at(row, held.answer), held.answer)
        except Fault:
            return None
        match = _NUMBER.fullmatch(answer or "")
        if choices is None or answer is None or match is None:
            return None
        texts = [text for _, text in choices]
        is_key = self.params.answer_as is None and any(key == answer for key, _ in choices)
        return None if is_key or answer in texts else (int(match[1]), len(texts))

    def _context(self, row: Mapping[str, Any], place: str) -> Any:
        """A list of texts in a cell is paragraphs; a list of numbers, or whatever an instruction is about,
        is text itself."""
        value = value_at(row, place)
        parsed = value if self.columns.form == "alpaca" else _parsed(value)
        numbers = isinstance(parsed, list) and any(isinstance(part, int | float) for part in parsed)
        return value if numbers else parsed

    def _question(self, row: Mapping[str, Any]) -> dict[str, Any]:
        held = self.columns.params
        assert held.question is not None
        question = required(value_at(row, held.question), held.question)
        choices = self._choices(row)
        found: dict[str, Any]
        if not self.answered:
            texts = [text for _, text in choices or []]
            found = {"choices": texts or None, "answer": texts[0] if texts else NO_ANSWER}
        elif choices is None:
            found = self._open_answer(row)
        else:
            found = {"choices": [text for _, text in choices], "answer": self._right_choice(row, choices)}
        if held.messages is not None:
            found["messages"] = _turns_before(question, value_at(row, held.messages), held.messages)
        return {"question": question} | found

    def _open_answer(self, row: Mapping[str, Any]) -> dict[str, Any]:
        held = self.columns.params
        value = value_at(row, held.answer) if held.answer else None
        if isinstance(value, list):
            raise Fault(
                "not_text",
                f"{held.answer} is a list; accepted: text, or, where all in it are right, "
                f"data.sources.{self.source}.columns.answers: {held.answer}",
            )
        answer = text_of(value, held.answer or "")
        others = _list(value_at(row, held.answers)) if held.answers else []
        texts = [text for other in others if (text := text_of(other, str(held.answers)))]
        if answer is None and (held.answer is not None or not texts):
            raise Fault("empty", f"{held.answer or held.answers} is empty; accepted: the right answer")
        answer = answer or texts[0]
        if held.choices is not None and self.params.answer_as != "text" and self._is_a_pointer(answer):
            raise Fault(
                "too_few_choices",
                f"{_named(held.choices)} is empty, but {held.answer} is '{answer}'; accepted: two choices or "
                f"more, or an answer in words (data.sources.{self.source}.answer_as: text, if it is one)",
            )
        return {"answer": answer, "answers": list(dict.fromkeys(t for t in texts if t != answer)) or None}

    def _is_a_pointer(self, answer: str) -> bool:
        """Whether an answer is the letter or number of a choice rather than words."""
        is_number = self.first_choice is not None and _NUMBER.fullmatch(answer) is not None
        return is_number or _LETTER.fullmatch(answer) is not None

    def _choices(self, row: Mapping[str, Any]) -> list[tuple[str | None, str]] | None:
        """The choices in the order of the file, each with its letter or label where it has one."""
        place = self.columns.params.choices
        if place is None:
            fixed = self.columns.choices
            return [(None, choice) for choice in fixed] if fixed else None
        if isinstance(place, str):
            value = _parsed(value_at(row, place))
            found = None if value is None else [(key, text, place) for key, text in _keyed(value, place)]
        else:
            found = _of_columns(row, place)
        if not found:
            return None
        choices = _with_own_letters([(key, required(text, name)) for key, text, name in found])
        if len(choices) < 2:
            raise Fault(
                "too_few_choices", f"{_named(place)} has a single choice; accepted: two or more, or none"
            )
        for what, words in (("", [text for _, text in choices]), ("the key ", [k for k, _ in choices if k])):
            if len(set(words)) < len(words):
                repeated = next(word for word in words if words.count(word) > 1)
                raise Fault(
                    "repeated_choice",
                    f"{_named(place)} has {what}'{repeated}' more than once; accepted: each once",
                )
        return choices

    def _right_choice(self, row: Mapping[str, Any], choices: list[tuple[str | None, str]]) -> str:
        place = self.columns.params.answer
        if place is None:
            raise Fault(
                "empty",
                "no column says which choice is right; accepted: one named in "
                f"data.sources.{self.source}.columns.answer",
            )
        answer = required(value_at(row, place), place)
        readings = {
            name: choice
            for name, choice in self._readings(answer, choices).items()
            if self.params.answer_as in (None, name) and choice is not None
        }
        if place.lower() in _POINTERS and self.first_choice is None and self._may_count(answer, readings):
            raise Fault(
                "ambiguous_answer",
                f"{place} is '{answer}': as text that choice, or as number its place; say which: "
                f"data.sources.{self.source}.answer_as: text, or number with first_choice: 0 or 1",
            )
        if len(set(readings.values())) > 1:
            ways = ", or ".join(f"as {name} '{choice}'" for name, choice in readings.items())
            raise Fault(
                "ambiguous_answer",
                f"{place} is '{answer}': {ways}; say which: data.sources.{self.source}.answer_as: "
                f"{' or '.join(readings)}",
            )
        if not readings:
            raise Fault(
                "no_right_choice",
                f"{place} is '{answer}', which is none of the choices; accepted: {self._accepted(choices)}",
            )
        right = next(iter(readings.values()))
        self._require_agreement(row, answer, right)
        return right

    def _may_count(self, answer: str, readings: Mapping[str, str | None]) -> bool:
        """Whether an answer that is a choice, word for word, may be a number that counts the choices."""
        is_text = self.params.answer_as is None and set(readings) == {"text"}
        return is_text and _NUMBER.fullmatch(answer) is not None

    def _require_agreement(self, row: Mapping[str, Any], answer: str, right: str) -> None:
        """Refuse a row whose second column with the answer, in words, says another than the first."""
        second = self.columns.second_answer
        said = text_of(row.get(second), second) if second else None
        if said is not None and said.casefold() not in (right.casefold(), answer.casefold()):
            raise Fault(
                "answers_disagree",
                f"{self.columns.params.answer} is '{answer}', which is '{right}', but {second} is '{said}'; "
                f"accepted: the same choice in both",
            )

    def _accepted(self, choices: list[tuple[str | None, str]]) -> str:
        """The choices, and how the answer may name one."""
        said = [f"{key}: {text}" if key else text for key, text in choices]
        if not any(key for key, _ in choices) and self.params.answer_as != "text":
            last = len(choices) - 1
            if self.first_choice is not None:
                said.append(f"a number from {self.first_choice} to {self.first_choice + last}")
            if last < len(_LETTERS):
                said.append(f"a letter from A to {_LETTERS[last]}")
        return ", ".join(said)

    def _readings(self, answer: str, choices: list[tuple[str | None, str]]) -> dict[str, str | None]:
        """What the answer says, read as a text, as a letter, as a number; None where it says nothing."""
        texts = [text for _, text in choices]
        keys = {key.casefold(): text for key, text in choices if key}
        as_text = answer if answer in texts else None
        if as_text is None:
            alike = [text for text in texts if text.casefold() == answer.casefold()]
            as_text = alike[0] if len(alike) == 1 else None
        match = _LETTER.fullmatch(answer)
        letter = match[1] if match else answer
        as_letter = dict(choices).get(letter, keys.get(letter.casefold()))
        if not keys and match and (position := ord(letter.casefold()) - ord("a")) < len(texts):
            as_letter = texts[position]
        as_number = None
        number = _NUMBER.fullmatch(answer)
        if number and answer not in keys and self.first_choice is not None:
            position = int(number[1]) - self.first_choice
            as_number = texts[position] if 0 <= position < len(texts) else None
        return {"text": as_text, "letter": as_letter, "number": as_number}


def _keyed(value: Any, place: str) -> list[tuple[str | None, Any]]:
    """Choices as a list, a mapping of letters, {"text": [...], "label": [...]}, or a list of such pairs."""
    if isinstance(value, Mapping):
        if isinstance(value.get("text"), list):
            texts, labels = value["text"], value.get("label")
            if isinstance(labels, list) and len(labels) != len(texts):
                raise Fault(
                    "broken",
                    f"{place} has {len(texts)} texts and {len(labels)} labels; accepted: as many of each",
                )
            keys = map(_key, labels) if isinstance(labels, list) and labels else [None] * len(texts)
            return list(zip(keys, texts, strict=True))
        return [(str(key), text) for key, text in value.items() if text is not None]
    if isinstance(value, list):
        return [_pair(item, place) for item in value]
    raise Fault(
        "not_text", f"{place} is '{value}'; accepted: a list of choices, or a mapping of letters to them"
    )


def _pair(item: Any, place: str) -> tuple[str | None, Any]:
    if not isinstance(item, Mapping):
        return None, item
    text = next((item[name] for name in ("value", "text", "content") if name in item), None)
    key = next((item[name] for name in ("key", "label", "letter", "id") if name in item), None)
    if text is None:
        raise Fault(
            "not_text", f"{place} has a choice with {', '.join(item)}; accepted: key and value, or text"
        )
    return _key(key), text


def _with_own_letters(choices: list[tuple[str | None, str]]) -> list[tuple[str | None, str]]:
    """Choices such as "B. Zinc", "A. Iron": where their letters are in another order than they are, those
    count."""
    found = [_OWN_LETTER.match(text) for _, text in choices]
    letters = [match[1].upper() for match in found if match]
    plain = list(_LETTERS[: len(choices)])
    if any(key for key, _ in choices) or sorted(letters) != plain or letters == plain:
        return choices
    return [(letter, text) for letter, (_, text) in zip(letters, choices, strict=True)]


def _key(value: Any) -> str | None:
    return None if value is None else str(value).strip() or None


def _of_columns(row: Mapping[str, Any], columns: list[str]) -> list[tuple[str | None, Any, str]]:
    """A choice from each column; the last may be empty, as where some questions have five and others four."""
    found: list[tuple[str | None, Any, str]] = [(None, value_at(row, column), column) for column in columns]
    while found and text_of(found[-1][1], found[-1][2]) is None:
        found.pop()
    return found


def _named(place: str | list[str]) -> str:
    return place if isinstance(place, str) else f"{place[0]} to {place[-1]}"


def _parsed(value: Any) -> Any:
    """A list or mapping that a cell of a CSV file holds as text, in JSON's notation or Python's."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if read is ast.literal_eval and _TEXT_BY_TEXT.search(value):
            _require_commas(value)
        return found
    return value


def _require_commas(value: str) -> None:
    """Python joins texts with no comma between, and NumPy writes arrays so: many choices would become one."""
    before = None
    for token in tokenize.generate_tokens(io.StringIO(value.strip()).readline):
        if token.type == tokenize.STRING and before == tokenize.STRING:
            raise Fault(
                "broken",
                f"{token.string} stands behind another text without a comma, as NumPy writes; accepted: a "
                "list in JSON's or Python's notation",
            )
        if token.type != tokenize.NL:
            before = token.type


def _list(value: Any) -> list[Any]:
    value = _parsed(value)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _conversation(value: Any, place: str) -> dict[str, Any]:
    """The last question and its answer, the turns before them, the system prompt."""
    value, system, first = _parsed(value), None, 1
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        role, content = _turn(value[0], place, 1)
        if role == "system":
            system, value, first = content, value[1:], 2
    turns = _turns(value, place, first)
    if len(turns) < 2:
        raise Fault("bad_conversation", f"{place} has no turn of the user and answer to it; {_TURNS}")
    *before, question, answer = turns
    return {
        "system": system,
        "messages": before or None,
        "question": question["content"],
        "answer": answer["content"],
    }


def _turns_before(question: str, value: Any, place: str) -> list[dict[str, str]] | None:
    """The turns before a question that has a column of its own."""
    turns = _turns(value, place)
    if turns and turns[-2]["content"] == question:
        raise Fault(
            "bad_conversation",
            f"{place} ends with the question and its answer; accepted beside a column for the question: the "
            "turns before it",
        )
    return turns or None


def _turns(value: Any, place: str, first: int = 1) -> list[dict[str, str]]:
    """Turns of user and assistant, one after the other, that end with the assistant's."""
    value = _parsed(value)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Fault("bad_conversation", f"{place} is no list of turns; {_TURNS}")
    turns: list[dict[str, str]] = []
    for number, item in enumerate(value, start=first):
        role, content = _turn(item, place, number)
        expected = ("user", "assistant")[len(turns) % 2]
        if role != expected:
            raise Fault(
                "bad_conversation",
                f"{place}: turn {number} is the {role}'s, where the {expected}'s is due; {_TURNS}",
            )
        turns.append({"role": role, "content": content})
    if turns and turns[-1]["role"] != "assistant":
        raise Fault("bad_conversation", f"{place} ends with the user's turn; {_TURNS}")
    return turns


def _turn(item: Any, place: str, number: int) -> tuple[str, str]:
    if not isinstance(item, Mapping):
        raise Fault("bad_conversation", f"{place}: turn {number} is no mapping; {_TURNS}")
    role = item.get("role", item.get("from"))
    content = item.get("content", item.get("value"))
    if role is None or (content is None and "content" not in item and "value" not in item):
        raise Fault(
            "bad_conversation",
            f"{place}: turn {number} has {', '.join(map(str, item)) or 'nothing'}; accepted: role and "
            "content, or from and value",
        )
    if str(role).lower() not in ROLES:
        raise Fault(
            "bad_conversation",
            f"{place}: turn {number} is of the role '{role}'; accepted: {', '.join(ROLES)}",
        )
    if wrong := next((name for name, plain in _PLAIN.items() if item.get(name) not in plain), None):
        raise Fault(
            "bad_conversation",
            f"{place}: turn {number} has {wrong} {item[wrong]!r}, which medtune does not do; accepted: turns "
            "of text, learned as finetune.assistant_turns says",
        )
    where = f"{place}: turn {number}"
    text = required(_text_of_parts(content, where), f"{where}: its content")
    return ROLES[str(role).lower()], text


def _text_of_parts(content: Any, where: str) -> Any:
    """The content of a turn, which some files give as parts: {"type": "text", "text": "..."}."""
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        return content
    others = [part.get("type") for part in content if part.get("type") != "text"]
    if others:
        raise Fault("bad_conversation", f"{where} has a part of type '{others[0]}'; accepted: text")
    return joined([part.get("text") for part in content], where)
