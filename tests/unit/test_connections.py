"""The aiohttp sessions: opened when needed, shared where they should be, closed by their owner."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import anyio
import pytest

from amigo_async import AmigoClient, BearerAuth
from amigo_async.errors import ConfigurationError
from amigo_async.testing import ArtifactPlan, Sandbox, SetPlan
from amigo_async.threads import in_thread
from amigo_async.transport import Connections

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened() -> AsyncIterator[Connections]:
    connections = Connections()
    try:
        yield connections
    finally:
        await connections.aclose()


async def test_a_session_is_opened_once() -> None:
    async with opened() as connections:
        assert connections.api() is connections.api()
        assert connections.store() is connections.store()
        assert connections.store() is not connections.api()


async def test_opened_when_needed() -> None:
    connections = Connections()
    assert (connections._api, connections._store) == (None, None)
    await connections.aclose()
    await connections.aclose()


async def test_sessions_have_own_connections() -> None:
    async with opened() as connections:
        assert connections.store().connector is not connections.api().connector


async def test_no_cookie_is_kept() -> None:
    async with opened() as connections:
        assert isinstance(connections.api().cookie_jar, aiohttp.DummyCookieJar)
        assert isinstance(connections.store().cookie_jar, aiohttp.DummyCookieJar)


async def test_store_gets_no_given_headers() -> None:
    async with aiohttp.ClientSession(
        headers={"X-Secret": "hunter2"}, cookies={"session": "hunter2"}
    ) as given:
        connections = Connections(given)
        store = connections.store()
        assert connections.api().connector is given.connector
        assert connections.api().headers is given.headers
        assert connections.api().cookie_jar is given.cookie_jar
        assert store.connector is given.connector
        assert dict(store.headers) == {}
        assert store.auth is None
        assert not list(store.cookie_jar)
        await connections.aclose()


async def test_own_sessions_are_closed() -> None:
    connections = Connections()
    api, store = connections.api(), connections.store()
    connectors = [api.connector, store.connector]
    await connections.aclose()
    assert api.closed
    assert store.closed
    assert all(connector is not None and connector.closed for connector in connectors)
    await connections.aclose()


async def test_given_session_stays_open() -> None:
    async with aiohttp.ClientSession() as given:
        connections = Connections(given)
        store = connections.store()
        await connections.aclose()
        assert store.closed
        assert not given.closed
        assert given.connector is not None
        assert not given.connector.closed


async def test_a_closed_client_says_so() -> None:
    connections = Connections()
    await connections.aclose()
    for get in (connections.api, connections.store):
        with pytest.raises(ConfigurationError, match="the client is closed; make a new one"):
            get()


async def test_closed_given_session() -> None:
    given = aiohttp.ClientSession()
    connections = Connections(given)
    assert connections.api().connector is given.connector
    await given.close()
    for get in (connections.api, connections.store):
        with pytest.raises(ConfigurationError, match="http: the session given is closed"):
            get()
    await connections.aclose()


async def test_given_session_with_credentials() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated in newer versions of aiohttp
        with_auth = aiohttp.ClientSession(auth=aiohttp.BasicAuth("user", "hunter2"))
    async with with_auth as given:
        with pytest.raises(ConfigurationError, match="authorization of its own") as caught:
            Connections(given)
        assert "hunter2" not in str(caught.value)
    async with aiohttp.ClientSession(headers={"AUTHORIZATION": "Bearer hunter2"}) as given:
        with pytest.raises(ConfigurationError, match="authorization of its own"):
            Connections(given)


async def test_client_closes_its_own_session() -> None:
    async with aiohttp.ClientSession() as given:
        async with AmigoClient(auth=BearerAuth("t"), organization_id="o", http=given) as client:
            assert client._connections.api().connector is given.connector
        assert not given.closed
    async with AmigoClient(auth=BearerAuth("t"), organization_id="o") as client:
        own = client._connections.api()
    assert own.closed


@pytest.mark.parametrize("given", [True, False])
async def test_slow_streams_leave_api_connections(given: bool) -> None:
    """As many as there are connections, of which each answer costs the API a new one."""
    limit = 10 if given else 100
    large = SetPlan(seconds=1.0, artifact=ArtifactPlan(size=4_000_000))
    async with (
        Sandbox(plan=large) as sandbox,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit, force_close=True)
        ) as http,
    ):
        run_id = sandbox.start_run(sandbox.add_set())
        async with sandbox.client(http=http if given else None, max_attempts=1) as client:
            await client.wait_for_completion(run_id, require_artifacts=True)

            async def read_slowly() -> None:
                async with client.artifacts.stream(run_id) as stream:
                    async for _ in stream:
                        await anyio.sleep(3600.0)

            async with anyio.create_task_group() as group:
                for _ in range(limit):
                    group.start_soon(read_slowly)
                await anyio.sleep(100.0)
                assert sandbox.count("store") == (limit // 2 if given else limit)
                with anyio.fail_after(1.0):
                    await client.runs.list()
                group.cancel_scope.cancel()


class Occupied(ThreadPoolExecutor):
    """The threads of the application, which have other things to do."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError(f"{fn} was put into a thread of the application")


async def test_default_threads_are_left_alone(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_default_executor(Occupied())
    async with Sandbox(plan=SetPlan(seconds=1.0)) as sandbox:
        base_url = sandbox.base_url.replace("127.0.0.1", "localhost")
        async with sandbox.client(base_url=base_url) as client:
            (set_id,) = ids = sandbox.add_sets(1)
            files: dict[str, Any] = {
                "journal": tmp_path / "journal.jsonl",
                "artifacts_dir": tmp_path,
            }
            result = await client.run_many(ids, **files)
            assert result.passed
            (outcome,) = result.outcomes
            assert outcome.artifacts is not None
            assert outcome.run_id is not None
            assert outcome.artifacts.read_bytes() == sandbox.artifact_bytes(outcome.run_id)
            assert (await client.run_many([set_id], **files)).passed


async def test_no_file_no_thread() -> None:
    asyncio.get_running_loop().set_default_executor(Occupied())
    async with Sandbox(plan=SetPlan(seconds=1.0)) as sandbox, sandbox.client() as client:
        threads = set(threading.enumerate())
        assert (await client.run_many(sandbox.add_sets(3), timeout=60.0)).passed
        assert set(threading.enumerate()) <= threads


async def test_leaving_a_thread() -> None:
    go_on = threading.Event()
    began: list[int] = []
    ended: list[int] = []

    def work(number: int) -> None:
        began.append(number)
        go_on.wait(30)
        ended.append(number)

    jobs = [asyncio.create_task(in_thread(work, number)) for number in range(40)]
    while len(began) < 16:
        await anyio.sleep(0.01)
    with anyio.move_on_after(1.0) as scope:
        await in_thread(began.append, -1)
    assert scope.cancelled_caught
    for job in jobs:
        job.cancel()
    await asyncio.wait(jobs[16:])
    assert not any(job.done() for job in jobs[:16])
    go_on.set()
    await asyncio.wait(jobs)
    assert sorted(ended) == sorted(began) == list(range(16))
    assert all(job.cancelled() for job in jobs)
