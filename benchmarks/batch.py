"""Batches under the documented limits: what they take over what the service needs.

Both ends run on a loop that skips waits, so minutes take seconds; ``--real`` waits for them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from amigo_async.testing import VirtualTimeLoop
from benchmarks import figures, machine
from benchmarks.peers import CONTESTANTS
from benchmarks.stage import Plan, Taken, measure

PACKAGES = ("amigo_sdk", "httpx")

_HEAD = (
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
)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The flags that all benchmarks of batches have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--sets", type=int, nargs="+", default=[12, 60, 240], help="sizes")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each of another seed")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first round")
    parser.add_argument("--shortest", type=float, default=30.0, help="seconds of a run, least")
    parser.add_argument("--longest", type=float, default=180.0, help="seconds of a run, most")
    parser.add_argument("--peers", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--json", action="store_true", help="write JSON instead of tables")
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
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            taken.append(runner.run(measure(who, CONTESTANTS[who], plan)))
    return taken


def in_earnest(batches: Iterable[Plan], peers: Sequence[str]) -> list[Taken]:
    """Measure each batch on a plain loop; the contestants side by side, as most of it is waiting.

    Each has a sandbox of its own. What they use of the processor cannot be told apart.
    """

    async def side_by_side(plan: Plan) -> list[Taken]:
        return await asyncio.gather(*(measure(who, CONTESTANTS[who], plan) for who in peers))

    return [one for plan in batches for one in asyncio.run(side_by_side(plan))]


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


def growth(taken: Iterable[Taken]) -> str:
    """How the figures of each contestant grow with the number of sets, as exponents."""
    grown: dict[str, Callable[[Taken], float]] = {
        "makespan": lambda one: one.makespan,
        "seconds over the bound": lambda one: 0.0 if one.lost else one.makespan - one.bound,
        "requests": lambda one: one.requests,
        "list calls": lambda one: one.lists,
        "processor time": lambda one: one.cpu,
    }
    every = list(taken)
    rows = [
        [
            who,
            *(
                figures.power([(o.sets, of(o)) for o in every if o.who == who])
                for of in grown.values()
            ),
        ]
        for who in dict.fromkeys(one.who for one in every)
    ]
    return figures.table(["exponent over sets", *grown], rows)


def tables(taken: Sequence[Taken]) -> str:
    """All that was measured, in Markdown."""
    found = figures.table(_HEAD, map(row, of_each(taken)))
    several = len({one.sets for one in taken}) > 1
    return f"{found}\n\n{growth(taken)}" if several else found


def conditions(options: argparse.Namespace, *, real: bool = False) -> str:
    """Under which conditions it was measured, for the top of a table."""
    rounds = f"medians of {options.rounds} rounds (least to most)"
    return (
        f"Runs of {options.shortest:g} to {options.longest:g} s on the sandbox, under the "
        f"documented limits; {rounds if options.rounds > 1 else 'one round'}; "
        f"{'all waits were waited for' if real else 'waits were skipped'}."
    )


def report(taken: Sequence[Taken], under: str, *, as_json: bool) -> str:
    """All that was measured, with what it was measured on and under which conditions."""
    facts = machine.facts(PACKAGES)
    if as_json:
        rounds = [one.summary() for one in taken]
        whole: dict[str, Any] = {"machine": facts, "conditions": under, "rounds": rounds}
        return json.dumps(whole, indent=1)
    return f"{machine.heading(facts)}\n\n{under}\n\n{tables(taken)}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    parser = arguments(__doc__)
    parser.add_argument("--real", action="store_true", help="wait for minutes to pass")
    options = parser.parse_args(argv)
    measured = in_earnest if options.real else skipping
    taken = measured(plans(options), options.peers)
    print(report(taken, conditions(options, real=options.real), as_json=options.json))


if __name__ == "__main__":
    main()
