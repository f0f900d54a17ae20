"""The structs of the API, with the API's field names.

All structs are frozen. Fields that the service adds are ignored, and a success criterion of an
unknown type becomes an `UnknownSuccessCriterion`, so that an old client keeps working. Ids and
enum values from the service are opaque strings.

The garbage collector does not track the structs of a page (``gc=False``): it would traverse the
tens of thousands of structs of a large page several times while decoding, although decoded data
has no cycles. For the same reason what a run has most of is in tuples, which it stops tracking at
its first pass, and not in lists: with 1,000 finished runs of 50 unit tests and three boolean
metrics held, a full collection takes 16 ms instead of 180, and nothing else runs meanwhile.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import force_setattr

from amigo_async.redact import Secret, SecretUrl

# Deepest nesting of JSON that is kept; recursion in Python ends near a thousand.
_DEEPEST = 100
_SENDABLE = re.compile(r"[\x21-\x7e]+")


def _aware(instant: datetime) -> datetime:
    """Return `instant` with its time zone, or in UTC if the service sent none."""
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def _too_deep(value: Any) -> bool:
    """Return whether JSON is nested too deeply to be processed by recursion."""
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
    """Response of the sign in: a token and when it expires."""

    id_token: str
    expires_at: datetime

    def __post_init__(self) -> None:
        if not _SENDABLE.fullmatch(self.id_token):
            raise ValueError("id_token cannot be sent in a header")
        force_setattr(self, "id_token", Secret(self.id_token))
        force_setattr(self, "expires_at", _aware(self.expires_at))


class CreatedRun(Struct, frozen=True):
    """Result of `Runs.create`: the run to wait for.

    Attributes:
        simulation_unit_test_set_run_id: Id of the run.
        attached: Whether the run was found rather than started, and may belong to someone else:
            it existed before the call (``on_conflict="attach"``), or the response to the create
            request was lost. False if the service confirmed that this call started it.
    """

    simulation_unit_test_set_run_id: str
    attached: bool = False


class ArtifactsLink(Struct, frozen=True):
    """A link to the artifacts of a run; its URL is a secret until it expires.

    Attributes:
        presigned_url: URL to download the artifacts from; its `repr` leaves out the query.
        url_expires_at: When the URL expires, by the server's clock.
    """

    presigned_url: str
    url_expires_at: datetime

    def __post_init__(self) -> None:
        force_setattr(self, "presigned_url", SecretUrl(self.presigned_url))
        force_setattr(self, "url_expires_at", _aware(self.url_expires_at))


class UserInfo(Struct, frozen=True, gc=False):
    """A user and the organization that the user belongs to.

    Attributes:
        org_id: Id of the organization.
        user_id: Id of the user.
    """

    org_id: str
    user_id: str


class VersionInfo(Struct, frozen=True, gc=False, array_like=True):
    """A version of a persona, scenario, agent or state machine: its id and version number."""

    id: str
    version: int


class LLMConfig(Struct, frozen=True, gc=False):
    """A language model and its parameters."""

    llm_name: str
    params: dict[str, Any] | None = {}


class BooleanMetricSuccessCriterion(Struct, frozen=True, gc=False, tag_field="type", tag="boolean"):
    """The metric must have the value `expected_value`."""

    expected_value: bool


class NumericalMetricSuccessCriterion(
    Struct, frozen=True, gc=False, tag_field="type", tag="numerical"
):
    """The metric must compare to a threshold.

    Attributes:
        verb: ``==``, ``!=``, ``<=``, ``<``, ``>=``, ``>``, or one that the service adds.
        threshold: The number on the right of the verb.
    """

    verb: str
    threshold: float


class CategoricalMetricSuccessCriterion(
    Struct, frozen=True, gc=False, tag_field="type", tag="categorical"
):
    """The metric must have one of the `expected_values`."""

    expected_values: list[str]


class UnknownSuccessCriterion(Struct, frozen=True, gc=False, tag_field="type", tag="?"):
    """A success criterion that this version does not know.

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
    """A metric of a unit test and its success criterion."""

    metric_id: str
    success_criterion_name: str
    success_criterion: SuccessCriterion


class UnitTestRunSpec(Struct, frozen=True, gc=False):
    """How one unit test of the set is run.

    Attributes:
        run_count: Number of repeats.
        max_interactions: Number of interactions after which a repeat fails.
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
    metrics_to_evaluate: tuple[MetricToEvaluate, ...]


class Evaluation(Struct, frozen=True, gc=False, array_like=True):
    """The result of one repeat of a unit test in one metric."""

    metric_evaluation_result_id: str
    passed: bool


class MetricEvaluationResult(Struct, frozen=True, gc=False):
    """The results of the repeats of a unit test in one metric."""

    metric_id: str
    metric_version: int
    results: tuple[Evaluation, ...]


class UnitTestRunResult(Struct, frozen=True, gc=False):
    """The results of one unit test, as far as its repeats are done.

    Attributes:
        metric_evaluation_results: Empty without the permission to see unit tests.
        run_errors: The error of each repeat; None for a repeat without one.
    """

    unit_test_id: str
    metric_evaluation_results: tuple[MetricEvaluationResult, ...]
    run_errors: tuple[str | None, ...]


class Progress(NamedTuple):
    """How many repeats of unit tests are done.

    Attributes:
        done: Number of repeats that are done, of all unit tests.
        total: Number of repeats in all.
    """

    done: int
    total: int


class FailedMetric(Struct, frozen=True, gc=False):
    """A metric of a unit test that at least one repeat failed.

    Attributes:
        failed: Number of repeats that failed the metric.
        evaluated: Number of repeats that were evaluated.
        metric: Its name and criterion; None if the specs do not list the metric.
    """

    unit_test_id: str
    metric_id: str
    failed: int
    evaluated: int
    metric: MetricToEvaluate | None


class ErroredRun(Struct, frozen=True, gc=False):
    """A repeat of a unit test that ended with an error.

    Attributes:
        repeat: Number of the repeat, from 0.
        error: The error message of the service.
    """

    unit_test_id: str
    repeat: int
    error: str


class Run(Struct, frozen=True, gc=False):
    """A run of a unit test set.

    Attributes:
        org_id: Id of the organization.
        id: Id of the run.
        is_completed: Whether the run has ended, by cancellation too.
        simulation_unit_test_set_id: Id of the set.
        failed_metrics: Whether a metric has failed so far; may be True before the run ends.
        errored: Whether an error has occurred so far; may be True before the run ends.
        artifacts_generated: Whether the artifacts can be downloaded; becomes True some time after
            `is_completed`, if at all.
        unit_test_run_specs: Empty without the permission to see unit test sets, and if they cannot
            be decoded (see `RunPage.unreadable` and `DecodeError.run`).
        unit_test_run_results: Empty if `unit_test_run_specs` is; an entry is None until its unit
            test has a result.
        created_at: When the run was created, by the server's clock.
        creator: The user who created the run.
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
        """Whether the run is completed, ran every repeat, and had no failed metric and no error."""
        flagged = self.failed_metrics or self.errored
        return self.is_completed and not flagged and not self.was_cut_short

    @property
    def was_cut_short(self) -> bool:
        """Whether the run has ended although some repeats never ran, as after a cancellation.

        The flags of a run do not show this. False if the specs are hidden by a missing permission.
        """
        return self.is_completed and self.repeats_missing > 0

    @property
    def repeats_missing(self) -> int:
        """Number of visible repeats that have neither an evaluation nor an error."""
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
        """How many repeats are done; None if the specs are hidden by a missing permission."""
        if not self.unit_test_run_specs:
            return None
        total = sum(spec.run_count for spec in self.unit_test_run_specs)
        done = sum(len(result.run_errors) for result in self.unit_test_run_results if result)
        return Progress(min(done, total), total)

    @property
    def metrics_that_failed(self) -> tuple[FailedMetric, ...] | None:
        """Metrics failed so far; None if the results are hidden by a missing permission."""
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
        """Repeats with an error so far; None if the results are hidden by a missing permission."""
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
    """Number of repeats of a unit test that have run."""
    if not evaluations_shown:
        return len(result.run_errors)
    # Whether repeats with an error are evaluated too is unknown. Count both, so that a complete run
    # is never taken for one that was cut short.
    evaluations = max((len(m.results) for m in result.metric_evaluation_results), default=0)
    return evaluations + sum(error is not None for error in result.run_errors)


class FilterValues(Struct, frozen=True, gc=False):
    """The values that filters of the list can have, including those the user may not see."""

    creators: list[UserInfo]
    simulation_unit_test_set_ids: list[str]
    tags: list[str]


class RunPage(Struct, frozen=True, gc=False, omit_defaults=True):
    """A page of runs.

    Attributes:
        simulation_unit_test_set_runs: The runs of this page that can be decoded.
        has_more: Whether there are more pages.
        continuation_token: Where the next page begins; None on the last page.
        filter_values: The values for filters, on the first page only; None on others, and if they
            cannot be decoded.
        unreadable: What cannot be decoded, with the path of the field, by run id (or by position
            on the page, as ``[3]``, if the id cannot be decoded either). A run whose specs or
            results cannot be decoded is on the page without both; with any other such field it
            is left out. Not part of the API.
    """

    simulation_unit_test_set_runs: list[Run]
    has_more: bool
    continuation_token: int | None
    filter_values: FilterValues | None
    unreadable: dict[str, str] = {}


def _make_aware(record: UnitTestSet | UnitTest | Metric | EvaluationResult) -> None:
    """Take times without a zone for UTC."""
    for name in ("created_at", "updated_at"):
        instant: datetime | None = getattr(record, name)
        if instant is not None and instant.tzinfo is None:
            force_setattr(record, name, _aware(instant))


class Tag(Struct, frozen=True, gc=False):
    """A tag of a set, a unit test or a metric.

    Attributes:
        value: None for a tag that has only a key.
    """

    key: str
    value: str | None


class UnitTestCount(Struct, frozen=True, gc=False):
    """A unit test of a set.

    Attributes:
        run_count: Repeats of the unit test in each run of the set.
    """

    unit_test_id: str
    run_count: int


class UnitTestSet(Struct, frozen=True, gc=False):
    """A unit test set.

    Attributes:
        unit_test_runs: The unit tests of the set, with their numbers of repeats.
        last_triggered_run_id: Id of the newest run; None if there is none.
        created_at: None if the service does not say.
        updated_at: None if the service does not say.
    """

    id: str
    org_id: str
    name: str
    description: str | None
    unit_test_runs: list[UnitTestCount]
    last_triggered_run_id: str | None
    is_deleted: bool
    tags: list[Tag]
    creator: UserInfo
    updated_by: UserInfo
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def __post_init__(self) -> None:
        _make_aware(self)

    @property
    def repeats(self) -> int:
        """Repeats of all unit tests: the conversations that a run of the set simulates."""
        return sum(unit_test.run_count for unit_test in self.unit_test_runs)


class NamedSuccessCriterion(Struct, frozen=True, gc=False):
    """A success criterion of a unit test.

    Attributes:
        name: Name of the criterion within the unit test.
        metric_id: Id of the metric whose value is compared.
    """

    name: str
    metric_id: str
    criterion: SuccessCriterion


class UnitTest(Struct, frozen=True, gc=False):
    """A unit test: a scenario that a persona plays with the agent, and what counts as success.

    Attributes:
        service_id: Id of the service, which is the agent under test.
        service_version_set_name: Version set of the service.
        max_interactions: Interactions after which a conversation fails.
        created_at: None if the service does not say.
        updated_at: None if the service does not say.
    """

    id: str
    org_id: str
    name: str
    description: str
    service_id: str
    service_version_set_name: str
    persona_id: str
    scenario_id: str
    max_interactions: int
    success_criterions: list[NamedSuccessCriterion]
    is_deleted: bool
    tags: list[Tag]
    creator: UserInfo
    updated_by: UserInfo
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def __post_init__(self) -> None:
        _make_aware(self)


class Metric(Struct, frozen=True, gc=False):
    """A metric that conversations are scored by.

    Attributes:
        applied_to_services: Ids of the services whose conversations are scored.
        additional_notes: None if there are none.
        metric_value_type: ``boolean``, ``numerical``, ``categorical``, or what the service may add.
    """

    id: str
    org_id: str
    name: str
    applied_to_services: list[str]
    additional_notes: str | None
    tags: list[Tag]
    creator: UserInfo
    updated_by: UserInfo
    metric_value_type: str
    is_deleted: bool
    created_at: datetime
    updated_at: datetime

    def __post_init__(self) -> None:
        _make_aware(self)


class SimulationEvaluationSource(Struct, frozen=True, gc=False, tag_field="type", tag="simulation"):
    """The simulated conversation that an evaluation is about.

    Attributes:
        run_index: The repeat of the unit test, from 0.
        references: Messages that the evaluation rests on.
    """

    simulation_unit_test_set_run_id: str
    unit_test_id: str
    run_index: int
    references: list[str]


class PostSessionEvaluationSource(
    Struct, frozen=True, gc=False, tag_field="type", tag="post-session"
):
    """The real conversation that an evaluation is about, made after its end."""

    conversation_id: str
    references: list[str]


class ManualEvaluationSource(Struct, frozen=True, gc=False, tag_field="type", tag="manual"):
    """The real conversation that an evaluation is about, made because a user asked for it.

    Attributes:
        evaluate_to_interaction_id: Id of the last interaction that counts; None for all.
    """

    conversation_id: str
    evaluate_to_interaction_id: str | None
    invoked_by: UserInfo
    references: list[str]


class UnknownEvaluationSource(Struct, frozen=True, gc=False, tag_field="type", tag="?"):
    """A source of a type or shape that this version does not know.

    Attributes:
        data: The source as the service sent it.
    """

    data: Any

    def __post_init__(self) -> None:
        if _too_deep(self.data):
            raise ValueError("source is nested too deeply")


EvaluationSource: TypeAlias = (
    SimulationEvaluationSource
    | PostSessionEvaluationSource
    | ManualEvaluationSource
    | UnknownEvaluationSource
)


class EvaluationResult(Struct, frozen=True, gc=False):
    """What a metric came to in one conversation, and why.

    Attributes:
        id: The `Evaluation.metric_evaluation_result_id` of a run.
        result: The value; None if the metric was not applicable.
        justification: Why, in the words of the model that judged.
        created_at: None if the service does not say.
        updated_at: None if the service does not say.
    """

    id: str
    org_id: str
    metric_id: str
    metric_version: int
    result: bool | int | float | str | None
    justification: str
    source: EvaluationSource
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def __post_init__(self) -> None:
        _make_aware(self)


class UnitTestSetFilterValues(Struct, frozen=True, gc=False):
    """The values that the filters of a list of sets can take; `tags` are their keys."""

    creators: list[UserInfo]
    unit_test_ids: list[str]
    tags: list[str]


class UnitTestFilterValues(Struct, frozen=True, gc=False):
    """The values that the filters of a list of unit tests can take; `tags` are their keys."""

    creators: list[UserInfo]
    tags: list[str]
    service_ids: list[str]
    persona_ids: list[str]
    scenario_ids: list[str]
    metric_ids: list[str]


class MetricFilterValues(Struct, frozen=True, gc=False):
    """The values that the filters of a list of metrics can take; `tags` are their keys."""

    applied_to_services_ids: list[str]
    creators: list[UserInfo]
    tags: list[str]
    types: list[str]


class EvaluationFilterValues(Struct, frozen=True, gc=False):
    """The values that the filters of a list of evaluations can take."""

    metric_ids: list[str]


class UnitTestSetPage(Struct, frozen=True, gc=False, omit_defaults=True):
    """A page of unit test sets.

    Attributes:
        has_more: Whether there are more pages.
        continuation_token: Where the next page begins; None on the last page.
        filter_values: On the first page only; None otherwise.
        unreadable: Which sets this version cannot decode, and why, by id. Not on the wire.
    """

    simulation_unit_test_sets: list[UnitTestSet]
    has_more: bool
    continuation_token: int | None
    filter_values: UnitTestSetFilterValues | None
    unreadable: dict[str, str] = {}


class UnitTestPage(Struct, frozen=True, gc=False, omit_defaults=True):
    """A page of unit tests.

    Attributes:
        has_more: Whether there are more pages.
        continuation_token: Where the next page begins; None on the last page.
        filter_values: On the first page only; None otherwise.
        unreadable: Which unit tests this version cannot decode, and why, by id. Not on the wire.
    """

    simulation_unit_tests: list[UnitTest]
    has_more: bool
    continuation_token: int | None
    filter_values: UnitTestFilterValues | None
    unreadable: dict[str, str] = {}


class MetricPage(Struct, frozen=True, gc=False, omit_defaults=True):
    """A page of metrics.

    Attributes:
        has_more: Whether there are more pages.
        continuation_token: Where the next page begins; None on the last page.
        filter_values: On the first page only; None otherwise.
        unreadable: Which metrics this version cannot decode, and why, by id. Not on the wire.
    """

    metrics: list[Metric]
    has_more: bool
    continuation_token: int | None
    filter_values: MetricFilterValues | None
    unreadable: dict[str, str] = {}


class EvaluationPage(Struct, frozen=True, gc=False, omit_defaults=True):
    """A page of evaluations.

    Attributes:
        has_more: Whether there are more pages.
        continuation_token: Where the next page begins; None on the last page.
        filter_values: On the first page only; None otherwise.
        unreadable: Which evaluations this version cannot decode, and why, by id. Not on the wire.
    """

    metric_evaluation_results: list[EvaluationResult]
    has_more: bool
    continuation_token: int | None
    filter_values: EvaluationFilterValues | None
    unreadable: dict[str, str] = {}
