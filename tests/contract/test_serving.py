"""Starting and stopping the sandbox, what it remembers, and its use from elsewhere."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import urllib.request
from typing import Any

import aiohttp
import pytest
import yarl
from aiohttp import web

from amigo_async.testing import ArtifactPlan, Fault, Sandbox, SetPlan
from tests.support.sandbox_kit import RUNS, serving, sleep

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


# What it remembers


async def test_requests() -> None:
    async with serving(plan=SetPlan(seconds=0, artifacts_after=0)) as caller:
        await caller.sign_in()
        run_id = await caller.start(caller.sandbox.add_set())
        await caller.call("GET", query="id=" + run_id + "&sort_by=%2Bcreated_at&limit=5")
        link = await caller.link(run_id)
        answer = await caller.fetch("GET", link, headers={"Range": "bytes=0-9"})
        requests = caller.sandbox.requests
        assert [(one.route, one.method, one.status) for one in requests] == [
            ("sign_in", "POST", 200),
            ("create", "POST", 201),
            ("list", "GET", 200),
            ("artifacts", "GET", 200),
            ("store", "GET", 206),
        ]
        assert requests[2].query == [("id", run_id), ("sort_by", "+created_at"), ("limit", "5")]
        assert requests[2].values("id") == [run_id]
        assert requests[2].path == f"/v1/sandbox/{RUNS}"
        assert (requests[4].range, requests[4].sent) == ("bytes=0-9", len(answer.body))
        assert requests[2].range is None
        assert requests[2].raw_query == f"id={run_id}&sort_by=%2Bcreated_at&limit=5"
        assert run_id not in requests[1].body.decode()
        assert caller.sandbox.runs[0].unit_test_set_id in requests[1].body.decode()
        assert all(one.organization_id == "sandbox" for one in requests)
        assert all(one.ended is not None and one.ended >= one.time for one in requests)
        assert caller.sandbox.count("store") == 1
        assert caller.sandbox.count("store", status=206) == 1
        assert caller.sandbox.count("store", status=200) == 0
        caller.sandbox.forget_requests()
        assert caller.sandbox.requests == []


async def test_requests_show_no_secret() -> None:
    async with serving(plan=SetPlan(seconds=0, artifacts_after=0)) as caller:
        await caller.sign_in()
        run_id = await caller.start(caller.sandbox.add_set())
        link = await caller.link(run_id)
        await caller.fetch("GET", link)
        basic = {"Authorization": "Basic c2VjcmV0OnNlY3JldA=="}
        await caller.call("GET", token="", headers=basic)
        shown = repr(caller.sandbox.requests) + repr(caller.sandbox) + str(caller.sandbox.requests)
        shown += repr([dict(one.headers) for one in caller.sandbox.requests])
        query = yarl.URL(link).query
        for secret in (
            str(caller.sandbox.api_key),
            caller.token,
            query["X-Amz-Signature"],
            query["X-Amz-Credential"],
            "c2VjcmV0OnNlY3JldA==",
        ):
            assert secret not in shown
        # What is hidden is there.
        assert caller.sandbox.requests[0].headers["x-api-key"] == caller.sandbox.api_key
        assert ("X-Amz-Signature", query["X-Amz-Signature"]) in caller.sandbox.requests[3].query


async def test_keep_requests() -> None:
    async with serving(keep_requests=3) as caller:
        for number in range(5):
            await caller.call("GET", query=f"limit={number}")
        assert [one.values("limit") for one in caller.sandbox.requests] == [["2"], ["3"], ["4"]]
        assert all(one.status == 200 for one in caller.sandbox.requests)


async def test_request_in_progress() -> None:
    async with serving(keep_requests=2) as caller:
        caller.sandbox.fault("list", Fault.delay(100))
        slow = asyncio.create_task(caller.call("GET"))
        await sleep(10)
        (one,) = caller.sandbox.requests
        assert (one.status, one.ended) == (None, None)
        for _ in range(3):
            await caller.call("GET")
        await slow
        assert [one.status for one in caller.sandbox.requests] == [200, 200]


# Starting and stopping


async def open_response(
    http: aiohttp.ClientSession, url: str, **more: Any
) -> aiohttp.ClientResponse:
    return await http.get(yarl.URL(url, encoded=True), **more)


@pytest.mark.parametrize(
    "fault",
    [Fault.stall(5), Fault.delay(10_000), Fault.delay(10_000, after_work=True), Fault.drip(1000.0)],
    ids=lambda fault: fault.kind,
)
async def test_stops_with_requests_in_progress(fault: Fault) -> None:
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as http:
        sandbox = Sandbox()
        async with sandbox:
            headers = {"Authorization": f"Bearer {sandbox.issue_token()}"}
            url = f"{sandbox.base_url}/v1/sandbox/{RUNS}"
            sandbox.fault("list", fault, times=3)
            pending = [
                asyncio.create_task(open_response(http, url, headers=headers)) for _ in range(3)
            ]
            await sleep(5)
            stopping = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - stopping < 2
        for outcome in await asyncio.gather(*pending, return_exceptions=True):
            if isinstance(outcome, aiohttp.ClientResponse):
                outcome.close()
            else:
                assert isinstance(outcome, aiohttp.ClientError)
    await sleep(1)
    gc.collect()
    assert asyncio.all_tasks() == before


async def test_stops_while_nobody_reads() -> None:
    before = asyncio.all_tasks()
    plan = SetPlan(seconds=0, artifacts_after=0, artifact=ArtifactPlan(size=64 * MIB))
    async with serving(plan=plan) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        response = await open_response(caller.http, await caller.link(run_id))
        assert response.status == 200
        await sleep(5)
        assert caller.sandbox.requests[-1].ended is None
        stopping = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - stopping < 2
    response.close()
    await sleep(1)
    gc.collect()
    assert asyncio.all_tasks() == before


async def test_serve_again() -> None:
    sandbox = Sandbox(plan=SetPlan(seconds=1))
    for _ in range(2):
        async with sandbox, aiohttp.ClientSession() as http:
            headers = {"Authorization": f"Bearer {sandbox.issue_token()}"}
            async with http.get(f"{sandbox.base_url}/v1/sandbox/{RUNS}", headers=headers) as got:
                assert got.status == 200
    assert sandbox.count("list") == 2


# Clients


# From a thread of its own


def get(sandbox: Sandbox, query: str = "") -> Any:
    request = urllib.request.Request(
        f"{sandbox.base_url}/v1/sandbox/{RUNS}{query}",
        headers={"Authorization": f"Bearer {sandbox.issue_token()}"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())


def test_in_thread() -> None:
    before = threading.active_count()
    with Sandbox().in_thread() as sandbox:
        assert threading.active_count() > before
        assert get(sandbox)["has_more"] is False
        assert sandbox.count("list", status=200) == 1
        assert sandbox.spend("list", 10) == 10
    assert threading.active_count() == before


def test_calls_from_many_threads() -> None:
    limits: Any = {"create": 1000}
    with Sandbox(limits=limits).in_thread() as sandbox:
        spent: list[int] = []

        def spend() -> None:
            for _ in range(50):
                spent.append(sandbox.spend("create", 5))
                sandbox.start_run(sandbox.add_set())
                assert sandbox.issue_token()

        threads = [threading.Thread(target=spend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(spent) == 1000
        assert len({run.id for run in sandbox.runs}) == 400


def test_thread_ends_after_an_error() -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="mine"), Sandbox().in_thread():
        raise RuntimeError("mine")
    assert threading.active_count() == before


def test_start_fails_in_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object) -> None:
        raise OSError("no port is free")

    monkeypatch.setattr("aiohttp.web.TCPSite.start", fail)
    before = threading.active_count()
    with pytest.raises(OSError, match="no port is free"), Sandbox().in_thread():
        pytest.fail("it cannot serve")
    assert threading.active_count() == before


async def test_start_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = web.TCPSite.start
    ports: list[int] = []

    async def second_fails(site: web.TCPSite) -> None:
        if ports:
            raise OSError("no port is free")
        await start(site)
        ports.append(int(site.name.rpartition(":")[2]))

    monkeypatch.setattr(web.TCPSite, "start", second_fails)
    with pytest.raises(OSError, match="no port is free"):
        await Sandbox().__aenter__()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", ports[0])
    gc.collect()


def test_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import json, urllib.request

        def test_it(amigo_sandbox):
            headers = {"Authorization": f"Bearer {amigo_sandbox.issue_token()}"}
            url = f"{amigo_sandbox.base_url}/v1/sandbox/simulation/unit_test_set_run/"
            request = urllib.request.Request(url, headers=headers)
            with urllib.request.urlopen(request, timeout=10) as response:
                assert json.loads(response.read())["has_more"] is False
            assert amigo_sandbox.count("list") == 1
        """
    )
    plugin_passes(pytester)


def test_plugin_marker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.amigo_sandbox(organization_id="module", user_id="module")

        @pytest.mark.amigo_sandbox(user_id="test")
        def test_it(amigo_sandbox):
            assert amigo_sandbox.organization_id == "module"
            assert amigo_sandbox.user_id == "test"
        """
    )
    plugin_passes(pytester)


def plugin_passes(pytester: pytest.Pytester) -> None:
    # By name, whether or not the package is installed here with its entry point.
    plugin = ("--strict-markers", "-p", "no:amigo_async", "-p", "amigo_async.testing.pytest_plugin")
    result = pytester.runpytest_inprocess(*plugin)
    result.assert_outcomes(passed=1)
