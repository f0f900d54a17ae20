"""Curves as SVG, the same bytes for the same figures; needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, NullFormatter

from benchmarks.figures import Curve, Plot

# Told apart by those who see colours differently, and by their marks without colour.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_MARKS = "osD^vPX"


class _Between(LogFormatter):
    """Writes numbers between the powers of ten where there are too few of those, and plainly."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of `x`; empty for none."""
        return _plain(x) if super().__call__(x, pos) else ""


def draw(plot: Plot, target: Path) -> None:
    """Write `plot` to `target`, on a white ground of its own that dark pages leave as it is."""
    style = mpl.rc_context(
        {
            "svg.hashsalt": "amigo_async",  # ids are random without it
            "svg.fonttype": "none",  # text stays text: a diff shows it
            "font.family": ["DejaVu Sans", "sans-serif"],
            "font.size": 9.0,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    with style:
        figure = Figure(figsize=(6.4, 3.8), facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        for number, curve in enumerate(plot.curves):
            if curve.xs:
                _add(axes, curve, number, grown=plot.logarithmic)
        _label(axes, plot)
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})


def _add(axes: Axes, curve: Curve, number: int, *, grown: bool) -> None:
    colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)]
    label = curve.label
    if grown and curve.exponent is not None:
        label += f" (n^{curve.exponent:.2f})"
    axes.plot(curve.xs, curve.ys, color=colour, marker=mark, markersize=4, label=label)
    if curve.least and curve.most:
        axes.fill_between(curve.xs, curve.least, curve.most, color=colour, alpha=0.15, linewidth=0)


def _label(axes: Axes, plot: Plot) -> None:
    if plot.logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_minor_formatter(_Between())
    else:
        axes.set_ylim(bottom=0)
    sizes = sorted({x for curve in plot.curves for x in curve.xs})
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(plot.title, loc="left", fontweight="bold")
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False)


def _plain(value: float, _: object = None) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"
