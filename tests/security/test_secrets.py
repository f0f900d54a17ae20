"""Whatever a failing batch leaves behind is searched for every secret that was used."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
import msgspec
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from amigo_async import BasicAuth, BatchResult, BearerAuth, Gate
from amigo_async.models import RunPage
from amigo_async.otel import Telemetry
from amigo_async.report import html as html_report
from amigo_async.report import junit, markdown, to_json
from amigo_async.testing import (
    ArtifactPlan,
    Fault,
    SetPlan,
)
from tests.support.evidence import Evidence
from tests.support.secret_scenes import KEY, ROUTES, Scene, calls, echoes, scene, timed_out

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


async def test_echoed_secrets_of_a_run(tmp_path: Path) -> None:
    async with scene(tmp_path) as told, told.client() as client:
        (run_id,) = told.runs(1)
        shown = await client.runs.get(run_id)
        token = told.sandbox.requests[-1].headers["authorization"].partition(" ")[2]
        page = msgspec.to_builtins(
            RunPage([shown], has_more=False, continuation_token=None, filter_values=None)
        )
        encoded = base64.b64encode(KEY.encode()).decode()
        said = [f"refused: {KEY}", f"Token={token}.", f"Key {encoded}", "a monkey, odd"]
        result = page["simulation_unit_test_set_runs"][0]["unit_test_run_results"][0]
        result["run_errors"] = said
        body = json.dumps(page).encode()
        told.sandbox.fault("list", Fault.garbage(body, "application/json"))
        run = await client.runs.get(run_id)
        assert await client.artifacts.download(run_id, tmp_path)
        told.check()
        assert told.secrets >= {KEY, token}
    assert run.runs_that_errored is not None
    errors = [met.error for met in run.runs_that_errored]
    assert errors == ["refused: ***", "Token=***.", "Key ***", "a monkey, odd"]
    assert not any(secret in repr(run) for secret in (KEY, token, encoded))
    assert (run.id, run.simulation_unit_test_set_id) == (run_id, shown.simulation_unit_test_set_id)


async def test_errors_hide_echoed_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with scene(tmp_path) as told:
        token = told.token()
        auths: dict[str, dict[str, Any]] = {
            KEY: {},
            token: {"auth": BearerAuth(token, "user-1")},
            str(base64.b64encode(f"sandbox_user-1:{token}".encode()), "ascii"): {
                "auth": BasicAuth(token, "user-1")
            },
        }
        for secret, settings in auths.items():
            # Two of the API, and the store, which a request goes to without a token.
            routes: Any = ("sign_in", "create", "store") if secret == KEY else ("list",)
            async with told.client(**settings) as client:
                for route in routes:
                    for name, fault in echoes(secret).items():
                        told.sandbox.fault(route, fault, times=30)
                        await told.attempt(f"{route}, {name}", calls(told, client)[route])
                        told.sandbox.clear_faults()
        told.evidence.records("log", caplog.records)
        told.check()


def failing(scene: Scene) -> list[str]:
    """Sets of every fate, one of them unknown to the service."""
    outcomes: list[Any] = ["passed", "failed", "errored"]
    plans = [
        SetPlan(
            seconds=(5.0, 60.0),
            outcome=outcome,
            artifacts_after=1.0,
            artifact=ArtifactPlan(size=300_000),
        )
        for outcome in outcomes
    ]
    sets = [set_id for plan in plans for set_id in scene.sandbox.add_sets(6, plan)]
    return [*sets, "0" * 24]


def storm(scene: Scene, share: float) -> None:
    """Let everything that echoes happen, and tokens and links expire."""
    for number, route in enumerate(ROUTES):
        faults = [*echoes(KEY).values()]
        if route == "store":
            faults += [Fault.expired_link(), Fault.wrong_offset()] * 4
            faults += [Fault.truncate()] * 20
        elif route != "sign_in":
            faults += [Fault.expired_token()] * 4
        scene.sandbox.faults_at_random(route, *faults, rate=share, seed=number)


@contextmanager
def traced(evidence: Evidence) -> Iterator[Telemetry]:
    """What is told through OpenTelemetry."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(tracers, meters)
    with tracers.get_tracer("test").start_as_current_span("all"):
        yield telemetry
    telemetry.close()
    evidence.add("spans", *(span.to_json() for span in exporter.get_finished_spans()))
    if measured := reader.get_metrics_data():
        evidence.add("metrics", measured.to_json())
    tracers.shutdown()
    meters.shutdown()


def write_reports(scene: Scene, result: BatchResult) -> None:
    gate = Gate(min_pass_rate=0.5)
    scene.evidence.values("result", result, *result.outcomes)
    for outcome in result.outcomes:
        if outcome.error is not None:
            scene.evidence.errors("outcome", outcome.error)
    for name, text in {
        "junit.xml": junit(result, gate=gate),
        "report.json": to_json(result),
        "report.md": markdown(result, gate=gate),
        "report.html": html_report(result, gate=gate, folder=str(scene.folder)),
    }.items():
        (scene.folder / name).write_text(text, encoding="utf-8")


async def batch(scene: Scene, **settings: Any) -> BatchResult:
    folder, clients = scene.folder, settings.pop("clients", {})
    async with scene.client(**clients) as client:
        result = await client.run_many(
            failing(scene),
            artifacts_dir=folder / "artifacts",
            journal=folder / "batch.jsonl",
            timeout=900.0,
            **settings,
        )
        scene.evidence.values("client", client, client.budgets(), vars(client))
    write_reports(scene, result)
    return result


async def leave_behind(scene: Scene) -> None:
    """Drop a client that was not closed, and a task whose error nobody has looked at."""
    unclosed = scene.client()
    await unclosed.runs.list()
    del unclosed
    async with scene.client() as client:
        scene.sandbox.fault("list", echoes(KEY)["status 403"])
        asking = asyncio.ensure_future(client.runs.list())
        await asyncio.wait([asking])
        del asking
    gc.collect()
    await asyncio.sleep(1.0)


async def test_failing_batch_hides_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path) as told:
        handled: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_debug(True)
        asyncio.get_running_loop().set_exception_handler(lambda _, about: handled.append(about))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            storm(told, 0.3)
            with traced(told.evidence) as telemetry:
                result = await batch(told, on_event=telemetry)
            told.sandbox.clear_faults()
            await leave_behind(told)
        told.evidence.values("warnings", *(str(vars(warning)) for warning in warned))
        told.evidence.values("handled", *handled)
        told.evidence.errors(
            "handled", *(about["exception"] for about in handled if "exception" in about)
        )
        told.evidence.records("log", caplog.records)
        told.check()
    said = [about["message"] for about in handled]
    assert "Task exception was never retrieved" in said
    assert any(message.startswith("Unclosed") for message in said), said
    assert len(result.counts) > 2, result.counts
    assert {"amigo_async", "asyncio"} <= {record.name for record in caplog.records}
    assert "amigo.request.retry" in "".join(told.evidence.texts["spans"])
    kinds = {type(event).__name__ for event in told.events}
    assert {"SignedIn", "RequestRetried", "RunFinished", "ArtifactSaved"} <= kinds
    assert sum(request.route == "sign_in" for request in told.sandbox.requests) > 2


MALFORMED: Final = {
    "a status line": "HTTP/1.1 {}\r\n\r\n",
    "the name of a header": "HTTP/1.1 200 OK\r\nX-Bad\x01{}: a\r\n\r\n",
    "a header": "HTTP/1.1 200 OK\r\nX-Bad: \x01{}\r\n\r\n",
    "a length": "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
    "an encoding": "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 99\r\n\r\n{}",
    "a chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n",
    "no HTTP": "{}\r\n\r\n",
}


@asynccontextmanager
async def answering(text: str, *, held: bool = False) -> AsyncIterator[str]:
    """A server that answers everything with `text`, in which it repeats what it was sent.

    Args:
        text: The answer.
        held: Whether the connection stays open.
    """
    opened: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = head.split()[1].rpartition("?")[2]
        sent = [line.partition(": ")[2] for line in head.splitlines() if "uthorization" in line]
        writer.write(text.format(" ".join([target, *sent])).encode())
        opened.append(writer)
        if not held:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
        for writer in opened:
            writer.close()


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
async def test_non_http_answer_is_hidden(tmp_path: Path, text: str) -> None:
    signature = "5f9e0c1d7ab3482694d8e7f60213bc45"
    async with scene(tmp_path) as told, answering(text) as base_url:
        told.secrets.add(signature)
        async with told.client(base_url=base_url, auth=BearerAuth(KEY)) as client:
            await told.attempt("api", client.runs.list)
        async with told.client() as client:
            where = f"{base_url}/key.zip?X-Amz-Signature={signature}"
            told.sandbox.fault("store", Fault.status(302, b"", {"Location": where}), times=9)
            await told.attempt("store", calls(told, client)["store"])
        assert {"api", "store"} <= told.evidence.texts.keys()
        told.check()


async def failed_after(call: Callable[[], Awaitable[Any]]) -> None:
    with anyio.fail_after(3.0):
        await call()


async def cancelled(call: Callable[[], Awaitable[Any]]) -> None:
    task = asyncio.ensure_future(call())
    await asyncio.sleep(3.0)
    task.cancel()
    await task


async def in_a_group(call: Callable[[], Awaitable[Any]]) -> None:
    async def fails() -> None:
        await asyncio.sleep(3.0)
        raise ZeroDivisionError

    async with asyncio.TaskGroup() as group:
        group.create_task(_awaited(call))
        group.create_task(fails())


async def _awaited(call: Callable[[], Awaitable[Any]]) -> None:
    try:
        await call()
    except asyncio.CancelledError as error:
        raise LookupError("while leaving") from error


HELD: Final = {"late": Fault.delay(1e4), "stalled": Fault.stall(), "slow": Fault.drip(500.0, 2_000)}


@pytest.mark.parametrize("ended", [timed_out, failed_after, cancelled, in_a_group])
async def test_abandoned_call_hides_secrets(
    tmp_path: Path, ended: Callable[..., Awaitable[None]]
) -> None:
    """The traceback of a cancellation goes down to where it came, which is deep in aiohttp."""
    async with (
        scene(tmp_path) as told,
        told.client(request_timeout=1e6) as client,
    ):
        for route in ROUTES:
            for name, fault in HELD.items():
                told.sandbox.fault(route, fault)
                call = calls(told, client)[route]
                await told.attempt(f"{route}, {name}", lambda: ended(call))  # noqa: B023
                told.sandbox.clear_faults()
        said = {text for texts in told.evidence.texts.values() for text in texts}
        assert any("CancelledError" in text or "ZeroDivisionError" in text for text in said)
        told.check()


async def test_half_read_store_error_is_hidden(tmp_path: Path) -> None:
    """S3 repeats the signature, and what was signed, in the body of its refusals."""
    refusal = (
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 9999\r\n\r\n"
        "<Error><Message>The signature does not match</Message><StringToSign>{}</StringToSign>"
    )
    async with (
        scene(tmp_path) as told,
        told.client() as client,
        answering(refusal, held=True) as base_url,
    ):
        signature = "5f9e0c1d7ab3482694d8e7f60213bc45"
        told.secrets.add(signature)
        where = f"{base_url}/key.zip?X-Amz-Signature={signature}"
        told.sandbox.fault("store", Fault.status(302, b"", {"Location": where}))
        await told.attempt("left", lambda: timed_out(calls(told, client)["store"]))
        assert any("source.py" in text for text in told.evidence.texts["left: locals"])
        told.check()


async def test_closed_session_hides_secrets(tmp_path: Path) -> None:
    async with scene(tmp_path) as told:
        for route in ROUTES:
            async with aiohttp.ClientSession() as given, told.client(http=given) as client:
                told.sandbox.fault(route, Fault.delay(3.0), times=30)
                call = asyncio.ensure_future(told.attempt(route, calls(told, client)[route]))
                await asyncio.sleep(1.0)
                await given.close()
                await call
            told.sandbox.clear_faults()
        told.check()
