"""Intervals: how far a figure measured on a sample may be from the truth."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, rounded once: the built-in `sum` rounds otherwise since Python 3.12."""
    return math.fsum(values) / len(values)


def wilson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval for a proportion, within [0, 1], also right near 0 and 1 (Wilson 1927,
    https://doi.org/10.1080/01621459.1927.10502953). For `n` = 0 it is the whole range.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At the ends rounding can leave a bound on the wrong side of the share itself.
    return max(0.0, min(centre - margin, share)), min(1.0, max(centre + margin, share))


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[str],
    seed: int,
    confidence: float = CONFIDENCE,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile interval for a mean (Efron 1979, https://doi.org/10.1214/aos/1176344552), seeded.

    Drawn are whole groups: questions about the same facts do not count as independent (Field and Welsh 2007,
    https://doi.org/10.1111/j.1467-9868.2007.00593.x).
    """
    _, members = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(members, weights=np.asarray(values, dtype=np.float64)), np.bincount(members)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for number in range(resamples):
        drawn = generator.integers(len(sums), size=len(sums))
        means[number] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
