"""The statistics of verdicts against those of scipy and statsmodels, on thousands of tables."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

import pytest

from tests.support.needs import needs_modules

needs_modules("scipy", "statsmodels")

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import StratifiedTable
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from amigo_async.verdicts import statistics
from amigo_async.verdicts.statistics import Stratum

# The edges: none and one repeat, none and all passed.
SIZES = (0, 1, 2, 3, 5, 10, 20, 60, 500)


def counts(many: int, seed: int, *, least: int = 0, most: int = 500) -> Iterator[tuple[int, int]]:
    """Pairs of passed and repeats: every edge, then by chance."""
    sizes = [n for n in SIZES if least <= n <= most]
    yield from ((a, n) for n in sizes for a in sorted({0, min(1, n), max(0, n - 1), n}))
    dice = random.Random(seed)
    for _ in range(many):
        n = dice.choice([dice.randint(max(1, least), 12), dice.randint(max(1, least), most)])
        yield dice.randint(0, n), n


def tables(many: int, seed: int, *, least: int = 0, most: int = 500) -> Iterator[Stratum]:
    """Tables of two sides: every pair of edges, then by chance."""
    edges = list(counts(0, seed, least=least, most=most))
    yield from (Stratum(*one, *other) for one in edges for other in edges)
    sides = [list(counts(many, seed + n, least=least, most=most))[-many:] for n in range(2)]
    yield from (Stratum(*one, *other) for one, other in zip(*sides, strict=True))


def sets(many: int, seed: int, *, most_tests: int, most: int) -> Iterator[list[Stratum]]:
    """Sets of unit tests, those that say nothing among them: none ran, all passed, none did."""
    dice = random.Random(seed)
    every = list(tables(many, seed, most=most))
    edges, others = every[:-many], every[-many:]
    for _ in range(many):
        size = dice.randint(1, most_tests)
        yield dice.choices(others, k=size) + dice.choices(edges, k=dice.randint(0, 3))


def close(value: float, exact: float) -> bool:
    return math.isclose(value, float(exact), rel_tol=1e-8, abs_tol=1e-300)


def hypergeometric(one: Stratum) -> tuple[int, list[float]]:
    """The smallest number of passes of the candidate, and the probabilities from there on."""
    a, n, c, m = one
    low, high = max(0, a + c - m), min(n, a + c)
    if not n + m:  # of which scipy knows nothing
        return 0, [1.0]
    return low, list(stats.hypergeom.pmf(range(low, high + 1), n + m, a + c, n))


def test_wilson() -> None:
    for a, n in counts(2000, 1, least=1):
        assert statistics.wilson(a, n) == pytest.approx(
            proportion_confint(a, n, method="wilson"), abs=1e-12
        )


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_clopper_pearson(confidence: float) -> None:
    for a, n in counts(1000, 2, least=1):
        low, high = proportion_confint(a, n, method="beta", alpha=2 * (1 - confidence))
        assert statistics.clopper_pearson_lower(a, n, confidence) == pytest.approx(low, abs=1e-11)
        assert statistics.clopper_pearson_upper(a, n, confidence) == pytest.approx(high, abs=1e-11)


def test_binomial() -> None:
    dice = random.Random(3)
    for a, n in counts(3000, 3):
        rate = dice.choice([0.0, 1.0, 0.5, 0.9, 0.99, dice.random()])
        # The complement of a tail keeps its digits only down to the precision of 1.
        assert statistics.binomial_at_most(a, n, rate) == pytest.approx(
            stats.binom.cdf(a, n, rate), rel=1e-8, abs=1e-14
        )


def test_newcombe() -> None:
    for one in tables(2000, 4, least=1):
        a, n, c, m = one
        referee = confint_proportions_2indep(a, n, c, m, method="newcomb", compare="diff")
        assert statistics.newcombe(one) == pytest.approx(referee, abs=1e-12)


def test_fisher() -> None:
    for one in tables(3000, 5):
        a, n, c, m = one
        table = [[a, n - a], [c, m - c]]
        assert close(
            statistics.fisher(one), stats.fisher_exact(table, alternative="less").pvalue
        ), one
        assert close(
            statistics.fisher(one.mirrored), stats.fisher_exact(table, alternative="greater").pvalue
        ), one


def test_whole_set_by_convolution() -> None:
    for strata in sets(1500, 6, most_tests=12, most=20):
        total, excess = np.array([1.0]), 0
        for one in strata:
            low, weights = hypergeometric(one)
            total, excess = np.convolve(total, weights), excess + one.passed - low
        assert close(statistics.fisher_whole(strata), total[: excess + 1].sum()), strata


def test_single_unit_test_is_fishers() -> None:
    for one in tables(500, 7, most=60):
        assert close(statistics.fisher_whole([one]), statistics.fisher(one))


def test_whole_set_in_normal_form() -> None:
    """Beyond the largest support, as `StratifiedTable` has it, with a term for the skewness."""
    tried = 0
    for strata in sets(120, 8, most_tests=60, most=500):
        margins = [hypergeometric(one) for one in strata]
        if sum(len(weights) - 1 for _, weights in margins) <= statistics.LARGEST_EXACT:
            continue
        tried += 1
        informative = [
            one for one, (_, weights) in zip(strata, margins, strict=True) if len(weights) > 1
        ]
        referee = StratifiedTable(
            [np.array([[a, n - a], [c, m - c]], float) for a, n, c, m in informative]
        ).test_null_odds(correction=True)
        moved = sum(a - n * (a + c) / (n + m) for a, n, c, m in informative)
        if abs(moved) < 0.5:  # where the correction changes the side
            continue
        # Towards the side on which the candidate is.
        side = strata if moved < 0 else [one.mirrored for one in strata]
        z, variance, third = -math.sqrt(referee.statistic), 0.0, 0.0
        for low, weights in map(hypergeometric, side):
            passed = low + np.arange(len(weights))
            away = passed - (passed * weights).sum()
            variance += (away**2 * weights).sum()
            third += (away**3 * weights).sum()
        skewed = -stats.norm.pdf(z) * third / variance**1.5 / 6 * (z * z - 1)
        expected = min(1.0, referee.pvalue / 2 + max(0.0, skewed))
        assert statistics.fisher_whole(side) == pytest.approx(expected, rel=1e-8, abs=1e-14)
    assert tried > 20


def test_both_forms_agree_at_the_switch() -> None:
    """At most half a point apart where it matters."""
    dice = np.random.default_rng(9)
    for rate in (0.5, 0.9, 0.99):
        for _ in range(5):
            passed = dice.binomial(20, rate, size=(400, 2))
            strata = [Stratum(int(a), 20, int(c), 20) for a, c in passed]
            total, excess, mean, variance = np.array([1.0]), 0, 0.0, 0.0
            for one in strata:
                low, weights = hypergeometric(one)
                total, excess = np.convolve(total, weights), excess + one.passed - low
                own = np.dot(range(len(weights)), weights)
                mean += own
                variance += np.dot((np.arange(len(weights)) - own) ** 2, weights)
            exact = total[: excess + 1].sum()
            normal = stats.norm.cdf((excess - mean + 0.5) / math.sqrt(variance))
            assert exact == pytest.approx(normal, abs=0.005)
            assert statistics.fisher_whole(strata) == pytest.approx(normal, abs=0.005)


def test_worst_unit_test_by_enumeration() -> None:
    """Among all results with the same margins, how many have a p-value as small anywhere."""
    for strata in sets(400, 10, most_tests=2, most=6):
        spread = [hypergeometric(one) for one in strata]
        alone = [list(np.cumsum(weights)) for _, weights in spread]
        informative = [weights for _, weights in spread if len(weights) > 1]
        found = statistics.evidence(strata)
        smallest = [statistics.fisher(one) for one in strata]
        chance = dict.fromkeys(smallest, 0.0)
        for result in itertools.product(*[range(len(weights)) for _, weights in spread]):
            probability = math.prod(w[k] for (_, w), k in zip(spread, result, strict=True))
            least = min(p[k] for p, k in zip(alone, result, strict=True))
            for p in chance:
                chance[p] += probability * (least <= p * (1 + 1e-9))
        if len(informative) > 1:
            assert found.worst == pytest.approx(chance[min(smallest)], rel=1e-8)
            assert found.p_value == pytest.approx(
                min(1.0, 2 * min(found.worst, found.whole)), rel=1e-12
            )
            assert found.adjusted == pytest.approx(
                [min(1.0, 2 * chance[p]) for p in smallest], rel=1e-8
            )
        else:
            assert found.p_value == found.whole == pytest.approx(min(smallest), rel=1e-8)


def test_holm() -> None:
    dice = random.Random(11)
    for _ in range(20):  # the referee collects garbage at each call
        p_values = [dice.choice([0.0, 1.0, dice.random(), dice.random() ** 4]) for _ in range(9)]
        p_values = p_values[: dice.randint(1, 9)]
        assert statistics.holm(p_values) == pytest.approx(
            multipletests(p_values, method="holm")[1], abs=1e-15
        )


def test_pass_hat_and_pass_at() -> None:
    """Over all samples of k repeats."""
    for n in range(1, 7):
        for a, k in itertools.product(range(n + 1), range(1, n + 1)):
            samples = list(itertools.combinations([True] * a + [False] * (n - a), k))
            share = sum(map(all, samples)) / len(samples)
            assert statistics.pass_hat_k(a, n, k) == pytest.approx(share)
            share = sum(map(any, samples)) / len(samples)
            assert statistics.pass_at_k(a, n, k) == pytest.approx(share)


def test_counted_power() -> None:
    """The drop that is named has the power that is promised; a smaller one has less."""
    for n, m, c in [(10, 10, 10), (10, 50, 48), (20, 20, 18), (60, 60, 59), (5, 25, 24)]:
        drop = statistics.smallest_drop([Stratum(n, n, c, m)], 0.05)
        assert drop is not None

        def power(drop: float, n: int = n, m: int = m, c: int = c) -> float:
            candidate = stats.binom.pmf(range(n + 1), n, max(0.0, c / m - drop))
            baseline = stats.binom.pmf(range(m + 1), m, c / m)
            return sum(
                float(candidate[a] * baseline[b])
                for a, b in itertools.product(range(n + 1), range(m + 1))
                if stats.hypergeom.cdf(a, n + m, a + b, n) <= 0.05
            )

        assert power(drop + 1e-5) >= 0.8 > power(drop - 1e-3)
