"""From a row to an example: question and answer, a question with choices, or a conversation.

The answer to a question with choices may stand there as text, as a letter ("B", "(b)") or as a number:

    {"question": "...?", "options": {"A": "Iron", "B": "Zinc"}, "answer_idx": "B"}   -> answer "Zinc"
    {"question": "...?", "choices": ["Iron", "Zinc"], "answer": 1}                   -> "Zinc", counted from 0

If it can be read in two ways that differ, the row is a fault, not a guess.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtune.data.columns import Columns, value_at
from medtune.data.faults import Fault
from medtune.data.params import SourceParams
from medtune.data.text import required, text_of

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
_LETTER = re.compile(r"\(?([A-Za-z])[.):]?\)?")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Form:
    """How the rows of one source become examples."""

    source: str
    params: SourceParams
    columns: Columns
    first_choice: int | None = None

    def example(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of an example, absent ones left out; `id` and `group` only if the row has them.

        Fault: the row is none.
        """
        held = self.columns.params
        found: dict[str, Any] = {
            name: text_of(value_at(row, place), place)
            for name in ("id", "context", "group", "system")
            if (place := getattr(held, name)) is not None
        }
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
        if choices is None or answer is None or not _NUMBER.fullmatch(answer):
            return None
        texts = [text for _, text in choices]
        is_key = self.params.answer_as is None and any(key == answer for key, _ in choices)
        return None if is_key or answer in texts else (int(answer), len(texts))

    def _question(self, row: Mapping[str, Any]) -> dict[str, Any]:
        held = self.columns.params
        assert held.question is not None
        found: dict[str, Any] = {"question": required(value_at(row, held.question), held.question)}
        choices = self._choices(row)
        others = _list(value_at(row, held.answers)) if held.answers else []
        if choices is not None:
            found["choices"] = [text for _, text in choices]
            found["answer"] = self._right_choice(row, choices)
            return found
        texts = [text for other in others if (text := text_of(other, str(held.answers)))]
        answer = text_of(value_at(row, held.answer), held.answer) if held.answer else None
        if answer is None and (held.answer is not None or not texts):
            raise Fault("empty", f"{held.answer or held.answers} is empty; accepted: the right answer")
        found["answer"] = answer or texts[0]
        found["answers"] = list(dict.fromkeys(text for text in texts if text != found["answer"])) or None
        if held.messages is not None:
            found["messages"] = _turns(value_at(row, held.messages), held.messages) or None
        return found

    def _choices(self, row: Mapping[str, Any]) -> list[tuple[str | None, str]] | None:
        """The choices in the order of the file, each with its letter or label where it has one."""
        place = self.columns.params.choices
        if place is None:
            fixed = self.columns.choices
            return [(None, choice) for choice in fixed] if fixed else None
        if isinstance(place, str):
            value = _parsed(value_at(row, place))
            if value is None:
                return None
            found, name = _keyed(value, place), place
        else:
            found, name = [(None, value_at(row, column)) for column in place], f"{place[0]} to {place[-1]}"
        if not found:
            return None
        choices = [(key, required(text, name)) for key, text in found]
        texts = [text for _, text in choices]
        if len(texts) < 2:
            raise Fault("too_few_choices", f"{name} has a single choice; accepted: two or more, or none")
        if repeated := [text for text in texts if texts.count(text) > 1]:
            raise Fault("repeated_choice", f"{name} has '{repeated[0]}' more than once")
        return choices

    def _right_choice(self, row: Mapping[str, Any], choices: list[tuple[str | None, str]]) -> str:
        place = self.columns.params.answer
        if place is None:
            raise Fault("empty", "no column says which choice is right")
        answer = required(value_at(row, place), place)
        readings = {
            name: choice
            for name, choice in self._readings(answer, choices).items()
            if self.params.answer_as in (None, name) and choice is not None
        }
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
                f"{place} is '{answer}', which is none of the choices: "
                f"{', '.join(f'{key}: {text}' if key else text for key, text in choices)}",
            )
        return next(iter(readings.values()))

    def _readings(self, answer: str, choices: list[tuple[str | None, str]]) -> dict[str, str | None]:
        """What the answer says, read as a text, as a letter, as a number; None where it says nothing."""
        texts = [text for _, text in choices]
        keys = {key.casefold(): text for key, text in choices if key}
        folded = {text.casefold(): text for text in texts}
        as_text = answer if answer in texts else folded.get(answer.casefold())
        match = _LETTER.fullmatch(answer)
        letter = match[1].casefold() if match else answer.casefold()
        as_letter = keys.get(letter)
        if not keys and match and (position := ord(letter) - ord("a")) < len(texts):
            as_letter = texts[position]
        as_number = None
        if _NUMBER.fullmatch(answer) and answer not in keys and self.first_choice is not None:
            position = int(answer) - self.first_choice
            as_number = texts[position] if 0 <= position < len(texts) else None
        return {"text": as_text, "letter": as_letter, "number": as_number}


def _keyed(value: Any, place: str) -> list[tuple[str | None, Any]]:
    """Choices as a list, a mapping of letters, {"text": [...], "label": [...]}, or a list of such pairs."""
    if isinstance(value, Mapping):
        if isinstance(value.get("text"), list):
            labels = value.get("label") or [None] * len(value["text"])
            return [
                (str(key) if key else None, text) for key, text in zip(labels, value["text"], strict=False)
            ]
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
    return (None if key is None else str(key)), text


def _parsed(value: Any) -> Any:
    """A list or mapping that a cell of a CSV file holds as text, in JSON's notation or Python's."""
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{"):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return value


def _list(value: Any) -> list[Any]:
    value = _parsed(value)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _conversation(value: Any, place: str) -> dict[str, Any]:
    """The last question and its answer, the turns before them, the system prompt."""
    value = _parsed(value)
    system = None
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        role, content = _turn(value[0], place, 1)
        if role == "system":
            system, value = content, value[1:]
    turns = _turns(value, place)
    if len(turns) < 2:
        raise Fault("bad_conversation", f"{place} has no answer; accepted: turns of user and assistant")
    *before, question, answer = turns
    return {
        "system": system,
        "messages": before or None,
        "question": question["content"],
        "answer": answer["content"],
    }


def _turns(value: Any, place: str) -> list[dict[str, str]]:
    """Turns of user and assistant, one after the other, that end with the assistant's."""
    value = _parsed(value)
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise Fault("bad_conversation", f"{place} is no list of turns, each with role and content")
    turns: list[dict[str, str]] = []
    for number, item in enumerate(value, start=1):
        role, content = _turn(item, place, number)
        expected = ("user", "assistant")[len(turns) % 2]
        if role != expected:
            raise Fault(
                "bad_conversation",
                f"{place}: turn {number} is the {role}'s; expected the {expected}'s: a conversation "
                f"begins with "
                "the user (a system prompt may go before), and both take turns",
            )
        turns.append({"role": role, "content": content})
    if turns and turns[-1]["role"] != "assistant":
        raise Fault("bad_conversation", f"{place} ends with the user's turn; expected an answer to it")
    return turns


def _turn(item: Any, place: str, number: int) -> tuple[str, str]:
    if not isinstance(item, Mapping):
        raise Fault("bad_conversation", f"{place}: turn {number} is no mapping with role and content")
    role = item.get("role", item.get("from"))
    content = item.get("content", item.get("value"))
    if role is None or (content is None and "content" not in item and "value" not in item):
        raise Fault(
            "bad_conversation",
            f"{place}: turn {number} has {', '.join(map(str, item))}; expected role and content, or from "
            f"and value",
        )
    if str(role).lower() not in ROLES:
        raise Fault(
            "bad_conversation",
            f"{place}: turn {number} is of the role '{role}'; accepted: {', '.join(ROLES)}",
        )
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        others = [part.get("type") for part in content if part.get("type") != "text"]
        if others:
            raise Fault(
                "bad_conversation", f"{place}: turn {number} has a part of type '{others[0]}'; accepted: text"
            )
        content = [part.get("text") for part in content]
    return ROLES[str(role).lower()], required(content, f"{place}: turn {number}")
