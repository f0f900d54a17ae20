"""What longest first gains: batches in the order given, by known lengths, and by sizes alone."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from amigo_async import BatchResult
from amigo_async.batch import RunOutcome
from amigo_async.models import Run, UserInfo
from amigo_async.testing import Sandbox, SetPlan
from benchmarks import figures
from benchmarks.figures import Aim, Table
from benchmarks.stage import ARTIFACTS_AFTER, Plan, WorkingLoop, bound

GIVEN: Final = "order as given"
LENGTHS: Final = "lengths known"
SIZES: Final = "sizes known"

# How sizes go with lengths (Pearson), and how many repeats they are about.
CORRELATION: Final = 0.7
_REPEATS: Final = 40
_SPREAD: Final = 12

# What the makespan may be over the best order's bound where lengths are known, and is to be below
# the bound of the order given with sizes alone, by the number of sets.
ALLOWED: Final = 1.02
BELOW: Final = {60: 0.90, 240: 0.93}

_HEAD: Final = (
    "sets",
    "known",
    "seeds",
    "bound as given (s)",
    "bound of the best order (s)",
    "makespan, mean (s)",
    "over the best order's bound",
    "of the bound as given",
    "first outcome after, mean (s)",
    "creates",
)


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """What one batch took, in seconds.

    Attributes:
        known: What was known of its sets.
        sets: How many they were.
        given: The bound in the order given.
        best: The bound in the best order.
        makespan: From the call to its return.
        first: From the call to the first outcome.
        creates: Requests that started runs.
    """

    known: str
    sets: int
    given: float
    best: float
    makespan: float
    first: float
    creates: int


def sizes_of(lengths: Sequence[float], seed: int) -> list[int]:
    """Repeats of sets that correlate with their lengths as `CORRELATION` says."""
    dice = random.Random(seed + 10_000)
    mean, deviation = statistics.fmean(lengths), statistics.pstdev(lengths) or 1.0
    noise = math.sqrt(1 - CORRELATION**2)
    return [
        max(
            1,
            round(
                _REPEATS
                + _SPREAD * (CORRELATION * (x - mean) / deviation + noise * dice.gauss(0, 1))
            ),
        )
        for x in lengths
    ]


async def measure(known: str, plan: Plan) -> Ordered:
    """Run one batch under the documented limits."""
    lengths = plan.lengths()
    repeats = sizes_of(lengths, plan.seed) if known == SIZES else [3] * plan.sets
    async with Sandbox(seed=plan.seed, token_lifetime=86_400.0) as sandbox:
        ids = [
            sandbox.add_set(SetPlan(seconds=length, unit_tests=1, repeats=count, metrics=1))
            for length, count in zip(lengths, repeats, strict=True)
        ]
        options: dict[str, Any] = {"order": "given" if known == GIVEN else "auto"}
        if known == LENGTHS:
            options["lengths_from"] = earlier(dict(zip(ids, lengths, strict=True)))
        clock = asyncio.get_running_loop().time
        async with sandbox.client() as client:
            if known == SIZES:
                await client.select_sets(*ids)
            began, first = clock(), math.inf
            async with client.open_batch(ids, **options) as batch:
                async for _ in batch:
                    first = min(first, clock() - began)
            makespan = clock() - began
            if not batch.result().passed:
                raise RuntimeError(batch.result().summary())
        return Ordered(
            known=known,
            sets=plan.sets,
            given=bound(lengths) - ARTIFACTS_AFTER,
            best=bound(sorted(lengths, reverse=True)) - ARTIFACTS_AFTER,
            makespan=makespan,
            first=first,
            creates=sandbox.count("create"),
        )


def earlier(lengths: dict[str, float]) -> BatchResult:
    """The result of an earlier batch in which the runs took these seconds."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return BatchResult(
        [
            RunOutcome(
                unit_test_set_id=set_id,
                verdict="passed",
                run=_run(set_id, at),
                finished_at=at + timedelta(seconds=seconds),
            )
            for set_id, seconds in lengths.items()
        ]
    )


def _run(set_id: str, at: datetime) -> Run:
    return Run(
        org_id="acme",
        id=set_id,
        is_completed=True,
        simulation_unit_test_set_id=set_id,
        failed_metrics=False,
        errored=False,
        artifacts_generated=True,
        unit_test_run_specs=[],
        unit_test_run_results=[],
        created_at=at,
        creator=UserInfo("acme", "user-1"),
    )


def measure_all(plans: Iterable[Plan]) -> list[Ordered]:
    """Run each batch in each order, each on a new loop that skips waits."""
    taken = []
    for plan in plans:
        for known in (GIVEN, LENGTHS, SIZES):
            with asyncio.Runner(loop_factory=WorkingLoop) as runner:
                taken.append(runner.run(measure(known, plan)))
    return taken


def _groups(taken: Iterable[Ordered]) -> dict[tuple[int, str], list[Ordered]]:
    groups: dict[tuple[int, str], list[Ordered]] = {}
    for one in taken:
        groups.setdefault((one.sets, one.known), []).append(one)
    return dict(sorted(groups.items(), key=lambda item: item[0][0]))


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def table(taken: Sequence[Ordered]) -> Table:
    """The means over the seeds."""
    rows = [
        [
            f"{sets:,}",
            known,
            f"{len(some)}",
            f"{_mean(o.given for o in some):,.1f}",
            f"{_mean(o.best for o in some):,.1f}",
            f"{_mean(o.makespan for o in some):,.1f}",
            f"{_mean(o.makespan / o.best for o in some):.3f}",
            f"{_mean(o.makespan / o.given for o in some):.3f}",
            f"{_mean(o.first for o in some):,.1f}",
            figures.spread([o.creates for o in some], ",.0f"),
        ]
        for (sets, known), some in _groups(taken).items()
    ]
    return Table(list(_HEAD), rows, "Longest first, without artifacts: means over the seeds")


def aims(taken: Sequence[Ordered]) -> list[Aim]:
    """What longest first is to gain, as the mean over the seeds."""
    found = []
    for (sets, known), some in _groups(taken).items():
        if known == LENGTHS:
            over = _mean(o.makespan / o.best for o in some)
            what = f"lengths known: the bound of the best order + {ALLOWED - 1:.0%} ({sets} sets)"
            found.append(Aim(what, f"{over:.3f} times that bound", over <= ALLOWED))
        elif known == SIZES and sets in BELOW:
            part = _mean(o.makespan / o.given for o in some)
            what = f"sizes known: {1 - BELOW[sets]:.0%} below the bound as given ({sets} sets)"
            found.append(Aim(what, f"{1 - part:.2%} below", part <= BELOW[sets]))
    return found


def note(taken: Sequence[Ordered]) -> str:
    """What longest first costs."""
    some = _groups(taken)
    waits = [
        f"{_mean(o.first for o in some[sets, LENGTHS]):,.0f} s instead of "
        f"{_mean(o.first for o in group):,.0f} with {sets:,} sets"
        for (sets, known), group in some.items()
        if known == GIVEN
    ]
    return (
        f"Longest first costs the early news: the first outcome comes after {', '.join(waits)}. "
        f"Sizes are repeats that correlate with lengths (Pearson {CORRELATION:g}); the sets were "
        "selected by the same client, which knows their repeats from that."
    )
