"""Intervals against published values and the reference implementation, and how often they cover the truth."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from medtune.evaluate.statistics import bootstrap_interval, mean, share_interval, wilson_interval

Z = float(norm.ppf(0.975))
Sample = tuple[list[float], list[str]]


def draw(groups: int, share: float, correlation: float, generator: np.random.Generator) -> Sample:
    """Hits of groups of 1 to 10 questions, which are alike within a group as far as `correlation` says."""
    sizes = generator.integers(1, 11, size=groups)
    shares = np.full(groups, share)
    if correlation:
        spread = (1 - correlation) / correlation
        shares = generator.beta(share * spread, (1 - share) * spread, size=groups)
    members = np.repeat(np.arange(groups), sizes)
    hits = generator.random(len(members)) < shares[members]
    return [float(hit) for hit in hits], [str(member) for member in members]


def coverage(interval: Callable[[Sample], tuple[float, float]], truth: float, samples: list[Sample]) -> float:
    bounds = [interval(sample) for sample in samples]
    return sum(low <= truth <= high for low, high in bounds) / len(bounds)


def test_a_mean_is_the_same_in_every_version_of_python() -> None:
    assert mean([0.1] * 10) == 0.1
    assert mean([1e16, 1.0, -1e16]) == 1 / 3


@pytest.mark.parametrize(
    ("hits", "n", "expected"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_against_published_values(hits: int, n: int, expected: tuple[float, float]) -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    assert wilson_interval(hits / n, n, Z) == pytest.approx(expected, abs=5e-5)


def test_of_groups_of_one_the_share_has_the_interval_of_wilson() -> None:
    hits = [number % 3 == 0 for number in range(3000)]
    found = share_interval(hits, [str(number) for number in range(3000)])
    assert found == pytest.approx(wilson_interval(1 / 3, 3000, Z), abs=2e-5)


@pytest.mark.parametrize("hit", [True, False])
def test_all_or_none_is_not_taken_for_certain(hit: bool) -> None:
    hits, groups = [hit] * 40, [str(number // 4) for number in range(40)]
    expected = (0.662, 1.0) if hit else (0.0, 0.338)
    assert share_interval(hits, groups) == pytest.approx(expected, abs=0.001)
    assert bootstrap_interval([float(hit)] * 40, groups, seed=1) == pytest.approx(expected, abs=0.001)
    gains = bootstrap_interval([0.0] * 40, groups, 1, scale=(-1, 1))
    assert gains == pytest.approx((-0.338, 0.338), abs=0.001)


def test_one_group_says_nothing() -> None:
    assert share_interval([True, False], ["a", "a"]) == (0, 1)
    assert bootstrap_interval([0.2, 0.4], ["a", "a"], seed=1) == (0, 1)


def test_intervals_lie_around_the_share_and_in_range() -> None:
    for hits in range(21):
        low, high = share_interval([number < hits for number in range(20)], [str(n // 3) for n in range(20)])
        assert 0 <= low <= hits / 20 <= high <= 1
        assert low < high


@pytest.mark.parametrize("correlation", [0.0, 0.3])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("groups", [30, 100])
def test_the_interval_of_a_share_covers_the_truth_as_often_as_it_says(
    groups: int, share: float, correlation: float
) -> None:
    generator = np.random.default_rng(1)
    samples = [draw(groups, share, correlation, generator) for _ in range(1500)]

    def interval(sample: Sample) -> tuple[float, float]:
        return share_interval([bool(value) for value in sample[0]], sample[1])

    assert 0.93 <= coverage(interval, share, samples) <= 0.97


def test_of_rare_hits_in_correlated_groups_the_interval_covers_the_truth_a_little_less_often() -> None:
    generator = np.random.default_rng(1)
    samples = [draw(30, 0.05, 0.3, generator) for _ in range(1500)]

    def interval(sample: Sample) -> tuple[float, float]:
        return share_interval([bool(value) for value in sample[0]], sample[1])

    assert 0.90 <= coverage(interval, 0.05, samples) <= 0.97


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    samples = [draw(60, 0.5, 0.2, generator) for _ in range(600)]

    def interval(sample: Sample) -> tuple[float, float]:
        return bootstrap_interval(*sample, seed=3, resamples=800)

    assert 0.93 <= coverage(interval, 0.5, samples) <= 0.97


def test_the_bootstrap_is_seeded_and_close_to_the_t_interval_of_scipy() -> None:
    values = [(i * 37 % 101) / 100 for i in range(400)]
    groups = [str(i) for i in range(400)]
    found = bootstrap_interval(values, groups, seed=1)
    assert found == bootstrap_interval(values, groups, seed=1)
    assert found != bootstrap_interval(values, groups, seed=2)
    assert found == pytest.approx(tuple(ttest_1samp(values, 0).confidence_interval()), abs=0.004)


def test_questions_of_one_group_do_not_count_as_independent() -> None:
    values = [(i * 37 % 101) / 100 for i in range(100)]
    groups = [str(i) for i in range(100)]
    alone = bootstrap_interval(values, groups, seed=1)
    # Each asked four times over tells no more about the rest.
    assert bootstrap_interval(values * 4, groups * 4, seed=1) == pytest.approx(alone)
    apart = bootstrap_interval(values * 4, [str(i) for i in range(400)], seed=1)
    assert apart[1] - apart[0] == pytest.approx((alone[1] - alone[0]) / 2, rel=0.15)
    hits = [value > 0.5 for value in values]
    assert share_interval(hits * 4, groups * 4) == pytest.approx(share_interval(hits, groups))
