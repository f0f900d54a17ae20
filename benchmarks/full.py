"""A batch in full length, all of it waited for, beside the same batch with its waits skipped."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from benchmarks import batch, command
from benchmarks.figures import Aim, Result, Table
from benchmarks.peers import CONTESTANTS, NAIVE, OURS
from benchmarks.stage import Plan, Taken, measure

# How far the two may be apart, as a share of the bound.
APART: Final = 0.01

_HEAD = ("sets", "contestant", "waits", *batch.HEAD[2:])


def in_earnest(plan: Plan, peers: Sequence[str]) -> list[Taken]:
    """Measure a batch on a plain loop; the contestants side by side, as most of it is waiting.

    Each has a sandbox of its own. What they use of the processor cannot be told apart.
    """

    async def side_by_side() -> list[Taken]:
        return await asyncio.gather(*(measure(who, CONTESTANTS[who], plan) for who in peers))

    return asyncio.run(side_by_side())


def run_all(options: argparse.Namespace) -> Result:
    """Each batch in both ways."""
    pairs: list[tuple[Taken, Taken]] = []
    for plan in batch.plans(options):
        skipped = batch.skipping([plan], options.peers)
        pairs += zip(skipped, in_earnest(plan, options.peers), strict=True)
    return Result(
        name="full",
        measures="A batch of `batch` in full length, all of its minutes waited for, beside the "
        "same with its waits skipped: whether the simulated figures hold.",
        conditions=f"As for `batch`, with a plain event loop where waits were waited for, on which "
        f"the contestants ran side by side. Rounds: {options.rounds}.",
        tables=[Table(list(_HEAD), [line for pair in pairs for line in rows(*pair)])],
        # Runs of the small version are too short for the bound to be kept that closely.
        aims=aims(pairs, judged=not options.quick),
        notes=["The processor's time of contestants side by side is that of all of them."],
        packages=list(batch.PACKAGES),
    )


def rows(skipped: Taken, waited: Taken) -> list[list[str]]:
    """The figures of one contestant, in both ways."""
    found = []
    for how, one in (("skipped", skipped), ("waited for", waited)):
        sets, who, *figures_of_it = batch.row([one])
        found.append([sets, who, how, *figures_of_it])
    return found


def aims(pairs: Sequence[tuple[Taken, Taken]], *, judged: bool) -> list[Aim]:
    """Whether the two agree, and whether the package keeps its aims where nothing is simulated."""
    ours = [pair for pair in pairs if pair[0].who == OURS]
    if not ours:
        return []
    apart = max(abs(waited.over - skipped.over) for skipped, waited in ours)
    makespan, *others = batch.aims([waited for _, waited in ours])
    return [
        Aim(
            f"skipped and waited for at most {APART:.0%} of the bound apart",
            f"{apart:.2%}",
            apart <= APART,
        ),
        makespan if judged else msgspec.structs.replace(makespan, met=None),
        *others,
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    flags = batch.arguments(__doc__, rounds=1, sets=(60,))
    flags.set_defaults(peers=[OURS, NAIVE])
    quick = {"sets": [3], "shortest": 5.0, "longest": 15.0}
    command.run(flags, run_all, argv, quick=quick)


if __name__ == "__main__":
    main()
