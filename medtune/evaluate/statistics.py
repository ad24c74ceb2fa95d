"""Intervals: how far a figure measured on a sample may be from the truth."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


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
    values: Sequence[float], seed: int, confidence: float = CONFIDENCE, resamples: int = 2000
) -> tuple[float, float]:
    """Percentile interval for a mean (Efron 1979, https://doi.org/10.1214/aos/1176344552), seeded."""
    sample = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(len(sample), size=(resamples, len(sample)))
    low, high = np.quantile(sample[draws].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
