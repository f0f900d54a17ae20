"""Batches under the documented limits: what they take over what the service needs.

Both ends run on a loop that skips waits, so minutes take seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from benchmarks import command, figures, orders
from benchmarks.figures import Aim, Plot, Result, Table
from benchmarks.peers import CONTESTANTS, OURS
from benchmarks.stage import (
    ARTIFACTS_AFTER,
    CREATES_A_WINDOW,
    WINDOW,
    Plan,
    Taken,
    WorkingLoop,
    measure,
)

PACKAGES: Final = ("amigo_sdk", "httpx")

# What a batch may take over the bound.
ALLOWED: Final = 1.02

HEAD = (
    "sets",
    "contestant",
    "bound (s)",
    "makespan (s)",
    "over the bound",
    "requests",
    "refused (429)",
    "list calls",
    "most list calls at once",
    "sets lost",
    "runs abandoned",
    "end noticed after, median (s)",
    "at most (s)",
    "artifact had after, median (s)",
    "at most (s)",
    "processor, sandbox included (s)",
)

_NOTES: Final = (
    (
        "A loop that loses sets is soon done: its makespan says nothing, and no figure over the "
        "bound is given for it. What it abandons are runs that go on and whose results nobody has."
    ),
)


def arguments(
    description: str | None, *, rounds: int = 5, sets: Sequence[int] = (12, 60, 240, 1_000)
) -> argparse.ArgumentParser:
    """The flags that all benchmarks of batches have; each round is of another seed."""
    parser = command.parser(description, rounds=rounds)
    parser.add_argument("--sets", type=int, nargs="+", default=sets, help="sizes")
    parser.add_argument("--shortest", type=float, default=30.0, help="seconds of a run, least")
    parser.add_argument("--longest", type=float, default=180.0, help="seconds of a run, most")
    parser.add_argument("--peers", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    return parser


def plans(options: argparse.Namespace, faults: float = 0.0) -> list[Plan]:
    """The batches to measure: every size once a round."""
    return [
        Plan(
            sets=sets,
            seed=options.seed + number,
            shortest=options.shortest,
            longest=options.longest,
            faults=faults,
        )
        for number, sets in itertools.product(range(options.rounds), options.sets)
    ]


def skipping(batches: Iterable[Plan], peers: Sequence[str]) -> list[Taken]:
    """Measure each batch, the contestants in turn, each on a new loop that skips waits."""
    taken = []
    for plan, who in itertools.product(batches, peers):
        with asyncio.Runner(loop_factory=WorkingLoop) as runner:
            taken.append(runner.run(measure(who, CONTESTANTS[who], plan)))
    return taken


def of_each(taken: Iterable[Taken]) -> list[list[Taken]]:
    """The rounds of each size and contestant together, in the order in which they came first."""
    groups: dict[tuple[int, str], list[Taken]] = {}
    for one in taken:
        groups.setdefault((one.sets, one.who), []).append(one)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def row(rounds: Sequence[Taken]) -> list[str]:
    """The figures of one size and contestant."""
    counts = ("requests", "refused", "lists", "look", "lost", "abandoned")
    return [
        f"{rounds[0].sets:,}",
        rounds[0].who,
        figures.spread([one.bound for one in rounds]),
        figures.spread([one.makespan for one in rounds]),
        over_the_bound(rounds),
        *(figures.spread([getattr(one, count) for one in rounds], ",.0f") for count in counts),
        *latency([one.detection for one in rounds]),
        *latency([one.delivery for one in rounds]),
        figures.spread([one.cpu for one in rounds], ",.2f"),
    ]


def over_the_bound(rounds: Iterable[Taken]) -> str:
    """The makespan over the bound; whoever loses sets is soon done, and has no such figure."""
    done = [one.over for one in rounds if not one.lost]
    return figures.spread(done, ".3f") if done else "not done"


def latency(rounds: Iterable[Sequence[float]]) -> list[str]:
    """The median and the most of some latencies, over the rounds that have any."""
    some = [values for values in rounds if values]
    if not some:
        return ["n/a", "n/a"]
    return [
        figures.spread([statistics.median(values) for values in some]),
        figures.spread([max(values) for values in some]),
    ]


def plots(taken: Iterable[Taken]) -> list[Plot]:
    """How the figures of each contestant grow with the number of sets."""
    grown: dict[str, tuple[str, str, Callable[[Taken], float | None]]] = {
        "time": ("Makespan", "seconds", lambda one: None if one.lost else one.makespan),
        "over": (
            "Time over the bound",
            "seconds",
            lambda one: None if one.lost else one.makespan - one.bound,
        ),
        "detection": (
            "End noticed after",
            "seconds, median of the runs",
            lambda one: statistics.median(one.detection) if one.detection else None,
        ),
        "requests": ("Requests", "requests to the API", lambda one: one.requests),
        "processor": ("Processor time", "seconds, the sandbox's included", lambda one: one.cpu),
    }
    every = list(taken)
    shown = []
    for name, (title, unit, of) in grown.items():
        curves = [
            figures.curve(
                who,
                [(o.sets, y) for o in every if o.who == who and (y := of(o)) is not None and y > 0],
            )
            for who in dict.fromkeys(one.who for one in every)
        ]
        shown.append(Plot(name, title, "sets", unit, curves))
    return shown


def aims(taken: Iterable[Taken]) -> list[Aim]:
    """What the package is to keep, over all sizes and rounds."""
    rounds = [group for group in of_each(taken) if group[0].who == OURS]
    ours = [one for group in rounds for one in group]
    if not ours:
        return []
    worst = max(statistics.median(one.over for one in group) for group in rounds)
    refused, lost = sum(one.refused for one in ours), sum(one.lost for one in ours)
    requests, sets = sum(one.requests for one in ours), sum(one.sets for one in ours)
    sizes = ", ".join(f"{group[0].sets:,}" for group in rounds)
    return [
        Aim(
            f"the bound + {ALLOWED - 1:.0%} at each size ({sizes} sets)",
            f"at most {worst:.4f} times the bound",
            worst <= ALLOWED,
        ),
        Aim("0 requests refused", f"{refused:,} of {requests:,}", refused == 0),
        Aim("0 sets lost", f"{lost:,} of {sets:,}", lost == 0),
    ]


def conditions(options: argparse.Namespace) -> str:
    """Under which conditions it was measured."""
    return (
        f"Runs of {options.shortest:g} to {options.longest:g} s on the sandbox, under the "
        f"documented limits; their artifacts are there {ARTIFACTS_AFTER:g} s after their ends. "
        f"Rounds, each of another seed: {options.rounds}. Client and sandbox share a process and "
        "an event loop that skips waits: the time of requests and of the processor is real, the "
        "minutes of waiting are simulated (`full` shows that this makes no difference). The bound "
        f"is the least that the service allows: {CREATES_A_WINDOW} creates in each window of "
        f"{WINDOW:g} s, the first of which begins with the first create, in the order asked for; "
        "each run its length, its artifacts after that; requests and transfers are taken to need "
        "no time."
    )


def run_all(options: argparse.Namespace) -> Result:
    """Every batch, the contestants in turn."""
    taken = skipping(plans(options), options.peers)
    seeds = range(options.seed, options.seed + options.order_seeds)
    ordered = orders.measure_all(
        Plan(sets=sets, seed=seed, shortest=options.shortest, longest=options.longest)
        for sets, seed in itertools.product(options.order_sets, seeds)
    )
    shown = plots(taken)
    return Result(
        name="batch",
        measures="Batches of sets that are started, waited for and whose artifacts are downloaded, "
        "against two loops over the vendor's client: a task for each set that polls every five "
        "seconds; and the same for ten sets at once, every step tried five times, five seconds "
        "apart.",
        conditions=conditions(options),
        tables=[
            Table(list(HEAD), [row(group) for group in of_each(taken)]),
            figures.growth(shown, "Exponents over sets"),
            orders.table(ordered),
        ],
        aims=[*aims(taken), *orders.aims(ordered)],
        notes=[*_NOTES, orders.note(ordered)],
        plots=shown,
        packages=list(PACKAGES),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    flags = arguments(__doc__)
    flags.add_argument(
        "--order-sets", type=int, nargs="+", default=[60, 240], help="sizes of batches by length"
    )
    flags.add_argument("--order-seeds", type=int, default=50, help="how many of each")
    quick = {"rounds": 2, "sets": [12, 60], "order_seeds": 3}
    command.run(flags, run_all, argv, quick=quick)


if __name__ == "__main__":
    main()
