"""The documented limits against the sandbox: nothing refused, nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import anyio
import pytest

from amigo_async import AmigoClient, CreatedRun
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
async def test_sixty_creates_leave_in_three_windows_and_none_is_refused(
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


@pytest.mark.parametrize("seed", range(5))
async def test_with_another_process_spending_half_at_random_few_are_refused(seed: int) -> None:
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
        assert sandbox.count("create", status=429) <= 0.03 * 60


async def test_a_refusal_without_a_word_of_when_is_waited_out() -> None:
    async with Sandbox(plan=LONG, rate_limit_headers=None, retry_after=None) as sandbox:
        sandbox.spend("create", 15)
        async with sandbox.client() as client:
            await create_all(client, sandbox.add_sets(30))
        assert sandbox.count("create", status=201) == 30


@pytest.mark.parametrize("limit", [5, 40])
async def test_where_less_or_more_is_allowed_that_is_used(limit: int) -> None:
    async with Sandbox(plan=LONG, limits={"create": limit}) as sandbox, sandbox.client() as client:
        began = anyio.current_time()
        await create_all(client, sandbox.add_sets(40))
        turns = 40 // limit - 1
        assert turns * 60 <= anyio.current_time() - began <= turns * 60 * 1.05 + 2
        assert sandbox.count("create", status=429) == 0


async def test_cancels_and_links_do_not_queue_behind_creates_and_polls(
    client: AmigoClient, sandbox: Sandbox
) -> None:
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


async def test_two_clients_of_a_process_share_the_budget(sandbox: Sandbox) -> None:
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


async def test_two_hundred_creates_each_dropped_somewhere_start_two_hundred_runs() -> None:
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


@pytest.mark.parametrize("loss", LOSSES, ids=lambda fault: f"{fault.kind} {fault.after_work}")
async def test_a_create_whose_answer_is_lost_is_found_or_made_again(
    client: AmigoClient, sandbox: Sandbox, loss: Fault
) -> None:
    set_id = sandbox.add_set(LONG)
    sandbox.fault("create", loss)
    created = await client.runs.create(set_id)
    assert [run.id for run in sandbox.runs] == [created.simulation_unit_test_set_run_id]


async def test_a_create_cancelled_on_the_wire_tells_its_id(sandbox: Sandbox) -> None:
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


async def test_the_error_of_a_proxy_does_not_tell_that_there_are_no_headers() -> None:
    """Nor is the budget then the documented one, for which a set would be without room in time."""
    async with Sandbox(limits={"create": 100}) as sandbox, sandbox.client() as client:
        sandbox.fault("create", Fault.status(503, body=b"<html>No server is available</html>"))
        sandbox.fault("create", Fault.delay(5.0), times=20)
        result = await client.run_many(sandbox.add_sets(25), timeout=40)
        assert result.passed
