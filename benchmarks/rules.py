"""Rules that call an agent worse, on the same simulated repeats: ours and those of others."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from amigo_async import Gate, Run, UserInfo
from amigo_async.models import (
    BooleanMetricSuccessCriterion,
    Evaluation,
    MetricEvaluationResult,
    MetricToEvaluate,
    UnitTestRunResult,
    UnitTestRunSpec,
    VersionInfo,
)
from amigo_async.verdicts import statistics
from amigo_async.verdicts.statistics import LARGEST_EXACT, Evidence, Stratum

Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]
Shares = NDArray[np.float64]

ALPHA: Final = 0.05
FIXED: Final = 0.9

OURS: Final = "amigo_async"
WHOLE: Final = "the whole set alone"
HOLM: Final = "Fisher each test, Holm"
FISHER: Final = "Fisher each test, uncorrected"
POOLED: Final = "the whole set, metrics counted as repeats"
N8N: Final = "n8n"
AGENT_EVALS: Final = "ai-agent-evals"
LOWER: Final = "any lower rate"
FIXED_RATE: Final = f"any rate below {FIXED}"

# As published: n8n's "hard regression"; ai-agent-evals' smallest sample.
_N8N_DROP: Final = 0.3
_N8N_BASELINE: Final = 0.7
_AGENT_EVALS_SAMPLES: Final = 10


class Sample:
    """Simulated comparisons, many at once.

    Args:
        baseline: Whether a metric passed in a repeat, by metric, comparison, unit test and repeat.
        candidate: The same of the candidate.
    """

    def __init__(self, baseline: Flags, candidate: Flags) -> None:
        self.baseline = baseline
        self.candidate = candidate

    @cached_property
    def repeats(self) -> tuple[Numbers, Numbers]:
        """Repeats that passed all metrics in baseline and candidate, by comparison and test."""
        return self.baseline.all(axis=0).sum(axis=-1), self.candidate.all(axis=0).sum(axis=-1)

    @cached_property
    def each(self) -> tuple[Numbers, Numbers]:
        """The same, every metric of a unit test by itself as if it were a unit test."""
        before, after = (np.concatenate(a.sum(axis=-1), axis=1) for a in self._sides)
        return before, after

    @cached_property
    def pooled(self) -> tuple[Numbers, Numbers]:
        """The same, all metrics of a unit test together as if they were repeats."""
        before, after = (a.sum(axis=(0, 3)) for a in self._sides)
        return before, after

    @property
    def _sides(self) -> tuple[Flags, Flags]:
        return self.baseline, self.candidate

    @property
    def sizes(self) -> tuple[int, int]:
        """Repeats of a unit test in baseline and candidate."""
        return self.baseline.shape[-1], self.candidate.shape[-1]

    @cached_property
    def rates(self) -> tuple[Shares, Shares]:
        """The pass rates of baseline and candidate, every metric by itself."""
        (before, after), (m, n) = self.each, self.sizes
        return before / m, after / n

    @cached_property
    def fisher(self) -> Shares:
        """The p-values of Fisher's test, every metric by itself."""
        (before, after), (m, n) = self.each, self.sizes
        known = [
            [statistics.fisher(Stratum(a, n, c, m)) for c in range(m + 1)] for a in range(n + 1)
        ]
        return np.array(known)[after, before]

    @cached_property
    def evidence(self) -> list[Evidence]:
        """The evidence of each comparison, from the package."""
        return _evidence(*self.repeats, *self.sizes)

    @property
    def p_values(self) -> Shares:
        """The p-values of the package."""
        return np.array([one.p_value for one in self.evidence])

    @property
    def normal(self) -> float:
        """The share of comparisons whose whole set is judged by the normal form."""
        (before, after), (m, n) = self.repeats, self.sizes
        passed = before + after
        support = np.minimum(n, passed) - np.maximum(0, passed - m)
        return float((support.sum(axis=1) > LARGEST_EXACT).mean())


def _evidence(before: Numbers, after: Numbers, m: int, n: int) -> list[Evidence]:
    """Judge each comparison; those with the same unit tests, in whatever order, once."""
    codes = np.sort(after * (m + 1) + before, axis=1)
    rows, place = np.unique(codes, axis=0, return_inverse=True)
    found = []
    for row in rows.tolist():
        tables = [divmod(code, m + 1) for code in row]
        found.append(statistics.evidence([Stratum(a, n, c, m) for a, c in tables]))
    return [found[at] for at in place.ravel().tolist()]


def _at_most(p_values: Shares, alpha: float = ALPHA) -> Flags:
    return np.asarray(p_values <= alpha * (1 + 1e-9))


def ours(sample: Sample) -> Flags:
    """`amigo_async.compare`."""
    return _at_most(sample.p_values)


def whole(sample: Sample) -> Flags:
    """The exact test of the whole set, without a look at single unit tests."""
    return _at_most(np.array([one.whole for one in sample.evidence]))


def holm(sample: Sample) -> Flags:
    """Fisher's test of each unit test, corrected for their number."""
    return _at_most(sample.fisher.min(axis=1), ALPHA / sample.fisher.shape[1])


def fisher(sample: Sample) -> Flags:
    """Fisher's test of each unit test."""
    return np.asarray(_at_most(sample.fisher).any(axis=1))


def n8n(sample: Sample) -> Flags:
    """n8n, "hard regression": Fisher below 0.05, 30 points lower, from at least 70%."""
    before, after = sample.rates
    # Rates are fractions of small numbers: 0.7 - 0.4 is to be a drop of 0.3.
    dropped = before - after >= _N8N_DROP - 1e-9
    reliable = before >= _N8N_BASELINE - 1e-9
    return np.asarray(((sample.fisher < ALPHA) & dropped & reliable).any(axis=1))


def agent_evals(sample: Sample) -> Flags:
    """ai-agent-evals, "Degraded" in any metric: McNemar's mid-p over all repeats by index."""
    before, after = sample.baseline, sample.candidate
    if before.shape[-1] != after.shape[-1]:  # without partners there are no pairs
        return np.zeros(before.shape[1], dtype=np.bool_)
    gained = (~before & after).sum(axis=(2, 3))
    lost = (before & ~after).sum(axis=(2, 3))
    worse = np.vectorize(_mcnemar, otypes=[float])(gained, lost) <= ALPHA
    enough = before.shape[2] * before.shape[3] >= _AGENT_EVALS_SAMPLES
    return np.asarray((worse & (gained <= lost)).any(axis=0) & enough)


@cache
def _mcnemar(gained: int, lost: int) -> float:
    """The mid-p version as published: twice the tail of those that gained, less the last term."""
    size = int(gained + lost)
    tail = statistics.binomial_at_most(int(gained), size, 0.5)
    beneath = statistics.binomial_at_most(int(gained) - 1, size, 0.5) if gained else 0.0
    return 2 * tail - (tail - beneath)


def pooled(sample: Sample) -> Flags:
    """The exact test of the whole set, with the metrics of one conversation as independent."""
    metrics, (m, n) = sample.baseline.shape[0], sample.sizes
    found = _evidence(*sample.pooled, metrics * m, metrics * n)
    return _at_most(np.array([one.whole for one in found]))


def lower(sample: Sample) -> Flags:
    """Any pass rate that is lower than it was."""
    before, after = sample.rates
    return np.asarray((after < before - 1e-9).any(axis=1))


def fixed(sample: Sample) -> Flags:
    """Any pass rate that is below a fixed one, whatever it was before."""
    return np.asarray((sample.rates[1] < FIXED - 1e-9).any(axis=1))


# Ours, then what keeps its alpha but sees less in one case or the other, then what others do.
RULES: Final[dict[str, Callable[[Sample], Flags]]] = {
    OURS: ours,
    WHOLE: whole,
    HOLM: holm,
    AGENT_EVALS: agent_evals,
    N8N: n8n,
    FISHER: fisher,
    LOWER: lower,
    FIXED_RATE: fixed,
}


# --- gates ---


def gate_fails(threshold: float, repeats: int, tests: int) -> dict[str, float]:
    """How often each rule calls a gate failed at a true rate equal to its threshold.

    Counted over all results, not drawn: the probability of any failure among independent tests.
    """
    gate = Gate(min_pass_rate=threshold, confidence=1 - ALPHA)

    def failed(passed: int) -> bool:
        others = [repeats] * (tests - 1)
        return gate.judge(completed([passed, *others], repeats)).verdict == "failed"

    # From how many that pass on each rule no longer calls one unit test failed. Whether ours calls
    # any of several so depends on the worst of them, as the correction of Holm begins with that.
    enough = {
        OURS: bisect_left(range(repeats + 1), True, key=lambda k: not failed(k)),
        "Wilson's upper limit": bisect_left(
            range(repeats + 1), threshold, key=lambda k: statistics.wilson(k, repeats)[1]
        ),
        "fixed rate": bisect_left(range(repeats + 1), threshold - 1e-9, key=lambda k: k / repeats),
    }
    alone = {
        name: statistics.binomial_at_most(fewest - 1, repeats, threshold) if fewest else 0.0
        for name, fewest in enough.items()
    }
    return {name: 1 - (1 - one) ** tests for name, one in alone.items()}


def completed(passed: Sequence[int], repeats: int) -> Run:
    """A completed run of as many unit tests with one metric."""
    version, metric = VersionInfo("agent", 1), MetricToEvaluate("m", "m", _CRITERION)
    ids = [f"t{number}" for number in range(len(passed))]

    def evaluated(k: int) -> MetricEvaluationResult:
        return MetricEvaluationResult("m", 1, tuple(Evaluation("e", n < k) for n in range(repeats)))

    return Run(
        org_id="org",
        id="run",
        is_completed=True,
        simulation_unit_test_set_id="set",
        failed_metrics=any(count < repeats for count in passed),
        errored=False,
        artifacts_generated=True,
        unit_test_run_specs=[
            UnitTestRunSpec(i, repeats, version, version, version, version, {}, 20, (metric,))
            for i in ids
        ],
        unit_test_run_results=[
            UnitTestRunResult(
                i,
                (evaluated(k),),
                (None,) * repeats,
            )
            for i, k in zip(ids, passed, strict=True)
        ],
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        creator=UserInfo("org", "user"),
    )


_CRITERION: Final = BooleanMetricSuccessCriterion(True)
