"""Services that show what happens: a view of progress over a websocket, and the logs of tenants."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from amigo_async import AmigoClient, BatchResult, ConflictError
from amigo_async.events import Event
from amigo_async.testing import Fault, Sandbox, SetPlan

pytestmark = pytest.mark.anyio

CLIENT: Final = web.AppKey("client", AmigoClient)


async def watch(request: web.Request) -> web.WebSocketResponse:
    """Run the sets that the browser sends, and send it each event."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    order = await socket.receive_json()

    async def send(event: Event) -> None:
        await socket.send_bytes(msgspec.json.encode(event))

    await request.app[CLIENT].run_many(order["sets"], on_event=send, **order["options"])
    await socket.close()
    return socket


class View:
    """What a browser shows: a row for each set, until each has ended."""

    def __init__(self, set_ids: list[str]) -> None:
        self.rows = dict.fromkeys(set_ids, "waiting")
        self.errors: dict[str, str] = {}
        self.result: dict[str, Any] | None = None

    def show(self, event: dict[str, Any]) -> None:
        match event:
            case {"type": "RunStarted", "unit_test_set_id": set_id}:
                self.rows[set_id] = "running"
            case {"type": "SetFinished", "unit_test_set_id": set_id, "verdict": verdict}:
                assert self.rows[set_id] in ("waiting", "running"), "ended twice"
                self.rows[set_id] = verdict
                if event["error"]:
                    self.errors[set_id] = event["error_type"]
            case {"type": "BatchFinished"}:
                assert self.result is None, "ended twice"
                self.result = event
            case {"type": "RunProgressed" | "RunFinished", "unit_test_set_id": set_id}:
                assert self.rows[set_id] == "running", "an event after the last one"


async def shown(client: AmigoClient, set_ids: list[str], **options: Any) -> View:
    """The view of a batch once it needs no further event, which is before the socket is closed."""
    app = web.Application()
    app[CLIENT] = client
    app.router.add_get("/watch", watch)
    view = View(set_ids)
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(server.make_url("/watch")) as socket,
    ):
        await socket.send_json({"sets": set_ids, "options": options})
        while view.result is None:
            view.show(msgspec.json.decode(await socket.receive_bytes()))
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    return view


async def test_every_row_of_a_view_ends(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    busy = sandbox.add_set(SetPlan(seconds=3600.0))
    await client.runs.create(busy)
    plans = {
        "passed": SetPlan(seconds=30.0),
        "failed": SetPlan(seconds=30.0, outcome="failed"),
        "errored": SetPlan(seconds=30.0, outcome="errored"),
        "cancelled": SetPlan(seconds=60.0, cancelled_at=5.0),
        "timed_out": SetPlan(seconds=3600.0),
        "without artifacts": SetPlan(seconds=30.0, artifacts_after=None),
    }
    sets = {name: sandbox.add_set(plan) for name, plan in plans.items()}
    sets |= {"unknown": "f" * 24, "busy": busy}
    sandbox.fault("create", Fault.drop(after_work=True))
    view = await shown(client, [*sets.values()], artifacts_dir=str(tmp_path), timeout=300.0)
    assert {name: view.rows[set_id] for name, set_id in sets.items()} == {
        **{name: name for name in plans if name != "without artifacts"},
        "without artifacts": "passed",
        "unknown": "not_started",
        "busy": "not_started",
    }
    assert {name: view.errors.get(set_id) for name, set_id in sets.items()} == {
        **dict.fromkeys(plans),
        "timed_out": "WaitTimeoutError",
        "without artifacts": "ArtifactTimeoutError",
        "unknown": "NotFoundError",
        "busy": ConflictError.__name__,
    }
    assert view.result is not None
    assert view.result["counts"] == Counter(view.rows.values())
    assert view.result["passed"] is False


async def test_rows_of_a_stopped_batch_end(client: AmigoClient, sandbox: Sandbox) -> None:
    failing = sandbox.add_set(SetPlan(seconds=5.0, outcome="failed"))
    others = sandbox.add_sets(25, SetPlan(seconds=3600.0, cancel_after=1.0))
    view = await shown(client, [failing, *others], on_failure="cancel_rest")
    assert Counter(view.rows.values()) == {"failed": 1, "cancelled": 19, "not_started": 6}


async def test_each_log_line_of_fifty_tenants_names_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "amigo_async")
    tenants = [f"tenant-{number}" for number in range(50)]
    owners: dict[str, str] = {}  # the tenant of each set and run
    async with Sandbox(plan=SetPlan(seconds=(5.0, 20.0))) as sandbox:

        def failing(_: Event) -> None:
            raise ZeroDivisionError

        async def run(tenant: str) -> BatchResult:
            sandbox.add_user("user", organization_id=tenant)
            sandbox.add_api_key("key", "secret-of-the-tenant", organization_id=tenant)
            sets = [sandbox.add_set(organization_id=tenant) for _ in range(10)]
            async with sandbox.client(
                organization_id=tenant,
                api_key="secret-of-the-tenant",
                api_key_id="key",
                user_id="user",
                on_event=failing if tenant == "tenant-7" else None,
            ) as client:
                result = await client.run_many(sets)
            for outcome in result.outcomes:
                owners[outcome.unit_test_set_id] = owners[outcome.run_id or ""] = tenant
            return result

        sandbox.faults_at_random("list", Fault.status(503), rate=0.2)
        results = await asyncio.gather(*map(run, tenants))
    assert all(result.passed for result in results)
    records = [record for record in caplog.records if record.name == "amigo_async"]
    kinds = Counter(type(record.__dict__["amigo_event"]).__name__ for record in records)
    assert {"SignedIn", "RequestRetried", "RunStarted", "NoneType"} <= set(kinds)
    assert (kinds["SetFinished"], kinds["BatchFinished"]) == (500, 50)
    of_tenants: Counter[str] = Counter()
    for record in records:
        tenant = record.__dict__["amigo_organization_id"]
        of_tenants[tenant] += 1
        assert record.getMessage().startswith(f"[{tenant}] ")
        event = record.__dict__["amigo_event"]
        for name in ("unit_test_set_id", "run_id"):
            known = getattr(event, name, None)
            assert known is None or owners[known] == tenant
    assert set(of_tenants) == set(tenants)
