"""Batches in which something happens to one request in five, over the same without faults.

Of the requests that are hit, of every kind, some are refused with 503, some are dropped, and some
are worked off and then dropped or answered with 502; downloads are cut in the middle too.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from benchmarks import batch, command, figures
from benchmarks.figures import Aim, Plot, Result, Table
from benchmarks.peers import OURS
from benchmarks.stage import Taken

# How many times as long a batch may take with faults.
ALLOWED: Final = 1.3

_HEAD = (
    "sets",
    "contestant",
    "without faults (s)",
    "with faults (s)",
    "times as long",
    "requests",
    "refused (429)",
    "sets lost, all rounds",
    "runs abandoned",
    "lost without faults, all rounds",
)

_NOTES: Final = (
    (
        "Where a failed create went before, another set is the first of the next window: the order "
        "is not the one asked for, and a batch can end a little before the bound of `batch`."
    ),
    (
        "What takes longer is mostly a window more for the last sets. A create that failed may "
        "have been counted by the service, so its place in the window is not used again. Trying it "
        "would save some of that, at the price of a refusal (429) wherever it had been counted."
    ),
)

Pair = tuple[Taken, Taken]


def measure(options: argparse.Namespace) -> list[Pair]:
    """Each batch without and with faults, one after the other."""
    return [
        (calm, hit)
        for plan, faulty in zip(
            batch.plans(options), batch.plans(options, options.faults), strict=True
        )
        for who in options.peers
        for calm, hit in [batch.skipping([plan, faulty], [who])]
    ]


def row(rounds: Sequence[Pair]) -> list[str]:
    """The figures of one size and contestant."""
    calm, hit = [pair[0] for pair in rounds], [pair[1] for pair in rounds]
    whole = [pair[1].makespan / pair[0].makespan for pair in rounds if not pair[1].lost]
    return [
        f"{hit[0].sets:,}",
        hit[0].who,
        figures.spread([one.makespan for one in calm]),
        figures.spread([one.makespan for one in hit]),
        figures.spread(whole, ".3f") if whole else "not done",
        figures.spread([one.requests for one in hit], ",.0f"),
        figures.spread([one.refused for one in hit], ",.0f"),
        # Of all rounds: a median would hide what is lost now and then.
        f"{sum(one.lost for one in hit):,} of {sum(one.sets for one in hit):,}",
        figures.spread([one.abandoned for one in hit], ",.0f"),
        f"{sum(one.lost for one in calm):,} of {sum(one.sets for one in calm):,}",
    ]


def of_each(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """The rounds of each size and contestant together, by size."""
    groups: dict[tuple[int, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair[0].sets, pair[0].who), []).append(pair)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def plots(pairs: Sequence[Pair]) -> list[Plot]:
    """How long batches take with faults, and what they lose, over the number of sets."""
    grown: dict[str, tuple[str, str, Callable[[Pair], float | None]]] = {
        "time": (
            "Makespan with faults",
            "seconds, of batches that lost nothing",
            lambda pair: None if pair[1].lost else pair[1].makespan,
        ),
        "requests": (
            "Requests with faults",
            "requests to the API",
            lambda pair: pair[1].requests,
        ),
        "lost": ("Sets lost with faults", "%", lambda pair: 100 * pair[1].lost / pair[1].sets),
    }
    shown = []
    for name, (title, unit, of) in grown.items():
        curves = [
            figures.curve(
                who,
                [(p[1].sets, y) for p in pairs if p[1].who == who and (y := of(p)) is not None],
            )
            for who in dict.fromkeys(hit.who for _, hit in pairs)
        ]
        shown.append(Plot(name, title, "sets", unit, curves, logarithmic=name != "lost"))
    return shown


def aims(pairs: Iterable[Pair]) -> list[Aim]:
    """What the package is to keep, over all sizes and rounds."""
    rounds = [group for group in of_each(pairs) if group[0][1].who == OURS]
    if not rounds:
        return []
    worst = max(statistics.median(h.makespan / c.makespan for c, h in group) for group in rounds)
    hit = [pair[1] for group in rounds for pair in group]
    lost, sets = sum(one.lost for one in hit), sum(one.sets for one in hit)
    sizes = ", ".join(f"{group[0][1].sets:,}" for group in rounds)
    return [
        Aim(
            f"at most {ALLOWED:g} times as long as without faults at each size ({sizes} sets)",
            f"at most {worst:.3f} times",
            worst <= ALLOWED,
        ),
        Aim("0 sets lost", f"{lost:,} of {sets:,}", lost == 0),
    ]


def run_all(options: argparse.Namespace) -> Result:
    """Every batch without and with faults, the contestants in turn."""
    pairs = measure(options)
    shown = plots(pairs)
    return Result(
        name="fault",
        measures=f"The batches of `batch` with something happening to {options.faults:.0%} of the "
        "requests, of every kind, over the same batches without. Of the requests that are hit "
        "some are refused with 503, some are dropped, and some are worked off and then dropped or "
        "answered with 502; downloads are cut in the middle too.",
        conditions=batch.conditions(options),
        tables=[
            Table(list(_HEAD), [row(group) for group in of_each(pairs)]),
            figures.growth(shown[:2], "Exponents over sets"),
        ],
        aims=aims(pairs),
        notes=list(_NOTES),
        plots=shown,
        packages=list(batch.PACKAGES),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    flags = batch.arguments(__doc__, sets=(12, 60, 240))
    flags.add_argument("--faults", type=float, default=0.2, help="share of requests hit")
    command.run(flags, run_all, argv, quick={"rounds": 2, "sets": [12, 60]})


if __name__ == "__main__":
    main()
