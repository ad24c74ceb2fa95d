"""A prediction: an example, what a model or a lookup said to it, and the verdict."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from medtune.core.answers import AnswerText
from medtune.core.errors import MedtuneError, nearest
from medtune.core.examples import Example
from medtune.evaluate.choices import Ballot, pick
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.scoring import RANK, Score, score, score_choice


@dataclass(frozen=True)
class Prediction:
    """An answer to an example, and its score."""

    example: Example
    answer: AnswerText
    score: Score

    @property
    def correct(self) -> bool:
        """Whether it counts for the accuracy."""
        return self.score.match_type == "exact"

    @property
    def ballot(self) -> Ballot | None:
        """The odds that a model gave the example's choices, if it has any and they are known."""
        example, answer = self.example, self.answer
        if example.choices is None or answer.log_likelihoods is None:
            return None
        right = example.choices.index(example.answer)
        return Ballot(example.choices, answer.log_likelihoods, right, answer.end_log_likelihoods)


def require_known_kinds(examples: Sequence[Example], params: EvaluateParams) -> None:
    """Refuse a kind in `evaluate.set_kinds` that no test question is of."""
    kinds = sorted({example.kind for example in examples})
    if unknown := sorted(set(params.set_kinds) - set(kinds)):
        raise MedtuneError(
            f"params.yaml: evaluate.set_kinds has '{unknown[0]}', a kind that was not asked; "
            f"{nearest(unknown[0], kinds)}"
        )


def judge(
    examples: Sequence[Example], answers: Mapping[str, AnswerText], params: EvaluateParams
) -> list[Prediction]:
    """Score the answers to those examples that have one: a lookup may have nothing to look up."""
    return [predict(one, answers[one.id], params) for one in examples if one.id in answers]


def predict(
    example: Example, answer: AnswerText, params: EvaluateParams, *, picks: bool = True
) -> Prediction:
    """Score one answer: of choices with likelihoods the pick, of several right answers the closest.

    Without `picks` the answer to a question with choices is its text, whatever the likelihoods.
    """
    if example.choices is not None:
        if picks and answer.log_likelihoods is not None:
            number = pick(
                example.choices, answer.log_likelihoods, params.choice_rule, answer.end_log_likelihoods
            )
            answer = answer.model_copy(update={"text": example.choices[number]})
        return Prediction(example, answer, score_choice(answer.text, example.answer))
    is_set = example.kind in params.set_kinds
    scores = [
        score(answer.text, right, is_set=is_set, partial_f1=params.partial_f1)
        for right in example.right_answers
    ]
    best = max(scores, key=lambda one: (RANK[one.match_type], one.token_f1))
    return Prediction(example, answer, best)


def by_kind(predictions: Sequence[Prediction]) -> Iterator[tuple[str, list[Prediction]]]:
    """Every kind in alphabetic order, with its predictions."""
    for kind in sorted({one.example.kind for one in predictions}):
        yield kind, [one for one in predictions if one.example.kind == kind]
