"""List calls, at once and one after the other: calls a second, and the processor's time of each.

The service answers from memory in a process of its own, and the pages are small: what is measured
is what the client itself costs. Each contestant has a process of its own, and they take turns. All
may have as many connections at once, none of which is closed meanwhile, and all but the vendor's
decode into the same structs. Those that sign in do so before the time is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager, ExitStack
from multiprocessing import get_context
from typing import Final, TypeAlias

import aiohttp
import msgspec
from msgspec import Struct

from amigo_async import AmigoClient
from amigo_async.models import RunPage
from benchmarks import bodies, canned, command, figures
from benchmarks.figures import Aim, Result, Table

# --- contestants ---

# aiohttp's and httpx's own default; httpx keeps fewer of them open by default, which is left out.
CONNECTIONS: Final = 100

_PATH: Final = "/v1/acme/simulation/unit_test_set_run/"
_KEPT: Final = 60.0  # seconds that httpx keeps a connection on which nothing happens
_HEADERS: Final = {"Accept": "application/json", "Authorization": f"Bearer {'t' * 800}"}

# Asks for a page of so many runs, and gives how many came.
Call: TypeAlias = Callable[[int], Awaitable[int]]


@contextlib.asynccontextmanager
async def amigo_async(base_url: str) -> AsyncGenerator[Call, None]:
    """The package: ``client.runs.list``, as it ships."""
    async with AmigoClient(
        api_key="key",
        api_key_id="key-id",
        user_id="user-1",
        organization_id="acme",
        base_url=base_url,
    ) as client:

        async def call(limit: int) -> int:
            page = await client.runs.list(limit=limit)
            return len(page.simulation_unit_test_set_runs)

        yield call


@contextlib.asynccontextmanager
async def bare(base_url: str) -> AsyncGenerator[Call, None]:
    """The least that can be done with aiohttp and msgspec: no token, no limit, no retry."""
    decode = msgspec.json.Decoder(RunPage).decode
    url = base_url + _PATH
    # Without cookies, as in the package: looking for them takes time.
    async with aiohttp.ClientSession(
        headers=_HEADERS, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:

        async def call(limit: int) -> int:
            async with session.get(url, params={"limit": limit}) as answer:
                answer.raise_for_status()
                page = decode(await answer.read())
            return len(page.simulation_unit_test_set_runs)

        yield call


@contextlib.asynccontextmanager
async def with_httpx(base_url: str) -> AsyncGenerator[Call, None]:
    """The same with httpx."""
    import httpx  # noqa: PLC0415  # a process has one alone

    limits = httpx.Limits(
        max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=_KEPT
    )
    decode = msgspec.json.Decoder(RunPage).decode
    async with httpx.AsyncClient(base_url=base_url, headers=_HEADERS, limits=limits) as client:

        async def call(limit: int) -> int:
            answer = await client.get(_PATH, params={"limit": limit})
            page = decode(answer.raise_for_status().content)
            return len(page.simulation_unit_test_set_runs)

        yield call


@contextlib.asynccontextmanager
async def vendors(base_url: str) -> AsyncGenerator[Call, None]:
    """The vendor's client and its model, put together as its own methods do."""
    import httpx  # noqa: PLC0415  # a process has one alone
    from amigo_sdk.config import AmigoConfig  # noqa: PLC0415
    from amigo_sdk.generated.model import (  # noqa: PLC0415
        SimulationGetSimulationUnitTestSetRunsResponse,
    )
    from amigo_sdk.http_client import AmigoAsyncHttpClient  # noqa: PLC0415

    limits = httpx.Limits(
        max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=_KEPT
    )
    config = AmigoConfig(
        api_key="key",
        api_key_id="key-id",
        user_id="user-1",
        organization_id="acme",
        base_url=base_url,
    )
    model = SimulationGetSimulationUnitTestSetRunsResponse
    async with AmigoAsyncHttpClient(config, limits=limits) as client:

        async def call(limit: int) -> int:
            answer = await client.request("GET", _PATH, params={"limit": limit})
            page = model.model_validate_json(answer.text)
            return len(page.simulation_unit_test_set_runs)

        yield call


OURS: Final = "amigo_async"
BARE: Final = "aiohttp + msgspec"
VENDORS: Final = "amigo_sdk"

CALLERS: Final[dict[str, Callable[[str], AbstractAsyncContextManager[Call]]]] = {
    OURS: amigo_async,
    BARE: bare,
    "httpx + msgspec": with_httpx,
    VENDORS: vendors,
}


# --- the benchmark ---

PACKAGES: Final = ["amigo_sdk", "httpx"]
# What was looked at and left.
NOTES: Final = [
    (
        "One after the other, bare aiohttp itself is only three to seven times as quick as the "
        "vendor's client, for most of the time is that of the sockets: for whoever uses aiohttp, "
        "ten times is out of reach there."
    ),
    (
        "Under the documented limit of 50 list calls a minute, all that the package adds to them "
        "is a few milliseconds a minute: what would save a part of it is not worth its price."
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
        dict.fromkeys(t.at_once for t in taken), {BARE: 0.8, VENDORS: 10.0}.items()
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
