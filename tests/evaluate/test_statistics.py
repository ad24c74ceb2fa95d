import math

import pytest

from medtune.evaluate.statistics import bootstrap_interval, mean, wilson_interval


def test_a_mean_is_the_same_in_every_version_of_python() -> None:
    assert mean([0.1] * 10) == 0.1
    assert mean([1e16, 1.0, -1e16]) == 1 / 3


def test_wilson_against_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_covers_the_truth_about_95_percent_of_the_time() -> None:
    n, p = 60, 0.3
    covered = sum(
        math.comb(n, k) * p**k * (1 - p) ** (n - k)
        for k in range(n + 1)
        if wilson_interval(k, n)[0] <= p <= wilson_interval(k, n)[1]
    )
    assert 0.93 < covered < 0.97


def test_wilson_stays_in_range_and_around_the_share() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    for n in (1, 7, 300):
        for k in range(n + 1):
            low, high = wilson_interval(k, n)
            assert 0 <= low <= k / n <= high <= 1


def test_bootstrap_is_seeded_and_close_to_the_normal_interval() -> None:
    values = [(i * 37 % 101) / 100 for i in range(400)]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    groups = [str(i) for i in range(400)]
    low, high = bootstrap_interval(values, groups, seed=1)
    assert (low, high) == bootstrap_interval(values, groups, seed=1)
    assert (low, high) != bootstrap_interval(values, groups, seed=2)
    margin = 1.96 * deviation / math.sqrt(len(values))
    assert low == pytest.approx(mean - margin, abs=0.004)
    assert high == pytest.approx(mean + margin, abs=0.004)


def test_questions_of_one_group_do_not_count_as_independent() -> None:
    values = [(i * 37 % 101) / 100 for i in range(100)]
    groups = [str(i) for i in range(100)]
    alone = bootstrap_interval(values, groups, seed=1)
    # Each asked four times over tells no more about the rest.
    assert bootstrap_interval(values * 4, groups * 4, seed=1) == pytest.approx(alone)
    apart = bootstrap_interval(values * 4, [str(i) for i in range(400)], seed=1)
    assert apart[1] - apart[0] == pytest.approx((alone[1] - alone[0]) / 2, rel=0.15)
