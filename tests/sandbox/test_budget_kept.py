"""The documented limits against the sandbox: nothing refused, nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from amigo_async import AmigoClient, BearerAuth, CreatedRun
from amigo_async.errors import (
    ConflictError,
    DeadlineError,
    NotFoundError,
    RateLimitError,
    TransportError,
)
from amigo_async.testing import Fault, Sandbox, SetPlan

pytestmark = pytest.mark.anyio

LONG = SetPlan(seconds=3600.0)


async def create_all(client: AmigoClient, set_ids: list[str]) -> list[CreatedRun]:
    return list(await asyncio.gather(*(client.runs.create(set_id) for set_id in set_ids)))


def seconds_of(sandbox: Sandbox) -> list[float]:
    """When each run was started, counted from the first."""
    times = [run.created_at.timestamp() for run in sandbox.runs]
    return [at - times[0] for at in times]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"clock_skew": 300.0},
        {"clock_skew": -300.0},
        {"rate_limit_headers": "whole"},
        {"rate_limit_headers": None},
        {"window_mode": "sliding"},
        {"window_mode": "sliding", "rate_limit_headers": None, "clock_skew": 300.0},
    ],
    ids=str,
)
async def test_sixty_creates_in_three_windows(
    settings: dict[str, Any],
) -> None:
    async with Sandbox(plan=LONG, **settings) as sandbox, sandbox.client() as client:
        began = anyio.current_time()
        await create_all(client, sandbox.add_sets(60))
        took = anyio.current_time() - began
        assert sandbox.count("create", status=201) == 60
        assert sandbox.count("create", status=429) == 0
        assert 120 <= took <= 120 * 1.05
        at = seconds_of(sandbox)
        assert (at[19], at[39] - at[20], at[59] - at[40]) == pytest.approx((0, 0, 0), abs=2.0)


@pytest.mark.parametrize("seed", range(3))
async def test_few_refusals_beside_another(seed: int) -> None:
    async with Sandbox(plan=LONG) as sandbox, sandbox.client() as client:
        chance = random.Random(seed)

        async def others() -> None:
            while True:
                await anyio.sleep(chance.expovariate(10 / 60))
                sandbox.spend("create")

        async with anyio.create_task_group() as group:
            group.start_soon(others)
            await anyio.sleep(chance.uniform(60, 120))
            await create_all(client, sandbox.add_sets(60))
            group.cancel_scope.cancel()
        assert sandbox.count("create", status=201) == 60
        assert sandbox.count("create", status=429) <= 0.05 * 60


async def test_refusal_without_retry_after() -> None:
    async with Sandbox(plan=LONG, rate_limit_headers=None, retry_after=None) as sandbox:
        sandbox.spend("create", 15)
        async with sandbox.client() as client:
            await create_all(client, sandbox.add_sets(30))
        assert sandbox.count("create", status=201) == 30


@pytest.mark.parametrize("limit", [5, 40])
async def test_other_limits_are_used(limit: int) -> None:
    async with Sandbox(plan=LONG, limits={"create": limit}) as sandbox, sandbox.client() as client:
        began = anyio.current_time()
        await create_all(client, sandbox.add_sets(40))
        turns = 40 // limit - 1
        assert turns * 60 <= anyio.current_time() - began <= turns * 60 * 1.05 + 2
        assert sandbox.count("create", status=429) == 0


async def test_endpoints_do_not_share_queues(client: AmigoClient, sandbox: Sandbox) -> None:
    run_id = (await client.runs.create(sandbox.add_set(LONG))).simulation_unit_test_set_run_id
    done = await client.runs.create(sandbox.add_set(SetPlan(seconds=1.0)))
    await client.wait_for_completion(done.simulation_unit_test_set_run_id, require_artifacts=True)
    sandbox.spend("list", 50)
    async with anyio.create_task_group() as group:
        group.start_soon(create_all, client, sandbox.add_sets(60))
        group.start_soon(client.runs.list)
        await anyio.sleep(1)
        assert client.budgets()["create"].waiting > 30
        began = anyio.current_time()
        await client.runs.artifacts(done.simulation_unit_test_set_run_id)
        await client.runs.cancel(run_id)
        assert anyio.current_time() - began < 1
        group.cancel_scope.cancel()


async def test_two_clients_share_the_budget(sandbox: Sandbox) -> None:
    async with sandbox.client() as one, sandbox.client() as other:
        ids = sandbox.add_sets(40, LONG)
        await asyncio.gather(create_all(one, ids[:20]), create_all(other, ids[20:]))
    assert sandbox.count("create", status=429) == 0
    assert sandbox.count("create", status=201) == 40


LOSSES = [
    Fault.drop(),
    Fault.drop(after_work=True),
    Fault.drop(after_work=True, reset=True),
    Fault.truncate(5),
    Fault.truncate(),
    Fault.status(500, after_work=True),
    Fault.status(502, b"<html>", after_work=True),
    Fault.garbage(),
    Fault.delay(40.0),
    Fault.delay(40.0, after_work=True),
]


async def test_two_hundred_dropped_creates() -> None:
    wide = Sandbox(plan=LONG, limits={"create": 50, "list": None})
    async with wide as sandbox, sandbox.client() as client:
        ids = sandbox.add_sets(200)
        chance = random.Random(7)
        for _ in ids:
            sandbox.fault("create", chance.choice(LOSSES))
        created = await create_all(client, ids)
        assert len(sandbox.runs) == 200
        assert len({run.unit_test_set_id for run in sandbox.runs}) == 200
        known = {one.simulation_unit_test_set_run_id for one in created}
        assert known == {run.id for run in sandbox.runs}
        of = {run.id: run.unit_test_set_id for run in sandbox.runs}
        assert [of[one.simulation_unit_test_set_run_id] for one in created] == ids


async def test_cancelled_create_tells_its_id(sandbox: Sandbox) -> None:
    heard: list[Any] = []
    async with sandbox.client(on_event=heard.append) as client:
        await client.runs.list()
        for fault in (Fault.delay(2.0), Fault.delay(2.0, after_work=True)):
            heard.clear()
            sandbox.fault("create", fault)
            with anyio.move_on_after(1):
                await client.runs.create(sandbox.add_set(LONG))
            (told,) = heard
            assert told.run_id == sandbox.runs[-1].id
    assert len(sandbox.runs) == 2


async def test_proxy_error_teaches_nothing() -> None:
    """Nor is the budget then the documented one, for which a set would be without room in time."""
    async with Sandbox(limits={"create": 100}) as sandbox, sandbox.client() as client:
        sandbox.fault("create", Fault.status(503, body=b"<html>No server is available</html>"))
        sandbox.fault("create", Fault.delay(5.0), times=20)
        result = await client.run_many(sandbox.add_sets(25), timeout=40)
        assert result.passed


def most_in_a_window(sandbox: Sandbox, route: str, window: float = 60.0) -> int:
    """How many requests of a route came within one window at the most, wherever it begins."""
    times = [request.time for request in sandbox.requests if request.route == route]
    return max(sum(begin <= at < begin + window for at in times) for begin in times)


async def test_abandoned_calls_are_counted(sandbox: Sandbox) -> None:
    """Each caller leaves before it is answered, so nothing is ever told of the window."""
    sandbox.faults_at_random("list", Fault.delay(1.5, after_work=True), rate=1.0)
    async with sandbox.client(auth=BearerAuth(sandbox.issue_token())) as client:

        async def hurried() -> None:
            with suppress(DeadlineError), anyio.move_on_after(0.1):
                await client.runs.list()

        async with anyio.create_task_group() as group:
            for _ in range(1200):
                group.start_soon(hurried)
                await anyio.sleep(0.1)
    assert 40 <= most_in_a_window(sandbox, "list") <= 50
    assert sandbox.count("list", status=429) == 0


async def test_lost_calls_are_counted() -> None:
    async with (
        Sandbox(rate_limit_headers=None) as sandbox,
        sandbox.client(max_attempts=1) as client,
    ):
        await client.runs.list()
        sandbox.faults_at_random("list", Fault.drop(after_work=True), rate=1.0)
        for _ in range(120):
            with pytest.raises(TransportError):
                await client.runs.list()
        assert most_in_a_window(sandbox, "list") == 50
        assert sandbox.count("list", status=429) == 0


async def test_slow_sign_in_is_shared(
    sandbox: Sandbox,
) -> None:
    sandbox.faults_at_random("sign_in", Fault.delay(1.5), rate=1.0)
    served, late = [], 0
    async with sandbox.client() as client:

        async def hurried() -> None:
            nonlocal late
            try:
                with anyio.fail_after(1.0):
                    await client.runs.artifacts("0" * 24)
            except TimeoutError:
                late += 1
            except NotFoundError:
                served.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(hurried)
                await anyio.sleep(0.2)
    assert late <= 8
    assert len(served) >= 92
    assert sandbox.count("sign_in") == 1


async def test_refused_calls_keep_their_order() -> None:
    async with Sandbox(plan=LONG, limits={"create": 6}) as sandbox, sandbox.client() as client:
        first, *ids = sandbox.add_sets(8)
        await client.runs.create(first)
        sandbox.fault("create", Fault.status(429, headers={"Retry-After": "5"}), times=5)
        finished: list[int] = []

        async def create(number: int) -> None:
            await client.runs.create(ids[number])
            finished.append(number)

        async with anyio.create_task_group() as group:
            for number in range(7):
                group.start_soon(create, number)
                await anyio.sleep(0.001)
        assert sandbox.count("create", status=429) >= 2
        assert finished == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("retry_after", ["86400", "4000", "1767355200"])
async def test_very_long_pause_is_told(
    client: AmigoClient, sandbox: Sandbox, retry_after: str
) -> None:
    await client.runs.list()
    denied = Fault.status(429, headers={"Retry-After": retry_after})
    sandbox.fault("list", denied, times=2)
    began = anyio.current_time()
    waits: list[float] = []
    for _ in range(6):
        with pytest.raises(RateLimitError) as caught:
            await client.runs.list()
        assert caught.value.retry_after is not None
        waits.append(caught.value.retry_after)
    assert anyio.current_time() - began < 1.0
    assert waits == pytest.approx([float(retry_after)] * 6, abs=1.0)
    assert sandbox.count("list", status=429) == 1
    # It may be a broken header: one call a window asks again, whoever is the first to come.
    await anyio.sleep(61.0)
    for _ in range(3):
        with pytest.raises(RateLimitError):
            await client.runs.list()
    assert sandbox.count("list", status=429) == 2
    await anyio.sleep(61.0)
    await client.runs.list()
    await client.runs.list()


async def test_long_pause_is_waited_out(client: AmigoClient, sandbox: Sandbox) -> None:
    sandbox.fault("list", Fault.status(429, headers={"Retry-After": "3600"}))
    began = anyio.current_time()
    await client.runs.list()
    assert anyio.current_time() - began == pytest.approx(3600.0, abs=2.0)


async def test_unsent_request_spends_nothing(
    sandbox: Sandbox,
) -> None:
    resolver = Unreliable()
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
    base_url = sandbox.base_url.replace("127.0.0.1", "api.test")
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        sandbox.client(http=http, base_url=base_url, max_attempts=2) as client,
    ):
        await client.runs.list()
        before = client.budgets()["list"].remaining
        resolver.fails = True
        with pytest.raises(TransportError) as caught:
            await client.runs.list()
        assert not caught.value.sent
        state = client.budgets()["list"]
        assert (state.remaining, state.in_flight) == (before, 0)


class Unreliable(AbstractResolver):
    """Knows one address, and sometimes none."""

    fails = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if self.fails:
            raise OSError(None, "Name or service not known")
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        pass


async def test_cancelled_renewal_frees_quota() -> None:
    settings: dict[str, Any] = {"limits": {"list": 1}, "token_lifetime": 60.0}
    async with Sandbox(**settings) as sandbox, sandbox.client() as client:
        await client.runs.list()
        sandbox.fault("sign_in", Fault.delay(20.0))
        waiting = asyncio.create_task(client.runs.list())
        await anyio.sleep(70.0)  # the window has turned, and the token has expired in the queue
        assert sandbox.count("sign_in") == 2
        waiting.cancel()
        await asyncio.wait([waiting])
        began = anyio.current_time()
        await client.runs.list()
        assert anyio.current_time() - began < 15.0
        assert (sandbox.count("sign_in"), sandbox.count("list")) == (2, 2)


@pytest.mark.parametrize("loss", LOSSES[1:3] + LOSSES[5:7] + [Fault.status(408, after_work=True)])
async def test_lost_cancel_is_no_conflict(
    client: AmigoClient, sandbox: Sandbox, loss: Fault
) -> None:
    created = await client.runs.create(sandbox.add_set(SetPlan(seconds=3600.0, cancel_after=0.0)))
    sandbox.fault("cancel", loss)
    await client.runs.cancel(created.simulation_unit_test_set_run_id)
    assert sandbox.count("cancel") == 2
    with pytest.raises(ConflictError):
        await client.runs.cancel(created.simulation_unit_test_set_run_id)
