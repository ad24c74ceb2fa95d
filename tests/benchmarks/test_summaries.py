"""What the benches print last: medians, their quartiles, and shares that count what has to be computed."""

import json
from typing import Any

import pytest

from benchmarks import attention, evaluate, train
from benchmarks.rounds import ratios


def step(tokens: int, seconds: float, **more: Any) -> dict[str, Any]:
    return {"tokens": tokens, "seconds": seconds, "peak_gib": 1.0, "losses": [2.0], **more}


def test_training_is_compared_turn_by_turn_without_the_first() -> None:
    ours = [
        step(1000, seconds, flops=4e11, computed_tokens=900, padding=100) for seconds in (9.0, 1.0, 1.0, 4.0)
    ]
    group: dict[str, Any] = {
        "medtune": ours,
        "trl": [step(1000, seconds) for seconds in (90.0, 10.0, 10.0, 40.0)],
        "matmul_peak": [{"flops_per_second": rate} for rate in (9e12, 8e11, 8e11, 2e11)],
    }
    compared = {"vs_trl_default": ratios(train.speeds(group["medtune"]), train.speeds(group["trl"]))}
    found = json.loads(json.dumps(train.summary([group], compared, train.shares(group))))
    assert found["vs_trl_default"] == 10.0
    assert found["matmul_share"] == 0.5
    assert found["spread"]["matmul_share"] == [0.5, 0.5]
    assert found["padding"] == 0.1
    assert found["tokens_per_second"] == {"medtune": 1000.0, "trl": 100.0}
    assert found["rounds"] == 3


def test_only_the_sides_asked_for_run_beside_medtune() -> None:
    assert train.chosen(train.SHORT_GROUPS, ["trl_best"]) == [
        {"matmul_peak": 0, "medtune": 3},
        {"medtune": 3, "trl_best": 2},
    ]
    assert train.chosen(train.SHORT_GROUPS, train.OTHERS) == list(map(dict, train.SHORT_GROUPS))


def test_the_loss_is_compared_with_the_plain_pass_at_every_step() -> None:
    plain = [step(1, 1.0), step(1, 1.0) | {"losses": [1.5]}]
    assert train.loss_gap({"medtune_float32": [step(1, 1.0)] * 2, "plain_float32": plain}) == 0.5


def test_answers_are_compared_by_their_tokens_and_with_the_products_of_their_shapes() -> None:
    answered: dict[str, Any] = {
        "batched": [
            {
                "seconds": 2.0,
                "tokens": 400,
                "questions": 8,
                "flops": 6e9,
                "texts": {"1": "a", "2": "b"},
                "peak_gib": 1,
            }
        ],
        "products": [{"seconds": 1.0, "flops": 8e9, "peak_gib": 1}],
        "one_at_a_time": [{"seconds": 4.0, "tokens": 80, "questions": 1, "texts": {"2": "b"}, "peak_gib": 1}],
    }
    chosen: dict[str, Any] = {
        "choices": [{"seconds": 1.0, "questions": 8, "log_likelihoods": {"1": [-1.0, -2.0]}, "peak_gib": 1}],
        "forward_per_choice": [
            {"seconds": 1.0, "questions": 1, "log_likelihoods": {"1": [-1.0, -2.25]}, "peak_gib": 1}
        ],
    }
    found = evaluate.summary(answered, chosen)
    assert found["vs_one_at_a_time"] == 10.0
    assert found["vs_choice_forward"] == 8.0
    assert found["products_share"] == pytest.approx(3e9 / 8e9)
    assert found["padding"] == 0.25
    assert found["identical_text"]
    assert found["max_log_likelihood_gap"] == 0.25


def test_the_fastest_attention_of_a_length_is_that_with_the_lowest_median() -> None:
    found = attention.summary({"eager": [1.0, 9.0, 1.0], "sdpa": [2.0, 2.0, 2.0]})
    assert found["fastest"] == "eager"
    assert found["times"] == {"eager": 1.0, "sdpa": 2.0}
