from __future__ import annotations

import doctest
import itertools
import math
import random
from collections.abc import Sequence

import pytest

from amigo_async.verdicts import statistics
from amigo_async.verdicts.statistics import (
    Stratum,
    at_most,
    binomial_at_most,
    clopper_pearson_lower,
    clopper_pearson_upper,
    evidence,
    fewest_repeats,
    fisher,
    fisher_whole,
    holm,
    least_adjusted,
    newcombe,
    pass_at_k,
    pass_hat_k,
    repeats_to_decide,
    repeats_to_tell,
    smallest_drop,
    wilson,
)


def test_examples_in_docstrings_are_right() -> None:
    found = doctest.testmod(statistics)
    assert found.failed == 0
    assert found.attempted >= 17


@pytest.mark.parametrize(
    ("passed", "evaluated", "limits"),
    [
        (0, 0, (0.0, 1.0)),
        (0, 1, (0.0, 0.7935)),
        (1, 1, (0.2065, 1.0)),
        (3, 3, (0.4385, 1.0)),
        (10, 10, (0.7225, 1.0)),
        (20, 20, (0.8389, 1.0)),
        (81, 263, (0.2553, 0.3662)),  # the example of Newcombe (1998)
    ],
)
def test_wilson(passed: int, evaluated: int, limits: tuple[float, float]) -> None:
    assert wilson(passed, evaluated) == pytest.approx(limits, abs=1e-4)


def test_limits_are_exact_at_the_edges() -> None:
    for n in range(1, 200):
        assert wilson(0, n)[0] == clopper_pearson_lower(0, n, 0.95) == 0.0
        assert wilson(n, n)[1] == clopper_pearson_upper(n, n, 0.95) == 1.0


@pytest.mark.parametrize(
    ("passed", "evaluated", "lower", "upper"),
    [
        (0, 0, 0.0, 1.0),
        (0, 1, 0.0, 0.95),
        (1, 1, 0.05, 1.0),
        (5, 10, 0.2224, 0.7776),
        (9, 10, 0.6058, 0.9949),
        (28, 29, 0.8466, 0.9982),
    ],
)
def test_clopper_pearson(passed: int, evaluated: int, lower: float, upper: float) -> None:
    assert clopper_pearson_lower(passed, evaluated, 0.95) == pytest.approx(lower, abs=1e-4)
    assert clopper_pearson_upper(passed, evaluated, 0.95) == pytest.approx(upper, abs=1e-4)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("evaluated", [0, 1, 2, 17, 100])
def test_binomial(rate: float, evaluated: int) -> None:
    """Against the sum of its terms, and against the limits of which it is the other side."""
    total = 0.0
    for k in range(evaluated + 1):
        total += math.comb(evaluated, k) * rate**k * (1 - rate) ** (evaluated - k)
        found = binomial_at_most(k, evaluated, rate)
        assert found == pytest.approx(total, abs=1e-12)
        if 0 < rate < 1 and abs(found - 0.05) > 1e-9:
            assert (found < 0.05) == (clopper_pearson_upper(k, evaluated, 0.95) < rate)


@pytest.mark.parametrize(
    ("threshold", "confidence", "fewest"),
    [(0.9, 0.95, 29), (0.9, 0.99, 44), (0.5, 0.95, 5), (0.99, 0.95, 299), (0.0, 0.95, 1)],
)
def test_fewest_repeats(threshold: float, confidence: float, fewest: int) -> None:
    assert fewest_repeats(threshold, confidence) == fewest
    assert clopper_pearson_lower(fewest, fewest, confidence) >= threshold
    if fewest > 1:
        assert clopper_pearson_lower(fewest - 1, fewest - 1, confidence) < threshold


def test_no_number_of_repeats_shows_certainty() -> None:
    assert fewest_repeats(1.0, 0.95) is None


@pytest.mark.parametrize(
    ("passed", "evaluated", "tests", "more"),
    [
        (5, 5, 1, 24),  # 29 without a failure
        (29, 29, 1, 0),
        (28, 28, 1, 1),
        (2, 10, 1, 0),
        (8, 10, 1, 35),
        (8, 10, 20, 95),
        (9, 10, 1, None),  # exactly at the threshold
        (0, 0, 1, None),
        (895, 1000, 1, 9067),
        (899, 1000, 1, None),  # more than 10,000
    ],
)
def test_repeats_to_decide(passed: int, evaluated: int, tests: int, more: int | None) -> None:
    found = repeats_to_decide(passed, evaluated, 0.9, 0.95, tests=tests)
    if more is None:
        assert found is None
        return
    assert found == pytest.approx(more, abs=5 if more > 50 else 0)
    if found:
        n = evaluated + found
        k = round(passed / evaluated * n)
        if passed / evaluated > 0.9:
            assert clopper_pearson_lower(k, n, 0.95) >= 0.9
        else:
            assert clopper_pearson_upper(k, n, 1 - 0.05 / tests) < 0.9


def test_repeats_to_decide_are_enough_in_whole_repeats() -> None:
    """At 3 of 4, with 32 more: 27 of 36. A repeat more or less that passed would decide earlier."""
    assert repeats_to_decide(3, 4, 0.6, 0.95) == 32
    assert clopper_pearson_lower(27, 36, 0.95) >= 0.6
    assert clopper_pearson_lower(26, 35, 0.95) < 0.6 <= clopper_pearson_lower(27, 35, 0.95)


@pytest.mark.parametrize(
    ("passed", "evaluated", "k", "hat", "at"),
    [
        (5, 5, 5, 1.0, 1.0),
        (4, 5, 5, 0.0, 1.0),
        (4, 5, 1, 0.8, 0.8),
        (3, 6, 2, 0.2, 0.8),
        (0, 3, 2, 0.0, 0.0),
        (3, 3, 4, None, None),
        (0, 0, 1, None, None),
    ],
)
def test_pass_hat_and_pass_at(
    passed: int, evaluated: int, k: int, hat: float | None, at: float | None
) -> None:
    assert pass_hat_k(passed, evaluated, k) == (None if hat is None else pytest.approx(hat))
    assert pass_at_k(passed, evaluated, k) == (None if at is None else pytest.approx(at))


@pytest.mark.parametrize(
    ("one", "limits"),
    [
        # The examples of Newcombe (1998), table II, method 10.
        (Stratum(56, 70, 48, 80), (0.0524, 0.3339)),
        (Stratum(9, 10, 3, 10), (0.1705, 0.8090)),
        (Stratum(10, 10, 0, 20), (0.6791, 1.0)),
        (Stratum(0, 10, 0, 20), (-0.1611, 0.2775)),
    ],
)
def test_newcombe(one: Stratum, limits: tuple[float, float]) -> None:
    assert newcombe(one) == pytest.approx(limits, abs=1e-4)
    a, n, c, m = one
    assert newcombe(Stratum(c, m, a, n)) == pytest.approx([-limits[1], -limits[0]], abs=1e-4)


def test_no_difference_without_repeats() -> None:
    assert newcombe(Stratum(0, 0, 3, 3)) is None
    assert newcombe(Stratum(3, 3, 0, 0)) is None


@pytest.mark.parametrize(
    ("one", "p_value"),
    [
        (Stratum(0, 3, 3, 3), 1 / 20),
        (Stratum(1, 3, 9, 9), 3 / 66),
        (Stratum(1, 5, 5, 5), 6 / 252),
        (Stratum(3, 3, 0, 3), 1.0),
        (Stratum(5, 5, 5, 5), 1.0),
        (Stratum(0, 5, 0, 5), 1.0),
        (Stratum(0, 0, 5, 5), 1.0),
        (Stratum(0, 5, 0, 0), 1.0),
        (Stratum(0, 0, 0, 0), 1.0),
        (Stratum(0, 1, 1, 1), 1 / 2),
        (Stratum(1, 4, 3, 4), 17 / 70),  # the lady tasting tea
    ],
)
def test_fisher(one: Stratum, p_value: float) -> None:
    assert fisher(one) == pytest.approx(p_value, rel=1e-12)
    assert fisher_whole([one]) == pytest.approx(p_value, rel=1e-12)


@pytest.mark.parametrize("size", [10, 2_000, 10_000])
def test_large_numbers_do_not_overflow(size: int) -> None:
    """In the middle: one half, and half of what is exactly there."""
    half = size // 2
    there = math.comb(size, half) ** 2 / math.comb(2 * size, size)
    assert fisher(Stratum(half, size, half, size)) == pytest.approx((1 + there) / 2, rel=1e-9)


def test_worse_and_better_share_what_was_seen() -> None:
    """Both tails have the result in them: together they are 1 and its own probability."""
    one = Stratum(6, 10, 8, 12)
    term = math.comb(10, 6) * math.comb(12, 8) / math.comb(22, 14)
    assert fisher(one) + fisher(one.mirrored) == pytest.approx(1 + term)
    assert fisher(Stratum(9, 10, 8, 12)) > fisher(one) > fisher(Stratum(5, 10, 8, 12))


@pytest.mark.parametrize(
    ("strata", "flagged"),
    [
        ((3, 3), None),
        ((3, 9), 1),
        ((5, 5), 1),
        ((5, 10), 2),
        ((10, 10), 6),
        ((20, 20), 15),
    ],
)
def test_what_few_repeats_can_show(strata: tuple[int, int], flagged: int | None) -> None:
    """The most that may pass, and still be below 0.05 where all of the baseline passed."""
    n, m = strata
    found = [a for a in range(n + 1) if fisher(Stratum(a, n, m, m)) < 0.05 - 1e-9]
    assert max(found, default=None) == flagged


def test_many_small_drops_are_seen_together() -> None:
    strata = [Stratum(4, 5, 5, 5)] * 20
    assert fisher(strata[0]) == pytest.approx(0.5)
    assert fisher_whole(strata) == pytest.approx(0.5**20)
    assert fisher_whole([one.mirrored for one in strata]) == pytest.approx(1.0)


def test_whole_set_ignores_what_says_nothing() -> None:
    informative = [Stratum(3, 5, 5, 5), Stratum(4, 5, 3, 5)]
    silent = [Stratum(5, 5, 5, 5), Stratum(0, 5, 0, 5), Stratum(0, 0, 3, 5), Stratum(2, 4, 0, 0)]
    assert fisher_whole([*informative, *silent]) == pytest.approx(fisher_whole(informative))
    assert fisher_whole(silent) == fisher_whole([]) == 1.0
    alone, among = evidence(informative), evidence([*informative, *silent])
    assert among.p_value == pytest.approx(alone.p_value)
    assert among.adjusted == pytest.approx([*alone.adjusted, 1.0, 1.0, 1.0, 1.0])


def test_whole_set_by_hand() -> None:
    """Two of 1 against 1: of four equally likely results one is as bad."""
    assert fisher_whole([Stratum(0, 1, 1, 1)] * 2) == pytest.approx(0.25)
    assert fisher_whole([Stratum(0, 1, 1, 1), Stratum(1, 1, 0, 1)]) == pytest.approx(0.75)
    assert fisher_whole([Stratum(1, 1, 0, 1)] * 2) == pytest.approx(1.0)


def test_normal_form_begins_beyond_the_largest_support() -> None:
    """Support is 10 a stratum: 100 of them are convolved, and with one more none is."""
    strata = [Stratum(4, 10, 6, 10)] * 15 + [Stratum(5, 10, 5, 10)] * 85
    weights = [math.comb(10, k) ** 2 / math.comb(20, 10) for k in range(11)]
    total = [1.0]
    for _ in strata:
        total = [
            sum(total[s - k] * weights[k] for k in range(11) if 0 <= s - k < len(total))
            for s in range(len(total) + 10)
        ]
    exact = sum(total[: 15 * 4 + 85 * 5 + 1])
    assert fisher_whole(strata) == pytest.approx(exact, rel=1e-9)
    deviation = math.sqrt(101 * 10 * 10 * 10 * 10 / (20 * 20 * 19))
    normal = math.erfc(14.5 / deviation / math.sqrt(2)) / 2
    assert fisher_whole([*strata, Stratum(5, 10, 5, 10)]) == pytest.approx(normal, rel=1e-9)
    # Which of the two it is can be told, and does not matter.
    assert exact != pytest.approx(normal, rel=1e-4)
    assert exact == pytest.approx(normal, abs=0.002)


@pytest.mark.parametrize(
    ("count", "evaluated", "baseline", "passed", "fewest"),
    [
        (200, 10, 50, 57, 1.15),
        (400, 3, 60, 60, 1.25),
        (500, 3, 15, 17, 1.05),
        (1001, 1, 20, 20, 1.05),
    ],
)
def test_normal_form_in_the_far_tail(
    count: int, evaluated: int, baseline: int, passed: int, fewest: float
) -> None:
    """Against pooled baselines the sum is skewed; without the term for that, p is too small."""
    n, m, t = evaluated, baseline, passed
    low, high = max(0, t - m), min(n, t)
    weights = [math.comb(t, k) * math.comb(n + m - t, n - k) for k in range(low, high + 1)]
    one = [weight / math.comb(n + m, n) for weight in weights]
    total = [1.0]
    for _ in range(count):
        total = [
            math.fsum(total[s - k] * p for k, p in enumerate(one) if 0 <= s - k < len(total))
            for s in range(len(total) + len(one) - 1)
        ]
    short, exact = next((k, p) for k, p in enumerate(itertools.accumulate(total)) if p > 0.0004)
    # So few passes, spread over the strata.
    each, more = divmod(short, count)
    strata = [
        Stratum(low + each + (i < more), n, t - low - each - (i < more), m) for i in range(count)
    ]
    mean = count * n * t / (n + m)
    variance = count * n * m * t * (n + m - t) / ((n + m) ** 2 * (n + m - 1))
    normal = math.erfc((mean - short - count * low - 0.5) / math.sqrt(2 * variance)) / 2
    assert exact / normal > fewest
    assert 0.8 < exact / fisher_whole(strata) < 1.2


@pytest.mark.parametrize("sign", [1, -1])
def test_normal_form_has_two_sides(sign: int) -> None:
    strata = [Stratum(5 - sign * (n % 3 == 0), 10, 5, 10) for n in range(300)]
    p_value = fisher_whole(strata)
    assert (p_value < 0.01) == (sign == 1)
    assert fisher_whole([one.mirrored for one in strata]) == pytest.approx(
        fisher_whole([Stratum(c, m, a, n) for a, n, c, m in strata])
    )


def test_evidence_of_one_unit_test_is_fishers() -> None:
    found = evidence([Stratum(1, 5, 5, 5)])
    assert found.p_value == found.whole == found.worst == pytest.approx(6 / 252)
    assert found.adjusted == (found.p_value,)
    assert evidence([]) == (1.0, 1.0, 1.0, ())


def test_evidence_by_hand() -> None:
    """Two unit tests of 1 against 1, and one of 2 against 2, all of which fell."""
    strata = [Stratum(0, 1, 1, 1), Stratum(0, 1, 1, 1), Stratum(0, 2, 2, 2)]
    found = evidence(strata)
    assert found.whole == pytest.approx(1 / 2 / 2 / 6)
    # Of the three only the last can have a p-value as small as its own, 1/6.
    assert found.worst == pytest.approx(1 / 6)
    assert found.p_value == pytest.approx(2 * found.whole)
    # A p-value of 1/2: of the first two in one case of two each, of the last in one of six.
    assert found.adjusted == pytest.approx([1.0, 1.0, 2 / 6])


def test_p_values_next_to_one() -> None:
    """All but the last result of this one have a p-value of 1 - 1e-10 at most, which is not 1."""
    nearly = Stratum(19, 20, 1, 20)
    assert 1 - 1e-9 < fisher(nearly) < 1
    found = evidence([nearly, nearly])
    assert found.worst == found.p_value == 1.0
    assert found.adjusted == (1.0, 1.0)


def test_naming_counts_the_other_unit_tests() -> None:
    worst, other = Stratum(4, 10, 10, 10), Stratum(7, 10, 7, 10)
    p_values = [evidence([worst, *[other] * n]).adjusted[0] for n in (1, 5, 50)]
    alone = fisher(worst)
    assert alone < p_values[0] < p_values[1] < p_values[2] < 2 * 51 * alone
    assert evidence([worst, Stratum(2, 2, 1, 2)]).adjusted[0] == pytest.approx(2 * alone)


@pytest.mark.parametrize(
    ("strata", "least"),
    [
        ([Stratum(3, 3, 3, 3)], [1 / 20]),
        ([Stratum(0, 0, 3, 3)], [1.0]),
        # The others vary, so that the question is asked twice.
        ([Stratum(3, 3, 3, 3), Stratum(0, 1, 1, 1)], [2 / 20, 1 / 2]),
        ([Stratum(1, 3, 3, 3)], [1 / 20]),
    ],
)
def test_least_adjusted(strata: Sequence[Stratum], least: Sequence[float]) -> None:
    assert least_adjusted(strata) == pytest.approx(least)


def test_least_adjusted_is_what_it_would_have_been() -> None:
    dice = random.Random(1)
    for _ in range(200):
        strata = [
            Stratum(dice.randint(0, n), n, dice.randint(0, m), m)
            for n, m in ((dice.randint(1, 5), dice.randint(1, 5)) for _ in range(4))
        ]
        for place, found in enumerate(least_adjusted(strata)):
            _, n, _, m = strata[place]
            extreme = [*strata[:place], Stratum(0, n, m, m), *strata[place + 1 :]]
            assert found == pytest.approx(evidence(extreme).adjusted[place])


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.02, 0.03], [0.03, 0.04, 0.04]),
        ([0.03, 0.01, 0.02], [0.04, 0.03, 0.04]),
        ([0.5, 0.5], [1.0, 1.0]),
        ([0.0, 1.0], [0.0, 1.0]),
    ],
)
def test_holm(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


def test_equal_p_values_are_equal() -> None:
    """Whatever the order of their terms: 3 of 3 against 0 of 3 is 1/20 exactly."""
    assert at_most(fisher(Stratum(0, 3, 3, 3)), 0.05)
    assert not at_most(0.0500001, 0.05)


@pytest.mark.parametrize(
    ("strata", "drop"),
    [
        ([], None),
        ([Stratum(0, 0, 5, 5)], None),
        ([Stratum(3, 3, 0, 3)], None),  # nothing to fall from
        ([Stratum(2, 2, 2, 2)], None),
        ([Stratum(2, 2, 2, 2)] * 10, 0.4),
        ([Stratum(10, 10, 10, 10)], 0.484),
        ([Stratum(10, 10, 50, 50)], 0.271),
        ([Stratum(20, 20, 19, 20)] * 20, 0.055),
        ([Stratum(900, 900, 950, 1000)], 0.03),  # beyond what is counted
    ],
)
def test_smallest_drop(strata: Sequence[Stratum], drop: float | None) -> None:
    found = smallest_drop(strata, 0.05)
    assert found == (None if drop is None else pytest.approx(drop, abs=0.01))


def test_power_of_several_unit_tests_is_as_promised() -> None:
    """By simulation, which also has the share that a single unit test adds."""
    dice = random.Random(1)

    def passed(n: int, rate: float) -> int:
        return sum(dice.random() < rate for _ in range(n))

    strata = [Stratum(5, 5, c, 5) for c in (5, 4, 5, 4)] * 5
    drop = smallest_drop(strata, 0.05)
    assert drop is not None
    seen = sum(
        at_most(
            evidence(
                [
                    Stratum(passed(n, max(0.0, c / m - drop)), n, passed(m, c / m), m)
                    for _, n, c, m in strata
                ]
            ).p_value,
            0.05,
        )
        for _ in range(400)
    )
    assert 0.72 < seen / 400 < 0.9


@pytest.mark.parametrize(
    ("strata", "more"),
    [
        ([], None),
        ([Stratum(10, 10, 10, 10)], None),  # no difference
        ([Stratum(3, 10, 10, 10)], 1),  # not 0, as what there is has been judged
        ([Stratum(8, 10, 10, 10)], None),  # such a baseline never tells
        ([Stratum(8, 10, 48, 50)], 15),
        ([Stratum(7, 10, 10, 10)], 37),  # by an approximation 82
        ([Stratum(6, 10, 9, 10)], 318),  # by an approximation none
        ([Stratum(10, 10, 40, 50)], 6),  # better
        ([Stratum(9, 10, 94, 100)] * 10, 12),
        ([Stratum(90, 100, 90_520, 100_000)], 9567),
    ],
)
def test_repeats_to_tell(strata: Sequence[Stratum], more: int | None) -> None:
    found = repeats_to_tell(strata, 0.05)
    assert found == (None if more is None else pytest.approx(more, abs=1))


@pytest.mark.parametrize(
    "one", [Stratum(7, 10, 10, 10), Stratum(3, 5, 9, 10), Stratum(8, 10, 48, 50)]
)
def test_so_many_repeats_of_one_unit_test_give_that_verdict(one: Stratum) -> None:
    more = repeats_to_tell([one], 0.05)
    assert more is not None
    size = one.evaluated + more
    passed = math.ceil(one.passed * size / one.evaluated)
    assert evidence([one._replace(passed=passed, evaluated=size)]).p_value <= 0.05
