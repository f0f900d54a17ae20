"""What was measured, in Markdown: one benchmark, or the page of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from benchmarks import figures
from benchmarks.figures import Aim, Result

_MET = {True: "met", False: "**missed**", None: "not measured"}

_TOP = """# What was measured

Made by `python -m benchmarks`, which writes this page and its plots anew; one alone is measured by
`python -m benchmarks.NAME`. Figures in tables are medians, with the least and the most in brackets.
Ratios are of contestants that took turns in one run.
"""


class Measured(Struct, frozen=True, kw_only=True):
    """A benchmark that was run.

    Attributes:
        name: Which, as in ``python -m benchmarks.NAME``.
        result: What it found; None if it failed.
        machine: What it was measured on; see `machine.facts`.
        packages: The versions of what took part.
        date: When, as YYYY-MM-DD, UTC.
        seconds: How long it took.
        quick: Whether it was the small version.
        failure: What went wrong; None for nothing.
    """

    name: str
    result: Result | None
    machine: dict[str, str] = {}
    packages: dict[str, str] = {}
    date: str
    seconds: float
    quick: bool = False
    failure: str | None = None


def whole(measured: Sequence[Measured]) -> str:
    """The page of all, in the order given."""
    common = _common(measured)
    parts = [
        _TOP,
        _list(common) if common else "",
        figures.table(["benchmark", "aim", "measured", ""], _aims(measured)),
        *(_section(one, common) for one in measured),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def alone(one: Measured) -> str:
    """One benchmark, without its plots."""
    return f"{_list(one.machine)}\n\n{_section(one, one.machine, plots=False)}"


def plot_file(benchmark: str, plot: figures.Plot) -> str:
    """What the file of a plot is called."""
    return f"{benchmark}-{plot.name}.svg"


def _common(measured: Iterable[Measured]) -> dict[str, str]:
    """The facts that are the same for all that were measured."""
    facts = [one.machine for one in measured if one.result is not None]
    first = facts[0] if facts else {}
    return {
        name: value for name, value in first.items() if all(f.get(name) == value for f in facts)
    }


def _list(facts: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _aims(measured: Iterable[Measured]) -> list[list[str]]:
    rows = []
    for one in measured:
        link = f"[{one.name}](#{one.name})"
        if one.result is None:
            rows.append([link, "", "", "**failed**"])
        else:
            rows += [[link, a.what, a.figure, _MET[a.met]] for a in one.result.aims]
    return rows


def _section(one: Measured, known: dict[str, str], *, plots: bool = True) -> str:
    head = f"## {one.name}"
    result = one.result
    if result is None:
        return f"{head}\n\nFailed: {one.failure}."
    parts = [head, result.measures, _circumstances(one, known), result.conditions]
    for table in result.tables:
        parts += [f"**{table.title}**"] * bool(table.title)
        parts.append(figures.table(table.head, table.rows))
    if plots:
        parts += [f"![{p.title}](plots/{plot_file(one.name, p)})" for p in result.plots]
    parts += ["\n".join(map(_aim, result.aims)), "\n".join(f"- {note}" for note in result.notes)]
    return "\n\n".join(part for part in parts if part)


def _circumstances(one: Measured, known: dict[str, str]) -> str:
    """When it was measured, with what, and where that differs from the others on what."""
    other = {name: value for name, value in one.machine.items() if known.get(name) != value}
    facts = ", ".join(f"{name} {value}" for name, value in {**one.packages, **other}.items())
    size = " (quick: small sizes, few rounds)" if one.quick else ""
    return f"Measured on {one.date} in {one.seconds:.0f} s{size}{'; ' if facts else ''}{facts}."


def _aim(aim: Aim) -> str:
    return f"- Aim: {aim.what}. Measured: {aim.figure}. {_MET[aim.met].capitalize()}."
