"""Statistics of pass rates, as pure functions of counts.

The unit is a repeat: one conversation, which passes or does not. The repeats of two runs are
independent samples and the unit test is the stratum, so that an easy unit test is never weighed
against a hard one. Exact tests are used wherever they can be afforded: with five repeats of each
unit test the usual approximations are wrong by factors.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final, NamedTuple, TypeAlias

Interval: TypeAlias = tuple[float, float]

# The largest sum of supports for which the distribution of a whole set is convolved; beyond it,
# the normal form of the same test differs by less than chance does between two runs.
LARGEST_EXACT: Final = 1_000
# More repeats than anybody runs; a larger answer to "how many more" helps nobody.
MOST_REPEATS: Final = 10_000
POWER: Final = 0.8

# Repeats of a unit test up to which its power is counted; beyond, the normal form is as good.
_LARGEST_COUNTED: Final = 500

_Z: Final = 1.959963984540054  # of a two-sided interval of 95%
# Sums of the same terms in another order differ in their last digits, and equal p-values are equal.
_EQUAL: Final = 1 + 1e-9


class Stratum(NamedTuple):
    """The repeats of one unit test in the candidate and in the baseline.

    Attributes:
        passed: Number of repeats of the candidate that passed.
        evaluated: Number of repeats of the candidate that passed or failed.
        baseline_passed: Number of repeats of the baseline that passed.
        baseline_evaluated: Number of repeats of the baseline that passed or failed.
    """

    passed: int
    evaluated: int
    baseline_passed: int
    baseline_evaluated: int

    @property
    def mirrored(self) -> Stratum:
        """The same with passed and failed exchanged: a test for worse becomes one for better."""
        n, m = self.evaluated, self.baseline_evaluated
        return Stratum(n - self.passed, n, m - self.baseline_passed, m)


class Evidence(NamedTuple):
    """How likely results at least as bad are if nothing has changed.

    Attributes:
        whole: p-value of the whole set, all unit tests together.
        worst: p-value of the worst unit test, adjusted for the number of unit tests.
        p_value: The two combined; the one to compare with alpha.
        adjusted: p-value of each unit test, adjusted for the number of unit tests and combined in
            the same way, in the order given. None of them is below `p_value`.
    """

    whole: float
    worst: float
    p_value: float
    adjusted: tuple[float, ...]


def at_most(p_value: float, alpha: float) -> bool:
    """Return whether a p-value is at most `alpha`; rounding errors do not decide.

    >>> at_most(0.1 + 0.2, 0.3)
    True
    """
    return p_value <= alpha * _EQUAL


# --- one rate ---


def wilson(passed: int, evaluated: int) -> Interval:
    """Return the 95% interval of a pass rate; (0, 1) without repeats.

    Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).

    >>> [round(limit, 2) for limit in wilson(5, 5)]
    [0.57, 1.0]
    """
    if not evaluated:
        return 0.0, 1.0
    rate, square = passed / evaluated, _Z * _Z
    spread = rate * (1 - rate) / evaluated + square / (4 * evaluated * evaluated)
    centre, width = rate + square / (2 * evaluated), _Z * math.sqrt(spread)
    share = 1 + square / evaluated
    # Exact where all passed or none did, which the rounding of the sums would miss.
    low = (centre - width) / share if passed else 0.0
    high = (centre + width) / share if passed < evaluated else 1.0
    return low, high


def clopper_pearson_lower(passed: int, evaluated: int, confidence: float) -> float:
    """Return the one-sided lower limit of a pass rate; 0 without repeats.

    The smallest rate at which so many passes are not yet improbable. With at least the given
    confidence the true rate is not below it, however small the number of repeats.

    Clopper and Pearson, The use of confidence or fiducial limits, Biometrika 26 (1934).

    >>> round(clopper_pearson_lower(29, 29, 0.95), 4)
    0.9019
    """
    if not passed:
        return 0.0
    if passed == evaluated:
        return float((1 - confidence) ** (1 / evaluated))
    return _solve(lambda rate: _beta(rate, passed, evaluated - passed + 1), 1 - confidence)


def clopper_pearson_upper(passed: int, evaluated: int, confidence: float) -> float:
    """Return the one-sided upper limit of a pass rate; 1 without repeats.

    See `clopper_pearson_lower`, of which it is the mirror image.

    >>> round(clopper_pearson_upper(0, 10, 0.95), 4)
    0.2589
    """
    return 1.0 - clopper_pearson_lower(evaluated - passed, evaluated, confidence)


def binomial_at_most(passed: int, evaluated: int, rate: float) -> float:
    """Return the probability that at most `passed` repeats pass at a true rate of `rate`.

    The p-value of "the rate is below": at most `alpha` exactly where the one-sided upper limit of
    Clopper and Pearson with confidence ``1 - alpha`` is at most `rate`.

    >>> round(binomial_at_most(3, 5, 0.9), 5)
    0.08146
    """
    if passed >= evaluated:
        return 1.0
    return _beta(1 - rate, evaluated - passed, passed + 1)


def fewest_repeats(threshold: float, confidence: float) -> int | None:
    """Return the smallest number of repeats that could show a rate of at least `threshold`.

    So many must pass without a single failure for their lower limit (see `clopper_pearson_lower`)
    to reach the threshold. None if no number can, as for a threshold of 1.

    >>> fewest_repeats(0.9, 0.95)
    29
    """
    if threshold <= 0:
        return 1
    if threshold >= 1:
        return None
    fewest = max(1, math.ceil(math.log(1 - confidence) / math.log(threshold)) - 1)
    while clopper_pearson_lower(fewest, fewest, confidence) < threshold:
        fewest += 1
    return fewest


def repeats_to_decide(
    passed: int, evaluated: int, threshold: float, confidence: float, *, tests: int = 1
) -> int | None:
    """Return how many more repeats would decide about a threshold, at the present rate.

    Decided is that the rate is at least the threshold, or below it, by the limits of Clopper and
    Pearson; the latter at a confidence that holds for `tests` rates together.

    Args:
        passed: Number of repeats that passed.
        evaluated: Number of repeats that passed or failed.
        threshold: The rate that is asked for.
        confidence: With which the verdict is to hold.
        tests: Number of rates that are judged together.

    Returns:
        The number in addition to `evaluated`, 0 if it is decided already; None if no number up to
        10,000 decides, as for a rate equal to the threshold, or if nothing is known of the rate.

    >>> repeats_to_decide(5, 5, 0.9, 0.95)
    24
    """
    if not evaluated:
        return None
    alpha = (1 - confidence) / tests

    def decided(more: int) -> bool:
        n = evaluated + more
        # In whole repeats, rounded towards the threshold: never fewer than are needed.
        if passed and passed >= threshold * evaluated:
            reached = passed * n // evaluated
            # That the lower limit reaches the threshold, without the search for that limit.
            return _beta(threshold, reached, n - reached + 1) <= 1 - confidence
        reached = -(-passed * n // evaluated)
        return binomial_at_most(reached, n, threshold) < alpha

    return _fewest(decided)


def pass_hat_k(passed: int, evaluated: int, k: int) -> float | None:
    """Estimate the probability that `k` repeats all pass (pass^k); None for fewer repeats than k.

    Counts the samples of `k` repeats. The k-th power of the rate, often used instead, is too
    large. Yao et al., tau-bench (arXiv 2406.12045).

    >>> pass_hat_k(3, 4, 2)
    0.5
    """
    return math.comb(passed, k) / math.comb(evaluated, k) if k <= evaluated else None


def pass_at_k(passed: int, evaluated: int, k: int) -> float | None:
    """Estimate the probability that any of `k` repeats passes (pass@k); None for too few repeats.

    Chen et al., Evaluating large language models trained on code (arXiv 2107.03374).

    >>> pass_at_k(2, 4, 2)
    0.8333333333333334
    """
    none = pass_hat_k(evaluated - passed, evaluated, k)
    return None if none is None else 1 - none


# --- two rates ---


def newcombe(stratum: Stratum) -> Interval | None:
    """Return the 95% interval of the rate of the candidate minus that of the baseline.

    From the two intervals of `wilson`. None if either side has no repeats. Newcombe, Interval
    estimation for the difference between independent proportions, Statistics in Medicine 17
    (1998), method 10.

    >>> [round(limit, 3) for limit in newcombe(Stratum(4, 10, 10, 10))]
    [-0.832, -0.201]
    """
    a, n, c, m = stratum
    if not n or not m:
        return None
    (low, high), (baseline_low, baseline_high) = wilson(a, n), wilson(c, m)
    rate, baseline = a / n, c / m
    difference = rate - baseline
    return (
        difference - math.hypot(rate - low, baseline_high - baseline),
        difference + math.hypot(high - rate, baseline - baseline_low),
    )


def fisher(stratum: Stratum) -> float:
    """Return the p-value of "the candidate is worse" in one unit test: one-sided, exact.

    The probability that at most as many of all passes fall to the candidate, if they fall at
    random. For "better" use `Stratum.mirrored`. Fisher, The logic of inductive inference, JRSS 98
    (1935).

    >>> round(fisher(Stratum(1, 5, 5, 5)), 4)
    0.0238
    """
    passed, evaluated, baseline_passed, baseline_evaluated = stratum
    margins = _margins(evaluated, baseline_evaluated, passed + baseline_passed)
    return margins.cumulative[passed - margins.low]


def fisher_whole(strata: Iterable[Stratum]) -> float:
    """Return the p-value of "the candidate is worse" in a whole set: one-sided, stratified.

    The sum of the candidate's passes, given the margins of each stratum, is a sum of independent
    hypergeometric numbers; its distribution is their convolution. With a total support beyond
    `LARGEST_EXACT`, the normal form with continuity correction. Mantel and Haenszel, Statistical
    aspects of the analysis of data from retrospective studies of disease, JNCI 22 (1959); exact:
    Gart, Point and interval estimation of the common odds ratio, Biometrika 57 (1970). Strata in
    which all or none passed say nothing and drop out.

    Against pooled baselines the sum is skewed, and in the far tail, which counts among many sets,
    the normal form is too small: seen by factors of up to 2.2 at 0.0004 and 3.9 at 0.00003. The
    first term of Edgeworth's series, taken where it makes the p-value larger, left 1.1 and 1.4.
    Hall, The bootstrap and Edgeworth expansion (1992), chapter 2.

    >>> round(fisher_whole([Stratum(4, 5, 5, 5)] * 20) * 1e6, 2)
    0.95
    """
    excess, every = 0, Counter[_Margins]()
    for a, n, c, m in strata:
        margins = _margins(n, m, a + c)
        if len(margins.weights) > 1:
            excess += a - margins.low
            every[margins] += 1
    if sum((len(one.weights) - 1) * count for one, count in every.items()) > LARGEST_EXACT:
        mean = sum((one.mean - one.low) * count for one, count in every.items())
        variance = sum(one.variance * count for one, count in every.items())
        third = sum(one.third * count for one, count in every.items())
        deviation = math.sqrt(variance)
        z, skewness = (excess - mean + 0.5) / deviation, third / deviation**3
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return min(1.0, _normal(z) + max(0.0, -density * skewness / 6 * (z * z - 1)))
    total = [1.0]
    for one in sorted(every.elements(), key=lambda one: len(one.weights)):
        total = _convolved(total, one.weights, excess + 1)
    return min(1.0, math.fsum(total))


def evidence(strata: Sequence[Stratum]) -> Evidence:
    """Return the evidence that the candidate is worse, in the whole set or in any unit test.

    A drop everywhere shows in the whole set, a drop in one unit test in that one; asking both
    questions costs a factor of 2. The smallest p-value of all unit tests is adjusted by what each
    of the others could have given at all: with few repeats, most could not have given one as
    small. Tarone, A modified Bonferroni method for discrete data, Biometrics 46 (1990); Westfall
    and Wolfinger, Multiple tests with discrete distributions, American Statistician 51 (1997).

    >>> found = evidence([Stratum(4, 10, 10, 10), Stratum(10, 10, 10, 10), Stratum(9, 10, 9, 10)])
    >>> [round(p, 3) for p in (found.whole, found.worst, found.p_value)]
    [0.02, 0.005, 0.011]
    """
    every = Counter(_margins(n, m, a + c) for a, n, c, m in strata)
    alone = [fisher(one) for one in strata]
    whole = fisher_whole(strata)
    if sum(count for one, count in every.items() if len(one.weights) > 1) <= 1:
        # Both questions are the same one.
        only = [whole if p < 1 else 1.0 for p in alone]
        return Evidence(whole, whole, whole, tuple(only))
    familywise = {p: _at_least_one(every, p) for p in set(alone)}
    worst = min(familywise.values())
    adjusted = tuple(min(1.0, 2 * familywise[p]) for p in alone)
    return Evidence(whole, worst, min(1.0, 2 * min(whole, worst)), adjusted)


def least_adjusted(strata: Sequence[Stratum]) -> list[float]:
    """Return the smallest adjusted p-value that each unit test could have given.

    That is: had all its repeats passed in the baseline and failed in the candidate, with the other
    unit tests as they are. See `evidence`.

    >>> least_adjusted([Stratum(2, 2, 2, 2)])
    [0.16666666666666666]
    """
    every = Counter(_margins(n, m, a + c) for a, n, c, m in strata)
    varied = sum(count for one, count in every.items() if len(one.weights) > 1)
    found: dict[tuple[int, int, int], float] = {}
    for a, n, c, m in strata:
        key = n, m, a + c
        if key in found:
            continue
        own, extreme = _margins(*key), _margins(n, m, m)
        least = extreme.cumulative[0] if len(extreme.weights) > 1 else 1.0
        if varied == (len(own.weights) > 1):  # no other has any variance
            found[key] = least
            continue
        others = every - Counter([own])
        found[key] = min(1.0, 2 * _at_least_one(others + Counter([extreme]), least))
    return [found[n, m, a + c] for a, n, c, m in strata]


def smallest_drop(strata: Sequence[Stratum], alpha: float) -> float | None:
    """Return the smallest drop that would have been called worse with a power of 80%.

    The same drop of the rate in every unit test, from the rate of the baseline to that or to 0.
    For a single unit test the power is that of the exact test, counted over all results; for
    several it is that of the whole set in its normal form (see `fisher_whole`), at half of
    `alpha`. None if no drop would have been seen so often.

    >>> round(smallest_drop([Stratum(58, 60, 59, 60)], 0.05), 2)
    0.13
    """
    known = [one for one in strata if one.evaluated and one.baseline_evaluated]
    if not known:
        return None
    if len(known) == 1 and max(known[0]) <= _LARGEST_COUNTED:
        power = _power_counted(known[0], alpha)
    else:
        power = _power_normal(Counter(known), alpha if len(known) == 1 else alpha / 2)
    largest = max(one.baseline_passed / one.baseline_evaluated for one in known)
    if not largest or power(largest) < POWER:
        return None
    return largest * _solve(lambda share: power(share * largest), POWER, within=1e-6)


def repeats_to_tell(strata: Sequence[Stratum], alpha: float) -> int | None:
    """Return how many more repeats of each unit test would tell, if all rates stay as they are.

    So many more of the candidate, at least 1, against the same baseline, and the difference seen in
    the whole set would be beyond chance: for a single unit test by the exact test that gives the
    verdict, for several by its normal form (see `fisher_whole`). None if it is none, if no number
    up to 10,000 would do, and if the baseline is too small for any.

    >>> repeats_to_tell([Stratum(7, 10, 10, 10)], 0.05)
    37
    """
    known = [one for one in strata if one.evaluated and one.baseline_evaluated]
    # The support is bounded by the baseline, however many repeats the candidate has.
    if len(known) == 1 and known[0].baseline_evaluated <= LARGEST_EXACT:
        return _fewest(_told_exactly(known[0], alpha))
    every = Counter(known)
    level = _quantile(1 - (alpha if len(known) == 1 else alpha / 2))

    def told(more: int) -> bool:
        if not more:
            return False  # of what there is, the exact tests decide
        drop = variance = 0.0
        for (a, n, c, m), count in every.items():
            size = n + more + m
            passed = a / n * (n + more)
            drop += count * ((n + more) * (passed + c) / size - passed)
            variance += count * _spread(n + more, m, (passed + c) * (size - passed - c))
        return abs(drop) - 0.5 >= level * math.sqrt(variance)

    return _fewest(told) if known else None


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values adjusted for their number, in the order given.

    At most `alpha` of an adjusted p-value keeps the probability of a single false claim among all
    of them at `alpha`. Holm, A simple sequentially rejective multiple test procedure,
    Scandinavian Journal of Statistics 6 (1979).

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    scaled = (min(1.0, (len(order) - rank) * p_values[i]) for rank, i in enumerate(order))
    adjusted = dict(zip(order, accumulate(scaled, max), strict=True))
    return tuple(adjusted[i] for i in range(len(order)))


# --- distributions ---


class _Margins(NamedTuple):
    """The distribution of the candidate's passes in a stratum, given its margins.

    Attributes:
        low: The smallest possible number.
        weights: Probability of each possible number, from `low` on.
        cumulative: Probability of each or a smaller one.
        mean: The mean.
        variance: The variance.
        third: The third central moment.
    """

    low: int
    weights: tuple[float, ...]
    cumulative: tuple[float, ...]
    mean: float
    variance: float
    third: float


@lru_cache(maxsize=8192)
def _margins(evaluated: int, baseline_evaluated: int, passed: int) -> _Margins:
    """Return the hypergeometric distribution of a stratum with `passed` passes in all."""
    n, m, t = evaluated, baseline_evaluated, passed
    low, high = max(0, t - m), min(n, t)
    # Ratios of neighbours, from the mode outwards: no factorial grows, and no weight that counts
    # becomes zero.
    mode = min(max((n + 1) * (t + 1) // (n + m + 2), low), high)
    up = [1.0]
    for k in range(mode, high):
        up.append(up[-1] * (t - k) * (n - k) / ((k + 1) * (m - t + k + 1)))
    down = [1.0]
    for k in range(mode, low, -1):
        down.append(down[-1] * k * (m - t + k) / ((t - k + 1) * (n - k + 1)))
    raw = [*reversed(down[1:]), *up]
    total = math.fsum(raw)
    weights = tuple(weight / total for weight in raw)
    cumulative = tuple(min(1.0, part / total) for part in accumulate(raw))
    size = n + m
    mean = n * t / size if size else 0.0
    variance = mean * (size - t) * m / (size * (size - 1)) if size > 1 else 0.0
    third = variance * (size - 2 * n) * (size - 2 * t) / (size * (size - 2)) if size > 2 else 0.0
    return _Margins(low, weights, (*cumulative[:-1], 1.0), mean, variance, third)


def _at_least_one(every: Counter[_Margins], p_value: float) -> float:
    """Return the probability that any stratum gives a p-value of at most `p_value` by chance."""
    if p_value * _EQUAL >= 1:
        return 1.0
    none = 0.0
    for one, count in every.items():
        could = bisect_right(one.cumulative, p_value * _EQUAL)
        if could:
            none += count * math.log1p(-one.cumulative[could - 1])
    return -math.expm1(none)


def _convolved(total: list[float], weights: Sequence[float], most: int) -> list[float]:
    """Return the distribution of a sum, up to the first `most` values."""
    padded = [*total, *[0.0] * (len(weights) - 1)][:most]
    sums = [weights[0] * x for x in padded]
    for shift, weight in enumerate(weights[1:], 1):
        sums[shift:] = [x + weight * y for x, y in zip(sums[shift:], padded, strict=False)]
    return sums


def _power_counted(stratum: Stratum, alpha: float) -> Callable[[float], float]:
    """Return how often the exact test calls a drop of one unit test worse, over all results."""
    _, n, c, m = stratum
    before = c / m
    # For each result of the baseline, the results of the candidate that are called worse.
    worse = [
        bisect_right(range(n + 1), alpha * _EQUAL, key=lambda a: fisher(Stratum(a, n, b, m)))
        for b in range(m + 1)
    ]
    baseline = _binomial(m, before)

    def power(drop: float) -> float:
        cumulative = [0.0, *accumulate(_binomial(n, max(0.0, before - drop)))]
        return math.fsum(p * cumulative[most] for p, most in zip(baseline, worse, strict=True))

    return power


def _told_exactly(stratum: Stratum, alpha: float) -> Callable[[int], bool]:
    """Return whether so many more repeats of one unit test would tell, by the exact test."""
    a, n, c, m = stratum
    one = stratum if a * m <= c * n else stratum.mirrored

    def told(more: int) -> bool:
        if not more or a * m == c * n:
            return False  # of what there is, the verdict is known
        size = n + more
        # In whole repeats, rounded towards the baseline: never fewer than are needed.
        passed = -(-one.passed * size // n)
        return at_most(fisher(one._replace(passed=passed, evaluated=size)), alpha)

    return told


def _power_normal(strata: Counter[Stratum], alpha: float) -> Callable[[float], float]:
    """Return how often the normal form of the test calls the same drop everywhere worse."""
    level = _quantile(1 - alpha)

    def power(drop: float) -> float:
        moved = chance = spread = 0.0
        for (_, n, c, m), count in strata.items():
            size, before = n + m, c / m
            after = max(0.0, before - drop)
            mean = n * after + m * before
            own, others = n * after * (1 - after), m * before * (1 - before)
            moved += count * n * m / size * (before - after)
            chance += count * _spread(n, m, mean * (size - mean) - own - others)
            spread += count * ((m / size) ** 2 * own + (n / size) ** 2 * others)
        beyond = moved - 0.5 - level * math.sqrt(chance)
        return _normal(beyond / math.sqrt(spread)) if spread else float(beyond >= 0)

    return power


def _spread(evaluated: float, baseline_evaluated: float, product: float) -> float:
    """Return the hypergeometric variance; `product` is of the passed and the failed in all."""
    size = evaluated + baseline_evaluated
    return evaluated * baseline_evaluated * max(0.0, product) / (size * size * (size - 1))


def _binomial(n: int, rate: float) -> list[float]:
    """Return the probabilities of 0 to `n` passes."""
    return [math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(n + 1)]


def _quantile(probability: float) -> float:
    """Return the standard normal number that is not exceeded with a probability."""
    return 20 * _solve(lambda share: _normal(20 * share - 10), probability) - 10


def _normal(z: float) -> float:
    """Return the probability that a standard normal number is at most `z`."""
    return math.erfc(-z / math.sqrt(2)) / 2


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function, I_x(a, b).

    By its continued fraction (DLMF 8.17.22) with the method of Lentz.
    """
    if not 0 < x < 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction of the mirror image converges sooner
        return 1.0 - _beta(1 - x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(scale + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for i in range(1, MOST_REPEATS):
        for step in (
            i * (b - i) * x / ((a + 2 * i - 1) * (a + 2 * i)),
            -(a + i) * (a + b + i) * x / ((a + 2 * i) * (a + 2 * i + 1)),
        ):
            d = 1 / (1 + step * d)
            c = 1 + step / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction


def _solve(rising: Callable[[float], float], value: float, *, within: float = 1e-15) -> float:
    """Return where a function that rises from 0 to 1 between 0 and 1 has a value, by bisection."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high and high - low > within:
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return middle


def _fewest(decided: Callable[[int], bool]) -> int | None:
    """Return the smallest number of repeats that decides, up to rounding; None beyond the most."""
    if decided(0):
        return 0
    low, high = 0, 1
    while not decided(high):
        if high == MOST_REPEATS:
            return None
        low, high = high, min(2 * high, MOST_REPEATS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
