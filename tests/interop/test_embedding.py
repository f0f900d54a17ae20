"""The client inside of other programs' loops, servers, shells, groups and scopes."""

from __future__ import annotations

from tests.support.needs import needs_modules

needs_modules("IPython", "fastapi", "httpx", "uvicorn", "uvloop")

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import httpx
import pytest
import uvicorn
import uvloop
from aiohttp import web
from fastapi import FastAPI, Request
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from amigo_async import AmigoClient, BatchResult
from amigo_async.testing import Sandbox, SetPlan, VirtualTimeLoop

SHORT = SetPlan(seconds=5.0)
ENDLESS = SetPlan(seconds=36_000.0)

Part = Callable[[AmigoClient, Sandbox, Path], Awaitable[None]]


# --- loops ---


async def collects(client: AmigoClient, sandbox: Sandbox, folder: Path) -> None:
    result = await client.run_many(sandbox.add_sets(3), artifacts_dir=folder)
    assert result.passed
    for outcome in result.outcomes:
        assert outcome.artifacts is not None
        assert outcome.run_id is not None
        assert outcome.artifacts.read_bytes() == sandbox.artifact_bytes(outcome.run_id)


async def waits(client: AmigoClient, sandbox: Sandbox, folder: Path) -> None:
    run_id = sandbox.start_run(sandbox.add_set())
    assert (await client.wait_for_completion(run_id, timeout=60)).passed


async def is_cancelled(client: AmigoClient, sandbox: Sandbox, folder: Path) -> None:
    ids = sandbox.add_sets(3, ENDLESS)
    batch = asyncio.create_task(client.run_many(ids, on_exit="cancel"))
    while len(sandbox.runs) < len(ids):
        await asyncio.sleep(0.01)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert sandbox.count("cancel", status=204) == len(ids)


async def times_out(client: AmigoClient, sandbox: Sandbox, folder: Path) -> None:
    result = await client.run_many(sandbox.add_sets(1, ENDLESS), timeout=0.3)
    assert result.counts == {"timed_out": 1}


PARTS: list[Part] = [collects, waits, is_cancelled, times_out]


def eager_loop() -> asyncio.AbstractEventLoop:
    """Tasks begin at once, in the middle of what makes them."""
    loop = VirtualTimeLoop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


LOOPS = [pytest.param(uvloop.new_event_loop, id="uvloop")]
if sys.version_info >= (3, 12):  # which has them first
    LOOPS.append(pytest.param(eager_loop, id="eager"))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("factory", LOOPS)
def test_it_works_on_another_kind_of_loop(
    factory: Callable[[], asyncio.AbstractEventLoop], part: Part, tmp_path: Path
) -> None:
    async def main() -> None:
        plan = SetPlan(seconds=0.1, artifacts_after=0.0, cancel_after=0.0)
        async with Sandbox(plan=plan) as sandbox, sandbox.client(poll_interval=0.1) as client:
            await part(client, sandbox, tmp_path)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=factory, debug=True) as runner:
        runner.run(main())


# --- servers ---


@asynccontextmanager
async def uvicorn_serving(app: FastAPI) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def aiohttp_serving(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def hang_up_on(url: str, sandbox: Sandbox, ids: list[str]) -> None:
    """Ask for the sets, and leave when all are started; their runs are cancelled then."""
    sandbox.forget_requests()
    async with httpx.AsyncClient(timeout=None) as http:
        asking = asyncio.create_task(http.post(url, json=ids))
        while sandbox.count("create", status=201) < len(ids):
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait({asking})
    with anyio.fail_after(10):
        while sandbox.count("cancel", status=204) < len(ids):
            await asyncio.sleep(0.1)


@pytest.mark.anyio
async def test_fastapi_hang_up_cancels(client: AmigoClient, sandbox: Sandbox) -> None:
    app = FastAPI()

    @app.post("/checks")
    async def check(request: Request, set_ids: list[str]) -> dict[str, int]:
        # uvicorn tells that the client has gone, but cancels nothing by itself.
        async with anyio.create_task_group() as group:

            async def until_gone() -> None:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(until_gone)
            result = await client.run_many(set_ids, on_exit="cancel")
            group.cancel_scope.cancel()
        return {str(verdict): count for verdict, count in result.counts.items()}

    async with uvicorn_serving(app) as url, httpx.AsyncClient(timeout=None) as http:
        answer = await http.post(f"{url}/checks", json=sandbox.add_sets(3, SHORT))
        assert answer.json() == {"passed": 3}
        await hang_up_on(f"{url}/checks", sandbox, sandbox.add_sets(3, ENDLESS))


@pytest.mark.anyio
async def test_aiohttp_web_application(sandbox: Sandbox) -> None:
    key = web.AppKey("client", AmigoClient)

    async def connected(app: web.Application) -> AsyncIterator[None]:
        async with sandbox.client() as app[key]:
            yield

    async def check(request: web.Request) -> web.Response:
        result = await request.app[key].run_many(await request.json(), on_exit="cancel")
        return web.json_response(dict(result.counts))

    app = web.Application()
    app.cleanup_ctx.append(connected)
    app.router.add_post("/checks", check)
    async with aiohttp_serving(app) as url, aiohttp.ClientSession() as http:
        async with http.post(f"{url}/checks", json=sandbox.add_sets(3, SHORT)) as answer:
            assert await answer.json() == {"passed": 3}
        await hang_up_on(f"{url}/checks", sandbox, sandbox.add_sets(3, ENDLESS))
    with pytest.raises(Exception, match="the client is closed"):
        await app[key].runs.list()


# --- shells ---

CELLS = [
    "from amigo_async import AmigoClient",
    "client = AmigoClient()",
    "created = await client.runs.create(set_id)",
    "import asyncio; batch = asyncio.create_task(client.run_many(set_ids))",
    "run = await client.wait_for_completion(created.simulation_unit_test_set_run_id)",
    "result = await batch",
    "async with client.open_batch(more) as rest:\n    seen = [one.verdict async for one in rest]",
    "await client.aclose()",
]


@pytest.mark.anyio
async def test_notebook_keeps_a_client(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kernel does: each cell is a coroutine of one shell, in a loop that runs on."""
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    names: dict[str, Any] = {
        "set_id": sandbox.add_set(SHORT),
        "set_ids": sandbox.add_sets(3, SHORT),
        "more": sandbox.add_sets(2, SHORT),
    }
    config = Config()
    config.HistoryManager.enabled = False
    shell: Any = InteractiveShell
    shell = shell(config=config, user_ns=names)
    for cell in CELLS:
        ended = await shell.run_cell_async(cell, transformed_cell=cell)
        ended.raise_error()
    assert names["run"].passed
    assert names["result"].passed
    assert names["seen"] == ["passed"] * 2


# --- groups and scopes ---


@pytest.mark.anyio
async def test_task_group_cancels_the_others(client: AmigoClient, sandbox: Sandbox) -> None:
    ids = sandbox.add_sets(4, ENDLESS)

    async def fail() -> None:
        while len(sandbox.runs) < len(ids):
            await asyncio.sleep(0.01)
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(client.run_many(ids[:2], on_exit="cancel"))
            group.create_task(client.run_many(ids[2:], on_exit="cancel"))
            group.create_task(fail())
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert sandbox.count("cancel", status=204) == len(ids)


@pytest.mark.anyio
@pytest.mark.parametrize("inner", [anyio.move_on_after, asyncio.timeout])
@pytest.mark.parametrize("outer", [anyio.move_on_after, asyncio.timeout])
async def test_nested_cancel_scopes(
    client: AmigoClient, sandbox: Sandbox, outer: Any, inner: Any
) -> None:
    """The inner one ends a batch; another goes on, until the outer one ends it in turn."""

    async def batch() -> BatchResult:
        return await client.run_many(sandbox.add_sets(2, ENDLESS), on_exit="cancel")

    async def ended(scope: Any, seconds: float, work: Callable[[], Awaitable[object]]) -> float:
        began = anyio.current_time()
        try:
            async with anyio.create_task_group(), _entered(scope(seconds)):
                await work()
        except* TimeoutError:
            pass
        return anyio.current_time() - began

    async def nested() -> None:
        assert await ended(inner, 10.0, batch) == pytest.approx(10.0, abs=3.0)
        assert sandbox.count("cancel", status=204) == 2
        assert (await client.run_many(sandbox.add_sets(1, SHORT))).passed
        await batch()

    assert await ended(outer, 60.0, nested) == pytest.approx(60.0, abs=3.0)
    assert sandbox.count("cancel", status=204) == 4
    assert (await client.run_many(sandbox.add_sets(1, SHORT))).passed


@asynccontextmanager
async def _entered(scope: Any) -> AsyncIterator[None]:
    if hasattr(scope, "__aenter__"):
        async with scope:
            yield
    else:
        with scope:
            yield
