"""Many organizations at once: on a Dask cluster, with and without losing workers, or in a process.

The limits are the documented ones, in windows of seconds instead of a minute; runs are shorter by
as much. Time is real.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import multiprocessing
import os
import random
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import distributed
import msgspec

from amigo_async import BatchResult
from amigo_async.dask import Environment, FleetJob, run_fleet
from amigo_async.events import Event, RunStarted
from amigo_async.testing import ArtifactPlan, Sandbox, SetPlan
from benchmarks import command
from benchmarks.figures import Aim, Result, Table, spread

# How much shorter than the minute a window is, and all else with it.
SCALE: Final = 20

# How many workers are killed where some are.
KILLS: Final = 2

_KEY: Final = "made up"

_WHY: Final = (
    "The work is waiting for budgets, which are the same however it is divided: a cluster makes it "
    "no faster, but bears the loss of workers and has room for more."
)

_HEAD = ("carried out by", "time (s)", "requests", "refused", "lost sets", "started twice")


class Stage(msgspec.Struct, frozen=True):
    """The service as those see it who use it.

    Attributes:
        base_url: Where it is.
        sets: The sets of each organization.
    """

    base_url: str
    sets: dict[str, list[str]]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What one fleet took.

    Attributes:
        who: What carried it out.
        seconds: From the call to its return; without the start of the cluster.
        lost: Sets whose artifact was not had.
        twice: Runs that were started beyond one a set.
        refused: Requests that were refused (429).
        requests: Requests in all, to the store too.
    """

    who: str
    seconds: float
    lost: int
    twice: int
    refused: int
    requests: int


Contestant = Callable[[Stage, argparse.Namespace, Path], Awaitable[list[BatchResult | None]]]


def serve(options: argparse.Namespace, pipe: Connection) -> None:
    """Serve in a process of its own until told to stop; then tell what was asked of it."""
    dice = random.Random(options.seed)
    with Sandbox(window=60.0 / SCALE, seed=options.seed).in_thread() as sandbox:
        sets: dict[str, list[str]] = {}
        for number in range(options.organizations):
            name = f"org-{number}"
            sandbox.add_user("user", organization_id=name)
            sandbox.add_api_key("key", _KEY, organization_id=name)
            lengths = [dice.uniform(30.0, 180.0) / SCALE for _ in range(options.sets)]
            sets[name] = [sandbox.add_set(plan_of(s), organization_id=name) for s in lengths]
        pipe.send(Stage(sandbox.base_url, sets))
        pipe.recv()
        runs = Counter(run.unit_test_set_id for run in sandbox.runs)
        requests = sandbox.requests
        refused = sum(request.status == 429 for request in requests)
        pipe.send((runs.total() - len(runs), refused, len(requests)))


def plan_of(seconds: float) -> SetPlan:
    """A set whose run takes so long."""
    artifact = ArtifactPlan(size=100_000)
    return SetPlan(seconds=seconds, artifacts_after=3.0 / SCALE, unit_tests=1, artifact=artifact)


async def in_one_process(
    stage: Stage, _: argparse.Namespace, folder: Path
) -> list[BatchResult | None]:
    """A client for each organization, side by side in one event loop."""

    async def batch(name: str, set_ids: list[str]) -> BatchResult:
        async with Environment()(name) as client:
            return await client.run_many(
                set_ids,
                artifacts_dir=folder / name,
                journal=folder / f"{name}.jsonl",
                on_conflict="attach",
            )

    return list(await asyncio.gather(*(batch(*item) for item in stage.sets.items())))


async def on_a_cluster(
    stage: Stage, options: argparse.Namespace, folder: Path, kills: int = 0
) -> list[BatchResult | None]:
    """A task for each organization on the workers; some may be killed on the way."""
    jobs = [
        FleetJob(organization_id=name, unit_test_set_ids=set_ids)
        for name, set_ids in stage.sets.items()
    ]
    client = distributed.get_client()
    started = itertools.count(1)
    due = {len(jobs) * options.sets * (n + 1) // (kills + 2): n for n in range(kills)}

    def on_progress(_: str, event: Event) -> None:
        if isinstance(event, RunStarted) and (victim := due.pop(next(started), None)) is not None:
            cluster: Any = client.cluster
            os.kill(list(cluster.workers.values())[victim].pid, signal.SIGKILL)

    fleet = await run_fleet(client, jobs, folder, on_progress=on_progress)
    return [job.result for job in fleet.jobs]


async def losing_workers(
    stage: Stage, options: argparse.Namespace, folder: Path
) -> list[BatchResult | None]:
    """The same, while workers are killed."""
    return await on_a_cluster(stage, options, folder, KILLS)


async def measure(who: str, options: argparse.Namespace, pipe: Connection) -> Taken:
    """Let one contestant carry out the fleet."""
    stage: Stage = pipe.recv()
    variables = {"API_KEY": _KEY, "API_KEY_ID": "key", "USER_ID": "user"}
    for name, value in {**variables, "BASE_URL": stage.base_url}.items():
        os.environ[f"AMIGO_{name}"] = value
    with tempfile.TemporaryDirectory() as folder:
        if who == ALONE:
            seconds, results = await timed(in_one_process, stage, options, Path(folder))
        else:
            opened: Any = distributed.LocalCluster(
                n_workers=options.workers,
                threads_per_worker=-(-options.organizations // options.workers),
                asynchronous=True,
                dashboard_address=":0",
                silence_logs=logging.CRITICAL,
            )
            async with opened, distributed.Client(opened, asynchronous=True):
                seconds, results = await timed(CONTESTANTS[who], stage, options, Path(folder))
    had = [o for one in results if one is not None for o in one.outcomes if o.artifacts is not None]
    pipe.send(None)
    twice, refused, requests = pipe.recv()
    return Taken(
        who=who,
        seconds=seconds,
        lost=options.organizations * options.sets - len(had),
        twice=twice,
        refused=refused,
        requests=requests,
    )


async def timed(
    contestant: Contestant, stage: Stage, options: argparse.Namespace, folder: Path
) -> tuple[float, list[BatchResult | None]]:
    """How long it took, and what came of it."""
    began = time.perf_counter()
    results = await contestant(stage, options, folder)
    return time.perf_counter() - began, results


ALONE: Final = "one process"
CLUSTER: Final = "a cluster"
LOSING: Final = f"a cluster that loses {KILLS} workers"
CONTESTANTS: Final[dict[str, Contestant]] = {
    ALONE: in_one_process,
    CLUSTER: on_a_cluster,
    LOSING: losing_workers,
}


@contextmanager
def service(options: argparse.Namespace) -> Iterator[Connection]:
    """The service in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(options, theirs))
    process.start()
    try:
        yield ours
    finally:
        ours.close()
        process.join(10)
        process.kill()


def run_all(options: argparse.Namespace) -> Result:
    """Every contestant once a round."""
    taken: list[Taken] = []
    for _, who in itertools.product(range(options.rounds), CONTESTANTS):
        with service(options) as pipe:
            taken.append(asyncio.run(measure(who, options, pipe)))
    return result(taken, options)


def result(taken: Sequence[Taken], options: argparse.Namespace) -> Result:
    """All that was measured."""
    return Result(
        name="fleet",
        measures="The sets of many organizations, started, waited for and collected: by "
        "`run_fleet` on a Dask cluster on one machine, with and without workers being killed, and "
        "by one process with a client for each organization.",
        conditions=f"{options.organizations} organizations with {options.sets} sets each, "
        f"{options.workers} worker processes; the documented limits in windows of "
        f"{60 / SCALE:g} s, runs of {30 / SCALE:g} to {180 / SCALE:g} s, artifacts of 100 kB, real "
        f"time, the service in a process of its own. The cluster is there when the time begins. "
        f"Rounds: {options.rounds}.",
        tables=[Table(list(_HEAD), [row(who, taken) for who in CONTESTANTS])],
        aims=aims(taken),
        notes=[compared(taken), _WHY],
        packages=["aiohttp", "msgspec", "distributed"],
    )


def row(who: str, taken: Sequence[Taken]) -> list[str]:
    """The figures of one contestant."""
    of = [one for one in taken if one.who == who]
    return [
        who,
        spread([one.seconds for one in of], ".2f"),
        spread([one.requests for one in of], ",.0f"),
        *(
            str(sum(figure))
            for figure in zip(*((o.refused, o.lost, o.twice) for o in of), strict=True)
        ),
    ]


def aims(taken: Sequence[Taken]) -> list[Aim]:
    """No set lost or started twice, whatever happens to the workers."""
    lost, twice = sum(one.lost for one in taken), sum(one.twice for one in taken)
    return [
        Aim("no set lost", f"{lost} lost", lost == 0),
        Aim("none started twice", f"{twice} started twice", twice == 0),
    ]


def compared(taken: Sequence[Taken]) -> str:
    """How the times of the contestants compare."""
    seconds = {
        who: statistics.median(one.seconds for one in taken if one.who == who)
        for who in CONTESTANTS
    }
    shared, losing = seconds[CLUSTER] / seconds[ALONE], seconds[LOSING] / seconds[CLUSTER]
    return (
        f"The cluster took {shared:.2f} of the time of one process, and {losing:.2f} times that "
        f"when it lost {KILLS} workers."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write what was found."""
    flags = command.parser(__doc__, rounds=3)
    flags.add_argument("--organizations", type=int, default=8, help="how many organizations")
    flags.add_argument("--sets", type=int, default=40, help="sets of each")
    flags.add_argument("--workers", type=int, default=4, help="processes of the cluster")
    quick = {"rounds": 1, "organizations": 4, "sets": 5}
    command.run(flags, run_all, argv, quick=quick)


if __name__ == "__main__":
    main()
