"""What is wrong with a row, and what was left out of the questions and why."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from medtune.core.errors import MedtuneError

SHOWN = 20
"""Faulty rows that an error names one by one."""
LONGEST_DETAIL = 600
"""Characters; a value that is quoted may be a page."""

REASONS = {
    "broken": "not readable as a row",
    "empty": "a field that is needed is empty",
    "not_text": "a field is no text",
    "bad_conversation": "turns that are no conversation",
    "repeated_choice": "a choice stands there twice",
    "too_few_choices": "fewer than two choices",
    "no_right_choice": "the answer is none of the choices",
    "ambiguous_answer": "the answer can be read in two ways",
    "answers_disagree": "two columns say different choices are right",
    "repeated_id": "an id that another row has too",
    "conflicting_answers": "another row answers the same question otherwise",
    "duplicate": "the same question and answer as another row",
    "leak": "in training or validation, though the test (or validation) has it too",
    "held_out": "too near to a question of data.held_out",
    "withdrawn": "named in data.without",
}
"""Why rows are left out, by the name that metrics/data.json has."""
FAULTS = tuple(REASONS)[: tuple(REASONS).index("duplicate")]
"""Those that are mistakes: with `data.on_error: fail` one of them stops the run."""


class Fault(Exception):  # noqa: N818 - of a row, not of the program
    """Why a row is no example: a key of REASONS, and what is wrong in words."""

    def __init__(self, reason: str, detail: str) -> None:
        # What is quoted of a file may have line ends and half characters, which no line of a log may have.
        words = " ".join(detail.encode("utf-8", "backslashreplace").decode().split())
        if len(words) > LONGEST_DETAIL:
            words = f"{words[: LONGEST_DETAIL // 2]} [...] {words[-LONGEST_DETAIL // 2 :]}"
        super().__init__(words)
        self.reason = reason
        self.detail = words


@dataclass(frozen=True)
class LeftOut:
    """A row that became no example: where it stands, its id if it has one, and why."""

    source: str
    place: str
    id: str | None
    reason: str
    detail: str


@dataclass
class Rejects:
    """The rows that were left out, in the order of finding."""

    rows: list[LeftOut] = field(default_factory=list)

    def add(self, source: str, place: str, name: str | None, reason: str, detail: str) -> None:
        """Note a row that is left out; `name` is its id, if it has one."""
        self.rows.append(LeftOut(source, place, name, reason, detail))

    def __iter__(self) -> Iterator[LeftOut]:
        return iter(self.rows)

    def counts(self, sources: Iterable[str]) -> dict[str, dict[str, int]]:
        """How many rows of each source are left out for which reason; only reasons that occur."""
        found = Counter((row.source, row.reason) for row in self.rows)
        return {
            source: {reason: found[source, reason] for reason in REASONS if found[source, reason]}
            for source in sources
        }

    def write(self, file: TextIO) -> None:
        """As `data/prepared/left_out.csv`, which has its head also if nothing was left out."""
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["source", "row", "id", "reason", "detail"])
        lines.writerows([row.source, row.place, row.id, row.reason, row.detail] for row in self.rows)

    def refuse(self, on_error: str) -> None:
        """With `data.on_error: fail` refuse what is wrong: all faulty rows at once, the first by name."""
        faulty = [row for row in self.rows if row.reason in FAULTS]
        if on_error == "fail" and faulty:
            raise MedtuneError(
                f"{_lines(faulty)}\nerror: mend them, or set data.on_error to drop in params.yaml, which "
                "leaves them out and lists them in data/prepared/left_out.csv"
            )

    def refuse_all(self) -> None:
        """Refuse what is wrong whatever `data.on_error` says: there is no other row."""
        raise MedtuneError(f"{_lines(self.rows)}\nerror: no row is left that could be asked: mend them")


def _lines(faulty: Sequence[LeftOut]) -> str:
    """The first of them, one of each reason among these; then how many there are of which."""
    reasons = Counter(row.reason for row in faulty)
    # The first of a reason goes before all others, so that a fault of every row hides no other.
    first = {row.reason: number for number, row in reversed(list(enumerate(faulty)))}
    chosen = sorted(range(len(faulty)), key=lambda number: (first[faulty[number].reason] != number, number))
    lines = [f"{faulty[number].place}: {faulty[number].detail}" for number in sorted(chosen[:SHOWN])]
    if len(faulty) > SHOWN:
        lines.append(f"and {len(faulty) - SHOWN} more faulty rows")
        if len(reasons) > 1:
            lines[-1] += f"; of all {len(faulty)}, " + ", ".join(
                f"{count}: {REASONS[reason]}" for reason, count in reasons.most_common()
            )
    return "\nerror: ".join(lines)
