"""Tables of the results of a run: one for each unit test, a row a repeat, a column a metric.

The service lists errors by repeat, but evaluations by metric.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec import Struct

from amigo_async.models import (
    Evaluation,
    MetricToEvaluate,
    Run,
    UnitTestRunResult,
    UnitTestRunSpec,
)

# More repeats than are ever run; counting a larger number would only take memory.
_MOST_REPEATS: Final = 10_000


class Counts(NamedTuple):
    """The numbers of repeats that passed, failed, and did neither.

    Attributes:
        passed: Number of repeats that passed.
        failed: Number of repeats that were evaluated and did not pass.
        missing: Number of repeats with an error or without a result.
    """

    passed: int
    failed: int
    missing: int

    @property
    def evaluated(self) -> int:
        """Number of repeats that passed or failed."""
        return self.passed + self.failed


def _counts(states: Sequence[bool | None]) -> Counts:
    return _shared(states.count(True), states.count(False), states.count(None))


# Reports of a large result hold the counts of hundreds of thousands of cases, which are few
# different ones, and the garbage collector traverses them all.
_shared: Final = lru_cache(maxsize=10_000)(Counts)


class MetricTally(Struct, frozen=True):
    """The results of the repeats of a unit test in one metric.

    Attributes:
        metric_id: Id of the metric.
        metric: Its name and criterion; None if the specs do not list the metric.
        evaluations: One for each repeat; None if it had an error or was not evaluated.
    """

    metric_id: str
    metric: MetricToEvaluate | None
    evaluations: tuple[Evaluation | None, ...]

    @property
    def name(self) -> str:
        """The name of the metric; its id if the name is unknown."""
        return (self.metric.success_criterion_name if self.metric else "") or self.metric_id

    @property
    def counts(self) -> Counts:
        """How many repeats passed, failed, and did neither in this metric."""
        return _counts([None if e is None else e.passed for e in self.evaluations])


class UnitTestTally(Struct, frozen=True):
    """The results of the repeats of a unit test.

    Attributes:
        unit_test_id: Id of the unit test.
        errors: The error of each repeat that was asked for; None for a repeat without one.
        done: Number of repeats with a result; the others have not ended.
        metrics: Its metrics, in the order of the spec.
        hidden: Whether nothing is known of its repeats but their errors: none of its metrics is
            visible, and the flags of the run say that some metric failed.
    """

    unit_test_id: str
    errors: tuple[str | None, ...]
    done: int
    metrics: tuple[MetricTally, ...]
    hidden: bool = False

    @property
    def counts(self) -> Counts:
        """How many repeats passed every metric, failed one, and did neither."""
        return _counts([self._passed(repeat) for repeat in range(len(self.errors))])

    def _passed(self, repeat: int) -> bool | None:
        if self.hidden or self.errors[repeat] is not None or repeat >= self.done:
            return None
        evaluations = [m.evaluations[repeat] for m in self.metrics]
        states = [None if e is None else e.passed for e in evaluations]
        if False in states:
            return False
        return None if None in states else True


def tally(run: Run) -> tuple[UnitTestTally, ...]:
    """Return the results of each unit test of `run` that the user may see."""
    return tuple(
        _tally(spec, result, failed_metrics=run.failed_metrics) for spec, result in paired(run)
    )


def paired(run: Run) -> Iterator[tuple[UnitTestRunSpec | None, UnitTestRunResult | None]]:
    """Pair each spec with its result: by position if all ids agree, otherwise by id."""
    specs, results = run.unit_test_run_specs, run.unit_test_run_results
    in_place = len(specs) == len(results) and all(
        result is None or result.unit_test_id == spec.unit_test_id
        for spec, result in zip(specs, results, strict=True)
    )
    if in_place:
        yield from zip(specs, results, strict=True)
        return
    left: defaultdict[str, deque[UnitTestRunResult]] = defaultdict(deque)
    for result in results:
        if result is not None:
            left[result.unit_test_id].append(result)
    for spec in specs:
        found = left[spec.unit_test_id]
        yield spec, found.popleft() if found else None
    yield from ((None, result) for rest in left.values() for result in rest)


def _tally(
    spec: UnitTestRunSpec | None, result: UnitTestRunResult | None, *, failed_metrics: bool
) -> UnitTestTally:
    wanted = {m.metric_id: m for m in spec.metrics_to_evaluate} if spec else {}
    seen: dict[str, list[Evaluation]] = {metric_id: [] for metric_id in wanted}
    for found in result.metric_evaluation_results if result else ():
        seen.setdefault(found.metric_id, []).extend(found.results)
    errors = list(result.run_errors) if result else []
    done = max([len(errors), *(len(evaluations) for evaluations in seen.values())])
    repeats = max(done, min(spec.run_count, _MOST_REPEATS) if spec else 0)
    errors += [None] * (repeats - len(errors))
    return UnitTestTally(
        spec.unit_test_id if spec else result.unit_test_id if result else "",
        tuple(errors),
        done,
        tuple(
            MetricTally(metric_id, wanted.get(metric_id), _by_repeat(evaluations, errors))
            for metric_id, evaluations in seen.items()
        ),
        hidden=failed_metrics and not seen,
    )


def _by_repeat(
    evaluations: list[Evaluation], errors: list[str | None]
) -> tuple[Evaluation | None, ...]:
    """Assign evaluations to repeats; a repeat with an error gets none.

    Whether the service evaluates repeats with an error shows in the number of evaluations. If the
    number fits neither case, the worst evaluations are kept.
    """
    if len(evaluations) == len(errors) == errors.count(None):  # as nearly always
        return tuple(evaluations)
    sound = [repeat for repeat, error in enumerate(errors) if error is None]
    if len(evaluations) == len(errors):
        evaluations = [evaluations[repeat] for repeat in sound]
    elif len(evaluations) > len(sound):
        evaluations = sorted(evaluations, key=lambda evaluation: evaluation.passed)
    placed: list[Evaluation | None] = [None] * len(errors)
    for repeat, evaluation in zip(sound, evaluations, strict=False):
        placed[repeat] = evaluation
    return tuple(placed)
