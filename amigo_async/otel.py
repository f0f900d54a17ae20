"""OpenTelemetry spans and metrics, made from events. Needs the extra ``otel``.

There are three kinds of spans. ``amigo.run`` lasts from the start of a run to its end; its parent
is the span that is current when the run is started. It has the ids and the verdict as attributes,
an event for each progress and, if the batch reads names (``describe=True``) and the name of the set
is known before the span ends, ``amigo.unit_test_set.name``. ``amigo.artifact`` is its child and
lasts from the first byte of an artifact to the last, retries included. ``amigo.comparison`` is its
child too, if the run was compared with a baseline: it has the verdict, the ids of the baseline and
those of the unit tests that got worse as attributes, and no length. Retries and unresolved starts
are events of the span that is current when the client is called.

The metrics and their attributes:

===================== ========= ========= =====================================================
name                  kind      unit      attributes
===================== ========= ========= =====================================================
amigo.sign_ins        counter   {sign_in}
amigo.request.retries counter   {retry}   amigo.endpoint
amigo.request.hold    histogram s         amigo.endpoint; expected delay by the rate limit
amigo.run.starts      counter   {run}     amigo.run.attached
amigo.run.unresolved  counter   {start}
amigo.runs            counter   {run}     amigo.run.verdict, error.type; completed runs
amigo.comparisons     counter   {run}     amigo.comparison.verdict; compared with a baseline
amigo.run.duration    histogram s         amigo.run.verdict, error.type; runs started here
amigo.sets            counter   {set}     amigo.run.verdict, error.type; every set of a batch
amigo.batches         counter   {batch}   amigo.batch.passed
amigo.batch.duration  histogram s         amigo.batch.passed
amigo.artifact.size   histogram By
===================== ========= ========= =====================================================

For a run, ``error.type`` is ``failed`` or ``errored`` for such a verdict and is missing otherwise.
For a set it is the class of its error, such as ``ConflictError`` or ``ArtifactTimeoutError``; the
verdict if there was no error and the set did not pass; and missing otherwise. So ``amigo.sets``
counts what ``amigo.runs`` cannot: sets of which no run was started, whose run did not end in time,
or whose artifacts could not be downloaded.

Every span and every metric has the attribute ``amigo.organization.id``. Other ids, and names, are
attributes of spans only, and no attribute contains a secret.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from amigo_async.errors import missing_extra
from amigo_async.escaping import log_line
from amigo_async.events import (
    ArtifactProgress,
    ArtifactSaved,
    BatchFinished,
    Event,
    LimitHeld,
    NamesRead,
    RequestRetried,
    RunCompared,
    RunFinished,
    RunProgressed,
    RunStarted,
    SetFinished,
    SignedIn,
    StartUnresolved,
)
from amigo_async.version import __version__

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Span, Status, StatusCode, TracerProvider
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise missing_extra("amigo_async.otel", "otel") from None

__all__ = ["Telemetry"]

_SCOPE: Final = "amigo_async"

# Runs, downloads and names to remember; the end of some is never reported, and they must not pile
# up.
_REMEMBERED: Final = 4096

_BAD: Final = frozenset({"failed", "errored"})

# The default boundaries are for requests of less than ten seconds.
_SECONDS: Final = (1, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
_BYTES: Final = tuple(1024 * 4**power for power in range(12))


class Telemetry:
    """A listener that makes spans and metrics from events.

    Pass it to clients (``AmigoClient(on_event=telemetry)``) or to batches, but not to both, which
    would count everything twice. One instance serves any number of either. Batches report the end
    of their runs and sets, and their progress if they have a listener of their own; the end of a
    run that was started with `Runs.create` is not reported.

    Example::

        from amigo_async.otel import Telemetry

        telemetry = Telemetry()
        await client.run_many(set_ids, on_event=telemetry)
        telemetry.close()

    Args:
        tracer_provider: Provider for spans; None uses the global one.
        meter_provider: Provider for metrics; None uses the global one.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
        self._meters = _Meters(metrics.get_meter(_SCOPE, __version__, meter_provider))
        self._runs: OrderedDict[str, _RunSpan] = OrderedDict()
        self._fetches: OrderedDict[str, _Stopwatch] = OrderedDict()
        self._set_names: OrderedDict[str, str] = OrderedDict()
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            RunStarted: self._run_started,
            RunProgressed: self._run_progressed,
            RunFinished: self._run_finished,
            SetFinished: self._set_finished,
            RunCompared: self._run_compared,
            ArtifactProgress: self._artifact_progressed,
            ArtifactSaved: self._artifact_saved,
            RequestRetried: self._request_retried,
            StartUnresolved: self._start_unresolved,
            NamesRead: self._names_read,
        }

    def __call__(self, event: Event) -> None:
        """Record `event`, as `on_event` does."""
        self.on_event(event)

    def on_event(self, event: Event) -> None:
        """Record an event; must be called in the event loop that emits it.

        Args:
            event: The event.
        """
        self._meters.count(event)
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def close(self) -> None:
        """End the spans of runs whose end was not reported, without a verdict.

        Call it after the last event, in the event loop or later, before the provider is shut down:
        spans that have not ended are not exported.
        """
        while self._runs:
            self._forget_oldest_run()

    def _run_started(self, event: RunStarted) -> None:
        if event.run_id not in self._runs:  # attaching to a known run begins no span
            run = self._open(event, event.unit_test_set_id, event.run_id)
            run.started_here = not event.attached
            run.span.set_attribute("amigo.run.attached", event.attached)

    def _run_progressed(self, event: RunProgressed) -> None:
        attributes: dict[str, bool | int] = {
            "amigo.run.failed_metrics": event.failed_metrics,
            "amigo.run.errored": event.errored,
        }
        if event.done is not None and event.total is not None:
            attributes |= {"amigo.run.done": event.done, "amigo.run.total": event.total}
        run = self._known(event)
        run.span.add_event("amigo.run.progress", attributes, timestamp=run.stopwatch.now())

    def _run_finished(self, event: RunFinished) -> None:
        run = self._known(event)
        if run.finished:
            return  # reported by another batch before
        run.finished = True
        attributes = _verdict(event.verdict)
        measured = {**attributes, **_organization(event)}
        self._meters.runs.add(1, measured)
        if run.started_here:
            self._meters.run_duration.record(run.stopwatch.seconds(), measured)
        if not run.ended:
            run.end(attributes)

    def _set_finished(self, event: SetFinished) -> None:
        """End the span of a run whose end this batch has not seen, with the verdict of its set."""
        run = self._runs.get(event.run_id) if event.run_id is not None else None
        if run is not None and not run.ended:
            run.end(_set_verdict(event), event.error)

    def _run_compared(self, event: RunCompared) -> None:
        run = self._runs.get(event.run_id)
        measured = {"amigo.comparison.verdict": event.verdict, **_organization(event)}
        self._meters.comparisons.add(1, measured)
        began = (_Stopwatch() if run is None else run.stopwatch).now()
        self._tracer.start_span(
            "amigo.comparison",
            context=None if run is None else trace.set_span_in_context(run.span),
            attributes={
                **_organization(event),
                **self._set_attributes(event.unit_test_set_id),
                "amigo.run.id": log_line(event.run_id),
                "amigo.comparison.verdict": event.verdict,
                "amigo.comparison.baseline": [log_line(i) for i in event.baseline_run_ids],
                "amigo.comparison.regressed": [log_line(i) for i in event.regressed],
            },
            start_time=began,
        ).end(began)

    def _artifact_progressed(self, event: ArtifactProgress) -> None:
        if event.run_id in self._fetches:
            return
        if len(self._fetches) >= _REMEMBERED:
            self._fetches.popitem(last=False)
        run = self._runs.get(event.run_id)
        self._fetches[event.run_id] = _Stopwatch(None if run is None else run.stopwatch)

    def _artifact_saved(self, event: ArtifactSaved) -> None:
        fetch = self._fetches.pop(event.run_id, None)
        if fetch is None:
            return  # the file existed already
        self._meters.artifact_size.record(event.size, _organization(event))
        run = self._runs.get(event.run_id)
        self._tracer.start_span(
            "amigo.artifact",
            context=None if run is None else trace.set_span_in_context(run.span),
            attributes={
                **_organization(event),
                "amigo.run.id": log_line(event.run_id),
                "file.path": log_line(event.path),
                "file.size": event.size,
            },
            start_time=fetch.began,
        ).end(fetch.now())

    def _request_retried(self, event: RequestRetried) -> None:
        trace.get_current_span().add_event(
            "amigo.request.retry",
            {
                "amigo.endpoint": event.endpoint,
                "amigo.request.delay": event.delay,
                "exception.message": log_line(event.reason),
                "http.request.resend_count": event.attempt,
            },
        )

    def _start_unresolved(self, event: StartUnresolved) -> None:
        trace.get_current_span().add_event(
            "amigo.run.unresolved",
            {
                **self._set_attributes(event.unit_test_set_id),
                "exception.message": log_line(event.reason),
            },
        )

    def _names_read(self, event: NamesRead) -> None:
        self._set_names.update(event.unit_test_sets)
        while len(self._set_names) > _REMEMBERED:
            self._set_names.popitem(last=False)
        for run in self._runs.values():
            if run.set_id in event.unit_test_sets:
                run.span.set_attributes(self._set_attributes(run.set_id))

    def _set_attributes(self, set_id: str) -> dict[str, str]:
        """The id of a set, and its name if that is known."""
        name = self._set_names.get(set_id)
        named = {} if name is None else {"amigo.unit_test_set.name": log_line(name)}
        return {"amigo.unit_test_set.id": log_line(set_id), **named}

    def _known(self, event: RunProgressed | RunFinished) -> _RunSpan:
        """Return the span of a run; a new one for a run that another process has started."""
        known = self._runs.get(event.run_id)
        return known or self._open(event, event.unit_test_set_id, event.run_id)

    def _open(self, event: Event, set_id: str, run_id: str) -> _RunSpan:
        if len(self._runs) >= _REMEMBERED:
            self._forget_oldest_run()
        stopwatch = _Stopwatch()
        span = self._tracer.start_span(
            "amigo.run",
            attributes={
                **_organization(event),
                **self._set_attributes(set_id),
                "amigo.run.id": log_line(run_id),
            },
            start_time=stopwatch.began,
        )
        run = self._runs[run_id] = _RunSpan(span, stopwatch, set_id)
        return run

    def _forget_oldest_run(self) -> None:
        _, run = self._runs.popitem(last=False)
        if not run.ended:
            run.end()


class _Meters:
    """The instruments for metrics."""

    def __init__(self, meter: Meter) -> None:
        self._sign_ins = meter.create_counter("amigo.sign_ins", "{sign_in}", "Tokens issued.")
        self._retries = meter.create_counter(
            "amigo.request.retries", "{retry}", "Requests that failed and were retried."
        )
        self._hold = meter.create_histogram(
            "amigo.request.hold",
            "s",
            "Expected delay of requests by the rate limit.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._starts = meter.create_counter(
            "amigo.run.starts", "{run}", "Runs started or attached to."
        )
        self._unresolved = meter.create_counter(
            "amigo.run.unresolved", "{start}", "Starts with an unknown outcome."
        )
        self.runs = meter.create_counter("amigo.runs", "{run}", "Completed runs.")
        self._sets = meter.create_counter(
            "amigo.sets", "{set}", "Sets of batches, whatever became of them."
        )
        self._batches = meter.create_counter("amigo.batches", "{batch}", "Batches that ended.")
        self._batch_duration = meter.create_histogram(
            "amigo.batch.duration",
            "s",
            "Time from the opening of a batch to its end.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.comparisons = meter.create_counter(
            "amigo.comparisons", "{run}", "Runs compared with a baseline."
        )
        self.run_duration = meter.create_histogram(
            "amigo.run.duration",
            "s",
            "Time from the start of a run to its observed end.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.artifact_size = meter.create_histogram(
            "amigo.artifact.size",
            "By",
            "Size of downloaded artifacts.",
            explicit_bucket_boundaries_advisory=_BYTES,
        )

    def count(self, event: Event) -> None:
        """Record the metrics that need nothing but the event."""
        of = _organization(event)
        match event:
            case SignedIn():
                self._sign_ins.add(1, of)
            case RequestRetried(endpoint=endpoint):
                self._retries.add(1, {"amigo.endpoint": endpoint, **of})
            case LimitHeld(endpoint=endpoint, delay=delay):
                self._hold.record(delay, {"amigo.endpoint": endpoint, **of})
            case RunStarted(attached=attached):
                self._starts.add(1, {"amigo.run.attached": attached, **of})
            case StartUnresolved():
                self._unresolved.add(1, of)
            case SetFinished():
                self._sets.add(1, {**_set_verdict(event), **of})
            case BatchFinished(passed=passed, seconds=seconds):
                self._batches.add(1, {"amigo.batch.passed": passed, **of})
                self._batch_duration.record(seconds, {"amigo.batch.passed": passed, **of})


class _Stopwatch:
    """Measures time by the clock of the event loop, from a time of day read once at the start.

    The times of a span are thus consistent even if the system clock is set meanwhile.

    Args:
        other: Stopwatch to take the time of day from; None reads the system clock.

    Attributes:
        began: Time of the start, in nanoseconds since the epoch.
    """

    __slots__ = ("_began", "began")

    def __init__(self, other: _Stopwatch | None = None) -> None:
        self._began = asyncio.get_running_loop().time()
        self.began = time.time_ns() if other is None else other.now()

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return asyncio.get_running_loop().time() - self._began

    def now(self) -> int:
        """Return nanoseconds since the epoch; by the system clock if no event loop is running."""
        try:
            return self.began + int(self.seconds() * 1e9)
        except RuntimeError:
            return time.time_ns()


@dataclass(slots=True)
class _RunSpan:
    span: Span
    stopwatch: _Stopwatch
    set_id: str
    started_here: bool = False
    finished: bool = False  # whether the end of the run was reported
    ended: bool = False  # whether the span has ended

    def end(self, attributes: dict[str, str] | None = None, error: str | None = None) -> None:
        """End the span; keep only its context, as the parent of spans to come."""
        self.span.set_attributes(attributes or {})
        if attributes and "error.type" in attributes:
            said = None if error is None else log_line(error)
            self.span.set_status(Status(StatusCode.ERROR, said))
        self.span.end(self.stopwatch.now())
        self.span = trace.NonRecordingSpan(self.span.get_span_context())
        self.ended = True


def _organization(event: Event) -> dict[str, str]:
    known = event.organization_id
    return {} if known is None else {"amigo.organization.id": log_line(known)}


def _set_verdict(event: SetFinished) -> dict[str, str]:
    kind = event.error_type or (event.verdict if event.verdict != "passed" else None)
    bad = {} if kind is None else {"error.type": kind}
    return {"amigo.run.verdict": event.verdict, **bad}


def _verdict(verdict: str) -> dict[str, str]:
    bad = {"error.type": verdict} if verdict in _BAD else {}
    return {"amigo.run.verdict": verdict, **bad}
