"""Decodes the responses, each into its struct.

What msgspec has to know of a struct it learns with the first response, not with the import.

A page of runs is first split into its records, which are then decoded one by one: a record that
cannot be read costs no other. A wait needs no more of a record than its flags, so that the rest of
it is decoded once, when the run is given to somebody.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple, get_type_hints

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import asdict

from amigo_async.errors import DecodeError
from amigo_async.models import (
    ArtifactsLink,
    CreatedRun,
    FilterValues,
    MetricToEvaluate,
    Run,
    RunPage,
    SignIn,
    SuccessCriterion,
    UnitTestRunResult,
    UnitTestRunSpec,
    UnknownSuccessCriterion,
)
from amigo_async.redact import redact

_NULL: Final = Raw(b"null")
_DETAILS: Final = ("unit_test_run_specs", "unit_test_run_results")


class _Created(Struct, frozen=True):
    """What of `CreatedRun` is on the wire; a new field there is not our `attached`."""

    simulation_unit_test_set_run_id: str


def decode_sign_in(body: bytes) -> SignIn:
    """Decode the answer of a sign in.

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
    """Decode an answer that needs no body. Any JSON will do; a page of a proxy will not.

    Raises:
        msgspec.DecodeError: If there is a body that is not JSON.
    """
    if body:
        msgspec.json.decode(body)


def decode_created_run(body: bytes) -> CreatedRun:
    """Decode the answer of a create.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or has no id.
    """
    created = msgspec.json.decode(body, type=_Created)
    return CreatedRun(created.simulation_unit_test_set_run_id)


class RunRecord:
    """A run as a page has it: what a wait needs of it, and the rest undecoded.

    Args:
        flags: What a wait needs.
        raw: The whole record, as JSON.

    Attributes:
        id: The run.
        is_completed: Whether it is over.
        artifacts_generated: Whether its artifacts can be fetched.
        raw: The whole record; a copy, as a part would keep the whole page in memory.
    """

    __slots__ = ("_read", "artifacts_generated", "id", "is_completed", "raw")

    def __init__(self, flags: _Flags, raw: Raw) -> None:
        self.id = flags.id
        self.is_completed = flags.is_completed
        self.artifacts_generated = flags.artifacts_generated is True
        self.raw = raw.copy()
        self._read: _Read | None = None

    def same_as(self, other: RunRecord | None) -> bool:
        """Whether the service sent the same of the run as in `other`."""
        return other is not None and self.raw == other.raw

    @property
    def run(self) -> Run | None:
        """The run as far as it can be read, perhaps without its details; None if it cannot."""
        return self._decoded().run

    @property
    def error(self) -> DecodeError | None:
        """What of the run cannot be read; None if all of it can."""
        read = self._decoded()
        return None if read.flaw is None else run_decode_error(self.id, read.flaw, read.run)

    def _decoded(self) -> _Read:
        if self._read is None:
            self._read = _read_run(self.raw)
        return self._read


class RecordPage(NamedTuple):
    """A page of runs as a wait needs it.

    Attributes:
        records: The runs by id.
        errors: What is wrong with the runs of which not even that can be read, by id.
        has_more: Whether there are more runs.
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
            if run_id is not None:  # otherwise it is nobody's
                errors[run_id] = run_decode_error(run_id, _flaw(error))
        else:
            records[record.id] = record
    return RecordPage(records, errors, envelope.has_more is True)


def decode_run_page(body: bytes) -> RunPage:
    """Decode a page of runs, record by record.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or not a page of runs.
    """
    envelope: _Page = _decode_json(body, _Page)
    runs: list[Run] = []
    unreadable: dict[str, str] = {}
    for number, raw in enumerate(envelope.simulation_unit_test_set_runs):
        read = _read_run(raw)
        if read.run is not None:
            runs.append(read.run)
        if read.flaw is not None:
            unreadable[_id_of(raw) or f"[{number}]"] = read.flaw
    try:
        filter_values: FilterValues | None = _decode(envelope.filter_values, FilterValues | None)
    except (ValueError, RecursionError):
        filter_values = None  # no run depends on it
    return RunPage(runs, envelope.has_more, envelope.continuation_token, filter_values, unreadable)


def run_decode_error(run_id: str, flaw: str, run: Run | None = None) -> DecodeError:
    """The error for a run of which a list has a record that cannot be read."""
    return DecodeError(flaw, method="GET", path=f"run {run_id}", status=200, lasting=True, run=run)


class _Records(Struct):
    simulation_unit_test_set_runs: list[Raw]
    has_more: Any = False


class _Page(Struct):
    simulation_unit_test_set_runs: list[Raw]
    has_more: bool
    continuation_token: int | None
    filter_values: Raw = _NULL


class _Flags(Struct):
    """What a wait needs of a record; artifacts are there only if it says just that."""

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

    metrics_to_evaluate: list[_Metric]  # type: ignore[assignment]


class _Read(NamedTuple):
    """A run as far as it can be read, and what of it cannot."""

    run: Run | None
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
    """Decode `body`, even if it is JSON by the standard library's lights alone.

    That reads half of a surrogate pair, control characters, NaN and bytes that are not UTF-8.
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
    """`body` as JSON that msgspec reads; None if the standard library does not read it either.

    What is no character becomes U+FFFD, and what is no number that can be had becomes text.
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
    """`value` as msgspec encodes it; what has no half of a surrogate pair in it is encoded here."""
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


def _read_run(raw: Raw) -> _Read:
    """Decode a record, or what of it can be decoded."""
    read = _read_sound_run(raw)
    if read.flaw is not None:
        sound = _sound(raw)
        again = read if sound is None else _read_sound_run(Raw(sound))
        return again if again.flaw is None else read
    return read


def _read_sound_run(raw: Raw) -> _Read:
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
            # One list without the other would tell of repeats that never ran.
            return _Read(Run(**row | {name: [] for name in _DETAILS}), flaw)
    return _Read(Run(**row), None)


def _decode_results(raw: Raw) -> list[UnitTestRunResult | None]:
    results: list[UnitTestRunResult | None] = _decode(raw, list[UnitTestRunResult | None])
    return results


def _decode_specs(raw: Raw) -> list[UnitTestRunSpec]:
    """Decode the specs of a run with criteria of types that are not known."""
    criterion = cache(_decode_criterion)  # most metrics of a run have one of a few
    return [
        UnitTestRunSpec(
            **asdict(spec)
            | {
                "metrics_to_evaluate": [
                    MetricToEvaluate(
                        metric.metric_id,
                        metric.success_criterion_name,
                        criterion(bytes(metric.success_criterion)),
                    )
                    for metric in spec.metrics_to_evaluate
                ]
            }
        )
        for spec in _decode(raw, list[_Spec])
    ]


def _decode_criterion(raw: bytes) -> SuccessCriterion:
    try:
        criterion: SuccessCriterion = _decode(raw, SuccessCriterion)
    except msgspec.ValidationError:
        return UnknownSuccessCriterion(msgspec.json.decode(raw))
    known = not isinstance(criterion, UnknownSuccessCriterion)
    return criterion if known else UnknownSuccessCriterion(msgspec.json.decode(raw))


def _id_of(raw: Raw) -> str | None:
    try:
        identified: _Id = _decode(raw, _Id)
    except (ValueError, RecursionError):
        return None
    return identified.id


def _flaw(error: Exception) -> str:
    return redact(str(error)) or type(error).__name__
