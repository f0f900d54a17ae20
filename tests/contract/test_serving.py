"""Starting and stopping the sandbox, what it remembers, and its use from elsewhere."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import yarl
from aiohttp import web

from amigo_async import AmigoClient, ArgumentError, ConfigurationError
from amigo_async.testing import ArtifactPlan, Fault, Sandbox, SetPlan
from tests.support.blocks import ROOT
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


# What cannot be set


@pytest.mark.parametrize("kind", [Sandbox, SetPlan, ArtifactPlan, Fault])
def test_every_setting_is_checked(kind: type) -> None:
    names = list(inspect.signature(kind).parameters)
    assert len(names) > 6
    given: dict[str, Any] = {"kind": "status"} if kind is Fault else {}
    for name in names:
        if name in ("after_work", "reset", "headers"):  # of a fault, by its methods alone
            continue
        with pytest.raises(ArgumentError) as caught:
            kind(**(given | {name: object()}))
        assert "not <object object" in str(caught.value), name
        shown = "status" if name == "status_code" else name
        assert str(caught.value).startswith(f"{shown} must be "), name


# Untyped, as the point is what the types do not allow.
Plan: Any = SetPlan
Artifact: Any = ArtifactPlan
Box: Any = Sandbox


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: Plan(outcome="fail"), "outcome must be one of 'passed', 'failed', 'errored'"),
        (lambda s: Plan(trouble_at=1.5), "trouble_at must be a number of 0 or more, at most 1"),
        (lambda s: Plan(seconds=(1, 2, 3)), "seconds must be one number or two"),
        (lambda s: Plan(seconds=float("nan")), "seconds must be a number of 0 or more"),
        (lambda s: Plan(repeats=2.5), "repeats must be a whole number of at least 1"),
        (lambda s: Plan(artifacts_after=-1), "artifacts_after must be a number of 0 or more"),
        (lambda s: Plan(unlisted=[3]), r"unlisted must have spans like \(0, 3\)"),
        (lambda s: Plan(pool=2), "pool must have at least the 3 unit tests of a set, not 2"),
        (lambda s: Artifact(form="tar"), "form must be one of 'zip', 'json.gz'"),
        (lambda s: Artifact(checksum="md5"), "checksum must be one of 'sha256', 'crc32'"),
        (lambda s: Artifact(size=-1), "size must be a whole number of at least 0"),
        (lambda s: Fault.status(42), "status must be a whole number of at least 100, not 42"),
        (lambda s: Fault.status(1000), "status must be a number of 0 or more, at most 999"),
        (lambda s: Fault.delay(-1), "seconds must be a number of 0 or more"),
        (lambda s: Fault.drip(1, piece=0), "piece must be a whole number of at least 1"),
        (lambda s: Box(window=0), "window must be a number above 0, not 0"),
        (lambda s: Box(window_mode="rolling"), "window_mode must be one of 'fixed', 'sliding'"),
        (lambda s: Box(retry_after="date"), "retry_after must be one of 'decimal', 'whole'"),
        (
            lambda s: Box(limits={"list": -1}),
            r"limits\['list'\] must be a whole number of at least 0",
        ),
        (lambda s: Box(permissions=["Run"]), "permissions: there is no 'Run'; there are Simul"),
        (lambda s: Box(permissions="Run"), "permissions must be some of Simulation:"),
        (lambda s: Box(organization_id=""), "organization_id must be a text that is not empty"),
        (lambda s: s.add_set("failed"), "plan must be of the type SetPlan, not 'failed'"),
        (lambda s: s.add_sets(-1), "count must be a whole number of at least 0"),
        (
            lambda s: s.fault("list", Fault.drop(), times=0),
            "times must be a whole number of at least 1",
        ),
        (lambda s: s.fault("list", "drop"), "fault must be of the type Fault"),
        (lambda s: s.count("creates"), "route: there is no 'creates'; there are .*unknown"),
        (lambda s: s.spend("creates"), "endpoint: there is no 'creates'; there are sign_in"),
        (lambda s: setattr(s.rules, "retry_after", "x"), "retry_after must be one of"),
        (lambda s: setattr(s.rules, "retry", None), "rules: there is no 'retry'; there are token_"),
        (lambda s: setattr(s, "clock_skew", "x"), "clock_skew must be a number, not 'x'"),
    ],
)
def test_what_cannot_be_says_what_can(call: Callable[[Any], object], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        call(Sandbox())


# Its use from elsewhere


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


def test_plugin_in_the_loop_of_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio
        import pytest
        from amigo_async.testing import SetPlan, VirtualTimeLoop

        pytestmark = pytest.mark.anyio

        @pytest.fixture(params=[VirtualTimeLoop, asyncio.SelectorEventLoop])
        def anyio_backend(request):
            return "asyncio", {"loop_factory": request.param}

        @pytest.mark.amigo_sandbox(organization_id="mine", limits={"create": 1})
        async def test_it(amigo_sandbox_async):
            async with amigo_sandbox_async.client() as client:
                loop = asyncio.get_running_loop()
                began = loop.time()
                result = await client.run_many(amigo_sandbox_async.add_sets(2))
                assert result.passed, result.summary()
                # The windows of the documented limits are skipped, those of real time are short.
                assert (loop.time() - began > 60) == isinstance(loop, VirtualTimeLoop)
            assert amigo_sandbox_async.organization_id == "mine"
        """
    )
    plugin_passes(pytester, passed=2)


def test_plugin_refuses_a_plain_test_in_the_loop(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_it(amigo_sandbox_async):
            pass
        """
    )
    result = plugin_run(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*plain tests use amigo_sandbox*"])


@pytest.mark.anyio
async def test_loop_that_skips_waits_refuses_a_sandbox_in_a_thread() -> None:
    said = "cannot skip waits together with VirtualTimeLoop; .* amigo_sandbox_async"
    with Sandbox().in_thread() as sandbox:
        with pytest.raises(ConfigurationError, match=said):
            sandbox.client()
        # A service of one's own connects by the environment.
        settings: dict[str, Any] = {
            name[6:].lower(): value for name, value in sandbox.environment().items()
        }
        async with AmigoClient(**settings) as client:
            with pytest.raises(ConfigurationError, match=said):
                await client.runs.list()
        assert sandbox.requests == []
    async with Sandbox() as sandbox, sandbox.client() as client:
        await client.runs.list()


async def _in_real_time(sandbox: Sandbox) -> int:
    async with sandbox.client() as client:
        return len((await client.runs.list()).simulation_unit_test_set_runs)


def test_loop_in_real_time_takes_a_sandbox_in_a_thread() -> None:
    with Sandbox().in_thread() as sandbox:
        assert asyncio.run(_in_real_time(sandbox)) == 0


def test_plugin_imports_nothing_until_it_is_used() -> None:
    program = """
import sys, pytest
before = set(sys.modules)
import amigo_async.pytest_plugin
new = set(sys.modules) - before
print(*sorted(name for name in new if name.split(".")[0] not in sys.stdlib_module_names))
print("asyncio" in sys.modules)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.stdout.splitlines() == ["amigo_async amigo_async.pytest_plugin", "False"]


def plugin_passes(pytester: pytest.Pytester, passed: int = 1) -> None:
    plugin_run(pytester).assert_outcomes(passed=passed)


def plugin_run(pytester: pytest.Pytester) -> pytest.RunResult:
    # By name, whether or not the package is installed here with its entry point.
    options = ("--strict-markers", "-p", "no:asyncio", "-p", "no:amigo_async")
    plugin = (*options, "-p", "amigo_async.pytest_plugin")
    return pytester.runpytest_inprocess(*plugin)
