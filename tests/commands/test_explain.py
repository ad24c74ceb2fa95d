"""What `medtune explain` concludes from what was seen: never more than that."""

import pytest

from medtune.commands.explain import conclusion, describe_explanation, explanation_as_json, is_interaction
from medtune.explain.differences import Difference
from medtune.explain.explaining import Effect, Explanation, Tried
from medtune.explain.outcomes import Sizes, Verdict


def effect(verdict: Verdict, failed: str | None = None) -> Effect:
    return Effect({"training": verdict}, Sizes({"loss": 0.0 if verdict == "same" else 0.5}, {}), failed)


def difference(*stages: str, kind: str = "parameter") -> Difference:
    return Difference(kind, "some.knob", "some.knob: 1 -> 2", stages, change=lambda *_: None)


def explanation(*tried: Tried, together: Effect | None = None) -> Explanation:
    return Explanation(("A", "B"), list(tried), steps=4, planned=92, asked=8, together=together)


def test_what_is_not_seen_is_not_called_harmless() -> None:
    tried = Tried(difference("finetune"), effect("same"), effect("same"))
    assert (
        conclusion(tried, explanation(tried))
        == "not seen in 4 steps and 8 answers: what comes later may differ"
    )


def test_a_stage_that_no_trial_runs_is_named_beside_those_that_saw_nothing() -> None:
    found = explanation(Tried(difference("evaluate", "count"), effect("same"), effect("same")))
    assert conclusion(found.tried[0], found).endswith("what comes later may differ, and no trial runs count")


def test_only_prepare_which_ran_in_full_is_called_harmless() -> None:
    """With another stage that reads it, or a run that failed, it is not."""
    tried = Tried(difference("prepare"), effect("same"), effect("same"))
    assert conclusion(tried, explanation(tried)).startswith("changes no result: prepare alone reads it")
    for other in (
        Tried(difference("prepare", "finetune"), effect("same"), effect("same")),
        Tried(difference("prepare"), effect("same"), effect("same", "finetune: no")),
    ):
        assert "changes no" not in conclusion(other, explanation(other))


def test_a_trial_that_fails_is_not_the_same_result() -> None:
    tried = Tried(difference("finetune"), effect("same", "finetune: no such thing"), None)
    assert conclusion(tried, explanation(tried)) == "does not run alone (finetune: no such thing)"
    assert effect("truly", "answer-base: no").verdict == "truly"


def test_what_keeps_all_from_being_tried_is_said_once() -> None:
    tried = [Tried(difference("finetune")), Tried(difference()), Tried(difference("answer-base"))]
    said = describe_explanation(Explanation(("A", "B"), tried, missed="nothing was run, as --no-run says"))
    assert said.count("not run: nothing was run, as --no-run says") == 1
    assert "changes nothing: no stage reads it" in said


def test_a_difference_that_shows_only_beside_others_is_told() -> None:
    tried = Tried(difference("finetune"), effect("same"), effect("truly"))
    assert conclusion(tried, explanation(tried)).startswith(
        "only together with others: taken away from B, truly"
    )


def test_an_interaction_is_one_that_no_difference_explains() -> None:
    seen, failed = (
        Tried(difference("finetune"), effect("same", why), effect("same")) for why in (None, "no")
    )
    assert is_interaction(explanation(seen, seen, together=effect("truly")))
    assert "no single difference changes it, all together do" in describe_explanation(
        explanation(seen, seen, together=effect("truly"))
    )
    assert not is_interaction(explanation(seen, together=effect("same")))
    assert not is_interaction(explanation(seen, failed, together=effect("truly")))
    untried = Tried(Difference("stage", "finetune", "declared otherwise", ("finetune",), untried="why"))
    assert not is_interaction(explanation(seen, untried, together=effect("truly")))


@pytest.mark.parametrize("size", [float("inf"), 0.0])
def test_json_has_only_numbers_of_json(size: float) -> None:
    one = Effect({"training": "truly"}, Sizes({"loss": size}, {}))
    found = explanation(Tried(difference("finetune"), one, one), together=one)
    assert "Infinity" not in explanation_as_json(found)
