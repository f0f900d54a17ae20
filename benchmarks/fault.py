"""Batches in which something happens to one request in five, over the same without faults.

Of the requests that are hit, of every kind, some are refused with 503, some are dropped, and some
are worked off and then dropped or answered with 502; downloads are cut in the middle too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import batch, figures, machine
from benchmarks.stage import Taken

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


def table(pairs: Iterable[Pair]) -> str:
    """All that was measured, in Markdown."""
    groups: dict[tuple[int, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair[0].sets, pair[0].who), []).append(pair)
    return figures.table(_HEAD, [row(groups[key]) for key in sorted(groups, key=lambda k: k[0])])


def report(pairs: Sequence[Pair], under: str, *, as_json: bool) -> str:
    """All that was measured, with what it was measured on and under which conditions."""
    facts = machine.facts(batch.PACKAGES)
    if as_json:
        rounds = [{"calm": calm.summary(), "hit": hit.summary()} for calm, hit in pairs]
        whole: dict[str, Any] = {"machine": facts, "conditions": under, "rounds": rounds}
        return json.dumps(whole, indent=1)
    return f"{machine.heading(facts)}\n\n{under}\n\n{table(pairs)}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    parser = batch.arguments(__doc__)
    parser.add_argument("--faults", type=float, default=0.2, help="share of requests hit")
    options = parser.parse_args(argv)
    under = f"{batch.conditions(options)} Faults hit {options.faults:.0%} of the requests."
    print(report(measure(options), under, as_json=options.json))


if __name__ == "__main__":
    main()
