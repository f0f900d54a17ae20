"""A large result: reports, journal, resuming and comparing, and ends that come at once.

Each is done in a process of its own, beside a task that shows for how long the event loop is
blocked.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import multiprocessing
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from msgspec import Struct

from amigo_async import AmigoClient, BatchResult, Gate, RunOutcome, compare
from amigo_async.batch.journal import Finished, JournalHeader, Started, open_journal
from amigo_async.batch.order import known_from
from amigo_async.decoding import decode_run_page
from amigo_async.models import Run
from amigo_async.report import from_json, html, junit, markdown, to_json
from amigo_async.report.json import json_pieces
from amigo_async.testing import Sandbox, SetPlan
from amigo_async.verdicts.gate import verdict_of
from benchmarks import bodies, command, figures
from benchmarks.figures import Aim, Result, Table

T = TypeVar("T")

# A page of runs, and how many are written to a journal at once.
PAGE: Final = 50

# How often the loop is asked whether it is blocked, in seconds.
TICK: Final = 0.005

AT: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)

# With ten repeats a unit test can pass it, and most need the whole calculation.
SURE: Final = Gate(min_pass_rate=0.5, confidence=0.95)

_WHY: Final = (
    "A string of hundreds of megabytes is joined, and a file of as many is decoded, by one call in "
    "C that lets no other thread run. The command writes JSON in pieces."
)

HEAD: Final = (
    "what",
    "metrics",
    "time (s)",
    "processor (s)",
    "memory (MiB)",
    "loop blocked, 99th percentile (ms)",
    "at most (ms)",
)


class Taken(Struct, frozen=True, kw_only=True):
    """What one of the tasks took.

    Attributes:
        what: Which.
        metrics: Metrics of each unit test.
        seconds: How long it took.
        processor: Seconds of the processor.
        memory: MiB at the most, besides the result itself.
        late: How late a task of the loop was meanwhile, in seconds, rising.
    """

    what: str
    metrics: int
    seconds: float
    processor: float
    memory: float
    late: list[float]


Job: TypeAlias = Callable[["Options"], Coroutine[Any, Any, Taken]]


class Options(Struct, frozen=True):
    """What is to be done, and with how much.

    Attributes:
        what: Which of the tasks.
        sets: How many sets.
        tests: Unit tests of each.
        repeats: Repeats of each.
        metrics: Metrics of each.
        length: Seconds of a run, where many end at once.
    """

    what: str
    sets: int
    tests: int
    repeats: int
    metrics: int
    length: float

    @property
    def plan(self) -> SetPlan:
        """The sets as the sandbox knows them."""
        return SetPlan(
            seconds=self.length, unit_tests=self.tests, repeats=self.repeats, metrics=self.metrics
        )

    def runs(self, later: int = 0) -> Iterator[Run]:
        """Completed runs of all sets; others of the same sets where `later` is another number."""
        for first in range(0, self.sets, PAGE):
            some = min(PAGE, self.sets - first)
            body = bodies.page(some, seed=first, plan=self.plan, later=later)
            yield from decode_run_page(body).simulation_unit_test_set_runs

    def result(self, later: int = 0) -> BatchResult:
        """The result of a batch of all sets."""
        outcomes = [
            RunOutcome(
                unit_test_set_id=run.simulation_unit_test_set_id,
                run_id=run.id,
                verdict=verdict_of(run, None, cancelled=False),
                run=run,
                started_at=AT,
                finished_at=AT + timedelta(minutes=30),
            )
            for run in self.runs(later)
        ]
        return BatchResult(outcomes, began_at=AT)


async def taken(
    options: Options, work: Callable[[], Awaitable[object]], *, keeps: bool = False
) -> Taken:
    """Do some work, and tell what it took.

    Args:
        options: What is done.
        work: Does it.
        keeps: Whether it returns a result, which does not count.
    """
    late: list[float] = []

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK)
            late.append(time.perf_counter() - began - TICK)

    gc.collect()
    before = _memory("VmRSS")
    _forget_peak()
    ticking = asyncio.create_task(tick())
    await asyncio.sleep(2 * TICK)
    began, processor = time.perf_counter(), time.process_time()
    kept = await work()
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    await asyncio.sleep(2 * TICK)
    ticking.cancel()
    peak = _memory("VmHWM")
    memory = peak - (_memory("VmRSS") if keeps else before)
    del kept
    return Taken(
        what=options.what,
        metrics=options.metrics,
        seconds=seconds,
        processor=processor,
        memory=max(0.0, memory),
        late=sorted(late),
    )


def _memory(what: str) -> float:
    """MiB of the process by a line of what Linux tells; 0 where nothing does."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(what)), 0.0)


def _forget_peak() -> None:
    """Let the most that the process has held be what it holds now."""
    file = Path("/proc/self/clear_refs")
    if file.exists():
        file.write_text("5", encoding="utf-8")


def reported(report: Callable[[BatchResult], object]) -> Job:
    """Write a report in a thread, as its documentation advises."""

    async def job(options: Options) -> Taken:
        result = options.result()
        return await taken(options, lambda: asyncio.to_thread(report, result))

    return job


def in_pieces(result: BatchResult) -> None:
    """Write JSON to a file, as the command does."""
    with tempfile.TemporaryFile("w", encoding="utf-8") as file:
        file.writelines(json_pieces(result))


async def read(options: Options) -> Taken:
    """Read JSON."""
    text = to_json(options.result())
    return await taken(options, lambda: asyncio.to_thread(from_json, text), keeps=True)


async def lengths(options: Options) -> Taken:
    """Read how long runs took from JSON, as `lengths_from` does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        path.write_text(to_json(options.result()), encoding="utf-8")
        return await taken(options, lambda: asyncio.to_thread(known_from, path))


async def write_journal(path: Path, header: JournalHeader, runs: Iterable[Run]) -> None:
    """Write the starts of runs, and the ends of those that are completed, a page at a time."""
    async with open_journal(path, header) as journal:

        async def write(run: Run) -> None:
            set_id = run.simulation_unit_test_set_id
            await journal.write(Started(set_id, run.id, AT))
            if run.is_completed:
                verdict = verdict_of(run, None, cancelled=False)
                await journal.write(Finished(set_id, verdict, run, AT))

        left = iter(runs)
        while some := list(itertools.islice(left, PAGE)):
            await asyncio.gather(*map(write, some))


async def journal(options: Options) -> Taken:
    """Write a journal."""
    runs = list(options.runs())
    header = JournalHeader("https://api.example", "acme", "user-1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        return await taken(options, lambda: write_journal(path, header, runs))


async def resume(options: Options) -> Taken:
    """Run a batch all of whose runs are in the journal."""
    async with Sandbox() as sandbox, sandbox.client() as client:
        header = JournalHeader(sandbox.base_url, sandbox.organization_id, sandbox.user_id)
        return await resumed(options, client, header, options.runs)


async def resumed(
    options: Options,
    client: AmigoClient,
    header: JournalHeader,
    runs: Callable[[], Iterable[Run]],
    gate: Gate | None = None,
) -> Taken:
    """Write a journal, and run the batch of its sets."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        await write_journal(path, header, runs())
        ids = [run.simulation_unit_test_set_id for run in runs()]
        return await taken(
            options, lambda: client.run_many(ids, journal=path, gate=gate), keeps=True
        )


async def compared(options: Options) -> Taken:
    """Compare each set of two results, a set at a time in a thread, as a batch does."""
    before, after = options.result(), options.result(later=1)

    async def work() -> None:
        for a, b in zip(before.outcomes, after.outcomes, strict=True):
            if a.run is not None and b.run is not None:
                await asyncio.to_thread(compare, a.run, b.run)

    return await taken(options, work)


def ending(gate: Gate | None) -> Job:
    """Wait for a page of runs that end at once; the service is a process of its own."""

    async def job(options: Options) -> Taken:
        with service(options) as settings:
            async with AmigoClient(**settings) as client:
                runs = (await client.runs.list(limit=PAGE)).simulation_unit_test_set_runs
                header = JournalHeader(
                    settings["base_url"], settings["organization_id"], settings["user_id"]
                )
                return await resumed(options, client, header, lambda: runs, gate)

    return job


@contextmanager
def service(options: Options) -> Iterator[dict[str, Any]]:
    """The sandbox with a page of runs, in a process of its own; the settings of its clients."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(options, theirs))
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join(10)
        process.kill()


def serve(options: Options, pipe: Connection) -> None:
    """Serve until the other end of the pipe is closed."""
    with Sandbox().in_thread() as sandbox:
        for set_id in sandbox.add_sets(min(PAGE, options.sets), options.plan):
            sandbox.start_run(set_id)
        pipe.send(
            {
                "base_url": sandbox.base_url,
                "organization_id": sandbox.organization_id,
                "api_key": str(sandbox.api_key),
                "api_key_id": sandbox.api_key_id,
                "user_id": sandbox.user_id,
            }
        )
        with suppress(EOFError):
            pipe.recv()


JOBS: Final[dict[str, Job]] = {
    "JSON, one string": reported(to_json),
    "JSON, in pieces to a file": reported(in_pieces),
    "JSON, read": read,
    "JSON, lengths of runs read": lengths,
    "JUnit": reported(junit),
    "HTML": reported(html),
    "Markdown": reported(markdown),
    "journal": journal,
    "resumed": resume,
    "compared with another": compared,
    f"{PAGE} runs end at once": ending(None),
    f"{PAGE} runs end at once, gate with a confidence": ending(SURE),
}


def measure(options: Options) -> Taken:
    """Do one of the tasks in this process."""
    random.seed(options.what)
    return asyncio.run(JOBS[options.what](options))


def run_all(options: argparse.Namespace) -> Result:
    """Do all tasks, each in a process of its own."""
    found = []
    spawn = multiprocessing.get_context("spawn")
    for _, metrics, what in itertools.product(range(options.rounds), options.metrics, JOBS):
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            sizes = (options.sets, options.tests, options.repeats, metrics, options.length)
            found.append(pool.submit(measure, Options(what, *sizes)).result())
    return result(found, options)


def result(found: Sequence[Taken], options: argparse.Namespace) -> Result:
    """All that was measured."""
    groups: dict[tuple[str, int], list[Taken]] = {}
    for one in found:
        groups.setdefault((one.what, one.metrics), []).append(one)
    return Result(
        name="large",
        measures="What is done with a large result: reports, journal, resuming, comparing, and the "
        "ends of many runs at once; for how long the event loop is blocked meanwhile.",
        conditions=f"{options.sets:,} sets of {options.tests} unit tests with {options.repeats} "
        f"repeats, one repeat in ten failed. Rounds: {options.rounds}, each task in a process of "
        f"its own. Reports are made and JSON is read in a thread, as their documentation advises; "
        f"memory is what the process held at most, without the result. A task of the loop sleeps "
        f"{TICK * 1e3:g} ms again and again: what it is late is how long the loop was blocked. "
        "Where runs end at once the service is in a process of its own.",
        tables=[Table(list(HEAD), [row(rounds) for rounds in groups.values()])],
        aims=aims(found),
        notes=[_WHY],
    )


def row(rounds: Sequence[Taken]) -> list[str]:
    """The figures of one task."""
    blocked = [1e3 * percentile(one.late) for one in rounds]
    worst = [1e3 * max(one.late) for one in rounds]
    return [
        rounds[0].what,
        str(rounds[0].metrics),
        figures.spread([one.seconds for one in rounds]),
        figures.spread([one.processor for one in rounds]),
        figures.spread([one.memory for one in rounds], ",.0f"),
        figures.spread(blocked, ",.0f"),
        figures.spread(worst, ",.0f"),
    ]


def percentile(late: Sequence[float]) -> float:
    """The 99th percentile of rising figures."""
    return late[max(0, round(0.99 * len(late)) - 1)]


def aims(found: Sequence[Taken]) -> list[Aim]:
    """Each within half a minute and 500 MB, and a loop that others can use meanwhile."""
    slowest = max(found, key=lambda one: one.seconds)
    largest = max(found, key=lambda one: one.memory)
    stalled = max(found, key=lambda one: percentile(one.late))
    worst = max(found, key=lambda one: max(one.late))
    seconds, memory = slowest.seconds, largest.memory * 2**20 / 1e6
    blocked, longest = 1e3 * percentile(stalled.late), 1e3 * max(worst.late)
    return [
        Aim("each within 30 s", f"{seconds:.1f} s ({slowest.what})", seconds <= 30),
        Aim("with at most 500 MB", f"{memory:.0f} MB ({largest.what})", memory <= 500),
        Aim(
            "the loop blocked for at most 20 ms at the 99th percentile",
            f"{blocked:.0f} ms ({stalled.what})",
            blocked <= 20,
        ),
        Aim("and 100 ms at worst", f"{longest:.0f} ms ({worst.what})", longest <= 100),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write what was found."""
    flags = command.parser(__doc__, rounds=3)
    flags.add_argument("--sets", type=int, default=1_000, help="sets of the result")
    flags.add_argument("--tests", type=int, default=50, help="unit tests of each")
    flags.add_argument("--repeats", type=int, default=10, help="repeats of each")
    flags.add_argument("--metrics", type=int, nargs="+", default=[1, 3], help="metrics of each")
    flags.add_argument("--length", type=float, default=8.0, help="seconds of runs that end at once")
    command.run(flags, run_all, argv, quick={"rounds": 1, "sets": 50, "metrics": [1]})


if __name__ == "__main__":
    main()
