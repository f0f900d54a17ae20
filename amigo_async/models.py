"""The structs of the wire, with the API's own field names.

All structs are frozen. Fields the service adds are ignored, and a success criterion of a type
or shape that is not known becomes an `UnknownSuccessCriterion`, so that an old client keeps
working. Ids and enum values that are received are opaque strings.

The structs of a page are not tracked by the garbage collector, which would go through all of the
tens of thousands in a large one several times while it is decoded: what is decoded has no cycles.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import force_setattr

from amigo_async.redact import Secret, SecretUrl

# Python's own limit is near a thousand, for JSON and for all that is going on around it.
_DEEPEST = 100
_SENDABLE = re.compile(r"[\x21-\x7e]+")


def _aware(instant: datetime) -> datetime:
    """`instant` in its own zone, or in UTC where the service left the zone out."""
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def _too_deep(value: Any) -> bool:
    """Whether JSON is nested so deeply that what walks through it may not come to its end."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


class SignIn(Struct, frozen=True):
    """Answer of the sign in: a token and when it expires."""

    id_token: str
    expires_at: datetime

    def __post_init__(self) -> None:
        if not _SENDABLE.fullmatch(self.id_token):
            raise ValueError("id_token cannot be sent in a header")
        force_setattr(self, "id_token", Secret(self.id_token))
        force_setattr(self, "expires_at", _aware(self.expires_at))


class CreatedRun(Struct, frozen=True):
    """Answer of a create: the run to wait for.

    Attributes:
        simulation_unit_test_set_run_id: The id of the run.
        attached: True where the run was found, and may be another's: it was there before the call
            (``on_conflict="attach"``), or the answer to its create was lost. False where the
            service said that this call started it.
    """

    simulation_unit_test_set_run_id: str
    attached: bool = False


class ArtifactsLink(Struct, frozen=True):
    """A link to the artifacts of a run. The URL is a secret until it expires.

    Attributes:
        presigned_url: Where the artifacts are; shown without its query.
        url_expires_at: When the URL expires, by the server's clock.
    """

    presigned_url: str
    url_expires_at: datetime

    def __post_init__(self) -> None:
        force_setattr(self, "presigned_url", SecretUrl(self.presigned_url))
        force_setattr(self, "url_expires_at", _aware(self.url_expires_at))


class UserInfo(Struct, frozen=True, gc=False):
    """A user and the organization the user belongs to."""

    org_id: str
    user_id: str


class VersionInfo(Struct, frozen=True, gc=False, array_like=True):
    """The id of something that is versioned, and which version of it."""

    id: str
    version: int


class LLMConfig(Struct, frozen=True, gc=False):
    """A language model and its parameters."""

    llm_name: str
    params: dict[str, Any] | None = {}


class BooleanMetricSuccessCriterion(Struct, frozen=True, gc=False, tag_field="type", tag="boolean"):
    """The metric has to have this value."""

    expected_value: bool


class NumericalMetricSuccessCriterion(
    Struct, frozen=True, gc=False, tag_field="type", tag="numerical"
):
    """The metric has to compare with the threshold as the verb says.

    Attributes:
        verb: ``==``, ``!=``, ``<=``, ``<``, ``>=``, ``>``, or what the service may add.
        threshold: What the metric is compared with.
    """

    verb: str
    threshold: float


class CategoricalMetricSuccessCriterion(
    Struct, frozen=True, gc=False, tag_field="type", tag="categorical"
):
    """The metric has to have one of these values."""

    expected_values: list[str]


class UnknownSuccessCriterion(Struct, frozen=True, gc=False, tag_field="type", tag="?"):
    """A criterion of a type or shape that this version does not know.

    Attributes:
        data: The criterion as the service sent it.
    """

    data: Any

    def __post_init__(self) -> None:
        if _too_deep(self.data):
            raise ValueError("success_criterion is nested too deeply")


SuccessCriterion: TypeAlias = (
    BooleanMetricSuccessCriterion
    | NumericalMetricSuccessCriterion
    | CategoricalMetricSuccessCriterion
    | UnknownSuccessCriterion
)


class MetricToEvaluate(Struct, frozen=True, gc=False):
    """A metric of a unit test, and what counts as success."""

    metric_id: str
    success_criterion_name: str
    success_criterion: SuccessCriterion


class UnitTestRunSpec(Struct, frozen=True, gc=False):
    """What is run for one unit test of the set.

    Attributes:
        run_count: How many times the unit test is run.
        max_interactions: After how many interactions the unit test fails.
        scenario_version_info: None without the permission to see unit tests.
        persona_version_info: None without the permission to see unit tests.
        metrics_to_evaluate: Empty without the permission to see unit tests.
    """

    unit_test_id: str
    run_count: int
    service_hierarchical_state_machine_version_info: VersionInfo
    agent_version_info: VersionInfo
    scenario_version_info: VersionInfo | None
    persona_version_info: VersionInfo | None
    llm_model_preferences: dict[str, LLMConfig]
    max_interactions: int
    metrics_to_evaluate: list[MetricToEvaluate]


class Evaluation(Struct, frozen=True, gc=False, array_like=True):
    """What one repeat of a unit test came to in one metric."""

    metric_evaluation_result_id: str
    passed: bool


class MetricEvaluationResult(Struct, frozen=True, gc=False):
    """What the repeats of a unit test came to in one metric."""

    metric_id: str
    metric_version: int
    results: list[Evaluation]


class UnitTestRunResult(Struct, frozen=True, gc=False):
    """What the repeats of one unit test came to, as far as they are done.

    Attributes:
        metric_evaluation_results: Empty without the permission to see unit tests.
        run_errors: For each repeat the error it met, or None.
    """

    unit_test_id: str
    metric_evaluation_results: list[MetricEvaluationResult]
    run_errors: list[str | None]


class Progress(NamedTuple):
    """How many unit test runs (unit tests times repeats) are done, of how many."""

    done: int
    total: int


class FailedMetric(Struct, frozen=True, gc=False):
    """A metric of a unit test that some repeats failed.

    Attributes:
        failed: How many repeats failed it.
        evaluated: How many repeats were evaluated.
        metric: Its name and criterion; None where the specs do not have it.
    """

    unit_test_id: str
    metric_id: str
    failed: int
    evaluated: int
    metric: MetricToEvaluate | None


class ErroredRun(Struct, frozen=True, gc=False):
    """A repeat of a unit test that met an error.

    Attributes:
        repeat: Which repeat, from 0.
        error: The error, as the service tells it.
    """

    unit_test_id: str
    repeat: int
    error: str


class Run(Struct, frozen=True, gc=False):
    """A run of a unit test set.

    Attributes:
        org_id: The organization of the run.
        id: The run's id.
        is_completed: Whether the run is over, cancelled ones included.
        simulation_unit_test_set_id: The set that is run.
        failed_metrics: Whether a unit test run failed; can be True while the run goes on.
        errored: Whether an error was met; can be True while the run goes on.
        artifacts_generated: Whether the artifacts can be fetched; becomes True some time after
            `is_completed`, if at all.
        unit_test_run_specs: Empty without the permission to see unit test sets, and where this
            version cannot read them (`RunPage.unreadable` and `DecodeError` say so).
        unit_test_run_results: Empty where `unit_test_run_specs` is; an entry is None while there
            is nothing to tell.
        created_at: When the run was created, by the server's clock.
        creator: Who created it.
    """

    org_id: str
    id: str
    is_completed: bool
    simulation_unit_test_set_id: str
    failed_metrics: bool
    errored: bool
    artifacts_generated: bool
    unit_test_run_specs: list[UnitTestRunSpec]
    unit_test_run_results: list[UnitTestRunResult | None]
    created_at: datetime
    creator: UserInfo

    def __post_init__(self) -> None:
        if self.created_at.tzinfo is None:
            force_setattr(self, "created_at", _aware(self.created_at))

    @property
    def passed(self) -> bool:
        """True once the run is completed, whole, without a failed metric and without an error."""
        flagged = self.failed_metrics or self.errored
        return self.is_completed and not flagged and not self.was_cut_short

    @property
    def was_cut_short(self) -> bool:
        """Whether the run is over and repeats that were asked for never ran.

        So it is with a run that somebody cancelled; its flags do not tell. False where the
        permission hides the specs.
        """
        return self.is_completed and self.repeats_missing > 0

    @property
    def repeats_missing(self) -> int:
        """How many repeats of those that are shown have neither an evaluation nor an error."""
        asked: Counter[str] = Counter()
        evaluated = set()
        for spec in self.unit_test_run_specs:
            asked[spec.unit_test_id] += spec.run_count
            if spec.metrics_to_evaluate:
                evaluated.add(spec.unit_test_id)
        for result in self.unit_test_run_results:
            if result is not None:
                shown = result.unit_test_id in evaluated or result.metric_evaluation_results
                asked[result.unit_test_id] -= _repeats_run(result, evaluations_shown=bool(shown))
        return sum(count for count in asked.values() if count > 0)

    @property
    def progress(self) -> Progress | None:
        """Unit test runs done, of how many; None where the permission hides the specs."""
        if not self.unit_test_run_specs:
            return None
        total = sum(spec.run_count for spec in self.unit_test_run_specs)
        done = sum(len(result.run_errors) for result in self.unit_test_run_results if result)
        return Progress(min(done, total), total)

    @property
    def metrics_that_failed(self) -> tuple[FailedMetric, ...] | None:
        """The metrics that a repeat failed so far; None where the permission hides the results."""
        results = [r for r in self.unit_test_run_results if r]
        shown = any(r.metric_evaluation_results for r in results)
        if not shown and not any(spec.metrics_to_evaluate for spec in self.unit_test_run_specs):
            return None
        metrics = {
            (spec.unit_test_id, metric.metric_id): metric
            for spec in self.unit_test_run_specs
            for metric in spec.metrics_to_evaluate
        }
        counted = (
            (r.unit_test_id, m.metric_id, sum(not e.passed for e in m.results), len(m.results))
            for r in results
            for m in r.metric_evaluation_results
        )
        return tuple(
            FailedMetric(test, metric, failed, evaluated, metrics.get((test, metric)))
            for test, metric, failed, evaluated in counted
            if failed
        )

    @property
    def runs_that_errored(self) -> tuple[ErroredRun, ...] | None:
        """The repeats that met an error so far; None where the permission hides the results."""
        if not self.unit_test_run_specs and not any(self.unit_test_run_results):
            return None
        return tuple(
            ErroredRun(result.unit_test_id, repeat, error)
            for result in self.unit_test_run_results
            if result
            for repeat, error in enumerate(result.run_errors)
            if error is not None
        )


def _repeats_run(result: UnitTestRunResult, *, evaluations_shown: bool) -> int:
    """How many repeats of a unit test have run."""
    if not evaluations_shown:
        return len(result.run_errors)
    # Whether evaluations are listed for repeats that met an error is not known: count both, so
    # that no run is taken for cut short which was not.
    evaluations = max((len(m.results) for m in result.metric_evaluation_results), default=0)
    return evaluations + sum(error is not None for error in result.run_errors)


class FilterValues(Struct, frozen=True, gc=False):
    """The values that the filters of a list can take, whatever the user may see of them."""

    creators: list[UserInfo]
    simulation_unit_test_set_ids: list[str]
    tags: list[str]


class RunPage(Struct, frozen=True, gc=False, omit_defaults=True):
    """A page of runs.

    Attributes:
        simulation_unit_test_set_runs: The runs of this page, as far as they can be read.
        has_more: Whether there are more.
        continuation_token: Where the next page begins; None at the end.
        filter_values: On the first page alone, otherwise None; None as well where this version
            cannot read them.
        unreadable: What of which run this version cannot read, with the place of the field, by
            run id (or by place on the page, as in ``[3]``, where that cannot be read either). A
            run whose specs or results cannot be read is on the page without both; one whose other
            fields cannot be read is left out. Not on the wire.
    """

    simulation_unit_test_set_runs: list[Run]
    has_more: bool
    continuation_token: int | None
    filter_values: FilterValues | None
    unreadable: dict[str, str] = {}
