"""Waiting for many runs, each with a task of its own: by one poller, or each for itself.

The service is a table in the process that answers at once, so what is measured is the waiting
alone; in the field each request of a task that polls for itself would cost an HTTP call as well.
The loop skips waits, and the time of the processor is counted. How soon ends are noticed under the
documented limits is measured with the sandbox.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import math
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Unpack

import msgspec

from amigo_async.decoding import RecordPage, RunRecord, decode_record_page
from amigo_async.models import Run, RunPage, UserInfo
from amigo_async.polling import Poller, wait_for_completion
from amigo_async.protocol.requests import RunFilters
from amigo_async.testing import Sandbox, SetPlan
from benchmarks import command, figures
from benchmarks.figures import Aim, Plot, Result, Table
from benchmarks.stage import WorkingLoop

# Seconds between two looks; fixed, so that both kinds look as often.
INTERVAL: Final = 10.0

# The most runs that one list call shows, and that one is asked about if it shows ends alone.
PAGE_SIZE: Final = 50
MOST_ENDS: Final = 200

# Runs in progress, in seconds, and how soon their ends are to be noticed, by their number: at the
# median and at most.
SHORTEST: Final = 1_200.0
LONGEST: Final = 3_600.0
SOON: Final = {1_000: (10.0, 30.0)}

# The documented list calls a minute, of which waiting may take half.
LISTS_A_MINUTE: Final = 50

# Exponents are of this many waiters and more: below, the cost of a tick itself weighs more.
GROWN: Final = 100

# The exponent of what all waiters cost up to which the cost of each is called flat.
FLAT: Final = 1.05

OURS: Final = "one poller"

_NOTES: Final = (
    (
        "A request that a task makes for itself costs a call over HTTP as well in the field, "
        "which is left out here, to its advantage; see `call`."
    ),
    (
        "The documented limit is 50 list calls a minute. Half of it, which is what the poller "
        "takes, asks about the ends of 5,000 runs a minute. Tasks that poll for themselves can be "
        "no more than 8 if each is to look every ten seconds."
    ),
    (
        "Each run is also requested in any state within two minutes, a fifth of all with each "
        "look, to notice what has vanished: these requests are counted apart."
    ),
)

_HEAD = (
    "waiters",
    "kind",
    "requests for ends a tick",
    "least possible",
    "all requests a tick",
    "processor a tick and waiter (µs)",
    "processor from start to end a waiter (µs)",
    "memory a waiter (bytes)",
)


class Service:
    """Answers list calls from a table; all runs end at once, when told to.

    Attributes:
        asked: How many calls there were.
        asked_in_any_state: How many of them were not for ends alone.
    """

    def __init__(self, count: int) -> None:
        self.asked = 0
        self.asked_in_any_state = 0
        self.runs = {run.id: run for run in map(_run, range(count))}
        self._records = _records(self.runs.values())
        self._over = False

    def end(self) -> None:
        """All runs are over from now on."""
        over = {"is_completed": True, "artifacts_generated": True}
        self.runs = {
            run_id: msgspec.structs.replace(run, **over) for run_id, run in self.runs.items()
        }
        self._records = _records(self.runs.values())
        self._over = True

    async def look_at_records(self, **filters: Unpack[RunFilters]) -> RecordPage:
        """As a wait looks, after the decoding."""
        page = await self.look(**filters)
        found = [run.id for run in page.simulation_unit_test_set_runs]
        return RecordPage({i: self._records[i] for i in found}, {}, has_more=page.has_more)

    async def look(self, **filters: Unpack[RunFilters]) -> RunPage:
        """As `Runs.list`."""
        self.asked += 1
        self.asked_in_any_state += not filters.get("is_completed")
        await asyncio.sleep(0)
        if filters.get("is_completed") and not self._over:
            return RunPage([], False, None, None)
        found = [self.runs[run_id] for run_id in filters["id"]]
        return RunPage(found[:PAGE_SIZE], len(found) > PAGE_SIZE, None, None)


def _records(runs: Iterable[Run]) -> Mapping[str, RunRecord]:
    body = msgspec.json.encode({"simulation_unit_test_set_runs": list(runs)})
    return decode_record_page(body).records


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
    poller = Poller(service.look_at_records, lambda: None, INTERVAL)
    return lambda run_id: wait_for_completion(poller, run_id)


def alone(service: Service) -> Wait:
    """Each polls for itself."""

    async def wait(run_id: str) -> Run:
        while True:
            page = await service.look(id=[run_id], limit=PAGE_SIZE)
            (run,) = page.simulation_unit_test_set_runs
            if run.is_completed:
                return run
            await asyncio.sleep(INTERVAL)

    return wait


KINDS: Final[dict[str, Callable[[Service], Wait]]] = {
    OURS: together,
    "a task polling for itself": alone,
}


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What some waiters took.

    Attributes:
        kind: How they waited.
        waiters: How many they were.
        requests: List calls a tick.
        ends: Those that asked for ends alone.
        tick: Seconds of the processor a tick and waiter.
        whole: The same from the start of the waiters to the end of the last, a waiter.
        memory: Bytes a waiter, its task included.
    """

    kind: str
    waiters: int
    requests: float
    ends: float
    tick: float
    whole: float
    memory: float


async def spend(kind: str, waiters: int, ticks: int) -> tuple[float, float, float, float]:
    """Requests a tick, those for ends, and the processor's time a tick and in all."""
    service = Service(waiters)
    wait = KINDS[kind](service)
    began = time.process_time()
    async with asyncio.TaskGroup() as group:
        for run_id in service.runs:
            group.create_task(wait(run_id))
        await asyncio.sleep(INTERVAL / 2)  # the first look is over
        asked, looking = service.asked, time.process_time()
        full = service.asked_in_any_state
        await asyncio.sleep(INTERVAL * ticks)
        a_tick = (time.process_time() - looking) / ticks
        requests = (service.asked - asked) / ticks
        ends = requests - (service.asked_in_any_state - full) / ticks
        service.end()
    return requests, ends, a_tick, time.process_time() - began


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
    with asyncio.Runner(loop_factory=WorkingLoop) as runner:
        requests, ends, a_tick, whole = runner.run(spend(kind, waiters, ticks))
    with asyncio.Runner(loop_factory=WorkingLoop) as runner:
        held = runner.run(hold(kind, waiters))
    return Taken(
        kind=kind,
        waiters=waiters,
        requests=requests,
        ends=ends if kind == OURS else requests,
        tick=a_tick / waiters,
        whole=whole / waiters,
        memory=held / waiters,
    )


def run_all(options: argparse.Namespace) -> Result:
    """Every number of waiters once a round, the kinds in turn."""
    for kind in KINDS:
        measure(kind, 10, 1)  # what is imported and set up once is not to be counted
    sizes = itertools.product(range(options.rounds), options.waiters, KINDS)
    taken = [measure(kind, waiters, options.ticks) for _, waiters, kind in sizes]
    noticed = []
    for number, runs in itertools.product(range(options.rounds), options.in_progress):
        with asyncio.Runner(loop_factory=WorkingLoop) as runner:
            noticed.append(runner.run(notice(runs, options.seed + number)))
    return result(taken, noticed, options)


class Noticed(msgspec.Struct, frozen=True, kw_only=True):
    """How the ends of runs in progress were noticed under the documented limits.

    Attributes:
        runs: How many runs there were.
        late: Seconds from the end of each run until its waiter returned.
        share: List calls a minute over the documented limit, until the last end.
    """

    runs: int
    late: list[float]
    share: float


async def notice(runs: int, seed: int) -> Noticed:
    """Wait for runs of 20 to 60 minutes that are in progress on the sandbox."""
    dice = random.Random(seed)
    ends: dict[str, float] = {}
    late: list[float] = []
    clock = asyncio.get_running_loop().time
    async with Sandbox(seed=seed, token_lifetime=86_400.0) as sandbox, sandbox.client() as client:
        began = clock()
        for _ in range(runs):
            seconds = dice.uniform(SHORTEST, LONGEST)
            plan = SetPlan(seconds=seconds, unit_tests=1, repeats=1, metrics=1)
            ends[sandbox.start_run(sandbox.add_set(plan))] = clock() + seconds

        async def wait(run_id: str) -> None:
            await client.wait_for_completion(run_id)
            late.append(clock() - ends[run_id])

        async with asyncio.TaskGroup() as group:
            for run_id in ends:
                group.create_task(wait(run_id))
        share = sandbox.count("list") / ((clock() - began) / 60) / LISTS_A_MINUTE
    return Noticed(runs=runs, late=late, share=share)


def _noticed_table(noticed: Sequence[Noticed]) -> Table:
    rows = []
    for runs in dict.fromkeys(one.runs for one in noticed):
        some = [one for one in noticed if one.runs == runs]
        rows.append(
            [
                f"{runs:,}",
                figures.spread([statistics.median(one.late) for one in some]),
                figures.spread([max(one.late) for one in some]),
                figures.spread([one.share for one in some], ".0%"),
            ]
        )
    head = ["runs", "end noticed after, median (s)", "at most (s)", "of the limit of list calls"]
    return Table(head, rows, "Runs of 20 to 60 minutes in progress, under the documented limits")


def _noticed_aims(noticed: Sequence[Noticed]) -> list[Aim]:
    found = []
    for runs in dict.fromkeys(one.runs for one in noticed):
        median, most = SOON.get(runs, (math.inf, math.inf))
        some = [one for one in noticed if one.runs == runs]
        middle = statistics.median(statistics.median(one.late) for one in some)
        worst = max(max(one.late) for one in some)
        share = max(one.share for one in some)
        if runs in SOON:
            found.append(
                Aim(
                    f"ends of {runs:,} runs noticed after {median:g} s at the median, {most:g} s "
                    "at most",
                    f"{middle:.1f} s, {worst:.1f} s at most",
                    middle <= median and worst <= most,
                )
            )
        what = f"half of the list calls for {runs:,} runs"
        found.append(Aim(what, f"{share:.0%}", share <= 0.5))
    return found


def result(
    taken: Sequence[Taken], noticed: Sequence[Noticed], options: argparse.Namespace
) -> Result:
    """All that was measured."""
    shown = plots(taken)
    return Result(
        name="wait",
        measures="Many runs are waited for, each by a task of its own: all on the one poller of a "
        "client, or each polling for itself.",
        conditions=f"The service is a table in the process that answers at once, so that the "
        f"waiting alone is measured; a look every {INTERVAL:g} s, {options.ticks} of them, in time "
        f"that is skipped, the processor's time being real. Rounds: {options.rounds}.",
        tables=[
            Table(list(_HEAD), [row(group) for group in of_each(taken)]),
            figures.growth(shown, f"Exponents over waiters, from {GROWN} on"),
            _noticed_table(noticed),
        ],
        aims=[*aims(taken), *_noticed_aims(noticed)],
        notes=list(_NOTES),
        plots=shown,
    )


def _memory(taken: Sequence[Taken]) -> dict[str, float]:
    """Bytes a waiter by kind, the median over all sizes and rounds."""
    return {
        kind: statistics.median(one.memory for one in taken if one.kind == kind) for kind in KINDS
    }


def of_each(taken: Iterable[Taken]) -> list[list[Taken]]:
    """The rounds of each number and kind of waiters together."""
    groups: dict[tuple[int, str], list[Taken]] = {}
    for one in taken:
        groups.setdefault((one.waiters, one.kind), []).append(one)
    return list(groups.values())


def row(rounds: Sequence[Taken]) -> list[str]:
    """The figures of one number and kind of waiters."""
    waiters = rounds[0].waiters
    return [
        f"{waiters:,}",
        rounds[0].kind,
        figures.spread([one.ends for one in rounds]),
        f"{math.ceil(waiters / MOST_ENDS):,}",
        figures.spread([one.requests for one in rounds]),
        figures.spread([one.tick * 1e6 for one in rounds], ",.2f"),
        figures.spread([one.whole * 1e6 for one in rounds]),
        figures.spread([one.memory for one in rounds], ",.0f"),
    ]


def plots(taken: Sequence[Taken]) -> list[Plot]:
    """What all waiters take together over their number."""
    grown: dict[str, tuple[str, str, Callable[[Taken], float]]] = {
        "requests": ("Requests a tick", "list calls", lambda one: one.requests),
        "processor": ("Processor a tick", "milliseconds", lambda one: one.tick * one.waiters * 1e3),
        "whole": (
            "Processor from start to end",
            "seconds",
            lambda one: one.whole * one.waiters,
        ),
        "memory": ("Memory", "MiB", lambda one: one.memory * one.waiters / 2**20),
    }
    return [
        Plot(
            name,
            title,
            "waiters",
            unit,
            [
                figures.curve(
                    kind, ((o.waiters, of(o)) for o in taken if o.kind == kind), grown=GROWN
                )
                for kind in KINDS
            ],
        )
        for name, (title, unit, of) in grown.items()
    ]


def aims(taken: Sequence[Taken]) -> list[Aim]:
    """Whether as few requests as possible are made, and each waiter costs the same."""
    ours = [one for one in taken if one.kind == OURS]
    extra = max(one.ends - math.ceil(one.waiters / MOST_ENDS) for one in ours)
    least, *_, most = _memory(taken).values()
    costs = [(one.waiters, one.tick * one.waiters) for one in ours if one.waiters >= GROWN]
    grows = figures.exponent(costs)
    return [
        Aim(
            f"ceil(N / {MOST_ENDS}) requests for ends a tick for N waiters",
            f"at most {extra:,.1f} more",
            extra <= 0,
        ),
        Aim(
            f"flat processor time a waiter: that of a tick grows with at most N^{FLAT:g}",
            "n/a" if grows is None else f"N^{grows:.2f}",
            None if grows is None else grows <= FLAT,
        ),
        Aim(
            "memory a waiter: at most that of a task polling for itself",
            f"{least / most:.2f} times",
            least / most <= 1.0,
        ),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    flags = command.parser(__doc__)
    flags.add_argument(
        "--waiters", type=int, nargs="+", default=[10, 100, 1_000, 3_000, 10_000], help="how many"
    )
    flags.add_argument("--ticks", type=int, default=20, help="ticks to wait for")
    flags.add_argument(
        "--in-progress", type=int, nargs="+", default=[60, 1_000], help="runs of an hour"
    )
    quick = {"in_progress": [60], "rounds": 3, "waiters": [10, 100, 1_000], "ticks": 5}
    command.run(flags, run_all, argv, quick=quick)


if __name__ == "__main__":
    main()
