"""Ten thousand sets in one batch: every outcome is right, and nothing of it stays behind.

Both ends run in one process, on a loop that skips waits, so the memory of a set is that of the
sandbox too. Ends with status 1 where an outcome is wrong, or something stays behind.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from amigo_async import BatchResult
from amigo_async.protocol.endpoints import EndpointName
from amigo_async.testing import Sandbox, SetPlan, VirtualTimeLoop
from amigo_async.testing.simulation import Outcome
from benchmarks import figures, machine, samples
from benchmarks.stage import CREATES_A_WINDOW, WINDOW

# What one set may take at most while its batch runs, both ends together.
MEMORY: Final = 32  # KiB

_PASSED: Final[Outcome] = "passed"
_OUTCOMES: Final[tuple[Outcome, ...]] = (*[_PASSED] * 8, "failed", "errored")
# So much that all can be started at once.
_RAISED: Final[dict[EndpointName, int | None]] = {"create": 1_000_000, "list": 1_000_000}
_HEAD: Final = (
    *("sets", "limits", "makespan (s)", "least (s)", "processor (s)", "requests", "refused (429)"),
    "memory a set (KiB)",
)


class Loaded(Struct, frozen=True, kw_only=True):
    """What one batch came to.

    Attributes:
        sets: How many sets.
        raised: Whether the limits were raised.
        makespan: Seconds on the clock that skips waits.
        cpu: Seconds of the processor, both ends.
        requests: Requests to the API.
        refused: Those that were refused (429).
        memory: KiB of resident memory a set at the end of the batch; 0 where it is not known.
        left: What stayed behind when all was closed, by name.
        problems: What is wrong, in words.
    """

    sets: int
    raised: bool
    makespan: float
    cpu: float
    requests: int
    refused: int
    memory: float
    left: dict[str, int]
    problems: list[str]


async def load(sets: int, *, raised: bool) -> Loaded:
    """Do one batch.

    Args:
        sets: How many sets.
        raised: Whether to raise the limits, so that all of them run at once.
    """
    before, clock = samples.take(0), asyncio.get_running_loop().time
    # What the results have in detail is another matter.
    rights = [f"Simulation:{what}SimulationUnitTestSetRun" for what in ("Create", "Get", "Cancel")]
    sandbox = Sandbox(limits=_RAISED if raised else None, permissions=rights, seed=1)
    async with sandbox, sandbox.client(poll_interval=60.0 if raised else None) as client:
        asked = {sandbox.add_set(_plan(number)): number for number in range(sets)}
        cpu, began = time.process_time(), clock()
        result = await client.run_many(asked)
        cpu, makespan = time.process_time() - cpu, clock() - began
        grown = samples.take(0).resident - before.resident
        problems = wrong(sandbox, result, asked)
        requests = sandbox.requests
    await asyncio.sleep(1.0)  # what is closed is closed in the next steps of the loop
    after = samples.take(0)
    left = {
        name: getattr(after, name) - getattr(before, name)
        for name in ("tasks", "descriptors", "connections")
    }
    problems += [f"{count} {name} stay behind" for name, count in left.items() if count > 0]
    if grown > MEMORY * sets:
        problems.append(f"a set takes {grown / sets:.1f} KiB, more than {MEMORY}")
    return Loaded(
        sets=sets,
        raised=raised,
        makespan=makespan,
        cpu=cpu,
        requests=len(requests),
        refused=sum(request.status == 429 for request in requests),
        memory=grown / sets,
        left=left,
        problems=problems,
    )


def _plan(number: int) -> SetPlan:
    outcome = _OUTCOMES[number % len(_OUTCOMES)]
    return SetPlan(
        seconds=(30.0, 60.0),
        outcome=outcome,
        unit_tests=1,
        repeats=2,
        metrics=1,
        artifacts_after=None,
    )


def wrong(sandbox: Sandbox, result: BatchResult, asked: dict[str, int]) -> list[str]:
    """What is wrong with the outcomes, in words."""
    truth = {run.unit_test_set_id: run for run in sandbox.runs}
    problems = []
    if len(sandbox.runs) != len(asked) or truth.keys() != asked.keys():
        problems.append(f"{len(sandbox.runs)} runs were started of {len(asked)} sets")
    if [outcome.unit_test_set_id for outcome in result.outcomes] != list(asked):
        problems.append("the outcomes are not those of the sets, in their order")
    for outcome in result.outcomes:
        set_id = outcome.unit_test_set_id
        wanted = _OUTCOMES[asked[set_id] % len(_OUTCOMES)], truth[set_id].id, None
        if (outcome.verdict, outcome.run_id, outcome.error) != wanted:
            problems.append(f"set {set_id}: {outcome.verdict} instead of {wanted[0]}")
    return problems


def table(loaded: Sequence[Loaded]) -> str:
    """What the batches came to, in Markdown."""
    return figures.table(_HEAD, [_row(one) for one in loaded])


def _row(one: Loaded) -> list[str]:
    least = 0.0 if one.raised else (one.sets - 1) // CREATES_A_WINDOW * WINDOW
    return [
        f"{one.sets:,}",
        "raised" if one.raised else "documented",
        f"{one.makespan:,.0f}",
        f"{least + 30.0:,.0f}",
        f"{one.cpu:,.1f}",
        f"{one.requests:,}",
        f"{one.refused:,}",
        f"{one.memory:,.1f}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write to standard output; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=10_000, help="sets of the batch")
    options = parser.parse_args(argv)
    loaded = []
    for raised in (True, False):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            loaded.append(runner.run(load(options.sets, raised=raised)))
    print("; ".join(f"{name}: {value}" for name, value in machine.facts().items()))
    print(f"\n{table(loaded)}\n")
    problems = [problem for one in loaded for problem in one.problems]
    print("\n".join(problems[:20]) or "Every outcome is right, and nothing stays behind.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
