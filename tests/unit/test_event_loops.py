"""Several event loops in one process: one after the other, side by side, abandoned, forked."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from amigo_async import AmigoClient, BearerAuth, ConfigurationError, DeadlineError
from amigo_async.events import Event
from amigo_async.ratelimit import Budget, Limiter, Limiters, Permit, RateLimitInfo, registry
from amigo_async.testing import Fault, Sandbox
from tests.support.processes import in_a_process

THREADS = 4


@contextlib.contextmanager
def switching_often() -> Iterator[None]:
    """Let threads take turns within nearly every line."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def side_by_side(*work: Callable[[], object]) -> None:
    """Do each work in a thread of its own, all beginning at once."""
    start = threading.Barrier(len(work))

    def begin(part: Callable[[], object]) -> None:
        start.wait()
        part()

    with switching_often(), ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(begin, part) for part in work]:
            done.result()


def told(remaining: int) -> Budget:
    """A budget of which so many calls are left, for a minute from now."""
    budget, now = Budget(remaining + 1), time.monotonic()
    budget.answered(
        now, budget.take(now), RateLimitInfo(remaining + 1, remaining, now + 60.0, now + 60.0)
    )
    return budget


def untold(limit: int) -> Budget:
    """A budget of which no answer tells anything."""
    budget, now = Budget(limit), time.monotonic()
    budget.answered(now, budget.take(now), None)
    return budget


def ignore(_: Event) -> None:
    """Nobody listens."""


# --- side by side ---


def test_threads_never_overspend() -> None:
    for _ in range(10):
        budget = told(99)
        taken: list[Permit] = []

        async def take(budget: Budget = budget, taken: list[Permit] = taken) -> None:
            limiter = Limiter("list", budget)
            with pytest.raises(DeadlineError), anyio.fail_after(30):
                while True:
                    taken.append(await limiter.enter(ignore))

        side_by_side(*[lambda take=take: asyncio.run(take())] * THREADS)
        assert len(taken) == budget.in_flight == 99


@pytest.mark.parametrize("made", [told, untold])
def test_threads_lose_no_count(made: Callable[[int], Budget]) -> None:
    budget = made(10_000)
    before = budget.available(time.monotonic())

    async def spend() -> None:
        limiter = Limiter("list", budget)
        for _ in range(500):
            with await limiter.enter(ignore):
                """Nothing is told of it, so it is counted as sent."""

    side_by_side(*[lambda: asyncio.run(spend())] * THREADS)
    assert budget.in_flight == 0
    assert budget.available(time.monotonic()) == before - 500 * THREADS


def test_threads_find_one_budget() -> None:
    found: list[Budget] = []

    held = Limiters("https://api.example", "acme")

    async def look(thread: int) -> None:
        for number in range(150):
            other = f"https://{number}.{thread}.example"
            Limiters(other, "acme").of("list", 50)
            if number % 10 == 0:
                registry.forget(other)
            found.append(Limiters("https://api.example", "acme").of("list", 50).budget)

    side_by_side(*[lambda n=n: asyncio.run(look(n)) for n in range(THREADS)])
    assert len({id(budget) for budget in found}) == 1
    assert {name for name in registry._BUDGETS if name[1] == "acme"} == {
        ("https://api.example", "acme", "list")
    }
    del held


@pytest.mark.amigo_sandbox(limits={"create": 4, "sign_in": 1000}, window=0.5)
def test_clients_of_threads_share_a_budget(
    amigo_sandbox: Sandbox,
) -> None:
    ids = amigo_sandbox.add_sets(6)
    client = partial(amigo_sandbox.client, poll_interval=0.1)

    async def run(set_ids: list[str]) -> None:
        async with client() as one, client() as other:
            half = len(set_ids) // 2
            calls = one.run_many(set_ids[:half]), other.run_many(set_ids[half:])
            results = await asyncio.gather(*calls)
        assert all(result.passed for result in results)

    side_by_side(*[lambda n=n: asyncio.run(run(ids[n::3])) for n in range(3)])
    assert len(amigo_sandbox.runs) == len(ids)
    assert [r for r in amigo_sandbox.requests if r.status == 429] == []


# --- one after the other ---


@pytest.mark.amigo_sandbox(limits={"sign_in": 1000}, window=1800.0)
def test_asyncio_run_repeatedly(amigo_sandbox: Sandbox) -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
    remaining: list[int] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        async with amigo_sandbox.client() as client:
            await client.runs.list()
            state = client.budgets()["list"]
        assert (state.in_flight, state.waiting) == (0, 0)
        assert state.remaining is not None
        remaining.append(state.remaining)

    def held() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())) + threading.active_count()

    asyncio.run(main())
    before = held()
    for _ in range(20):
        asyncio.run(main())
    assert held() < before + 10  # the sandbox may not have seen the last ones go
    assert [loop() for loop in loops] == [None] * 21
    assert len(registry._LIMITERS) == 0
    assert registry._BUDGETS == {}
    assert remaining == list(range(remaining[0], remaining[0] - 21, -1))
    assert [r for r in amigo_sandbox.requests if r.status == 429] == []


def other_loop(kind: str, sandbox: Sandbox, client: AmigoClient) -> Any:
    run_id = sandbox.runs[0].id
    return {
        "create": lambda: client.runs.create("0" * 24),
        "get": lambda: client.runs.get(run_id),
        "wait": lambda: client.wait_for_completion(run_id),
        "download": lambda: client.artifacts.download(run_id, "unused"),
    }[kind]


CALLS = ["create", "get", "wait", "download"]


@pytest.mark.parametrize("kind", CALLS)
def test_client_of_a_closed_loop(amigo_sandbox: Sandbox, kind: str) -> None:
    client = amigo_sandbox.client()
    set_id = amigo_sandbox.add_set()

    async def first() -> None:
        await client.runs.create(set_id)
        await client._connections.api().close()  # or else its connections are never closed

    asyncio.run(first())
    asked = len(amigo_sandbox.requests)
    call = other_loop(kind, amigo_sandbox, client)

    async def second() -> None:
        with pytest.raises(ConfigurationError, match="another event loop"):
            await call()
        await client.aclose()

    asyncio.run(second())
    assert len(amigo_sandbox.requests) == asked


def test_client_of_another_thread(amigo_sandbox: Sandbox) -> None:
    run_id = amigo_sandbox.start_run(amigo_sandbox.add_set())
    amigo_sandbox.fault("list", Fault.delay(0.3))

    async def elsewhere(client: AmigoClient) -> None:
        for call in [*(other_loop(kind, amigo_sandbox, client) for kind in CALLS), client.aclose]:
            with pytest.raises(ConfigurationError, match="another event loop"):
                await call()

    async def main() -> None:
        async with amigo_sandbox.client() as client:
            waiting = asyncio.create_task(client.wait_for_completion(run_id))
            while not amigo_sandbox.count("list"):
                await asyncio.sleep(0.01)
            await asyncio.to_thread(asyncio.run, elsewhere(client))
            assert not waiting.done()  # nor did any of it wait in a queue
            assert (await waiting).passed

    asyncio.run(main())


def test_session_of_another_loop() -> None:
    async def give() -> None:
        async with aiohttp.ClientSession() as given:
            client = AmigoClient(auth=BearerAuth("t"), organization_id="o", http=given)
            with pytest.raises(ConfigurationError, match="http belongs to another event loop"):
                await asyncio.to_thread(asyncio.run, client.runs.list())

    asyncio.run(give())


# --- abandoned ---


def test_closed_loop_frees_its_budget() -> None:
    api = Limiters("https://api.example", "acme")

    async def begin() -> list[asyncio.Task[None]]:
        async def call() -> None:
            with await api.of("create", 20).enter(lambda _: None):
                await asyncio.Event().wait()

        calls = [asyncio.create_task(call()) for _ in range(3)]  # one goes ahead, two wait
        await asyncio.sleep(0)
        return calls

    async def look() -> int:
        create = api.of("create", 20)
        assert len(registry._LIMITERS) == 1
        gc.collect()
        return create.budget.in_flight

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it tells of tasks destroyed while pending
    calls = loop.run_until_complete(begin())
    loop.close()
    left = weakref.ref(loop)
    del calls, loop
    assert asyncio.run(look()) == 0
    gc.collect()
    assert left() is None


FORKED = """
import asyncio, os
from amigo_async.ratelimit import Limiters
api = Limiters("https://api.example", "acme")

async def main():
    create = api.of("create", 20)
    with await create.enter(print):
        create.budget.try_take(0.0)
        if os.fork() == 0:
            # The calls of the parent are not answered here.
            asyncio._set_running_loop(None)
            async def child():
                print(api.of("create", 20).budget.in_flight, flush=True)
            asyncio.run(child())
            os._exit(0)
        os.wait()
    print(create.budget.in_flight)

asyncio.run(main())
"""


def test_forked_child() -> None:
    assert in_a_process(FORKED).split() == ["0", "0"]


SPAWNED = """
import multiprocessing

from amigo_async import Gate

def judge(gate):
    from amigo_async.ratelimit import registry
    return gate.min_pass_rate, len(registry._BUDGETS)

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(*pool.apply(judge, [Gate(min_pass_rate=0.5)]))
"""


def test_spawned_child(tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    assert in_a_process(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')") == (
        "0.5 0\n"
    )


DEBUGGED = """
import asyncio, gc, logging, selectors, sys, tempfile, time
from amigo_async.testing import Sandbox, SetPlan

slow = []

class Keep(logging.Handler):
    def emit(self, record):
        slow.append(record.getMessage())

logging.getLogger("asyncio").addHandler(Keep(logging.WARNING))

class Waiting(selectors.DefaultSelector):
    waited = 0.0

    def select(self, timeout=None):
        began = time.monotonic()
        try:
            return super().select(timeout)
        finally:
            self.waited += time.monotonic() - began

class Loop(asyncio.SelectorEventLoop):
    # Its time is what this thread has computed and waited: a callback is not slow because other
    # processes had the processor meanwhile.
    def __init__(self):
        self.waiting = Waiting()
        super().__init__(self.waiting)

    def time(self):
        return time.thread_time() + self.waiting.waited

async def main(folder):
    plan = SetPlan(seconds=0.1, artifacts_after=0.0, cancel_after=0.0)
    async with Sandbox(plan=plan) as sandbox, sandbox.client(poll_interval=0.1) as client:
        # The first use of many things is slow: modules are imported, classes are made.
        for _ in range(4):
            slow.clear()
            gc.collect()
            ids = sandbox.add_sets(5)
            result = await client.run_many(
                ids, artifacts_dir=folder, journal=f"{folder}/{ids[0]}.jsonl", timeout=30
            )
            assert result.passed
            if not slow:
                break
        print(*slow, sep="\\n")

with tempfile.TemporaryDirectory() as folder:
    with asyncio.Runner(debug=True, loop_factory=Loop) as runner:
        runner.run(main(folder))
gc.collect()
"""


def test_debug_mode_is_silent() -> None:
    """What is slow is so each time; what is done for the first time is not."""
    assert in_a_process(DEBUGGED, "-X", "dev", "-W", "error").strip() == ""
