"""A sandbox with sets of mixed length, what a batch on it needs at the least, and what it took."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from amigo_async.testing import Fault, RecordedRequest, Sandbox, SetPlan, VirtualTimeLoop

CREATES_A_WINDOW: Final = 20
WINDOW: Final = 60.0

# From the end of a run until its artifacts are there, in seconds.
ARTIFACTS_AFTER: Final = 3.0

# List calls this close together, in seconds, are one look.
_ONE_LOOK: Final = 0.2


class WorkingLoop(VirtualTimeLoop):
    """A loop that skips waits, but not work: the processor's time counts."""

    def time(self) -> float:
        """Return the time of the loop in seconds: waits and the processor's time."""
        return super().time() + time.process_time()


@dataclass
class Log:
    """What a contestant got, and when by the sandbox's clock.

    Attributes:
        ended: When the end of the run of a set was known.
        had: When the artifact of a set was on disk, where, and of which run.
        errors: What ended the work on a set, by the name of the error.
    """

    sandbox: Sandbox
    ended: dict[str, float] = field(default_factory=dict)
    had: dict[str, tuple[float, Path, str]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)

    def saw_end(self, set_id: str) -> None:
        """The end of the run of a set is known now."""
        self.ended.setdefault(set_id, self.sandbox.now())

    def got(self, set_id: str, run_id: str, artifact: Path) -> None:
        """The artifact of a set is on disk now."""
        self.had[set_id] = self.sandbox.now(), artifact, run_id


class Task(msgspec.Struct, frozen=True):
    """What a contestant is to do.

    Attributes:
        sandbox: The service.
        set_ids: The sets, in the order asked for.
        folder: Where artifacts go.
        log: Where it is told what came of it.
    """

    sandbox: Sandbox
    set_ids: list[str]
    folder: Path
    log: Log


Contestant = Callable[[Task], Awaitable[None]]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One batch to be measured.

    Attributes:
        sets: How many sets.
        seed: What lengths, ids and faults are drawn from.
        shortest: The least that a run takes, in seconds.
        longest: The most.
        faults: The share of requests, of every kind, that something happens to.
    """

    sets: int
    seed: int
    shortest: float = 30.0
    longest: float = 180.0
    faults: float = 0.0

    def lengths(self) -> list[float]:
        """How long the run of each set takes, in seconds."""
        dice = random.Random(self.seed)
        return [dice.uniform(self.shortest, self.longest) for _ in range(self.sets)]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What one batch took. All times are in seconds.

    Attributes:
        who: The contestant.
        sets: How many sets were asked for.
        seed: The seed.
        bound: What the service itself needs.
        makespan: From the call to its return.
        requests: Requests to the API.
        refused: Those that were refused (429).
        lists: Those that listed runs.
        look: The most list calls at once.
        lost: Sets whose artifact was not had whole.
        abandoned: Runs that were started and whose artifact was not had.
        detection: From the end of each run until it was known.
        delivery: From when each artifact was there until it was on disk.
        cpu: Seconds of the processor, the sandbox's own included.
        errors: What ended the work on sets, by name.
    """

    who: str
    sets: int
    seed: int
    bound: float
    makespan: float
    requests: int
    refused: int
    lists: int
    look: int
    lost: int
    abandoned: int
    detection: list[float]
    delivery: list[float]
    cpu: float
    errors: dict[str, int]

    @property
    def over(self) -> float:
        """The makespan over the bound."""
        return self.makespan / self.bound

    def summary(self) -> dict[str, Any]:
        """The figures, with the latencies as their median and their most."""
        whole: dict[str, Any] = msgspec.to_builtins(self)
        for name in ("detection", "delivery"):
            every = whole.pop(name)
            whole[f"{name}_median"] = statistics.median(every) if every else None
            whole[f"{name}_most"] = max(every, default=None)
        return {**whole, "over": self.over}


def bound(lengths: list[float]) -> float:
    """The least that a batch can take whose sets are started in the order asked for.

    Twenty may be started a window, so set i no sooner than window i // 20; then its run goes
    its length, and then its artifacts are made. Requests themselves take no time here.
    """
    starts = (number // CREATES_A_WINDOW * WINDOW for number in range(len(lengths)))
    ends = (start + length for start, length in zip(starts, lengths, strict=True))
    return max(ends) + ARTIFACTS_AFTER


async def measure(who: str, contestant: Contestant, plan: Plan) -> Taken:
    """Let one contestant do one batch on a sandbox of its own, under the documented limits."""
    lengths = plan.lengths()
    # A day: the vendor's client judges tokens by the wall clock, which stands still when waits
    # are skipped, and is not to be blamed for that.
    sandbox = Sandbox(seed=plan.seed, token_lifetime=86_400.0, keep_requests=10_000_000)
    async with sandbox:
        set_ids = [
            sandbox.add_set(SetPlan(seconds=length, artifacts_after=ARTIFACTS_AFTER))
            for length in lengths
        ]
        break_some(sandbox, plan)
        with tempfile.TemporaryDirectory() as folder:
            log = Log(sandbox)
            clock = asyncio.get_running_loop().time
            cpu, began = time.process_time(), clock()
            await contestant(Task(sandbox, set_ids, Path(folder), log))
            makespan, cpu = clock() - began, time.process_time() - cpu
            whole = {set_id: kept for set_id, kept in log.had.items() if _is_whole(sandbox, *kept)}
        told = _told(log, dict(zip(set_ids, lengths, strict=True)), whole)
        return Taken(
            who=who,
            sets=plan.sets,
            seed=plan.seed,
            bound=bound(lengths),
            makespan=makespan,
            lost=plan.sets - len(whole),
            cpu=cpu,
            errors=dict(log.errors),
            **told,
        )


def break_some(sandbox: Sandbox, plan: Plan) -> None:
    """Let things happen to requests of every kind, of which half are worked off all the same."""
    if not plan.faults:
        return
    down, off = Fault.status(503), Fault.drop()
    late = Fault.drop(after_work=True), Fault.status(502, after_work=True)
    for route in ("create", "list", "artifacts"):
        sandbox.faults_at_random(route, down, off, *late, rate=plan.faults, seed=plan.seed)
    sandbox.faults_at_random("sign_in", down, off, rate=plan.faults, seed=plan.seed + 1)
    cut = Fault.truncate()
    sandbox.faults_at_random("store", down, off, cut, rate=plan.faults, seed=plan.seed + 2)


def _is_whole(sandbox: Sandbox, _: float, artifact: Path, run_id: str) -> bool:
    return artifact.read_bytes() == sandbox.artifact_bytes(run_id)


def _told(
    log: Log, lengths: dict[str, float], whole: dict[str, tuple[float, Path, str]]
) -> dict[str, Any]:
    """What the sandbox can tell of a batch that is over."""
    sandbox = log.sandbox
    api = [request for request in sandbox.requests if request.route != "store"]
    lists = [request for request in api if request.route == "list"]
    ends = {
        run.unit_test_set_id: run.created_at.timestamp() + lengths[run.unit_test_set_id]
        for run in sandbox.runs
    }
    had = {run_id for _, _, run_id in whole.values()}
    return {
        "requests": len(api),
        "refused": sum(request.status == 429 for request in api),
        "lists": len(lists),
        "look": _most_at_once(lists),
        "abandoned": sum(run.id not in had for run in sandbox.runs),
        "detection": [at - ends[set_id] for set_id, at in log.ended.items()],
        "delivery": [at - ends[s] - ARTIFACTS_AFTER for s, (at, _, _) in whole.items()],
    }


def _most_at_once(lists: list[RecordedRequest]) -> int:
    """The most list calls within one look."""
    most, oldest = 0, 0
    for newest, request in enumerate(lists):
        while lists[oldest].time < request.time - _ONE_LOOK:
            oldest += 1
        most = max(most, newest - oldest + 1)
    return most
