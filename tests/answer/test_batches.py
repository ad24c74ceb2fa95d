"""Batches once written down are not asked again; a damaged line counts as not written."""

from pathlib import Path

import pytest

from medtune.answer.batches import AnswerLog, answer_in_batches, cut_batches
from medtune.core.answers import AnswerText

QUESTIONS = {index: "?" * (1 + index % 4) + str(index) for index in (1, 2, 3, 5, 8, 9, 10, 12, 14, 20)}


class Answerer:
    """Says how long a question is and in which company it came; gives up after `patience` batches."""

    def __init__(self, patience: int = 100) -> None:
        self.patience = patience
        self.asked: list[int] = []

    def __call__(self, questions: list[str]) -> list[AnswerText]:
        if len(self.asked) == self.patience:
            raise KeyboardInterrupt
        self.asked.append(len(questions))
        company = len(questions)
        return [
            AnswerText(
                text=f"{question} of {company}",
                tokens=len(question),
                truncated=False,
                log_likelihoods=[-0.1 * len(question), -1e-300],
            )
            for question in questions
        ]


def test_questions_of_similar_length_are_asked_together() -> None:
    batches: list[list[str]] = []

    def answer(questions: list[str]) -> list[AnswerText]:
        batches.append(questions)
        return Answerer()(questions)

    answers = answer_in_batches(QUESTIONS, answer, batch_size=3)
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]
    lengths = [len(question) for batch in batches for question in batch]
    assert lengths == sorted(lengths)
    assert {index: answers[index].tokens for index in QUESTIONS} == {i: len(q) for i, q in QUESTIONS.items()}


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_an_interrupted_run_asks_only_what_is_missing_and_answers_the_same(tmp_path: Path, cut: int) -> None:
    expected = answer_in_batches(QUESTIONS, Answerer(), batch_size=3)
    path = tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        answer_in_batches(QUESTIONS, Answerer(patience=2), batch_size=3, log=AnswerLog(path))
    if cut:
        path.write_text(path.read_text()[:-cut])
    again = Answerer()
    assert answer_in_batches(QUESTIONS, again, batch_size=3, log=AnswerLog(path)) == expected
    assert again.asked == ([3, 3, 1] if cut else [3, 1])


def test_a_changed_line_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    log = AnswerLog(path)
    seven, eight, nine = (
        AnswerText(text=text, tokens=1, truncated=False) for text in ("seven", "eight", "nine")
    )
    log.add([4, 1], [seven, eight], 1.5)
    log.add([2], [nine], 0.5)
    again = AnswerLog(path)
    assert again.get([4, 1]) == [seven, eight]
    assert again.get([1, 4]) is None
    assert again.seconds == 2.0
    path.write_text(path.read_text().replace("seven", "eleven"))
    damaged = AnswerLog(path)
    assert damaged.get([4, 1]) is None
    assert damaged.get([2]) == [nine]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([1, 1, 1, 1, 1], [[0, 1, 2], [3, 4]]),
        ([2, 2, 3, 4], [[0, 1], [2, 3]]),
        ([2, 2, 4, 5], [[0, 1], [2], [3]]),
        ([9, 10], [[0], [1]]),
        ([], []),
    ],
)
def test_a_batch_has_as_many_tokens_as_it_may_or_one_question(
    lengths: list[int], expected: list[list[int]]
) -> None:
    questions = {number: "x" * length for number, length in enumerate(lengths)}
    assert cut_batches(list(questions), questions, 3, (8, len)) == expected
