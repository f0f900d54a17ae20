"""From ids to names and reasons: what is behind the ids of a run, and why it failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import anyio
from msgspec import Struct

from amigo_async.errors import AmigoError, APIError, DeadlineError, RateLimitError
from amigo_async.models import (
    EvaluationResult,
    Metric,
    MetricEvaluationResult,
    Run,
    UnitTest,
    UnitTestSet,
)
from amigo_async.protocol.endpoints import (
    EVALUATIONS,
    METRICS,
    UNIT_TEST_SETS,
    UNIT_TESTS,
    Endpoint,
)
from amigo_async.protocol.requests import is_id
from amigo_async.resources.evaluations import Evaluations
from amigo_async.resources.metrics import Metrics
from amigo_async.resources.unit_test_sets import UnitTestSets
from amigo_async.resources.unit_tests import UnitTests

R = TypeVar("R", UnitTestSet, UnitTest, Metric)

EXPLAIN_TIMEOUT: Final = 30.0

# As many ids as make a URL of some 7 kB: servers and proxies take 8 kB.
_MOST_IDS: Final = 250
# Run ids and metric versions are longer parameters.
_MOST_RUNS: Final = 50
_MOST_METRICS: Final = 50
# The statuses with which a deployment may reject a URL that is too long.
_TOO_LONG: Final = frozenset({400, 413, 414, 422, 431})


class Names(Struct, frozen=True):
    """What unit test sets, unit tests and metrics are called, by id.

    Attributes:
        unit_test_sets: Names of sets.
        unit_tests: Names of unit tests.
        metrics: Names of metrics.
        notes: What could not be read and why, a sentence each; empty if everything was read.
    """

    unit_test_sets: dict[str, str] = {}
    unit_tests: dict[str, str] = {}
    metrics: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    def unit_test_set(self, id: str) -> str:
        """Return the name of a set, or its id if the name is not known."""
        return self.unit_test_sets.get(id, id)

    def unit_test(self, id: str) -> str:
        """Return the name of a unit test, or its id if the name is not known."""
        return self.unit_tests.get(id, id)

    def metric(self, id: str) -> str:
        """Return the name of a metric, or its id if the name is not known."""
        return self.metrics.get(id, id)


class Explanations(Struct, frozen=True):
    """What was seen in evaluated conversations, and why they were judged as they were.

    Attributes:
        evaluations: The evaluations, by the `metric_evaluation_result_id` that a run has of them.
        notes: What could not be read and why, a sentence each; empty if everything was read.
    """

    evaluations: dict[str, EvaluationResult] = {}
    notes: tuple[str, ...] = ()

    def get(self, metric_evaluation_result_id: str) -> EvaluationResult | None:
        """Return an evaluation; None if it was not read."""
        return self.evaluations.get(metric_evaluation_result_id)


class _Lookup(NamedTuple):
    """A kind of record that is looked up by id."""

    noun: str
    endpoint: Endpoint
    list_records: Callable[..., Awaitable[Sequence[Any]]]
    found: dict[str, Any]
    absent: set[str]


class Directory:
    """Looks up the records behind ids, each id once.

    Args:
        unit_test_sets: Lists sets.
        unit_tests: Lists unit tests.
        metrics: Lists metrics.
    """

    def __init__(
        self, unit_test_sets: UnitTestSets, unit_tests: UnitTests, metrics: Metrics
    ) -> None:
        async def list_sets(**filters: Any) -> Sequence[UnitTestSet]:
            return (await unit_test_sets.list(**filters)).simulation_unit_test_sets

        async def list_tests(**filters: Any) -> Sequence[UnitTest]:
            return (await unit_tests.list(**filters)).simulation_unit_tests

        async def list_metrics(**filters: Any) -> Sequence[Metric]:
            return (await metrics.list(**filters)).metrics

        self._sets = _Lookup("sets", UNIT_TEST_SETS, list_sets, {}, set())
        self._tests = _Lookup("unit tests", UNIT_TESTS, list_tests, {}, set())
        self._metrics = _Lookup("metrics", METRICS, list_metrics, {}, set())

    async def describe_sets(self, set_ids: Iterable[str], *, timeout: float | None) -> Names:
        """Read the names of sets, and of the unit tests and metrics that they use now.

        Args:
            set_ids: Ids of the sets.
            timeout: Seconds for all of it; None for no limit.
        """
        ids = _unique(set_ids)
        notes: list[str] = []
        with anyio.move_on_after(timeout) as scope:
            notes += await self._find(self._sets, ids)
            sets = [self._sets.found[i] for i in ids if i in self._sets.found]
            test_ids = _unique(one.unit_test_id for each in sets for one in each.unit_test_runs)
            notes += await self._find(self._tests, test_ids)
            tests = [self._tests.found[i] for i in test_ids if i in self._tests.found]
            metric_ids = _unique(one.metric_id for each in tests for one in each.success_criterions)
            notes += await self._find(self._metrics, metric_ids)
        return self._names(notes, timeout if scope.cancelled_caught else None)

    async def describe(self, runs: Iterable[Run], *, timeout: float | None) -> Names:
        """Read the names of the sets, unit tests and metrics of `runs`.

        Args:
            runs: The runs.
            timeout: Seconds for all of it; None for no limit.
        """
        every = list(runs)
        specs = [spec for run in every for spec in run.unit_test_run_specs]
        results = [result for run in every for result in run.unit_test_run_results if result]
        wanted = (
            (self._sets, [run.simulation_unit_test_set_id for run in every]),
            (
                self._tests,
                [
                    *(spec.unit_test_id for spec in specs),
                    *(result.unit_test_id for result in results),
                ],
            ),
            (
                self._metrics,
                [
                    *(metric.metric_id for spec in specs for metric in spec.metrics_to_evaluate),
                    *(m.metric_id for result in results for m in result.metric_evaluation_results),
                ],
            ),
        )
        notes: list[str] = []

        async def find(lookup: _Lookup, ids: Iterable[str]) -> None:
            notes.extend(await self._find(lookup, _unique(ids)))

        with anyio.move_on_after(timeout) as scope:
            async with anyio.create_task_group() as group:
                for lookup, ids in wanted:
                    group.start_soon(find, lookup, ids)
        return self._names(notes, timeout if scope.cancelled_caught else None)

    def _names(self, notes: Iterable[str], timed_out: float | None) -> Names:
        late = () if timed_out is None else (f"names were not all read within {timed_out:g} s",)
        return Names(
            {i: one.name for i, one in self._sets.found.items()},
            {i: one.name for i, one in self._tests.found.items()},
            {i: one.name for i, one in self._metrics.found.items()},
            (*notes, *late),
        )

    async def _find(self, lookup: _Lookup, ids: Iterable[str]) -> list[str]:
        """Look up the ids that are not known yet; what could not be read, in sentences."""
        known = lookup.found.keys() | lookup.absent
        new = [i for i in ids if i not in known and is_id(i)]
        size = min(lookup.endpoint.page_size or _MOST_IDS, _MOST_IDS)
        try:
            for at in range(0, len(new), size):
                await self._ask(lookup, new[at : at + size], None)
            # A list of metrics leaves deleted ones out unless it is asked for them; whether the
            # others do is not documented.
            missing = [i for i in new if i not in lookup.found]
            for at in range(0, len(missing), size):
                await self._ask(lookup, missing[at : at + size], True)
        except (DeadlineError, RateLimitError):
            return [
                f"the names of {lookup.noun} were not all read in time: the rate limit is spent"
            ]
        except AmigoError as error:
            return [f"the names of {lookup.noun} could not be read: {error}"]
        missing = [i for i in new if i not in lookup.found]
        lookup.absent.update(missing)
        if not missing:
            return []
        why = f"they no longer exist, or the permission {lookup.endpoint.permission} is missing"
        return [f"{len(missing)} of the {lookup.noun} have no name here: {why}"]

    async def _ask(self, lookup: _Lookup, ids: Sequence[str], deleted: bool | None) -> None:
        try:
            records = await lookup.list_records(id=ids, is_deleted=deleted, limit=len(ids))
        except APIError as error:
            if error.status not in _TOO_LONG or len(ids) == 1:
                raise
            half = len(ids) // 2
            await self._ask(lookup, ids[:half], deleted)
            await self._ask(lookup, ids[half:], deleted)
        else:
            lookup.found.update((one.id, one) for one in records)


async def explain(
    evaluations: Evaluations,
    runs: Iterable[Run],
    *,
    failed_only: bool,
    timeout: float | None,
) -> Explanations:
    """Read the evaluations of `runs`, several runs with one request.

    Args:
        evaluations: Lists evaluations.
        runs: The runs.
        failed_only: Whether to read only the evaluations that failed.
        timeout: Seconds for all of it; None for no limit.
    """
    wanted = {run.id: _evaluated(run, failed_only=failed_only) for run in runs}
    # Runs that failed the same metrics are asked for together: a request that names fewer metrics
    # has fewer answers.
    in_order = sorted((i for i in wanted if wanted[i]), key=lambda i: sorted(wanted[i].values()))
    ids = {i for of_run in wanted.values() for i in of_run}
    read: dict[str, EvaluationResult] = {}
    notes: list[str] = []
    late = False
    with anyio.move_on_after(timeout) as scope:
        try:
            for at in range(0, len(in_order), _MOST_RUNS):
                group = in_order[at : at + _MOST_RUNS]
                await _read(evaluations, {i: wanted[i] for i in group}, read, narrow=failed_only)
        except (DeadlineError, RateLimitError):  # none is left before the deadline
            late = True
        except AmigoError as error:
            notes.append(f"the reasons of evaluations could not be read: {error}")
    left = len(ids - read.keys())
    if late or scope.cancelled_caught:
        notes.append(f"{left} of {len(ids)} reasons were not read within {timeout:g} s")
    elif left and not notes:
        notes.append(
            f"{left} of {len(ids)} reasons cannot be seen: the evaluations no longer exist, or the "
            f"permission {EVALUATIONS.permission} is missing"
        )
    return Explanations(read, tuple(notes))


async def _read(
    evaluations: Evaluations,
    wanted: dict[str, dict[str, str]],
    read: dict[str, EvaluationResult],
    *,
    narrow: bool,
) -> None:
    """Read the evaluations of some runs until all that are wanted are there."""
    left = {i for of_run in wanted.values() for i in of_run}
    versions = _unique(version for of_run in wanted.values() for version in of_run.values())
    filters: dict[str, Any] = {"simulation_unit_test_set_run_id": list(wanted)}
    if narrow and len(versions) <= _MOST_METRICS:
        filters["metric_id_and_version"] = versions
    async for evaluation in evaluations.iterate(**filters):
        if evaluation.id in left:
            read[evaluation.id] = evaluation
            left.discard(evaluation.id)
            if not left:
                return


def _evaluated(run: Run, *, failed_only: bool) -> dict[str, str]:
    """The ids of the evaluations of a run, each with the metric and version that it is of."""
    metrics: list[MetricEvaluationResult] = [
        metric
        for result in run.unit_test_run_results
        if result is not None
        for metric in result.metric_evaluation_results
    ]
    return {
        one.metric_evaluation_result_id: f"{metric.metric_id}-{metric.metric_version}"
        for metric in metrics
        for one in metric.results
        if not (failed_only and one.passed)
    }


def _unique(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(ids))
