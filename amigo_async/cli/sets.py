"""The sets that a command is asked for: selected by id, name or tag, and shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amigo_async.cli.summary import name_cell, plain_table, print_table
from amigo_async.client import AmigoClient
from amigo_async.escaping import log_line
from amigo_async.models import UnitTestSet
from amigo_async.protocol.endpoints import CREATE
from amigo_async.protocol.requests import is_id
from amigo_async.report.wording import plural
from amigo_async.verdicts.gate import Gate, sets_too_short, too_few_repeats


class Selected(NamedTuple):
    """Sets that were selected.

    Attributes:
        ids: Their ids, in the order asked for.
        sets: The sets by id; empty if nothing had to be asked of the service.
    """

    ids: list[str]
    sets: Mapping[str, UnitTestSet]


async def select(
    client: AmigoClient, selectors: Sequence[str], tags: Sequence[str], *, read: bool = False
) -> Selected:
    """Select sets; if all are given by id, nothing is asked of the service.

    Args:
        client: The client.
        selectors: Ids and names.
        tags: Tags that a set must all have.
        read: Whether to read the sets in any case.

    Raises:
        ArgumentError: If a selector or the tags fit no set, or a name fits several.
    """
    by_id = not tags and all(map(is_id, selectors))
    if by_id and not read:
        return Selected(list(selectors), {})
    sets = {one.id: one for one in await client.select_sets(*selectors, tags=tags)}
    return Selected(list(selectors if by_id else sets), sets)


def show_plan(
    console: Console,
    selected: Selected,
    journal: str | None,
    *,
    gate: Gate | None = None,
    known_failing: Collection[str] = (),
) -> None:
    """Print what would be run.

    Args:
        console: Where to print.
        selected: The sets.
        journal: Path of a journal that may have finished some of them; None for none.
        gate: What counts as passing; None for the flags of the runs.
        known_failing: Ids and names of unit tests that decide nothing.
    """
    sets = selected.sets.values()  # one that is named twice is run once
    table: Table = plain_table("set", "tests", "repeats", "id")
    for one in sets:
        table.add_row(
            name_cell(one.id, one.name),
            str(len(one.unit_test_runs)),
            f"{one.repeats:,}",
            Text(log_line(one.id), "dim"),
        )
    print_table(console, table)
    tests = sum(len(one.unit_test_runs) for one in sets)
    repeats = sum(one.repeats for one in sets)
    windows = -(-len(sets) // CREATE.limit)
    counted = [(len(sets), "set"), (tests, "unit test"), (repeats, "repeat")]
    start = plural(windows, "minute")
    lines = [
        f"{', '.join(plural(*each) for each in counted)} in all",
        f"Starting them takes up to {start}: the limit is {CREATE.limit} a minute.",
        "Nothing was started.",
    ]
    short = sets_too_short(sets, gate, lambda ids: _known(ids, known_failing)) if gate else []
    if gate is not None and short:
        lines.append(f"{plural(len(short), 'set')} could not pass: {too_few_repeats(gate, short)}.")
    if journal is not None:
        lines.append(f"A run with {log_line(journal)} does not start again what that has finished.")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _known(ids: list[str], known_failing: Collection[str]) -> list[str] | None:
    """Return which unit tests decide nothing; None if that depends on names, which are not read."""
    return [i for i in ids if i in known_failing] if all(map(is_id, known_failing)) else None
