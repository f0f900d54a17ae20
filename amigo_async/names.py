"""From ids to names and reasons: what is behind the ids of a run, and why it failed."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from msgspec import Struct

from amigo_async.errors import (
    AmigoError,
    APIError,
    DeadlineError,
    RateLimitError,
    may_be_too_long,
)
from amigo_async.models import (
    EvaluationResult,
    Metric,
    MetricEvaluationResult,
    Run,
    UnitTest,
    UnitTestCount,
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

EXPLAIN_TIMEOUT: Final = 30.0

# As many ids as make a URL of some 7 kB: servers and proxies take 8 kB.
_MOST_IDS: Final = 250
# Run ids and metric versions are longer parameters.
_MOST_RUNS: Final = 50
_MOST_METRICS: Final = 50
_MOST_ANSWERS: Final = EVALUATIONS.page_size


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


def combined(names: Names, more: Names) -> Names:
    """Return all names of both, with the notes of the first."""
    return Names(
        names.unit_test_sets | more.unit_test_sets,
        names.unit_tests | more.unit_tests,
        names.metrics | more.metrics,
        names.notes,
    )


def without(names: Names, known: Names) -> Names:
    """Return the names of ids that `known` has no name of, without notes."""

    def new(some: dict[str, str], others: dict[str, str]) -> dict[str, str]:
        return {i: name for i, name in some.items() if i not in others}

    return Names(
        new(names.unit_test_sets, known.unit_test_sets),
        new(names.unit_tests, known.unit_tests),
        new(names.metrics, known.metrics),
    )


def select_unit_tests(
    selectors: Collection[str], ids: Iterable[str], names: Names
) -> tuple[str, ...]:
    """Return the ids of the unit tests that are selected by their id or name.

    Args:
        selectors: Ids, and names, which are compared as a whole, ignoring case.
        ids: Ids of the unit tests.
        names: The names that are known.
    """
    wanted = {selector.strip().casefold() for selector in selectors}
    return tuple(
        i for i in ids if i in selectors or names.unit_tests.get(i, "").strip().casefold() in wanted
    )


def unit_test_ids(run: Run) -> list[str]:
    """Return the ids of the unit tests of a run, each once."""
    asked = [spec.unit_test_id for spec in run.unit_test_run_specs]
    run_of = [result.unit_test_id for result in run.unit_test_run_results if result is not None]
    return _unique([*asked, *run_of])


@dataclass(slots=True, eq=False)
class _Lookup:
    """A kind of record that is looked up by id.

    Attributes:
        noun: What the records are called, in the plural.
        endpoint: Where they are listed.
        list_records: Lists them.
        uses: Returns the ids of the records that one of them uses.
        names: The names read so far, by id.
        used: The ids that the records read so far use, by id.
        absent: The ids of which the service has shown no record.
        lock: Held while ids are looked up, so that no other caller asks for the same ones.
    """

    noun: str
    endpoint: Endpoint
    list_records: Callable[..., Awaitable[Sequence[Any]]]
    uses: Callable[[Any], Iterable[str]]
    names: dict[str, str] = field(default_factory=dict)
    used: dict[str, list[str]] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take(self, records: Iterable[Any]) -> None:
        """Take in records: their names, and the ids of what they use."""
        for one in records:
            self.names[one.id] = one.name
            self.used[one.id] = list(self.uses(one))

    def unread(self, ids: Iterable[str]) -> list[str]:
        """Return the ids that are still to be looked up."""
        return [i for i in ids if i not in self.names and i not in self.absent and is_id(i)]


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
        # Repeats of the unit tests of each set, and the most interactions of each unit test.
        self._repeats: dict[str, list[UnitTestCount]] = {}
        self._interactions: dict[str, int] = {}

        async def list_sets(**filters: Any) -> Sequence[UnitTestSet]:
            sets = (await unit_test_sets.list(**filters)).simulation_unit_test_sets
            self._repeats.update((one.id, one.unit_test_runs) for one in sets)
            return sets

        async def list_tests(**filters: Any) -> Sequence[UnitTest]:
            tests = (await unit_tests.list(**filters)).simulation_unit_tests
            self._interactions.update((one.id, one.max_interactions) for one in tests)
            return tests

        async def list_metrics(**filters: Any) -> Sequence[Metric]:
            return (await metrics.list(**filters)).metrics

        def tests_of(one: UnitTestSet) -> Iterable[str]:
            return (run.unit_test_id for run in one.unit_test_runs)

        def metrics_of(one: UnitTest) -> Iterable[str]:
            return (criterion.metric_id for criterion in one.success_criterions)

        self._lookups = (
            _Lookup("sets", UNIT_TEST_SETS, list_sets, tests_of),
            _Lookup("unit tests", UNIT_TESTS, list_tests, metrics_of),
            _Lookup("metrics", METRICS, list_metrics, lambda _: ()),
        )

    async def read_sets(self, set_ids: Iterable[str]) -> list[UnitTestSet]:
        """Read sets anew, as far as the service shows them.

        Raises:
            AmigoError: If they cannot be read.
        """
        lookup, ids = self._lookups[0], [i for i in _unique(set_ids) if is_id(i)]
        size = lookup.endpoint.page_size
        sets: list[UnitTestSet] = []
        for at in range(0, len(ids), size):
            some = ids[at : at + size]
            sets += await lookup.list_records(id=some, limit=len(some))
        lookup.take(sets)
        return sets

    def learn_sets(self, sets: Iterable[UnitTestSet]) -> None:
        """Take in sets that were read elsewhere, so that they are not read again."""
        every = list(sets)
        self._lookups[0].take(every)
        self._repeats.update((one.id, one.unit_test_runs) for one in every)

    async def read_sizes(self, set_ids: Iterable[str]) -> None:
        """Read sets that are not deleted, as far as that is possible, for their `sizes`."""
        lookup = self._lookups[0]
        async with lookup.lock:
            new = lookup.unread(_unique(set_ids))
            size = lookup.endpoint.page_size
            with suppress(AmigoError):
                for at in range(0, len(new), size):
                    await self._ask(lookup, new[at : at + size], None)

    def sizes(self, set_ids: Iterable[str]) -> dict[str, float]:
        """Return how much a run of each set simulates, of those sets that were read.

        That is its repeats times the interactions that each may have; of a unit test that was not
        read, as many as a typical one.
        """
        typical = statistics.median(self._interactions.values()) if self._interactions else 1.0
        return {
            set_id: sum(
                float(one.run_count * self._interactions.get(one.unit_test_id, typical))
                for one in self._repeats[set_id]
            )
            for set_id in set_ids
            if set_id in self._repeats
        }

    def learn(self, names: Names) -> None:
        """Take in names that were read earlier, so that they are not read again."""
        read = (names.unit_test_sets, names.unit_tests, names.metrics)
        for lookup, some in zip(self._lookups, read, strict=True):
            lookup.names.update(some)

    async def describe_sets(
        self, set_ids: Iterable[str], on_read: Callable[[Names], Awaitable[None]]
    ) -> None:
        """Read the names of sets, and of the unit tests and metrics that they use now.

        What cannot be read is left out: `describe` tries again, and says why.

        Args:
            set_ids: Ids of the sets.
            on_read: Called with the names of the sets as soon as they are known, and again with
                those of the unit tests and of the metrics.
        """
        ids = _unique(set_ids)
        wanted: list[list[str]] = [[], [], []]
        for kind, lookup in enumerate(self._lookups):
            wanted[kind] = ids
            await self._find(lookup, ids)
            await on_read(self._names(wanted, (), None))
            ids = _unique(used for i in ids for used in lookup.used.get(i, ()))

    async def describe(
        self, runs: Iterable[Run], *, timeout: float | None, set_ids: Iterable[str] = ()
    ) -> Names:
        """Read the names of the sets, unit tests and metrics of `runs`.

        Args:
            runs: The runs.
            timeout: Seconds for all of it; None for no limit.
            set_ids: Ids of further sets whose names to read.
        """
        every = list(runs)
        specs = [spec for run in every for spec in run.unit_test_run_specs]
        results = [result for run in every for result in run.unit_test_run_results if result]
        set_ids = [*set_ids, *(run.simulation_unit_test_set_id for run in every)]
        test_ids = [
            *(spec.unit_test_id for spec in specs),
            *(result.unit_test_id for result in results),
        ]
        metric_ids = [
            *(metric.metric_id for spec in specs for metric in spec.metrics_to_evaluate),
            *(m.metric_id for result in results for m in result.metric_evaluation_results),
        ]
        wanted = [_unique(set_ids), _unique(test_ids), _unique(metric_ids)]
        failures: list[str] = []

        async def find(lookup: _Lookup, ids: list[str]) -> None:
            failures.extend(await self._find(lookup, ids))

        with anyio.move_on_after(timeout) as scope:
            await asyncio.sleep(0)  # deliver a cancellation: without any time, send nothing
            async with anyio.create_task_group() as group:
                for lookup, ids in zip(self._lookups, wanted, strict=True):
                    group.start_soon(find, lookup, ids)
        return self._names(wanted, failures, timeout if scope.cancelled_caught else None)

    def _names(
        self,
        wanted: Sequence[list[str]],
        failures: Iterable[str],
        timed_out: float | None,
    ) -> Names:
        """Return the names that are known, with a note of each kind about those that are not."""
        notes = list(failures)
        pairs = list(zip(self._lookups, wanted, strict=True))
        for lookup, ids in pairs:
            if hidden := sum(i in lookup.absent for i in ids):
                notes.append(
                    f"no name was found for {hidden} of the {lookup.noun}: gone, or the permission "
                    f"{lookup.endpoint.permission} is missing"
                )
        if timed_out is not None and any(lookup.unread(ids) for lookup, ids in pairs):
            notes.append(f"names were not all read {_within(timed_out)}")
        sets, tests, metrics = (
            {i: lookup.names[i] for i in ids if i in lookup.names} for lookup, ids in pairs
        )
        return Names(sets, tests, metrics, tuple(notes))

    async def _find(self, lookup: _Lookup, ids: Sequence[str]) -> list[str]:
        """Look up the ids that are not known yet; return why some could not be, if so."""
        async with lookup.lock:
            return await self._find_alone(lookup, ids)

    async def _find_alone(self, lookup: _Lookup, ids: Sequence[str]) -> list[str]:
        new = lookup.unread(ids)
        size = min(lookup.endpoint.page_size, _MOST_IDS)
        try:
            for at in range(0, len(new), size):
                await self._ask(lookup, new[at : at + size], None)
            # A list of metrics leaves deleted ones out unless it is asked for them; whether the
            # others do is not documented.
            missing = [i for i in new if i not in lookup.names]
            for at in range(0, len(missing), size):
                await self._ask(lookup, missing[at : at + size], True)
        except (DeadlineError, RateLimitError):
            return [
                f"the names of {lookup.noun} were not all read in time: the rate limit is spent"
            ]
        except AmigoError as error:
            return [f"the names of {lookup.noun} could not be read: {error}"]
        lookup.absent.update(lookup.unread(new))
        return []

    async def _ask(self, lookup: _Lookup, ids: Sequence[str], deleted: bool | None) -> None:
        try:
            records = await lookup.list_records(id=ids, is_deleted=deleted, limit=len(ids))
        except APIError as error:
            if not may_be_too_long(error) or len(ids) == 1:
                raise
            half = len(ids) // 2
            await self._ask(lookup, ids[:half], deleted)
            await self._ask(lookup, ids[half:], deleted)
        else:
            lookup.take(records)


async def explain(
    evaluations: Evaluations,
    runs: Iterable[Run],
    *,
    failed_only: bool,
    timeout: float | None,
    known: Mapping[str, EvaluationResult] | None = None,
    on_read: Callable[[Mapping[str, EvaluationResult]], Awaitable[None]] | None = None,
) -> Explanations:
    """Read the evaluations of `runs`, several runs with one request.

    Args:
        evaluations: Lists evaluations.
        runs: The runs.
        failed_only: Whether to read only the evaluations that failed.
        timeout: Seconds for all of it; None for no limit.
        known: Evaluations that were read earlier, by id; they are not read again. None for none.
        on_read: Called with all evaluations read so far, after each group of runs. None for nobody.
    """
    by_id = {run.id: run for run in runs}
    every = {i: evaluated(run, failed_only=failed_only) for i, run in by_id.items()}
    ids = {i for of_run in every.values() for i in of_run}
    read = {i: one for i, one in (known or {}).items() if i in ids}
    wanted = {run: {i: of[i] for i in of if i not in read} for run, of in every.items()}
    notes: list[str] = []
    late = False
    with anyio.move_on_after(timeout) as scope:
        await asyncio.sleep(0)  # deliver a cancellation: without any time, send nothing
        try:
            for group in _groups([by_id[i] for i in wanted if wanted[i]], wanted):
                await _read(evaluations, {i: wanted[i] for i in group}, read, narrow=failed_only)
                if on_read is not None:
                    await on_read(read)
        except (DeadlineError, RateLimitError):  # none is left before the deadline
            late = True
        except AmigoError as error:
            notes.append(f"the reasons of evaluations could not be read: {error}")
    left = len(ids - read.keys())
    if left and (late or scope.cancelled_caught):
        notes.append(f"{left} of {len(ids)} reasons were not read {_within(timeout)}")
    elif left and not notes:
        notes.append(
            f"{left} of {len(ids)} reasons cannot be seen: the evaluations no longer exist, or the "
            f"permission {EVALUATIONS.permission} is missing"
        )
    return Explanations(read, tuple(notes))


def _groups(runs: Iterable[Run], wanted: dict[str, dict[str, str]]) -> Iterator[list[str]]:
    """Group runs whose evaluations are asked for with one request.

    The answer has the evaluations of all these runs by all metrics that one of them failed. So
    runs that failed other metrics share a request only while its answer fits into one page.
    """
    sizes = {run.id: Counter(evaluated(run, failed_only=False).values()) for run in runs}
    group: list[str] = []
    metrics: set[str] = set()
    for run_id in sorted(sizes, key=lambda i: sorted(set(wanted[i].values()))):
        union = metrics | set(wanted[run_id].values())
        answers = sum(sizes[i][metric] for i in (*group, run_id) for metric in union)
        if group and (
            len(group) == _MOST_RUNS
            or len(union) > _MOST_METRICS
            or (union != metrics and answers > _MOST_ANSWERS)
        ):
            yield group
            group, union = [], set(wanted[run_id].values())
        group.append(run_id)
        metrics = union
    if group:
        yield group


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


def evaluated(run: Run, *, failed_only: bool) -> dict[str, str]:
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


def _within(timeout: float | None) -> str:
    """How long something took at least that was not done in time."""
    if timeout is None:
        return "before the rate limit was spent"
    return f"within {timeout:g} s" if timeout else "before the time was up"


def _unique(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(ids))
