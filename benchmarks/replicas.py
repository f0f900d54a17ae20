"""Processes that share an organization: by the response headers alone, and with a budget in Redis.

Time is real, and each replica is a process; the contestants run side by side, each on a sandbox of
its own, as nearly all of it is waiting. Needs the program ``redis-server``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import socket
import statistics
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from amigo_async import AmigoClient
from amigo_async.protocol.endpoints import EndpointName
from amigo_async.testing import Sandbox, SetPlan
from benchmarks import command
from benchmarks.figures import Aim, Result, Table, spread

SETS: Final = 120
_REPLICA: Final = "--replica"
_HEAD: Final = (
    "processes",
    "Redis",
    "all done after (s)",
    "over one process",
    "windows to start all",
    "requests",
    "refused (429)",
    "share refused (%)",
    "sign-ins",
    "sets lost",
)


class Contestant(msgspec.Struct, frozen=True):
    """Who does the work.

    Attributes:
        processes: How many they are.
        redis: ``no``, ``yes``, or ``killed`` in the middle.
    """

    processes: int
    redis: str


CONTESTANTS: Final = (
    Contestant(1, "no"),
    Contestant(1, "yes"),
    Contestant(4, "no"),
    Contestant(4, "yes"),
    Contestant(4, "killed"),
)


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What it took.

    Attributes:
        who: Who did it.
        seconds: From the word to start until the last process was done.
        windows: Windows of the service in which sets were started.
        requests: Requests to the API.
        refused: Those that were refused (429).
        sign_ins: Tokens that were issued.
        lost: Sets that did not pass.
    """

    who: Contestant
    seconds: float
    windows: int
    requests: int
    refused: int
    sign_ins: int
    lost: int


@asynccontextmanager
async def redis_server() -> AsyncIterator[tuple[str, Process]]:
    """A server that keeps nothing, on a free port: its URL, and the process."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is not on the path")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "")
    server = await asyncio.create_subprocess_exec(program, *options, stdout=PIPE)
    await _says(server, b"Ready to accept")
    try:
        yield f"redis://127.0.0.1:{port}/0", server
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        await server.wait()


async def take(who: Contestant, window: float, seed: int) -> Taken:
    """Let one contestant do it."""
    dice = random.Random(seed)
    scale = window / 60.0
    # What is asked for at a real pace has a limit to match: only creates are to be scarce.
    others: dict[EndpointName, int | None] = {"list": round(50 / scale), "artifacts": None}
    async with Sandbox(seed=seed, window=window, limits=others) as sandbox:
        plans = [SetPlan(seconds=scale * dice.uniform(10.0, 40.0)) for _ in range(SETS)]
        set_ids = [sandbox.add_set(plan) for plan in plans]
        async with contextlib.AsyncExitStack() as stack:
            url, server = None, None
            if who.redis != "no":
                url, server = await stack.enter_async_context(redis_server())
            replicas = [await _started(sandbox) for _ in range(who.processes)]
            began = sandbox.now()
            if who.redis == "killed" and server is not None:
                asyncio.get_running_loop().call_later(2.5 * window, server.kill)
            told = [
                {"sets": set_ids[n :: who.processes], "redis": url} for n in range(len(replicas))
            ]
            passed: list[int] = await asyncio.gather(*map(_done, replicas, told))
            seconds = sandbox.now() - began
        return _taken(who, sandbox, window, seconds, SETS - sum(passed))


async def _started(sandbox: Sandbox) -> Process:
    """A replica that has imported what it needs."""
    replica = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.replicas", _REPLICA),
        env={**os.environ, **sandbox.environment()},
        stdin=PIPE,
        stdout=PIPE,
    )
    await _says(replica, b"ready")
    return replica


async def _says(program: Process, words: bytes) -> None:
    """Until a program has written a line with `words`."""
    if program.stdout is None:
        raise ValueError("its output is not read")
    while words not in (line := await program.stdout.readline()):
        if not line:
            raise SystemExit("a program has ended before it was ready")


async def _done(replica: Process, told: Any) -> int:
    """Let a replica do its part; how many of its sets passed."""
    out, _ = await replica.communicate(json.dumps(told).encode())
    return int(out)


def _taken(who: Contestant, sandbox: Sandbox, window: float, seconds: float, lost: int) -> Taken:
    starts = [
        request.time
        for request in sandbox.requests
        if request.route == "create" and request.status == 201
    ]
    windows, ends = 0, 0.0
    for at in starts:
        if at >= ends:
            windows, ends = windows + 1, at + window
    return Taken(
        who=who,
        seconds=seconds,
        windows=windows,
        requests=len(sandbox.requests),
        refused=sum(request.status == 429 for request in sandbox.requests),
        sign_ins=sandbox.count("sign_in", status=200),
        lost=lost,
    )


async def _replica() -> int:
    """The part of one process; how many of its sets passed."""
    from amigo_async.redis import RedisSharing  # noqa: PLC0415  # the others need no Redis

    print("ready", flush=True)
    told = json.loads(sys.stdin.read())
    shared = RedisSharing(told["redis"]) if told["redis"] else None
    async with AmigoClient(shared=shared) as client:
        result = await client.run_many(told["sets"])
    return result.counts.get("passed", 0)


async def side_by_side(window: float, seed: int) -> list[Taken]:
    """All contestants at once."""
    return await asyncio.gather(*(take(who, window, seed) for who in CONTESTANTS))


def measure(options: argparse.Namespace) -> Result:
    """Measure what the flags say."""
    seeds = range(options.seed, options.seed + options.rounds)
    rounds = [asyncio.run(side_by_side(options.window, seed)) for seed in seeds]
    return result(rounds, options)


def result(rounds: Sequence[Sequence[Taken]], options: argparse.Namespace) -> Result:
    """What was found; in each round the contestants are in the order of `CONTESTANTS`."""
    of = {who: [one[n] for one in rounds] for n, who in enumerate(CONTESTANTS)}
    single = statistics.median(one.seconds for one in of[CONTESTANTS[0]])
    return Result(
        name="replicas",
        measures=(
            f"{SETS} sets of one organization, divided among processes: with nothing but the "
            "response headers in common, and with a budget in Redis."
        ),
        conditions=(
            f"Real processes, a real Redis server and real time, on the sandbox, with 20 creates "
            f"in a window of {options.window:g} s; {len(rounds)} rounds. Where Redis is killed, "
            "that is in the third window."
        ),
        tables=[Table(list(_HEAD), [_row(taken, single) for taken in of.values()])],
        aims=_aims(of, single),
        packages=["redis"],
    )


def _row(taken: Sequence[Taken], single: float) -> list[str]:
    who = taken[0].who
    return [
        str(who.processes),
        who.redis,
        spread([one.seconds for one in taken]),
        spread([one.seconds / single for one in taken], ".3f"),
        spread([one.windows for one in taken], ",.0f"),
        spread([one.requests for one in taken], ",.0f"),
        spread([one.refused for one in taken], ",.0f"),
        spread([100 * one.refused / one.requests for one in taken]),
        spread([one.sign_ins for one in taken], ",.0f"),
        spread([one.lost for one in taken], ",.0f"),
    ]


def _aims(of: dict[Contestant, list[Taken]], single: float) -> list[Aim]:
    headers, redis = of[Contestant(4, "no")], of[Contestant(4, "yes")]
    share = 100 * statistics.median(one.refused / one.requests for one in headers)
    refused = max(one.refused for one in redis)
    over = statistics.median(one.seconds for one in redis) / single
    lost = Counter[str]()
    for who, taken in of.items():
        lost[who.redis] += sum(one.lost for one in taken)
    return [
        Aim("without Redis at most 10 % of requests refused", f"{share:.1f} %", share <= 10.0),
        Aim("with Redis none refused", str(refused), refused == 0),
        Aim("with Redis at most 1.05 of one process's time", f"{over:.3f}", over <= 1.05),
        Aim("no set lost, with Redis killed too", str(lost.total()), not lost.total()),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    if _REPLICA in (sys.argv[1:] if argv is None else argv):
        print(asyncio.run(_replica()))
        return
    flags = command.parser(__doc__, rounds=1)
    flags.add_argument("--window", type=float, default=60.0, help="seconds of a window")
    command.run(flags, measure, argv, quick={"rounds": 1, "window": 6.0})


if __name__ == "__main__":
    main()
