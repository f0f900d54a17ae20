"""What goes wrong on purpose, as the client sees it and as it really was."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
import yarl

from amigo_async.testing import ArtifactPlan, Fault, Sandbox, SetPlan
from tests.support.sandbox_kit import Caller, serving, sleep

pytestmark = pytest.mark.anyio

LONG = SetPlan(seconds=1000)
PLAN = SetPlan(seconds=1, artifacts_after=1, artifact=ArtifactPlan(size=1000))


async def ask(caller: Caller, route: Any, run_id: str, link: str) -> Any:
    """A request of a route that succeeds where nothing goes wrong."""
    if route == "sign_in":
        return await caller.sign_in()
    if route == "create":
        return await caller.create(caller.sandbox.add_set())
    if route == "list":
        return await caller.call("GET")
    if route == "cancel":
        return await caller.cancel(caller.sandbox.start_run(caller.sandbox.add_set(LONG)))
    if route == "artifacts":
        return await caller.artifacts(run_id)
    return await caller.fetch("GET", link)


ROUTES: list[Any] = ["sign_in", "create", "list", "cancel", "artifacts", "store"]
BODIES: list[Any] = [route for route in ROUTES if route != "cancel"]


async def ready(caller: Caller) -> tuple[str, str]:
    run_id = await caller.start(caller.sandbox.add_set())
    await sleep(3)
    return run_id, await caller.link(run_id)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("after_work", "reset"), [(False, False), (True, True)])
async def test_drop(route: Any, after_work: bool, reset: bool) -> None:
    async with serving(plan=PLAN) as caller:
        run_id, link = await ready(caller)
        started = len(caller.sandbox.runs)
        # What may be repeated aiohttp sends again by itself, once.
        times = 1 if route in ("sign_in", "create") else 2
        caller.sandbox.fault(route, Fault.drop(after_work=after_work, reset=reset), times=times)
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask(caller, route, run_id, link)
        await sleep(1)
        asked = [request for request in caller.sandbox.requests if request.route == route]
        assert (asked[-1].status, asked[-1].ended is None) == (None, False)
        if route == "create":
            assert len(caller.sandbox.runs) - started == after_work
        if route == "cancel":
            assert caller.sandbox.runs[-1].cancelled is after_work
        assert (await ask(caller, route, run_id, link)).status < 300


@pytest.mark.parametrize("route", ROUTES)
async def test_delay(route: Any) -> None:
    async with serving(plan=PLAN) as caller:
        run_id, link = await ready(caller)
        for after_work in (False, True):
            caller.sandbox.fault(route, Fault.delay(50, after_work=after_work))
            before = caller.now()
            answer = await ask(caller, route, run_id, link)
            assert answer.status < 300
            assert 50 <= caller.now() - before < 52


@pytest.mark.parametrize("after_work", [False, True])
async def test_delayed_work_is_done(after_work: bool) -> None:
    async with serving(plan=PLAN) as caller:
        set_id = caller.sandbox.add_set()
        caller.sandbox.fault("create", Fault.delay(50, after_work=after_work))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caller.create(set_id), 10)
        assert len(caller.sandbox.runs) == after_work
        await sleep(50)
        assert len(caller.sandbox.runs) == 1


@pytest.mark.parametrize("route", BODIES)
async def test_truncate(route: Any) -> None:
    async with serving(plan=PLAN) as caller:
        run_id, link = await ready(caller)
        for after_bytes in (None, 0, 7):
            caller.sandbox.fault(route, Fault.truncate(after_bytes))
            with pytest.raises(aiohttp.ClientPayloadError):
                await ask(caller, route, run_id, link)
            await sleep(1)
            asked = [request for request in caller.sandbox.requests if request.route == route]
            assert asked[-1].status in (200, 201)
            if after_bytes is not None:
                assert asked[-1].sent == after_bytes
        assert (await ask(caller, route, run_id, link)).status < 300


async def test_truncate_after_bytes() -> None:
    async with serving(plan=PLAN) as caller:
        run_id, link = await ready(caller)
        data = caller.sandbox.artifact_bytes(run_id)
        for fault, wanted in ((Fault.truncate(600), 600), (Fault.truncate(), 450)):
            caller.sandbox.fault("store", fault)
            headers = {"Range": "bytes=100-"}
            url = yarl.URL(link, encoded=True)
            async with caller.http.get(url, headers=headers) as response:
                assert response.headers["Content-Length"] == "900"
                found = b""
                with pytest.raises(aiohttp.ClientPayloadError):
                    async for chunk in response.content.iter_any():
                        found += chunk
            assert found == data[100 : 100 + wanted]


@pytest.mark.parametrize("route", BODIES)
async def test_stall(route: Any) -> None:
    async with serving(plan=PLAN) as caller:
        run_id, link = await ready(caller)
        caller.sandbox.fault(route, Fault.stall(5))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(caller, route, run_id, link), 100)
        await sleep(1)
        asked = [request for request in caller.sandbox.requests if request.route == route]
        assert (asked[-1].status, asked[-1].sent) == (201 if route == "create" else 200, 5)
        assert (await ask(caller, route, run_id, link)).status < 300


async def test_stall_ends_with_its_client() -> None:
    async with serving(plan=PLAN) as caller:
        _, link = await ready(caller)
        before = len(asyncio.all_tasks())
        caller.sandbox.fault("store", Fault.stall(5), times=20)
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(caller.fetch("GET", link), 10)
        await sleep(1)
        stalled = [request for request in caller.sandbox.requests if request.route == "store"]
        assert [(request.sent, request.ended is None) for request in stalled] == [(5, False)] * 20
        assert len(asyncio.all_tasks()) <= before + 1


async def test_drip() -> None:
    async with serving(plan=PLAN) as caller:
        run_id, link = await ready(caller)
        caller.sandbox.fault("store", Fault.drip(2.0, piece=250))
        before = caller.now()
        answer = await caller.fetch("GET", link)
        assert answer.body == caller.sandbox.artifact_bytes(run_id)
        assert 6 <= caller.now() - before < 10


@pytest.mark.parametrize("route", ROUTES)
async def test_status(route: Any) -> None:
    async with serving(plan=PLAN) as caller:
        run_id, link = await ready(caller)
        headers = {"Retry-After": "7", "Location": "http://127.0.0.1:9/"}
        for status in (302, 400, 418, 429, 500, 503, 599):
            caller.sandbox.fault(route, Fault.status(status, headers=headers))
            answer = await ask(caller, route, run_id, link)
            assert answer.status == status
            assert answer.headers["Retry-After"] == "7"
            if route == "store":
                assert answer.body.startswith(b"<?xml")
            else:
                assert isinstance(answer.detail, str)


@pytest.mark.parametrize("after_work", [False, True])
async def test_status_and_the_work(after_work: bool) -> None:
    async with serving(plan=PLAN) as caller:
        set_id = caller.sandbox.add_set()
        caller.sandbox.fault("create", Fault.status(500, b"oops", after_work=after_work))
        answer = await caller.create(set_id)
        assert (answer.status, answer.body) == (500, b"oops")
        assert len(caller.sandbox.runs) == after_work


@pytest.mark.parametrize("route", BODIES)
async def test_garbage(route: Any) -> None:
    async with serving(plan=PLAN) as caller:
        run_id, link = await ready(caller)
        for fault, content_type in (
            (Fault.garbage(), "text/html"),
            (Fault.garbage(b'{"simulation_', "application/json"), "application/json"),
            (Fault.garbage(b"", "application/json"), "application/json"),
            (Fault.garbage(b"\xff\xfe", "text/plain"), "text/plain"),
        ):
            caller.sandbox.fault(route, fault)
            started = len(caller.sandbox.runs)
            answer = await ask(caller, route, run_id, link)
            assert answer.status == (201 if route == "create" else 200)
            assert (answer.body, answer.headers["Content-Type"]) == (fault.body, content_type)
            assert len(caller.sandbox.runs) - started == (route == "create")


@pytest.mark.parametrize("route", ["create", "list", "cancel", "artifacts"])
async def test_expired_token(route: Any) -> None:
    async with serving(plan=PLAN) as caller:
        run_id, link = await ready(caller)
        caller.sandbox.fault(route, Fault.expired_token())
        answer = await ask(caller, route, run_id, link)
        assert answer.status == 401
        assert (await caller.call("GET")).status == 401
        caller.token = (await caller.sign_in()).json()["id_token"]
        assert (await caller.call("GET")).status == 200


async def test_expired_link() -> None:
    async with serving(plan=PLAN) as caller:
        _, link = await ready(caller)
        caller.sandbox.fault("store", Fault.expired_link())
        answer = await caller.fetch("GET", link)
        assert (answer.status, b"<Message>Request has expired</Message>" in answer.body) == (
            403,
            True,
        )
        assert (await caller.fetch("GET", link)).status == 200


async def test_ignore_range() -> None:
    async with serving(plan=PLAN) as caller:
        run_id, link = await ready(caller)
        caller.sandbox.fault("store", Fault.ignore_range())
        answer = await caller.fetch("GET", link, headers={"Range": "bytes=500-"})
        assert (answer.status, answer.body) == (200, caller.sandbox.artifact_bytes(run_id))
        assert "Content-Range" not in answer.headers


@pytest.mark.parametrize(
    ("shift", "start", "stop"),
    [(1, 501, 510), (-1, 499, 510), (-9999, 0, 510), (5000, 509, 510)],
)
async def test_wrong_offset(shift: int, start: int, stop: int) -> None:
    async with serving(plan=PLAN) as caller:
        run_id, link = await ready(caller)
        caller.sandbox.fault("store", Fault.wrong_offset(shift))
        answer = await caller.fetch("GET", link, headers={"Range": "bytes=500-509"})
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/1000"
        assert answer.body == caller.sandbox.artifact_bytes(run_id)[start:stop]


# Which request it happens to


async def statuses(caller: Caller, count: int) -> list[int]:
    return [(await caller.call("GET")).status for _ in range(count)]


async def test_queued_faults() -> None:
    async with serving() as caller:
        caller.sandbox.fault("list", Fault.status(500), times=2)
        caller.sandbox.fault("list", Fault.status(503))
        assert await statuses(caller, 5) == [500, 500, 503, 200, 200]


async def test_faults_of_another_route() -> None:
    async with serving() as caller:
        caller.sandbox.fault("create", Fault.status(500))
        assert await statuses(caller, 1) == [200]
        assert (await caller.create(caller.sandbox.add_set())).status == 500


async def test_faults_at_random() -> None:
    found = []
    for seed in (1, 1, 2):
        async with serving() as caller:
            caller.sandbox.faults_at_random(
                "list", Fault.status(500), Fault.status(503), rate=0.33, seed=seed
            )
            found.append(await statuses(caller, 200))
    assert found[0] == found[1] != found[2]
    failed = [status for status in found[0] if status != 200]
    assert 40 < len(failed) < 95
    assert set(failed) == {500, 503}


async def test_queued_before_random() -> None:
    async with serving() as caller:
        caller.sandbox.faults_at_random("list", Fault.status(500), rate=1.0)
        caller.sandbox.fault("list", Fault.status(503))
        assert await statuses(caller, 3) == [503, 500, 500]
        caller.sandbox.clear_faults()
        assert await statuses(caller, 2) == [200, 200]


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("store", Fault.expired_token()),
        ("sign_in", Fault.expired_token()),
        ("list", Fault.expired_link()),
        ("list", Fault.ignore_range()),
        ("create", Fault.wrong_offset()),
        ("nowhere", Fault.drop()),
    ],
)
def test_impossible_fault(route: Any, fault: Fault) -> None:
    sandbox = Sandbox()
    said = r"cannot happen to '\w+', only |there is no 'nowhere'; there are sign_in, .*, store"
    with pytest.raises(ValueError, match=said):
        sandbox.fault(route, fault)
    with pytest.raises(ValueError, match=said):
        sandbox.faults_at_random(route, fault, rate=0.5)


@pytest.mark.parametrize(
    ("faults", "rate"), [((), 0.5), ((Fault.drop(),), 1.5), ((Fault.drop(),), -1)]
)
def test_impossible_rate(faults: tuple[Fault, ...], rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate must be a number|at least one fault"):
        Sandbox().faults_at_random("list", *faults, rate=rate)
