"""Intervals against published values and the reference implementation, and how often they cover the truth."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.stats import norm, permutation_test, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from medtune.evaluate.statistics import (
    bootstrap_interval,
    effective_groups,
    holm,
    mean,
    share_interval,
    sign_flip_p,
    sign_test_p,
    smallest_shown,
    wilson_interval,
)

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


def draw_pairs(
    groups: int, shares: tuple[float, float], correlation: float, same: float, generator: np.random.Generator
) -> Sample:
    """Differences of two sides in hits, in groups of 1 to 10 questions; the share `same` is answered alike.

    How hard a group is for a side is drawn for each side anew.
    """
    members = np.repeat(np.arange(groups), generator.integers(1, 11, size=groups))
    sides = []
    for share in shares:
        spread = (1 - correlation) / correlation
        hard = generator.beta(share * spread, (1 - share) * spread, size=groups)
        sides.append(generator.random(len(members)) < hard[members])
    sides[1] = np.where(generator.random(len(members)) < same, sides[0], sides[1])
    return [float(gain) for gain in sides[1].astype(int) - sides[0]], [str(member) for member in members]


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


@pytest.mark.parametrize(("small", "large"), [(19, 100), (29, 300)])
@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_a_group_that_outweighs_the_others_makes_nothing_certain(
    small: int, large: int, correlation: float
) -> None:
    generator = np.random.default_rng(1)
    members = np.repeat(np.arange(small + 1), [1] * small + [large])
    covered = 0
    for _ in range(200):
        shares = np.full(small + 1, 0.4)
        if correlation:
            shares = generator.beta(0.4, 0.6, size=small + 1)
        hits = generator.random(len(members)) < shares[members]
        low, high = share_interval([bool(hit) for hit in hits], [str(member) for member in members])
        covered += low <= 0.4 <= high
    assert covered >= 190


def test_of_groups_of_one_size_the_effective_number_is_their_number() -> None:
    assert effective_groups(np.array([3, 3, 3, 3])) == 4
    assert effective_groups(np.array([100] + [1] * 6)) == pytest.approx(106**2 / 10006)


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


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (1, 29), (15, 148), (148, 148)])
def test_wilson_is_that_of_statsmodels(hits: int, n: int) -> None:
    expected = proportion_confint(hits, n, method="wilson")
    assert wilson_interval(hits / n, n, Z) == pytest.approx(expected)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (6, 0), (9, 2), (30, 31), (100, 60)])
def test_the_sign_test_of_gained_and_lost_is_mcnemar_of_statsmodels(gained: int, lost: int) -> None:
    expected = mcnemar([[3, gained], [lost, 4]], exact=True).pvalue if gained + lost else 1.0
    assert sign_test_p(gained, gained + lost) == pytest.approx(expected)
    differences = [1.0] * gained + [-1.0] * lost + [0.0] * 7
    assert sign_flip_p(differences, [str(i) for i in range(len(differences))], seed=1) == pytest.approx(
        expected
    )


def test_flips_of_few_groups_are_all_counted_as_scipy_counts_them() -> None:
    differences, groups = [0.4, 0.3, -0.1, 0.9, 0.2, 0.6, -0.5], ["a", "a", "b", "c", "d", "e", "e"]
    sums = [0.7, -0.1, 0.9, 0.2, 0.1]
    expected = permutation_test(
        (sums,), lambda values: float(np.sum(values)), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_p(differences, groups, seed=1) == pytest.approx(expected)


def test_drawn_flips_come_close_to_all_of_them() -> None:
    generator = np.random.default_rng(5)
    differences = list(generator.normal(0.35, 1.0, size=16))
    groups = [str(number) for number in range(16)]
    exact = sign_flip_p(differences, groups, seed=1)
    drawn = sign_flip_p([*differences, 1e-6], [*groups, "one more"], seed=1)
    assert exact == pytest.approx(drawn, abs=0.01)
    assert drawn == sign_flip_p([*differences, 1e-6], [*groups, "one more"], seed=1)


def test_questions_of_one_group_are_one_observation() -> None:
    assert sign_flip_p([1.0] * 10, [str(i) for i in range(10)], seed=1) == pytest.approx(2 / 2**10)
    assert sign_flip_p([1.0] * 10, ["one"] * 10, seed=1) == 1


@pytest.mark.parametrize("p_values", [[0.01], [0.04, 0.01, 0.03], [0.5, 0.9, 0.001, 0.001], [1.0, 1.0]])
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_of_too_few_groups_nothing_can_be_shown() -> None:
    assert smallest_shown([0.0] * 12, list("abcdef") * 2, 0.05) is None
    assert smallest_shown([0.0] * 14, list("abcdefg") * 2, 0.05) == pytest.approx(6 / 14)
    # One group that outweighs all others is worth little more than one.
    assert smallest_shown([1.0] * 130, ["large"] * 100 + [str(number) for number in range(30)], 0.05) is None
    # Six of six that differ are what it takes; five are not.
    assert sign_test_p(6, 6) < 0.05 < sign_test_p(5, 5)


def test_the_smallest_difference_is_shown_in_eight_of_ten_cases() -> None:
    generator = np.random.default_rng(1)
    shown, sizes = [], []
    for _ in range(200):
        noise = generator.normal(0.0, 0.4, size=80)
        groups = [str(number // 2) for number in range(80)]
        smallest = smallest_shown(list(noise), groups, 0.05)
        assert smallest is not None
        sizes.append(smallest)
        shown.append(
            sign_flip_p(list(generator.normal(0.0, 0.4, 80) + smallest), groups, 1, draws=2000) < 0.05
        )
    assert 0.72 <= np.mean(shown) <= 0.88
    # Against the textbook's formula for the power of a t-test with this spread.
    assert np.mean(sizes) == pytest.approx((2.02 + 0.85) * 0.4 / np.sqrt(80), rel=0.05)


CASES = [
    *product([30, 100], [(0.5, 0.5), (0.2, 0.2)], [0.0, 0.5]),
    (30, (0.5, 0.65), 0.0),
    (100, (0.3, 0.4), 0.5),
]


@pytest.mark.parametrize(("groups", "shares", "same"), CASES)
def test_a_difference_is_covered_and_chance_is_taken_for_a_difference_as_often_as_is_said(
    groups: int, shares: tuple[float, float], same: float
) -> None:
    generator = np.random.default_rng(1)
    samples = [draw_pairs(groups, shares, 0.3, same, generator) for _ in range(600)]
    truth = (1 - same) * (shares[1] - shares[0])

    def interval(sample: Sample) -> tuple[float, float]:
        return bootstrap_interval(*sample, seed=3, scale=(-1.0, 1.0), resamples=600)

    assert 0.93 <= coverage(interval, truth, samples) <= 0.97
    if truth == 0:
        alarms = [sign_flip_p(*sample, seed=3, draws=1000) < 0.05 for sample in samples]
        assert np.mean(alarms) <= 0.065


def test_a_test_that_takes_questions_for_independent_would_cry_wolf() -> None:
    generator = np.random.default_rng(1)
    samples = [draw_pairs(100, (0.5, 0.5), 0.3, 0.0, generator) for _ in range(300)]
    counts = [(values.count(1.0), values.count(-1.0)) for values, _ in samples]
    assert np.mean([sign_test_p(gained, gained + lost) < 0.05 for gained, lost in counts]) > 0.15
