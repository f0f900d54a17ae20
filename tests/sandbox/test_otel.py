"""Spans and metrics are made from what a batch tells, and hold no more than is needed."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from amigo_async import ConfigurationError, Gate, NotFoundError, otel
from amigo_async.events import (
    ArtifactProgress,
    ArtifactSaved,
    NamesRead,
    RequestRetried,
    RunCompared,
    RunFinished,
    RunProgressed,
    RunStarted,
    SetFinished,
    StartUnresolved,
)
from amigo_async.otel import Telemetry
from amigo_async.testing import ArtifactPlan, Fault, Sandbox, SetPlan

pytestmark = pytest.mark.anyio

STARTED = RunStarted("set-1", "run-1")
FINISHED = RunFinished("set-1", "run-1", "passed")
ORGANIZATION = "amigo.organization.id"


class Observer:
    """A telemetry, and what has come of it."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader])
        self.telemetry = Telemetry(self.tracers, self.meters)

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        return [s for s in self._exporter.get_finished_spans() if name in (None, s.name)]

    def instruments(self) -> dict[str, Metric]:
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        metric = self.instruments().get(name)
        return (
            []
            if metric is None
            else [(dict(p.attributes or {}), p) for p in metric.data.data_points]
        )

    def counts(self, name: str) -> dict[Any, float]:
        """How often, by the values of the attributes other than the organization."""
        return {
            tuple(v for k, v in attributes.items() if k != ORGANIZATION): _count(point)
            for attributes, point in self.points(name)
        }


def _count(point: HistogramDataPoint | NumberDataPoint) -> float:
    return point.count if isinstance(point, HistogramDataPoint) else point.value


def attributes(told: ReadableSpan | SpanEvent) -> dict[str, Any]:
    return dict(told.attributes or {})


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


@pytest.fixture
def observer() -> Iterator[Observer]:
    made = Observer()
    yield made
    made.telemetry.close()
    made.tracers.shutdown()
    made.meters.shutdown()


async def test_a_span_for_each_run_of_a_batch(sandbox: Sandbox, observer: Observer) -> None:
    verdicts: list[Any] = ["passed", "failed", "errored"]
    ids = [sandbox.add_set(SetPlan(seconds=60.0, outcome=outcome)) for outcome in verdicts]
    async with sandbox.client() as client:
        result = await client.run_many(ids, on_event=observer.telemetry)
    spans = {attributes(s)["amigo.unit_test_set.id"]: s for s in observer.spans("amigo.run")}
    assert set(spans) == set(ids)
    for outcome, verdict in zip(result.outcomes, verdicts, strict=True):
        span = spans[outcome.unit_test_set_id]
        bad = verdict != "passed"
        assert attributes(span) == {
            ORGANIZATION: "sandbox",
            "amigo.unit_test_set.id": outcome.unit_test_set_id,
            "amigo.run.id": outcome.run_id,
            "amigo.run.attached": False,
            "amigo.run.verdict": verdict,
        } | ({"error.type": verdict} if bad else {})
        assert span.status.status_code is (StatusCode.ERROR if bad else StatusCode.UNSET)
        assert 55 <= seconds(span) <= 90
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == "amigo_async"


async def test_an_undecided_run_is_no_error(sandbox: Sandbox, observer: Observer) -> None:
    plans = [SetPlan(seconds=5.0, unit_tests=1, repeats=repeats) for repeats in (5, 29)]
    gate = Gate(min_pass_rate=0.9, confidence=0.95)
    async with sandbox.client() as client:
        ids = [sandbox.add_set(plan) for plan in plans]
        await client.run_many(ids, on_event=observer.telemetry, gate=gate)
    spans = {attributes(s)["amigo.unit_test_set.id"]: s for s in observer.spans("amigo.run")}
    told = attributes(spans[ids[0]])
    assert told["amigo.run.verdict"] == "undecided"
    assert "error.type" not in told
    assert spans[ids[0]].status.status_code is StatusCode.UNSET


async def test_a_span_has_the_name_of_its_set(sandbox: Sandbox, observer: Observer) -> None:
    ids = [sandbox.add_set(name=f"Set {number}") for number in range(25)]
    async with sandbox.client() as client:
        await client.run_many(ids, describe=True, on_event=observer.telemetry)
    spans = [attributes(span) for span in observer.spans("amigo.run")]
    assert {s["amigo.unit_test_set.id"]: s["amigo.unit_test_set.name"] for s in spans} == {
        set_id: f"Set {number}" for number, set_id in enumerate(ids)
    }


async def test_a_name_may_come_before_the_start_and_after_the_end(observer: Observer) -> None:
    for event in (
        STARTED,
        RunStarted("set-2", "run-2"),
        NamesRead({"set-1": "One", "set-3": "Three"}, {"set-2": "a unit test"}, {}),
        RunStarted("set-3", "run-3"),
        *(RunFinished(f"set-{number}", f"run-{number}", "passed") for number in (1, 2, 3)),
        NamesRead({"set-2": "Two"}, {}, {}),
    ):
        observer.telemetry(event)
    spans = [attributes(span) for span in observer.spans("amigo.run")]
    assert [s.get("amigo.unit_test_set.name") for s in spans] == ["One", None, "Three"]


async def test_progress_within_the_span(sandbox: Sandbox, observer: Observer) -> None:
    set_id = sandbox.add_set(SetPlan(seconds=60.0, outcome="failed", trouble_at=0.2, repeats=5))
    async with sandbox.client() as client:
        await client.run_many([set_id], on_event=observer.telemetry)
    (span,) = observer.spans()
    assert {event.name for event in span.events} == {"amigo.run.progress"}
    seen = [attributes(event) for event in span.events]
    assert any(0 < each["amigo.run.done"] < each["amigo.run.total"] for each in seen)
    assert seen[-1]["amigo.run.failed_metrics"] is True
    assert not any(each["amigo.run.errored"] for each in seen)
    assert span.start_time is not None
    assert span.end_time is not None
    times = [event.timestamp for event in span.events]
    assert span.start_time <= min(times) <= max(times) <= span.end_time
    assert max(times) - min(times) > 1e9


async def test_spans_are_children_of_callers(
    sandbox: Sandbox, observer: Observer, tmp_path: Path
) -> None:
    plan = SetPlan(seconds=5.0, artifact=ArtifactPlan(size=300_000))
    async with sandbox.client(on_event=observer.telemetry.on_event) as client:
        with observer.tracers.get_tracer("mine").start_as_current_span("nightly") as mine:
            result = await client.run_many([sandbox.add_set(plan)], artifacts_dir=tmp_path)
    (run,), (artifact,) = observer.spans("amigo.run"), observer.spans("amigo.artifact")
    assert run.context is not None
    assert run.parent == mine.get_span_context()
    assert artifact.parent == run.context
    (outcome,) = result.outcomes
    size = len(sandbox.artifact_bytes(str(outcome.run_id)))
    assert attributes(artifact) == {
        ORGANIZATION: "sandbox",
        "amigo.run.id": outcome.run_id,
        "file.path": str(outcome.artifacts),
        "file.size": size,
    }
    assert run.end_time is not None
    assert artifact.start_time is not None
    assert artifact.start_time >= run.end_time
    ((_, point),) = observer.points("amigo.artifact.size")
    assert (point.count, point.sum) == (1, size)


async def test_what_a_batch_is_counted_as(
    sandbox: Sandbox, observer: Observer, tmp_path: Path
) -> None:
    sandbox.fault("list", Fault.status(503), times=2)
    ids = [*sandbox.add_sets(21, SetPlan(seconds=30.0)), sandbox.add_set(SetPlan(outcome="failed"))]
    async with sandbox.client(on_event=observer.telemetry) as client:
        result = await client.run_many(ids, artifacts_dir=tmp_path)
    assert result.counts == {"passed": 21, "failed": 1}
    ended = {("passed",): 21, ("failed", "failed"): 1}
    assert observer.counts("amigo.sign_ins") == {(): 1}
    assert observer.counts("amigo.request.retries") == {("list",): 2}
    assert observer.counts("amigo.request.hold") == {("create",): 2}
    assert observer.counts("amigo.run.starts") == {(False,): 22}
    assert observer.counts("amigo.runs") == ended
    assert observer.counts("amigo.run.duration") == ended
    assert observer.counts("amigo.sets") == ended
    assert observer.counts("amigo.batches") == {(False,): 1}
    assert observer.counts("amigo.batch.duration") == {(False,): 1}
    assert observer.counts("amigo.artifact.size") == {(): 22}
    named = [
        attributes for name in observer.instruments() for attributes, _ in observer.points(name)
    ]
    assert {each[ORGANIZATION] for each in named} == {"sandbox"}
    hold = observer.points("amigo.request.hold")[0][1]
    assert 55 <= hold.min <= hold.max <= 65
    passed = next(p for a, p in observer.points("amigo.run.duration") if "error.type" not in a)
    assert 29 <= passed.min <= passed.max <= 50
    assert passed.explicit_bounds[-1] == 7200


async def test_units_and_namespace(sandbox: Sandbox, observer: Observer, tmp_path: Path) -> None:
    sandbox.fault("list", Fault.status(503))
    async with sandbox.client(on_event=observer.telemetry) as client:
        await client.run_many(sandbox.add_sets(21), artifacts_dir=tmp_path)
    observer.telemetry(StartUnresolved("set-1", "reason"))
    units = {metric.name: metric.unit for metric in observer.instruments().values()}
    assert units == {
        "amigo.sign_ins": "{sign_in}",
        "amigo.request.retries": "{retry}",
        "amigo.request.hold": "s",
        "amigo.run.starts": "{run}",
        "amigo.run.unresolved": "{start}",
        "amigo.runs": "{run}",
        "amigo.run.duration": "s",
        "amigo.sets": "{set}",
        "amigo.batches": "{batch}",
        "amigo.batch.duration": "s",
        "amigo.artifact.size": "By",
    }
    documented = otel.__doc__ or ""
    assert all(f"{name} " in documented and str(unit) in documented for name, unit in units.items())


async def test_attached_run_has_no_duration(sandbox: Sandbox, observer: Observer) -> None:
    set_id = sandbox.add_set(SetPlan(seconds=60.0))
    sandbox.start_run(set_id)
    async with sandbox.client() as client:
        await client.run_many([set_id], on_conflict="attach", on_event=observer.telemetry)
    (span,) = observer.spans()
    assert attributes(span)["amigo.run.attached"] is True
    assert observer.counts("amigo.run.starts") == {(True,): 1}
    assert observer.counts("amigo.runs") == {("passed",): 1}
    assert observer.points("amigo.run.duration") == []


async def test_resumed_run_has_a_span(sandbox: Sandbox, observer: Observer, tmp_path: Path) -> None:
    set_id, journal = sandbox.add_set(SetPlan(seconds=600.0)), tmp_path / "batch.jsonl"
    async with sandbox.client() as client:
        with anyio.move_on_after(60):
            await client.run_many([set_id], journal=journal)
        await client.run_many([set_id], journal=journal, on_event=observer.telemetry)
    (span,) = observer.spans()
    assert attributes(span)["amigo.run.verdict"] == "passed"
    assert "amigo.run.attached" not in attributes(span)
    assert observer.points("amigo.run.starts") == []
    assert observer.points("amigo.run.duration") == []
    assert observer.counts("amigo.runs") == {("passed",): 1}


async def test_every_set_is_counted(sandbox: Sandbox, observer: Observer, tmp_path: Path) -> None:
    ids = [
        sandbox.add_set(SetPlan(seconds=5.0)),
        "f" * 24,
        sandbox.add_set(SetPlan(seconds=3600.0)),
        sandbox.add_set(SetPlan(seconds=5.0, artifacts_after=None)),
        sandbox.add_set(SetPlan(seconds=5.0, outcome="failed", artifacts_after=None)),
    ]
    async with sandbox.client(on_event=observer.telemetry) as client:
        await client.run_many(ids, artifacts_dir=tmp_path, timeout=100.0)
    assert observer.counts("amigo.sets") == {
        ("passed",): 1,
        ("not_started", "NotFoundError"): 1,
        ("timed_out", "WaitTimeoutError"): 1,
        ("passed", "ArtifactTimeoutError"): 1,
        ("failed", "ArtifactTimeoutError"): 1,
    }
    assert observer.counts("amigo.batches") == {(False,): 1}
    ((_, taken),) = observer.points("amigo.batch.duration")
    assert 100 <= taken.sum < 110
    spans = {attributes(s)["amigo.unit_test_set.id"]: s for s in observer.spans("amigo.run")}
    assert set(spans) == {*ids} - {"f" * 24}
    late = spans[ids[2]]
    assert attributes(late)["amigo.run.verdict"] == "timed_out"
    assert attributes(late)["error.type"] == "WaitTimeoutError"
    assert late.status.status_code is StatusCode.ERROR
    assert "not completed within" in (late.status.description or "")
    assert spans[ids[3]].status.status_code is StatusCode.UNSET  # the run itself passed


async def test_run_that_ends_after_its_set_is_counted(observer: Observer) -> None:
    late = SetFinished("set-1", "run-1", "timed_out")
    for event in (STARTED, late, FINISHED, FINISHED, SetFinished("set-1", "run-1", "passed")):
        observer.telemetry(event)
    (span,) = observer.spans()
    assert attributes(span)["error.type"] == "timed_out"
    assert observer.counts("amigo.runs") == {("passed",): 1}
    assert observer.counts("amigo.run.duration") == {("passed",): 1}
    assert observer.counts("amigo.sets") == {("timed_out", "timed_out"): 1, ("passed",): 1}


async def test_unended_run_has_no_verdict(sandbox: Sandbox, observer: Observer) -> None:
    set_id = sandbox.add_set(SetPlan(seconds=3600.0))
    async with sandbox.client(on_event=observer.telemetry) as client:
        created = await client.runs.create(set_id)
    assert observer.spans() == []
    observer.telemetry.close()
    (late,) = observer.spans()
    assert attributes(late)["amigo.run.id"] == created.simulation_unit_test_set_run_id
    assert "amigo.run.verdict" not in attributes(late)
    assert late.status.status_code is StatusCode.UNSET
    observer.telemetry.close()
    assert len(observer.spans()) == 1


async def test_retries_are_on_the_callers_span(sandbox: Sandbox, observer: Observer) -> None:
    sandbox.fault("list", Fault.status(503))
    async with sandbox.client(on_event=observer.telemetry) as client:
        with observer.tracers.get_tracer("mine").start_as_current_span("look"):
            with pytest.raises(NotFoundError):
                await client.runs.get("f" * 24)
            observer.telemetry(StartUnresolved("set-1", "nobody answers"))
    (span,) = observer.spans()
    retry, unresolved = span.events
    assert retry.name == "amigo.request.retry"
    told = attributes(retry)
    assert told["amigo.endpoint"] == "list"
    assert told["http.request.resend_count"] == 1
    assert "503" in told["exception.message"]
    assert 0 <= told["amigo.request.delay"] <= 0.5
    assert unresolved.name == "amigo.run.unresolved"
    assert attributes(unresolved) == {
        "amigo.unit_test_set.id": "set-1",
        "exception.message": "nobody answers",
    }
    assert observer.counts("amigo.run.unresolved") == {(): 1}


async def test_retry_without_a_span_is_counted(observer: Observer) -> None:
    observer.telemetry(RequestRetried("list", 1, 0.5, "reason"))
    assert observer.spans() == []
    assert observer.counts("amigo.request.retries") == {("list",): 1}


async def test_two_waiters_one_span(observer: Observer) -> None:
    for event in (STARTED, RunStarted("set-1", "run-1", attached=True), FINISHED, FINISHED):
        observer.telemetry(event)
    observer.telemetry(RunProgressed("set-1", "run-1", 1, 2, failed_metrics=False, errored=False))
    (span,) = observer.spans()
    assert attributes(span)["amigo.run.attached"] is False
    assert span.events == ()
    assert observer.counts("amigo.runs") == {("passed",): 1}


async def test_hidden_progress_has_no_numbers(observer: Observer) -> None:
    hidden = RunProgressed("set-1", "run-1", None, None, failed_metrics=True, errored=False)
    for event in (STARTED, hidden, FINISHED):
        observer.telemetry(event)
    ((progress,),) = [span.events for span in observer.spans()]
    assert attributes(progress) == {
        "amigo.run.failed_metrics": True,
        "amigo.run.errored": False,
    }


async def test_artifact_duration(observer: Observer) -> None:
    observer.telemetry(ArtifactProgress("run-1", 1, 10))
    await anyio.sleep(30)
    observer.telemetry(ArtifactProgress("run-1", 10, 10))
    observer.telemetry(ArtifactSaved("run-1", "a.zip", 10))
    (span,) = observer.spans()
    assert seconds(span) == pytest.approx(30, abs=1)
    assert span.parent is None


async def test_existing_artifact_is_no_download(observer: Observer) -> None:
    observer.telemetry(ArtifactSaved("run-1", "a.zip", 10))
    assert observer.spans() == []
    assert observer.points("amigo.artifact.size") == []


async def test_endless_runs_do_not_pile_up(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otel, "_REMEMBERED", 3)
    for number in range(5):
        observer.telemetry(RunStarted("set-1", f"run-{number}"))
        observer.telemetry(ArtifactProgress(f"run-{number}", 1, 10))
    assert [attributes(s)["amigo.run.id"] for s in observer.spans()] == ["run-0", "run-1"]
    for number in range(5):
        observer.telemetry(ArtifactSaved(f"run-{number}", "a.zip", 10))
    assert observer.counts("amigo.artifact.size") == {(): 3}
    observer.telemetry(RunFinished("set-1", "run-2", "passed"))
    observer.telemetry(RunStarted("set-1", "run-5"))  # what has ended is not ended again
    assert len(observer.spans("amigo.run")) == 3


async def test_exports_have_no_secret(sandbox: Sandbox, observer: Observer, tmp_path: Path) -> None:
    for route in ("sign_in", "create", "list", "artifacts"):
        sandbox.fault(route, Fault.drop())
        sandbox.fault(route, Fault.status(503))
    async with sandbox.client(on_event=observer.telemetry) as client:
        with observer.tracers.get_tracer("mine").start_as_current_span("mine"):
            result = await client.run_many(sandbox.add_sets(2), artifacts_dir=tmp_path)
    assert result.passed
    exported = "".join(span.to_json() for span in observer.spans())
    exported += "".join(metric.to_json() for metric in observer.instruments().values())
    assert "amigo.request.retry" in exported
    assert "file.path" in exported
    for secret in (str(sandbox.api_key), sandbox.api_key_id, "X-Amz-", "eyJ", "Bearer"):
        assert secret not in exported


async def test_global_providers(monkeypatch: pytest.MonkeyPatch, observer: Observer) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: observer.tracers)
    monkeypatch.setattr(
        "opentelemetry.metrics._internal.get_meter_provider", lambda: observer.meters
    )
    telemetry = Telemetry()
    for event in (STARTED, FINISHED):
        telemetry(event)
    assert len(observer.spans("amigo.run")) == 1
    assert observer.counts("amigo.runs") == {("passed",): 1}


async def test_no_sdk_no_effect(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", trace.NoOpTracerProvider)
    monkeypatch.setattr(
        "opentelemetry.metrics._internal.get_meter_provider", metrics.NoOpMeterProvider
    )
    async with sandbox.client(on_event=Telemetry()) as client:
        assert (await client.run_many(sandbox.add_sets(2))).passed
    assert "listener failed" not in caplog.text


def test_closing_after_the_loop(observer: Observer) -> None:
    async def start() -> None:
        observer.telemetry(STARTED)

    asyncio.run(start())
    observer.telemetry.close()
    (span,) = observer.spans()
    assert 0 <= seconds(span) < 10


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "amigo_async.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"install amigo-async\[otel\] "):
        importlib.import_module("amigo_async.otel")


def test_other_missing_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "opentelemetry.metrics":
                raise ModuleNotFoundError(name="importlib_metadata")

    monkeypatch.delitem(sys.modules, "amigo_async.otel")
    monkeypatch.delitem(sys.modules, "opentelemetry.metrics")
    monkeypatch.delattr("opentelemetry.metrics")
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("amigo_async.otel")


async def test_any_attribute_is_exportable(observer: Observer) -> None:
    """One that is not UTF-8 would cost all spans that are exported with it."""
    odd = "x\ud800\n##vso[a]"
    with observer.tracers.get_tracer("test").start_as_current_span("caller"):
        for event in (
            RunStarted(odd, odd),
            NamesRead({odd: odd}, {}, {}),
            ArtifactProgress(odd, 1, 2),
            ArtifactSaved(odd, f"/{odd}", 2),
            RunFinished(odd, odd, "passed", organization_id=odd),
            RequestRetried("list", 1, 0.5, "GET https://h/k?hunter2"),
            StartUnresolved(odd, odd),
        ):
            observer.telemetry.on_event(event)
    spans = observer.spans()
    assert {span.name for span in spans} == {"amigo.run", "amigo.artifact", "caller"}
    told = [attributes(span) for span in spans] + [attributes(e) for s in spans for e in s.events]
    texts = [value for one in told for value in one.values() if isinstance(value, str)]
    assert texts.count("x\ufffd # #vso[a]") == 7
    assert "/x\ufffd # #vso[a]" in texts
    assert "GET https://h/k?***" in texts
    assert not any("\ud800" in text or "##" in text for text in texts)


async def test_comparison_is_a_child_of_its_run() -> None:
    observer = Observer()
    compared = RunCompared("set-1", "run-1", "regressed", ("old-1", "old-2"), ("test-1",))
    for event in (STARTED, FINISHED, compared):
        observer.telemetry(event)
    [run], [comparison] = observer.spans("amigo.run"), observer.spans("amigo.comparison")
    assert comparison.parent is not None
    assert run.context is not None
    assert comparison.parent.span_id == run.context.span_id
    assert dict(comparison.attributes or {}) == {
        "amigo.unit_test_set.id": "set-1",
        "amigo.run.id": "run-1",
        "amigo.comparison.verdict": "regressed",
        "amigo.comparison.baseline": ("old-1", "old-2"),
        "amigo.comparison.regressed": ("test-1",),
    }
    [(attributes, point)] = observer.points("amigo.comparisons")
    assert (attributes, point.value) == ({"amigo.comparison.verdict": "regressed"}, 1)


async def test_comparison_of_an_unknown_run_is_recorded() -> None:
    observer = Observer()
    observer.telemetry(RunCompared("set-1", "run-9", "too_few", (), ()))
    [comparison] = observer.spans()
    assert comparison.parent is None
