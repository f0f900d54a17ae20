"""List calls, at once and one after the other: calls a second, and the processor's time of each.

The service answers from memory in a process of its own, and the pages are small: what is measured
is what the client itself costs. Each contestant has a process of its own, and they take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Final

from msgspec import Struct

from benchmarks import bodies, canned, command, figures
from benchmarks.callers import BARE, CALLERS, OURS, VENDORS, Call
from benchmarks.figures import Aim, Result, Table

PACKAGES: Final = ["amigo_sdk", "httpx"]
# What was looked at and left.
NOTES: Final = [
    (
        "One after the other, bare aiohttp itself is only three to seven times as quick as the "
        "vendor's client, for most of the time is that of the sockets: for whoever uses aiohttp, "
        "ten times is out of reach there."
    ),
    (
        "Where it was profiled (Python 3.11, one core of two that were not idle, 20 at once) bare "
        "aiohttp takes 102 µs of the processor for a call. The package asks it for less, and saves "
        "about 20: a URL that is encoded already, headers that need no merging, a body that is "
        "taken as it comes, and one timer for all calls. It adds about 30: 12 at the gate and its "
        "budget, which is shared between threads and believes what answers tell, 6 for the query "
        "and its checks, the rest for the token, the server's clock, errors and frames. Repeated "
        "without a network, and so with all of it at hand in the caches of the processor, its own "
        "part takes half as long."
    ),
    (
        "What would make it quicker and is not worth its price: keeping the query of the call "
        "before, 4 µs a call (a cache to be kept true); a budget that is led by nothing but the "
        "headers, 4 (processes that know nothing of each other would be refused); no look which "
        "event loop is running, 1 (a client in a second loop would hang). Under the documented "
        "limit of 50 list calls a minute, all that the package adds is 2 ms a minute."
    ),
]
_HEAD: Final = [
    "at once",
    "contestant",
    "calls a second",
    "throughput over bare aiohttp's",
    "processor a call (µs)",
    "processor of bare aiohttp over its own",
]


class Taken(Struct, frozen=True, kw_only=True):
    """What the calls of one contestant in one round took.

    Attributes:
        who: The contestant.
        at_once: How many calls were under way.
        rate: Calls a second.
        cpu: Seconds of the processor a call.
    """

    who: str
    at_once: int
    rate: float
    cpu: float


def measure(who: str, base_url: str, at_once: int, calls: int, runs: int) -> Taken:
    """Let one contestant make its calls."""
    return asyncio.run(_calls(who, base_url, at_once, calls, runs))


async def _calls(who: str, base_url: str, at_once: int, calls: int, runs: int) -> Taken:
    async with CALLERS[who](base_url) as call:
        await _make(call, at_once, max(2 * at_once, calls // 10), runs)  # connects and signs in
        gc.collect()
        began, cpu = time.perf_counter(), time.process_time()
        await _make(call, at_once, calls, runs)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Taken(who=who, at_once=at_once, rate=calls / took, cpu=cpu / calls)


async def _make(call: Call, at_once: int, calls: int, runs: int) -> None:
    """Make so many calls, each of the tasks its next one as soon as it has an answer."""
    left = itertools.repeat(None, calls)

    async def work() -> None:
        for _ in left:
            if await call(runs) != runs:
                raise RuntimeError("a page is not whole")

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


def rounds(options: argparse.Namespace) -> list[Taken]:
    """Measure all, in turns: each round begins with another contestant."""
    page = bodies.page(options.runs, seed=options.seed, plan=None)
    spawn = get_context("spawn")
    with ExitStack() as stack:
        base_url = stack.enter_context(canned.serving(page))
        pools = {
            who: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn))
            for who in options.contestants
        }
        taken = []
        order = list(pools)
        for number, at_once in itertools.product(range(options.rounds), options.at_once):
            first = number % len(order)
            for who in order[first:] + order[:first]:
                calls = max(options.calls, at_once)
                job = (who, base_url, at_once, calls, options.runs)
                taken.append(pools[who].submit(measure, *job).result())
    return taken


def _of(taken: Sequence[Taken], who: str, at_once: int) -> list[Taken]:
    return [one for one in taken if (one.who, one.at_once) == (who, at_once)]


def _over(taken: Sequence[Taken], who: str, other: str, at_once: int) -> tuple[list[float], ...]:
    """The throughput of one over another's, and what it leaves of the processor, by round."""
    pairs = list(zip(_of(taken, who, at_once), _of(taken, other, at_once), strict=True))
    return [a.rate / b.rate for a, b in pairs], [b.cpu / a.cpu for a, b in pairs]


def table(taken: Sequence[Taken]) -> Table:
    """The figures of each contestant and number of calls at once."""
    rows = []
    names = dict.fromkeys(one.who for one in taken)
    for at_once, who in itertools.product(dict.fromkeys(t.at_once for t in taken), names):
        some = _of(taken, who, at_once)
        rate, cpu = _over(taken, who, BARE, at_once)
        rows.append(
            [
                str(at_once),
                who,
                figures.spread([one.rate for one in some], ",.0f"),
                figures.spread(rate, ".2f"),
                figures.spread([one.cpu * 1e6 for one in some], ",.0f"),
                figures.spread(cpu, ".2f"),
            ]
        )
    return Table(_HEAD, rows)


def aims(taken: Sequence[Taken]) -> list[Aim]:
    """What was wanted, by throughput, at each number of calls at once."""
    found = []
    for at_once, (other, wanted) in itertools.product(
        dict.fromkeys(t.at_once for t in taken), {BARE: 0.9, VENDORS: 10.0}.items()
    ):
        if not _of(taken, other, at_once):
            continue
        rate, cpu = _over(taken, OURS, other, at_once)
        what = f"at least {wanted:g} times the throughput of {other}, {at_once} at once"
        figure = f"{figures.spread(rate, '.2f')}; by processor {figures.spread(cpu, '.2f')}"
        found.append(Aim(what, figure, statistics.median(rate) >= wanted))
    return found


def result(options: argparse.Namespace) -> Result:
    """Measure, and tell."""
    taken = rounds(options)
    return Result(
        name="call",
        measures=(
            "`client.runs.list`: what a call costs beside the network, against bare aiohttp and "
            "httpx with msgspec, which do nothing but ask and decode, and the vendor's client."
        ),
        conditions=(
            f"{options.calls:,} calls a round of a page of {options.runs} runs without their "
            f"details; {options.rounds} rounds in turns; a process for each contestant and one "
            "for the service, which answers from memory; 100 connections at most for each. "
            "Ratios are of the same round."
        ),
        tables=[table(taken)],
        aims=aims(taken),
        notes=NOTES,
        packages=PACKAGES,
    )


def flags() -> argparse.ArgumentParser:
    """The flags."""
    parser = command.parser(__doc__, rounds=9)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 20, 200])
    parser.add_argument("--calls", type=int, default=2_000, help="calls a round")
    parser.add_argument("--runs", type=int, default=2, help="runs on a page")
    parser.add_argument("--contestants", nargs="+", choices=CALLERS, default=list(CALLERS))
    return parser


QUICK: Final = {"rounds": 1, "at_once": [1, 20], "calls": 20, "contestants": [OURS, BARE]}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    command.run(flags(), result, argv, quick=QUICK)


if __name__ == "__main__":
    main()
