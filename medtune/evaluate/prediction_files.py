"""Reading predictions: what `evaluate` has written, and anybody's.

`metrics/evaluation_results.json` is of the first kind. A JSONL file from elsewhere has a line for each:

    {"question": "Is fever a symptom?", "ground_truth": "yes", "prediction": "Yes, it is."}

with `id` or `question`, `ground_truth` or `answers` (a list of right ones), `prediction`, and optionally
`kind`, `group`, `context`, `messages` (the turns before the question), `choices` and `log_likelihoods` (of
the choices, in nats; `end_log_likelihoods`: of the end token after each).
"""

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, ValidationError

from medtune.core.answers import AnswerText
from medtune.core.errors import MedtuneError, plain_words
from medtune.core.examples import Example, Message, Text, without_repeats
from medtune.evaluate.choices import RULES, likeliest
from medtune.evaluate.scoring import MEANS

RESULTS_SUFFIX = ".json"
"""Of what `evaluate` writes; any other file is JSONL."""
KIND = "questions"
"""Of predictions that name none."""


class Given(NamedTuple):
    """What was asked, with what is right, and what was answered.

    `picks` says that of choices the likeliest is to be picked anew by the rule that is here, as `evaluate`
    does; in anybody's file the prediction is what it says.
    """

    example: Example
    answer: AnswerText
    picks: bool = False


def read_results(text: str, name: str) -> list[Given]:
    """The predictions in the text of a file called `name`: JSON as `evaluate` writes it, or JSONL.

    Raises MedtuneError that names the line (or the number of the result) and the field.
    """
    rows = list(_rows(text, name))
    if not rows:
        raise MedtuneError(f"{name}: holds no prediction; expected one JSON object a line")
    found, places = [], dict[str, str]()
    for where, content in rows:
        example, answer = _asked_and_answered(content, where)
        if example.id in places:
            hint = "" if "id" in content else " (give each its own `id`)"
            raise MedtuneError(f"{where}: '{example.id}' is answered in {places[example.id]} too{hint}")
        places[example.id] = where.removeprefix(f"{name}, ")
        found.append(Given(example, answer, picks=name.endswith(RESULTS_SUFFIX)))
    return found


def _strict(text: str) -> Any:
    """JSON without what JSON does not have: NaN, and one field twice."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    return json.loads(text, parse_constant=refuse, object_pairs_hook=without_repeats)


def _rows(text: str, name: str) -> Iterator[tuple[str, Any]]:
    """Where each row stands, and the row."""
    text = text.removeprefix("\ufeff")
    if name.endswith(RESULTS_SUFFIX):
        try:
            rows = list(_strict(text)["results"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            what = str(error) if isinstance(error, ValueError) else "no list of `results`"
            raise MedtuneError(
                f"{name}: not the predictions that `evaluate` writes ({what}); run `dvc repro` to make it or "
                "`dvc pull` to fetch it. Predictions from elsewhere are JSONL: one object a line, in a file "
                "called .jsonl"
            ) from None
        yield from ((f"{name}, result {number}", row) for number, row in enumerate(rows, start=1))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"{name}, line {number}", _strict(line)
            except (ValueError, RecursionError) as error:
                raise MedtuneError(f"{name}, line {number}: not JSON: {error}") from None


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    prediction: str
    id: Annotated[Text, BeforeValidator(_as_text)] | None = None
    question: Text | None = None
    ground_truth: Text | None = None
    answers: list[Text] | None = None
    kind: Text = KIND
    group: Annotated[Text, BeforeValidator(_as_text)] | None = None
    context: Text | None = None
    messages: list[Message] | None = None
    choices: list[Text] | None = None
    log_likelihoods: list[FiniteFloat] | dict[str, FiniteFloat] | None = None
    end_log_likelihoods: list[FiniteFloat] | dict[str, FiniteFloat] | None = None
    truncated: bool = False

    @property
    def example(self) -> Example:
        """What was asked; raises ValueError where that cannot be told."""
        name = self.id or self.question
        right = [*([self.ground_truth] if self.ground_truth else []), *(self.answers or [])]
        if name is None:
            raise ValueError("either `id` or `question` is needed")
        if self.choices is not None and len(self.choices) < 2:
            raise ValueError("`choices` has a single one, which is always right: give two or none")
        if not right:
            raise ValueError("either `ground_truth` or `answers`, with one at the least, is needed")
        return Example(
            id=name,
            question=self.question or name,
            answer=right[0],
            answers=[text for text in dict.fromkeys(right) if text != right[0]] or None,
            kind=self.kind,
            # Without groups each question is one.
            group=self.group or name,
            context=self.context,
            messages=self.messages,
            choices=self.choices,
        )

    @property
    def answer(self) -> AnswerText:
        """What was answered; raises ValueError where that contradicts itself."""
        texts = self._in_order("log_likelihoods", self.log_likelihoods)
        ends = self._in_order("end_log_likelihoods", self.end_log_likelihoods)
        choices = self.choices or []
        if texts is None and ends is not None:
            raise ValueError("`end_log_likelihoods` needs `log_likelihoods` beside it")
        if texts:
            likely = {number for rule in RULES for number in likeliest(choices, texts, rule, ends)}
            if self.prediction not in {choices[number] for number in likely}:
                raise ValueError("`prediction` is not the likeliest choice, nor one that is as likely")
        return AnswerText(
            text=self.prediction,
            tokens=0,
            truncated=self.truncated,
            log_likelihoods=texts,
            end_log_likelihoods=ends,
        )

    def _in_order(self, name: str, given: list[float] | dict[str, float] | None) -> list[float] | None:
        choices = self.choices or []
        if given is None:
            return None
        if len(given) != len(choices) or (isinstance(given, dict) and given.keys() != set(choices)):
            raise ValueError(f"`{name}` must have one for each of `choices`")
        values = [given[choice] for choice in choices] if isinstance(given, dict) else given
        if max(values, default=0.0) > 0:
            raise ValueError(f"`{name}` are natural logarithms of probabilities: none is above 0")
        return values


WRITTEN = frozenset(["correct", "match_type", *MEANS, "nearest", "unquantized"])
"""What `evaluate` writes beside: judged anew, it is not read."""


def _without_nulls(content: Mapping[str, Any]) -> dict[str, Any]:
    """What is there: a field that may be absent may be null as well."""
    needed = {name for name, field in _Row.model_fields.items() if field.is_required()}
    return {name: value for name, value in content.items() if value is not None or name in needed}


def _asked_and_answered(content: Any, where: str) -> tuple[Example, AnswerText]:
    if not isinstance(content, Mapping):
        raise MedtuneError(f"{where}: expected a JSON object with {', '.join(_Row.model_fields)}")
    for field in content:
        # Other fields may be there for other purposes; one that is nearly right was meant for this one.
        close = get_close_matches(field.lower(), _Row.model_fields, cutoff=0.75)
        if field not in _Row.model_fields and field not in WRITTEN and close:
            raise MedtuneError(f"{where}: unknown field '{field}'; did you mean '{close[0]}'?")
    try:
        row = _Row.model_validate(_without_nulls(content))
        return row.example, row.answer
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"] if first["loc"][:1] == ("messages",) else first["loc"][:1]))
        subject = f"the field '{field}' " if field else ""
        raise MedtuneError(f"{where}: {subject}{plain_words(first['msg'])}") from None
    except ValueError as error:
        raise MedtuneError(f"{where}: {error}") from None
