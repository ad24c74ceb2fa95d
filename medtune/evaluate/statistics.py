"""Intervals: how far a figure measured on a sample may be from the truth.

Questions of one group (about one fact) do not count as independent: what was drawn are groups.
docs/evaluation.md has the formulas; tests/evaluate/test_statistics.py has how often they cover the truth.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, t

CONFIDENCE = 0.95
Interval = tuple[float, float]


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, rounded once: the built-in `sum` rounds otherwise since Python 3.12."""
    return math.fsum(values) / len(values)


def wilson_interval(share: float, n: float, quantile: float) -> Interval:
    """Interval for a proportion of `n`, within [0, 1], also right near 0 and 1 (Wilson 1927,
    https://doi.org/10.1080/01621459.1927.10502953); `quantile` is that of the confidence, such as 1.96.
    """
    centre = (share + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    margin = quantile / (1 + quantile**2 / n) * math.sqrt(share * (1 - share) / n + quantile**2 / (4 * n**2))
    # At the ends rounding can leave a bound on the wrong side of the share itself.
    return max(0.0, min(centre - margin, share)), min(1.0, max(centre + margin, share))


def share_interval(hits: Sequence[bool], groups: Sequence[str], confidence: float = CONFIDENCE) -> Interval:
    """Interval for the share of hits: Wilson's, with as many independent questions as the groups are worth.

    That is the number of questions over the design effect, the variance between groups over that of a simple
    sample (Korn and Graubard 1998, Survey Methodology 24; Dean and Pagano 2015,
    https://doi.org/10.1093/jssam/smv024), and Student's quantile for so many groups. Where all or none hit,
    no variance can be seen, and a group is taken for one question. One group says nothing: 0 to 1.
    """
    sums, sizes = _by_group([float(hit) for hit in hits], groups)
    if len(sizes) < 2:
        return 0.0, 1.0
    n, share = int(sizes.sum()), float(sums.sum() / sizes.sum())
    effect = float((sizes**2).sum() / n)
    if 0 < share < 1:
        between = len(sizes) / (len(sizes) - 1) * float(((sums - share * sizes) ** 2).sum()) / n**2
        # Groups that all have the same share leave nothing but a rounding error.
        effect = max(between / (share * (1 - share) / n), 1 / n)
    return wilson_interval(share, n / effect, float(t.ppf((1 + confidence) / 2, len(sizes) - 1)))


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[str],
    seed: int,
    *,
    scale: Interval = (0.0, 1.0),
    confidence: float = CONFIDENCE,
    resamples: int = 2000,
) -> Interval:
    """Percentile interval for a mean (Efron 1979, https://doi.org/10.1214/aos/1176344552), seeded.

    Drawn are whole groups (Field and Welsh 2007, https://doi.org/10.1111/j.1467-9868.2007.00593.x), and the
    percentiles are wider the fewer there are (Hesterberg 2015, https://doi.org/10.1080/00031305.2015.1089789).
    `scale` is the range of a value: where all are equal, as many as could have been missed (`share_interval`
    of no hits) may lie at its ends. One group says nothing: the whole scale.
    """
    sums, sizes = _by_group(values, groups)
    count, (lowest, highest) = len(sizes), scale
    if count < 2:
        return scale
    if len(set(values)) == 1:
        missed, value = share_interval([False] * len(values), groups, confidence)[1], values[0]
        return value - missed * (value - lowest), value + missed * (highest - value)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for number in range(resamples):
        drawn = generator.integers(count, size=count)
        means[number] = sums[drawn].sum() / sizes[drawn].sum()
    tail = float(norm.cdf(-math.sqrt(count / (count - 1)) * t.ppf((1 + confidence) / 2, count - 1)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _by_group(values: Sequence[float], groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the values and their number in each group."""
    _, members = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(members, weights=np.asarray(values, dtype=np.float64)), np.bincount(members)
