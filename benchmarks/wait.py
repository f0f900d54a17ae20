"""Waiting for many runs, each with a task of its own: by one poller, or each for itself.

The service is a table in the process that answers at once, so what is measured is the waiting
alone; in the field each request of a task that polls for itself would cost an HTTP call as well.
The loop skips waits, and the time of the processor is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import math
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Unpack

import msgspec

from amigo_async.models import Run, RunPage, UserInfo
from amigo_async.polling import Poller, wait_for_completion
from amigo_async.testing import VirtualTimeLoop
from amigo_async.wire.requests import RunFilters
from benchmarks import figures, machine

# Seconds between two looks; fixed, so that both kinds look as often.
INTERVAL: Final = 10.0

_HEAD = (
    "waiters",
    "kind",
    "requests a tick",
    "least possible",
    "processor a tick and waiter (µs)",
    "processor from start to end a waiter (µs)",
    "memory a waiter (bytes)",
)


class Service:
    """Answers list calls from a table; all runs end at once, when told to.

    Attributes:
        asked: How many calls there were.
    """

    def __init__(self, count: int) -> None:
        self.asked = 0
        self.runs = {run.id: run for run in map(_run, range(count))}
        self._over = False

    def end(self) -> None:
        """All runs are over from now on."""
        over = {"is_completed": True, "artifacts_generated": True}
        self.runs = {
            run_id: msgspec.structs.replace(run, **over) for run_id, run in self.runs.items()
        }
        self._over = True

    async def look(self, **filters: Unpack[RunFilters]) -> RunPage:
        """As `Runs.list`."""
        self.asked += 1
        await asyncio.sleep(0)
        if filters.get("is_completed") and not self._over:
            return RunPage([], False, None, None)
        found = [self.runs[run_id] for run_id in filters["id"]]
        return RunPage(found, False, None, None)


def _run(number: int) -> Run:
    return Run(
        org_id="acme",
        id=f"{number:024x}",
        is_completed=False,
        simulation_unit_test_set_id=f"{number:024x}",
        failed_metrics=False,
        errored=False,
        artifacts_generated=False,
        unit_test_run_specs=[],
        unit_test_run_results=[],
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        creator=UserInfo("acme", "user-1"),
    )


Wait = Callable[[str], Coroutine[Any, Any, Run]]


def together(service: Service) -> Wait:
    """All wait on one poller."""
    poller = Poller(service.look, lambda: None, INTERVAL)
    return lambda run_id: wait_for_completion(poller, run_id)


def alone(service: Service) -> Wait:
    """Each polls for itself."""

    async def wait(run_id: str) -> Run:
        while True:
            page = await service.look(id=[run_id], limit=50)
            (run,) = page.simulation_unit_test_set_runs
            if run.is_completed:
                return run
            await asyncio.sleep(INTERVAL)

    return wait


KINDS: Final[dict[str, Callable[[Service], Wait]]] = {
    "one poller": together,
    "a task polling for itself": alone,
}


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What some waiters took.

    Attributes:
        kind: How they waited.
        waiters: How many they were.
        requests: List calls a tick.
        tick: Seconds of the processor a tick and waiter.
        whole: The same from the start of the waiters to the end of the last, a waiter.
        memory: Bytes a waiter, its task included.
    """

    kind: str
    waiters: int
    requests: float
    tick: float
    whole: float
    memory: float


async def spend(kind: str, waiters: int, ticks: int) -> tuple[float, float, float]:
    """Requests a tick, and the processor's time a tick and in all."""
    service = Service(waiters)
    wait = KINDS[kind](service)
    began = time.process_time()
    async with asyncio.TaskGroup() as group:
        for run_id in service.runs:
            group.create_task(wait(run_id))
        await asyncio.sleep(INTERVAL / 2)  # the first look is over
        asked, looking = service.asked, time.process_time()
        await asyncio.sleep(INTERVAL * ticks)
        a_tick = (time.process_time() - looking) / ticks
        requests = (service.asked - asked) / ticks
        service.end()
    return requests, a_tick, time.process_time() - began


async def hold(kind: str, waiters: int) -> float:
    """Bytes that all waiters hold while they wait."""
    service = Service(waiters)
    wait = KINDS[kind](service)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        async with asyncio.TaskGroup() as group:
            for run_id in service.runs:
                group.create_task(wait(run_id))
            await asyncio.sleep(INTERVAL * 2.5)
            gc.collect()
            held = tracemalloc.get_traced_memory()[0] - before
            service.end()
    finally:
        tracemalloc.stop()
    return held


def measure(kind: str, waiters: int, ticks: int) -> Taken:
    """Let some waiters wait: once for the time, once, which is slower, for the memory."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        requests, a_tick, whole = runner.run(spend(kind, waiters, ticks))
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        held = runner.run(hold(kind, waiters))
    return Taken(
        kind=kind,
        waiters=waiters,
        requests=requests,
        tick=a_tick / waiters,
        whole=whole / waiters,
        memory=held / waiters,
    )


def tables(taken: Sequence[Taken]) -> str:
    """All that was measured, in Markdown."""
    groups: dict[tuple[int, str], list[Taken]] = {}
    for one in taken:
        groups.setdefault((one.waiters, one.kind), []).append(one)
    rows = [
        [
            f"{waiters:,}",
            kind,
            figures.spread([one.requests for one in rounds], ",.1f"),
            f"{math.ceil(waiters / 50):,}",
            figures.spread([one.tick * 1e6 for one in rounds], ",.2f"),
            figures.spread([one.whole * 1e6 for one in rounds], ",.1f"),
            figures.spread([one.memory for one in rounds], ",.0f"),
        ]
        for (waiters, kind), rounds in groups.items()
    ]
    return f"{figures.table(_HEAD, rows)}\n\n{growth(taken)}"


def growth(taken: Iterable[Taken]) -> str:
    """How what all waiters take together grows with their number, as exponents.

    From a hundred on: below that, the cost of a tick itself weighs more than the waiters'.
    """
    every = [one for one in taken if one.waiters >= 100]
    grown: dict[str, Callable[[Taken], float]] = {
        "requests a tick": lambda one: one.requests,
        "processor a tick": lambda one: one.tick * one.waiters,
        "processor from start to end": lambda one: one.whole * one.waiters,
        "memory": lambda one: one.memory * one.waiters,
    }
    rows = [
        [
            kind,
            *(
                figures.power((o.waiters, of(o)) for o in every if o.kind == kind)
                for of in grown.values()
            ),
        ]
        for kind in KINDS
    ]
    return figures.table(["exponent over waiters (100 and more)", *grown], rows)


def report(taken: Sequence[Taken], *, as_json: bool) -> str:
    """All that was measured, with what it was measured on."""
    facts = machine.facts()
    if as_json:
        rounds = msgspec.to_builtins(taken)
        return json.dumps({"machine": facts, "rounds": rounds}, indent=1)
    return f"{machine.heading(facts)}\n\n{tables(taken)}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiters", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=5, help="rounds, the kinds in turn")
    parser.add_argument("--ticks", type=int, default=20, help="ticks to wait for")
    parser.add_argument("--json", action="store_true", help="write JSON instead of tables")
    options = parser.parse_args(argv)
    for kind in KINDS:
        measure(kind, 10, 1)  # what is imported and set up once is not to be counted
    taken = [
        measure(kind, waiters, options.ticks)
        for _, waiters, kind in itertools.product(range(options.rounds), options.waiters, KINDS)
    ]
    print(report(taken, as_json=options.json))


if __name__ == "__main__":
    main()
