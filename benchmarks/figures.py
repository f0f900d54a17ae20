"""What a benchmark found, as plain data; medians with their spread, and how a figure grows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from msgspec import Struct


class Table(Struct, frozen=True):
    """Figures in writing.

    Attributes:
        head: The headings, units in brackets; the first columns tell what the row is of.
        rows: The cells, in writing; see `spread`.
        title: What the table is of; empty where there is only one.
    """

    head: list[str]
    rows: list[list[str]]
    title: str = ""


class Aim(Struct, frozen=True):
    """What is wanted, and whether it is had.

    Attributes:
        what: What is wanted, with its number, such as ``at most 1.02 of the bound at 60 sets``.
        figure: What was measured, in writing.
        met: Whether it is met; None where this run could not tell.
    """

    what: str
    figure: str
    met: bool | None


class Curve(Struct, frozen=True):
    """A figure over a size.

    Attributes:
        label: Of whom.
        xs: The sizes, rising.
        ys: The medians.
        least: The least of each size; empty where there was one round.
        most: The most of each size, likewise.
        exponent: The x of the n**x that fits best; None where it says nothing.
    """

    label: str
    xs: list[float]
    ys: list[float]
    least: list[float] = []
    most: list[float] = []
    exponent: float | None = None


class Plot(Struct, frozen=True):
    """Curves on common axes.

    Attributes:
        name: What its file is called, with the name of the benchmark before it; lower case.
        title: What is shown.
        x: What the sizes are, with the unit.
        y: What the figures are, with the unit.
        curves: The curves.
        logarithmic: Whether both axes are.
    """

    name: str
    title: str
    x: str
    y: str
    curves: list[Curve]
    logarithmic: bool = True


class Result(Struct, frozen=True, kw_only=True):
    """What one benchmark found. All prose is Markdown, a paragraph or less.

    Attributes:
        name: The benchmark, as in ``python -m benchmarks.NAME``.
        measures: What is measured, and against what.
        conditions: Sizes, rounds, what is simulated, what is left out.
        tables: The figures.
        aims: What was wanted of them.
        notes: What is to be known besides, the figures that are lost among it.
        plots: Curves.
        packages: Distributions that took part, whose versions are to be told.
    """

    name: str
    measures: str
    conditions: str
    tables: list[Table]
    aims: list[Aim] = []
    notes: list[str] = []
    plots: list[Plot] = []
    packages: list[str] = []


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; columns are set to the right where every cell begins with a digit."""
    cells = [list(row) for row in rows]
    right = [bool(cells) and all(_is_figure(row[n]) for row in cells) for n in range(len(head))]
    rule = ["---:" if figures else "---" for figures in right]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *cells))


def _is_figure(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in {"-", ""} or cell in {"n/a", "not done"}


def spread(values: Sequence[float], form: str = ",.1f") -> str:
    """The median and, where they differ in writing, the least and the most."""
    least, middle, most = (
        format(v, form) for v in (min(values), statistics.median(values), max(values))
    )
    return middle if least == most else f"{middle} ({least} to {most})"


def curve(label: str, points: Iterable[tuple[float, float]], *, grown: float = 0.0) -> Curve:
    """The curve of pairs of a size and a figure, several of a size being rounds.

    Args:
        label: Of whom.
        points: The pairs, in any order.
        grown: The least size that the exponent is of.
    """
    every = sorted(points)
    sizes = {n: [value for m, value in every if m == n] for n in dict.fromkeys(n for n, _ in every)}
    return Curve(
        label,
        xs=list(sizes),
        ys=[statistics.median(values) for values in sizes.values()],
        least=[min(values) for values in sizes.values()],
        most=[max(values) for values in sizes.values()],
        exponent=exponent((n, value) for n, value in every if n >= grown),
    )


def exponent(points: Iterable[tuple[float, float]]) -> float | None:
    """The x of the n**x that fits best, from pairs of n and a figure; None for too few.

    1 is growth in proportion, 0 none at all. Figures of 0 say nothing of growth and are left out.
    """
    logs = [(math.log(n), math.log(value)) for n, value in points if n > 0 and value > 0]
    if len({n for n, _ in logs}) < 2:
        return None
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def growth(plots: Iterable[Plot], title: str) -> Table:
    """The exponents of all curves, a row for each label and a column for each plot."""
    shown = list(plots)
    labels = dict.fromkeys(one.label for plot in shown for one in plot.curves)
    found = {(p.name, c.label): c.exponent for p in shown for c in p.curves}
    rows = [[label, *(_power(found.get((p.name, label))) for p in shown)] for label in labels]
    return Table(["", *(plot.title for plot in shown)], rows, title)


def _power(found: float | None) -> str:
    return "n/a" if found is None else f"{found:.2f}"
