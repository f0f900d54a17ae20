"""Decode response bodies into structs.

Decoders are built with the first response, not at import.

A page of runs is first split into records, which are then decoded one by one, so that a record that
cannot be decoded does not affect the others. A wait needs only the flags of a record; the rest is
decoded once, when the run is returned to a caller.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, get_type_hints

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import asdict

from amigo_async.errors import DecodeError
from amigo_async.models import (
    ArtifactsLink,
    CreatedRun,
    EvaluationFilterValues,
    EvaluationPage,
    EvaluationResult,
    EvaluationSource,
    FilterValues,
    Metric,
    MetricFilterValues,
    MetricPage,
    MetricToEvaluate,
    NamedSuccessCriterion,
    Run,
    RunPage,
    SignIn,
    SuccessCriterion,
    UnitTest,
    UnitTestFilterValues,
    UnitTestPage,
    UnitTestRunResult,
    UnitTestRunSpec,
    UnitTestSet,
    UnitTestSetFilterValues,
    UnitTestSetPage,
    UnknownEvaluationSource,
    UnknownSuccessCriterion,
)
from amigo_async.redact import redact

_NULL: Final = Raw(b"null")
_DETAILS: Final = ("unit_test_run_specs", "unit_test_run_results")


class _Created(Struct, frozen=True):
    """The fields of `CreatedRun` that the service sends; `attached` is never taken from it."""

    simulation_unit_test_set_run_id: str


def decode_sign_in(body: bytes) -> SignIn:
    """Decode the response of a sign in.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or has no token.
    """
    return msgspec.json.decode(body, type=SignIn)


def decode_artifacts_link(body: bytes) -> ArtifactsLink:
    """Decode a link to artifacts.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or not a link.
    """
    return msgspec.json.decode(body, type=ArtifactsLink)


def decode_nothing(body: bytes) -> None:
    """Check a response that needs no body: JSON is ignored, the page of a proxy is an error.

    Raises:
        msgspec.DecodeError: If there is a body that is not JSON.
    """
    if body:
        msgspec.json.decode(body)


def decode_created_run(body: bytes) -> CreatedRun:
    """Decode the response of a create request.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or has no id.
    """
    created = msgspec.json.decode(body, type=_Created)
    if not created.simulation_unit_test_set_run_id.strip():
        raise msgspec.DecodeError("the id is empty - at `$.simulation_unit_test_set_run_id`")
    return CreatedRun(created.simulation_unit_test_set_run_id)


class RunRecord:
    """The record of a run on a page: the fields that a wait needs, and the rest undecoded.

    Args:
        flags: The fields that a wait needs.
        raw: The record as JSON.

    Attributes:
        id: Id of the run.
        is_completed: Whether the run has ended.
        artifacts_generated: Whether its artifacts can be downloaded.
        raw: The record as JSON; copied, because a slice would keep the whole page in memory.
    """

    __slots__ = ("_read", "artifacts_generated", "id", "is_completed", "raw")

    def __init__(self, flags: _Flags, raw: Raw) -> None:
        self.id = flags.id
        self.is_completed = flags.is_completed
        self.artifacts_generated = flags.artifacts_generated is True
        self.raw = raw.copy()
        self._read: _Read | None = None

    def same_as(self, other: RunRecord | None) -> bool:
        """Return whether `other` is the same record, byte by byte."""
        return other is not None and self.raw == other.raw

    @property
    def run(self) -> Run | None:
        """The run, without specs and results if those cannot be decoded; None if nothing can."""
        run: Run | None = self._decoded().record
        return run

    @property
    def error(self) -> DecodeError | None:
        """The error for what cannot be decoded of the run; None if all of it can."""
        read = self._decoded()
        return None if read.flaw is None else run_decode_error(self.id, read.flaw, read.record)

    def _decoded(self) -> _Read:
        if self._read is None:
            self._read = _read_soundly(_read_run, self.raw)
        return self._read


class RecordPage(NamedTuple):
    """A page of runs, decoded as far as a wait needs.

    Attributes:
        records: The records by run id.
        errors: The errors for records of which not even the flags can be decoded, by run id.
        has_more: Whether there are more pages.
    """

    records: Mapping[str, RunRecord]
    errors: Mapping[str, DecodeError]
    has_more: bool


def decode_record_page(body: bytes) -> RecordPage:
    """Decode as much of a page of runs as a wait needs.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or not a page of runs.
    """
    envelope: _Records = _decode_json(body, _Records)
    records: dict[str, RunRecord] = {}
    errors: dict[str, DecodeError] = {}
    for raw in envelope.simulation_unit_test_set_runs:
        try:
            record = RunRecord(_decode(raw, _Flags), raw)
        except (ValueError, RecursionError) as error:
            run_id = _id_of(raw)
            if run_id is not None:  # otherwise no wait can be for it
                errors[run_id] = run_decode_error(run_id, _flaw(error))
        else:
            records[record.id] = record
    return RecordPage(records, errors, envelope.has_more is True)


def decode_run_page(body: bytes) -> RunPage:
    """Decode a page of runs, record by record.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or not a page of runs.
    """
    field = "simulation_unit_test_set_runs"
    return RunPage(*_decode_page(body, field, FilterValues, _read_run))


def run_decode_error(run_id: str, flaw: str, run: Run | None = None) -> DecodeError:
    """Return the error for a run whose record in a list cannot be decoded completely."""
    return DecodeError(flaw, method="GET", path=f"run {run_id}", status=200, lasting=True, run=run)


class _Records(Struct):
    simulation_unit_test_set_runs: list[Raw]
    has_more: Any = False


class _Flags(Struct):
    """The fields that a wait needs; anything but true means that there are no artifacts yet."""

    id: str
    is_completed: bool
    artifacts_generated: Any = False


class _Id(Struct):
    id: str


class _Metric(Struct):
    """A `MetricToEvaluate` with a criterion of any shape."""

    metric_id: str
    success_criterion_name: str
    success_criterion: Raw


class _Spec(UnitTestRunSpec, frozen=True, gc=False):
    """A `UnitTestRunSpec` with criteria of any shape."""

    metrics_to_evaluate: tuple[_Metric, ...]  # type: ignore[assignment]


class _Read(NamedTuple):
    """A record as far as it can be decoded, and what of it cannot; None where all of it can."""

    record: Any
    flaw: str | None


_decoder = cache(msgspec.json.Decoder)


def _decode(body: bytes | Raw, kind: Any) -> Any:
    return _decoder(kind).decode(body)


@cache
def _row_decoder() -> msgspec.json.Decoder[Any]:
    """Decodes the fields of a run, and leaves its details as they are."""
    hints = get_type_hints(Run)
    fields: list[Any] = [(n, Raw, _NULL) if n in _DETAILS else (n, hints[n]) for n in hints]
    return msgspec.json.Decoder(msgspec.defstruct("RunRow", fields, kw_only=True))


def _decode_json(body: bytes, kind: Any) -> Any:
    """Decode `body`, even if only the standard library accepts it as JSON.

    That accepts lone surrogates, control characters, NaN and bytes that are not UTF-8.
    """
    try:
        return _decode(body, kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        sound = _sound(body)
        if sound is None:
            raise
        return _decode(sound, kind)


def _sound(body: bytes | Raw) -> bytes | None:
    """Convert `body` to JSON that msgspec accepts; None if the standard library rejects it too.

    Invalid characters become U+FFFD, and numbers that JSON does not have become strings.
    """
    try:
        value = json.loads(
            bytes(body).decode("utf-8", "replace"),
            strict=False,
            parse_float=_finite,
            parse_constant=str,
        )
    except ValueError:
        return None
    return msgspec.json.encode(_without_surrogates(value))


def _without_surrogates(value: Any) -> Any:
    """Replace lone surrogates in `value`; parts without any are encoded to JSON at once."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    try:
        return Raw(msgspec.json.encode(value))
    except UnicodeEncodeError:
        if isinstance(value, list):
            return [_without_surrogates(item) for item in value]
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _read_soundly(read: Callable[[Raw], _Read], raw: Raw) -> _Read:
    """Read a record; if that fails, once more as the standard library understands its JSON."""
    first = read(raw)
    sound = None if first.flaw is None else _sound(raw)
    if sound is None:
        return first
    again = read(Raw(sound))
    return again if again.flaw is None else first


def _read_run(raw: Raw) -> _Read:
    """Decode a run, or as much of it as possible."""
    try:
        return _Read(_decode(raw, Run), None)
    except (ValueError, RecursionError):
        pass
    try:
        row = asdict(_row_decoder().decode(raw))
    except (ValueError, RecursionError) as error:
        return _Read(None, _flaw(error))
    for field, decode in ((_DETAILS[0], _decode_specs), (_DETAILS[1], _decode_results)):
        try:
            row[field] = decode(row[field])
        except (ValueError, RecursionError) as error:
            flaw = _flaw(error)
            place = f"`$.{field}"
            flaw = flaw.replace("`$", place) if "`$" in flaw else f"{flaw} - at {place}`"
            # One list without the other would look like a run with repeats that never ran.
            return _Read(Run(**row | {name: [] for name in _DETAILS}), flaw)
    return _Read(Run(**row), None)


def _decode_results(raw: Raw) -> list[UnitTestRunResult | None]:
    results: list[UnitTestRunResult | None] = _decode(raw, list[UnitTestRunResult | None])
    return results


def _decode_specs(raw: Raw) -> list[UnitTestRunSpec]:
    """Decode the specs of a run, with success criteria of unknown types."""
    criterion = cache(_decode_criterion)  # the metrics of a run share a few criteria
    return [
        UnitTestRunSpec(
            **asdict(spec)
            | {
                "metrics_to_evaluate": tuple(
                    MetricToEvaluate(
                        metric.metric_id,
                        metric.success_criterion_name,
                        criterion(bytes(metric.success_criterion)),
                    )
                    for metric in spec.metrics_to_evaluate
                )
            }
        )
        for spec in _decode(raw, list[_Spec])
    ]


def _decode_criterion(raw: bytes | Raw) -> SuccessCriterion:
    criterion: SuccessCriterion = _decode_tagged(raw, SuccessCriterion, UnknownSuccessCriterion)
    return criterion


def _decode_tagged(raw: bytes | Raw, known: Any, unknown: Any) -> Any:
    """Decode one of several known structs, or else keep the data in an `unknown`."""
    try:
        value = _decode(raw, known)
    except msgspec.ValidationError:
        pass
    else:
        if not isinstance(value, unknown):
            return value
    return unknown(msgspec.json.decode(raw))


def _id_of(raw: Raw) -> str | None:
    try:
        identified: _Id = _decode(raw, _Id)
    except (ValueError, RecursionError):
        return None
    return identified.id


def _flaw(error: Exception) -> str:
    return redact(str(error)) or type(error).__name__


# --- pages of other records ---


class _FoundSet(UnitTestSet, frozen=True, gc=False, kw_only=True):
    """A set as the search shows it: a raw document, whose id has another name."""

    id: str = msgspec.field(name="_id")


class _FoundSets(Struct):
    simulation_unit_test_sets: list[Raw]


class _Criterion(Struct):
    """A `NamedSuccessCriterion` with a criterion of any shape."""

    name: str
    metric_id: str
    criterion: Raw


class _UnitTest(UnitTest, frozen=True, gc=False):
    success_criterions: list[_Criterion]  # type: ignore[assignment]


class _EvaluationResult(EvaluationResult, frozen=True, gc=False):
    source: Raw  # type: ignore[assignment]


def decode_unit_test_sets(body: bytes) -> UnitTestSetPage:
    """Decode a page of unit test sets, set by set.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or not such a page.
    """
    return UnitTestSetPage(
        *_decode_page(
            *(body, "simulation_unit_test_sets", UnitTestSetFilterValues),
            _reader(lambda raw: _decode(raw, UnitTestSet)),
        )
    )


def decode_found_unit_test_sets(body: bytes) -> list[UnitTestSet]:
    """Decode the answer of a search for sets; a set that cannot be decoded is left out.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or not such an answer.
    """
    envelope: _FoundSets = _decode_json(body, _FoundSets)
    sets, _ = _decode_records(
        envelope.simulation_unit_test_sets,
        _reader(lambda raw: UnitTestSet(**asdict(_decode(raw, _FoundSet)))),
    )
    return sets


def decode_unit_tests(body: bytes) -> UnitTestPage:
    """Decode a page of unit tests, unit test by unit test.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or not such a page.
    """
    return UnitTestPage(
        *_decode_page(body, "simulation_unit_tests", UnitTestFilterValues, _reader(_unit_test))
    )


def decode_metrics(body: bytes) -> MetricPage:
    """Decode a page of metrics, metric by metric.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or not such a page.
    """
    return MetricPage(
        *_decode_page(
            body, "metrics", MetricFilterValues, _reader(lambda raw: _decode(raw, Metric))
        )
    )


def decode_evaluations(body: bytes) -> EvaluationPage:
    """Decode a page of evaluations, evaluation by evaluation.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or not such a page.
    """
    return EvaluationPage(
        *_decode_page(
            body, "metric_evaluation_results", EvaluationFilterValues, _reader(_evaluation_result)
        )
    )


def _decode_page(
    body: bytes, field: str, filter_values: Any, read: Callable[[Raw], _Read]
) -> tuple[list[Any], bool, int | None, Any, dict[str, str]]:
    """The fields of a page, whose records are in `field`, in the order of its struct."""
    envelope = _decode_json(body, _envelope(field))
    records, unreadable = _decode_records(envelope.records, read)
    try:
        values = _decode(envelope.filter_values, filter_values | None)
    except (ValueError, RecursionError):
        values = None  # no record depends on it
    return records, envelope.has_more, envelope.continuation_token, values, unreadable


@cache
def _envelope(field: str) -> Any:
    return msgspec.defstruct(
        "Envelope",
        [
            ("records", list[Raw]),
            ("has_more", bool),
            ("continuation_token", int | None),
            ("filter_values", Raw, _NULL),
        ],
        rename={"records": field},
    )


def _decode_records(
    raws: Iterable[Raw], read: Callable[[Raw], _Read]
) -> tuple[list[Any], dict[str, str]]:
    """The records as far as they can be decoded, and what of them cannot, by id."""
    records: list[Any] = []
    unreadable: dict[str, str] = {}
    for number, raw in enumerate(raws):
        found = _read_soundly(read, raw)
        if found.record is not None:
            records.append(found.record)
        if found.flaw is not None:
            unreadable[_id_of(raw) or f"[{number}]"] = found.flaw
    return records, unreadable


def _reader(decode: Callable[[Raw], Any]) -> Callable[[Raw], _Read]:
    """Return a function that decodes a record whole, or says why it cannot."""

    def read(raw: Raw) -> _Read:
        try:
            return _Read(decode(raw), None)
        except (ValueError, RecursionError) as error:
            return _Read(None, _flaw(error))

    return read


def _unit_test(raw: Raw) -> UnitTest:
    test = asdict(_decode(raw, _UnitTest))
    test["success_criterions"] = [
        NamedSuccessCriterion(one.name, one.metric_id, _decode_criterion(bytes(one.criterion)))
        for one in test["success_criterions"]
    ]
    return UnitTest(**test)


def _evaluation_result(raw: Raw) -> EvaluationResult:
    result = asdict(_decode(raw, _EvaluationResult))
    result["source"] = _decode_tagged(result["source"], EvaluationSource, UnknownEvaluationSource)
    return EvaluationResult(**result)
