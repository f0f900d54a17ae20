"""Tables in Markdown, medians with their spread, and how a figure grows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; the first column is text, the others are figures."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def spread(values: Sequence[float], form: str = ",.1f") -> str:
    """The median and, where they differ in writing, the least and the most."""
    least, middle, most = (
        format(v, form) for v in (min(values), statistics.median(values), max(values))
    )
    return middle if least == most else f"{middle} ({least} to {most})"


def exponent(points: Iterable[tuple[float, float]]) -> float | None:
    """The x of the n**x that fits best, from pairs of n and a figure; None for too few.

    1 is growth in proportion, 0 none at all. Figures of 0 say nothing of growth and are left out.
    """
    logs = [(math.log(n), math.log(value)) for n, value in points if n > 0 and value > 0]
    if len({n for n, _ in logs}) < 2:
        return None
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def power(points: Iterable[tuple[float, float]]) -> str:
    """The exponent in writing."""
    found = exponent(points)
    return "n/a" if found is None else f"{found:.2f}"
