"""Intervals: how far a figure measured on a sample may be from the truth.

Questions of one group (about one fact) do not count as independent: what was drawn are groups.
docs/evaluation.md has the formulas; tests/evaluate/test_statistics.py has how often they cover the truth.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, norm, t

CONFIDENCE = 0.95
POWER = 0.8
"""How often a difference of the size that could be shown would have been shown."""
CELLS = 2_000_000
"""Of a table that is drawn at once: what fits into memory."""
EXACT = 16
"""Groups that differ, of which every flip of signs is counted."""
ROUNDING = 1e-9
"""Sums that differ by less are equal: the order in which they were added tells them apart."""
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
    https://doi.org/10.1093/jssam/smv024), and Student's quantile for as many groups as they are worth.
    Where all or none hit, no variance can be seen, and a group is taken for one question. One group says
    nothing: 0 to 1.
    """
    sums, sizes = _by_group([float(hit) for hit in hits], groups)
    if len(sizes) < 2:
        return 0.0, 1.0
    n, share = int(sizes.sum()), float(sums.sum() / sizes.sum())
    effect = float((sizes**2).sum() / n)
    if 0 < share < 1:
        between = _variance(sums - share * sizes, sizes)
        # Groups that all have the same share leave nothing but a rounding error.
        effect = max(between / (share * (1 - share) / n), 1 / n)
    quantile = float(t.ppf((1 + confidence) / 2, effective_groups(sizes) - 1))
    return wilson_interval(share, n / effect, quantile)


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
    percentiles are wider the fewer there are (Hesterberg 2015, https://doi.org/10.1080/00031305.2015.1089789),
    counted as what they are worth if one is much larger than others.
    `scale` is the range of a value: where all are equal, as many as could have been missed (`share_interval`
    of no hits) may lie at its ends. One group says nothing: the whole scale.
    """
    sums, sizes = _by_group(values, groups)
    count, (lowest, highest) = len(sizes), scale
    if count < 2 or effective_groups(sizes) < 2:
        return scale
    if len(set(values)) == 1:
        missed, value = share_interval([False] * len(values), groups, confidence)[1], values[0]
        return value - missed * (value - lowest), value + missed * (highest - value)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    at_once = max(1, CELLS // count)
    for start in range(0, resamples, at_once):
        drawn = generator.integers(count, size=(min(at_once, resamples - start), count))
        means[start : start + at_once] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    worth = effective_groups(sizes)
    tail = float(norm.cdf(-math.sqrt(worth / (worth - 1)) * t.ppf((1 + confidence) / 2, worth - 1)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def sign_flip_p(
    differences: Sequence[float], groups: Sequence[str], seed: int, *, draws: int = 20_000
) -> float:
    """Two-sided p-value of paired differences, if it were chance which of the two sides of a group is which.

    Each group's sum of differences may as well have had the other sign (Fisher 1935; for clusters Cameron,
    Gelbach and Miller 2008, https://doi.org/10.1162/rest.90.3.414): what is alike within a group stays so.
    Of equal sums, as of hits in groups of one, it is McNemar's exact test. Of more than `EXACT` groups that
    differ, `draws` random flips are counted, seeded, and the observed one with them.
    """
    sums, _ = _by_group(differences, groups)
    sums = sums[np.abs(sums) > ROUNDING]
    if not len(sums):
        return 1.0
    sizes = np.abs(sums)
    if sizes.max() - sizes.min() <= ROUNDING:
        return sign_test_p(int((sums > 0).sum()), len(sums))
    observed = abs(float(sums.sum())) - ROUNDING
    if len(sums) <= EXACT:
        flips = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        return float((np.abs((2 * flips - 1) @ sizes) >= observed).mean())
    generator = np.random.default_rng(seed)
    at_once, extreme = max(1, CELLS // len(sums)), 0
    for start in range(0, draws, at_once):
        flips = generator.integers(2, size=(min(at_once, draws - start), len(sums)), dtype=np.int8)
        extreme += int((np.abs((2 * flips - 1) @ sizes) >= observed).sum())
    return (extreme + 1) / (draws + 1)


def sign_test_p(successes: int, trials: int) -> float:
    """Two-sided p-value of so many successes, if each were as likely as not; 1 without a trial.

    Of questions gained among those gained or lost this is McNemar's exact test (1947,
    https://doi.org/10.1007/BF02295996).
    """
    return float(binomtest(successes, trials).pvalue) if trials else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that hold for all of several tests together (Holm 1979, https://www.jstor.org/stable/4615733)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def smallest_shown(differences: Sequence[float], groups: Sequence[str], level: float) -> float | None:
    """The smallest mean difference that such questions would show at a level, in 8 of 10 cases; None: none.

    (t(1 - level / 2) + t(0.8)) standard errors between groups (Bloom 1995,
    https://doi.org/10.1177/0193841X9501900504), and no less than if all groups that differ, as many as the
    level takes, differ by one question each. One group more than that has to be there: where all groups
    differ alike, the interval has to leave room for one that does not.
    """
    sums, sizes = _by_group(differences, groups)
    n, needed = float(sizes.sum()), math.ceil(1 - math.log2(level))
    if effective_groups(sizes) <= needed:
        return None
    error = math.sqrt(_variance(sums - float(sums.sum()) / n * sizes, sizes))
    freedom = effective_groups(sizes) - 1
    quantiles = float(t.ppf(1 - level / 2, freedom) + t.ppf(POWER, freedom))
    return max(quantiles * error, needed / n)


def effective_groups(sizes: np.ndarray) -> float:
    """How many groups of one size say as much as groups of these sizes, at the most (Kish 1965)."""
    return float(sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum())


def _variance(residuals: np.ndarray, sizes: np.ndarray) -> float:
    """Of a mean, between groups, each as if the mean were that of the others.

    A large group pulls the mean towards itself, which hides how far it is off (Bell and McCaffrey 2002,
    Survey Methodology 28). Of groups of one size it is k / (k - 1) times the sum of squares over n².
    """
    count, n = len(sizes), float(sizes.sum())
    return (count - 1) / count * float(((residuals / (1 - sizes / n)) ** 2).sum()) / n**2


def _by_group(values: Sequence[float], groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the values and their number in each group."""
    # As an array of texts the names would all be as wide as the longest, and end at a NUL.
    numbers = {group: number for number, group in enumerate(sorted(set(groups)))}
    members = np.array([numbers[group] for group in groups], dtype=np.int64)
    return np.bincount(members, weights=np.asarray(values, dtype=np.float64)), np.bincount(members)
