"""One question and its answer, and the JSONL files that hold them.

A line of `data/prepared/train.jsonl`:

    {"id": "HP:0001166/definition", "question": "What is arachnodactyly?", "answer": "Abnormally ...",
     "kind": "definition", "group": "HP:0001166"}

A question within a conversation has the turns before it, the first the user's, the last the assistant's:

    "messages": [{"role": "user", "content": "What is arachnodactyly?"},
                 {"role": "assistant", "content": "Abnormally long fingers."}]
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
    model_validator,
)

from medtune.core.errors import MedtuneError, nearest, plain_words
from medtune.core.hashing import unit_hash
from medtune.core.outputs import replacing

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Message(BaseModel):
    """A turn of a conversation: who says it, and what."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    role: Literal["user", "assistant"]
    content: Text


class Example(BaseModel):
    """A question with its reference answer.

    `kind` names the type of question (scores are reported per kind). Examples that state the same
    fact carry the same `group` and never end in two splits. `answers` are other right answers: `answer` is
    learned, and whichever is closest counts. `context` is shown before the question, `choices` after it;
    `system` replaces the system prompt of `params.yaml` for this example. `messages` are the turns before the
    question, with which it is another question: user and assistant by turns.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Text
    question: Text
    answer: Text
    kind: Text
    group: Text
    answers: list[Text] | None = None
    context: Text | None = None
    choices: list[Text] | None = None
    system: Text | None = None
    messages: list[Message] | None = None

    @property
    def right_answers(self) -> list[str]:
        """Every answer that counts as right, first the one that is learned."""
        return [self.answer, *(self.answers or [])]

    @property
    def user_text(self) -> str:
        """What the user's turn says: the context, the question, the choices."""
        choices = "\n".join(f"- {choice}" for choice in self.choices or [])
        return "\n\n".join(part for part in (self.context, self.question, choices) if part)

    @property
    def turns(self) -> list[str]:
        """What user and assistant say by turns, from the first question to the last."""
        return [*self.earlier_turns, self.user_text]

    @property
    def earlier_turns(self) -> list[str]:
        """What they say before the question: as many questions as answers."""
        return [message.content for message in self.messages or []]

    @model_validator(mode="after")
    def _turns_alternate(self) -> "Example":
        if self.messages is not None and (wrong := _wrong_turn(self.messages)):
            raise ValueError(
                f"'messages' {wrong}; accepted: the turns before the question, user and assistant by "
                "turns, the first the user's, the last the assistant's"
            )
        return self

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> "Example":
        if self.choices is not None:
            if self.answers:
                raise ValueError("'answers' does not go with 'choices', of which one is right")
            if self.answer not in self.choices:
                raise ValueError(
                    f"the answer '{self.answer}' is none of the choices: {', '.join(self.choices)}"
                )
            if repeated := [choice for choice, times in Counter(self.choices).items() if times > 1]:
                raise ValueError(f"'choices' has '{repeated[0]}' more than once")
        return self


def read_jsonl(path: Path, sha256: str | None = None) -> list[Example]:
    """Read and check a JSONL file of examples. An error names the file, the line and the field.

    Content with another `sha256` is refused: of a file that was hashed before and may have been replaced.
    """
    examples: list[Example] = []
    lines: dict[str, int] = {}
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise MedtuneError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise MedtuneError(f"{path}, line {number}: not UTF-8 text: save the file as UTF-8") from None
    except OSError as error:
        raise MedtuneError(f"{path}: not readable: {error.strerror}") from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise MedtuneError(f"{path}: changed while the stage ran; run `dvc repro` again")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        example = _parse(line, where)
        if example.id in lines:
            raise MedtuneError(f"{where}: id '{example.id}' stands in line {lines[example.id]} too")
        lines[example.id] = number
        examples.append(example)
    if not examples:
        raise MedtuneError(f"{path}: holds no example; expected one JSON object a line")
    return examples


def write_jsonl(path: Path, examples: Iterable[Example]) -> None:
    """Write examples one a line, fields in the order of `Example`, absent ones left out."""
    with replacing(path) as file:
        for example in examples:
            record = example.model_dump(exclude_none=True)
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def drawn_indices(examples: Sequence[Example], seed: int, per_kind: int | None) -> list[int]:
    """Indices of up to `per_kind` examples of each kind (None: all), drawn by `seed`, in ascending order."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(examples)), key=lambda index: unit_hash(seed, examples[index].id)):
        kinds[examples[index].kind].append(index)
    return sorted(index for drawn in kinds.values() for index in drawn[:per_kind])


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object; of a field that stands there twice Python would take the last in silence."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field '{next(n for n in names if names.count(n) > 1)}' stands there twice")
    return record


def _wrong_turn(messages: Sequence[Message]) -> str | None:
    """What is wrong with the order of turns before a question, if anything is."""
    for number, (message, due) in enumerate(
        zip(messages, cycle(("user", "assistant")), strict=False), start=1
    ):
        if message.role != due:
            return f"has a turn of the {message.role} as number {number}, where the {due}'s is due"
    if not messages:
        return "is empty"
    return "ends with a turn of the user" if len(messages) % 2 else None


def _parse(line: str, where: str) -> Example:
    try:
        record = json.loads(line, object_pairs_hook=without_repeats)
    except json.JSONDecodeError as error:
        raise MedtuneError(f"{where}: not JSON: {error.msg} at character {error.colno}") from None
    except ValueError as error:
        raise MedtuneError(f"{where}: {error}") from None
    if not isinstance(record, dict):
        raise MedtuneError(f"{where}: expected a JSON object with {', '.join(Example.model_fields)}")
    try:
        return Example.model_validate(record)
    except ValidationError as invalid:
        # A misspelt field is missing too; how it is spelt is the better hint.
        first = min(invalid.errors(), key=lambda error: error["type"] != "extra_forbidden")
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            *inside, name = first["loc"]
            unused = [other for other in Example.model_fields if other not in record]
            hint = nearest(str(name), [*Message.model_fields] if inside else unused)
            raise MedtuneError(f"{where}: unknown field '{field}'; {hint}") from None
        subject = f"the field '{field}' " if field else ""
        raise MedtuneError(f"{where}: {subject}{plain_words(first['msg'])}") from None
