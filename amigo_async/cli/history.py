"""``amigo-async history``: the pass rates of a set from run to run."""

from __future__ import annotations

import sys
from functools import partial

import click
from rich.console import Console
from rich.text import Text

from amigo_async.cli.command import Outputs, names_option, open_client, print_notes, service_command
from amigo_async.cli.exit_codes import ExitCode
from amigo_async.cli.reasons import named
from amigo_async.cli.reports import check_outputs, write_output
from amigo_async.cli.sets import select
from amigo_async.cli.streams import writing_to_stdout
from amigo_async.cli.summary import (
    console_of,
    name_cell,
    natural_width,
    plain_table,
    print_table,
)
from amigo_async.escaping import log_line
from amigo_async.names import Names
from amigo_async.report.set_history import (
    PastRun,
    SetHistory,
    history_html,
    history_json,
    set_history,
)
from amigo_async.report.wording import instant, plural, rate_in_words
from amigo_async.verdicts.comparison import RateCounts

# Completed runs that are shown unless another number is asked for.
_RUNS = 20


@click.command(
    help="""Show the pass rates of a set from run to run.

    SET is the id of a set, or its whole name in any case. The table has a line for each unit test:
    a bar for each run, oldest first, and the rate in the newest run and in all of them with its
    95% interval. Below it, what changed between the runs: agent, scenario, persona, model.
    """,
)
@click.argument("set_name", metavar="SET")
@click.option(
    "--last",
    type=click.IntRange(1),
    default=_RUNS,
    show_default=True,
    help="How many completed runs to show.",
)
@click.option("--json", metavar="FILE|-", help="Write the history as JSON, - for stdout.")
@click.option("--html", metavar="FILE|-", help="Write the history as an HTML page, - for stdout.")
@names_option
@service_command
async def history(
    *, set_name: str, last: int, names: bool, json: str | None, html: str | None
) -> int:
    """Show the pass rates of a set from run to run."""
    given = [("json", json, history_json), ("html", html, history_html)]
    wanted = [(kind, path, render) for kind, path, render in given if path is not None]
    check_outputs([(kind, path) for kind, path, _ in wanted])
    for _, _, render in wanted:
        render(set_history("", (), Names()))  # a missing package is reported before any request
    async with open_client() as client:
        selected = await select(client, [set_name], ())
        [set_id] = selected.ids
        runs = await client.history(set_id, limit=last)
        known = await client.describe(runs) if names else Names()
    found = set_history(set_id, runs, known)
    outputs = Outputs()
    if not any(path == "-" for _, path, _ in wanted):
        with outputs.to("the history on stdout"), writing_to_stdout():
            _show(console_of(sys.stdout), found, exists=set_id in selected.sets)
    print_notes(known.notes)
    for kind, path, render in wanted:
        write_output(kind, path, partial(render, found), outputs)
    return outputs.print_failures(ExitCode.PASSED)


def _show(console: Console, found: SetHistory, *, exists: bool) -> None:
    title = Text(named(found.name) if found.name else log_line(found.unit_test_set_id), "bold")
    if found.name:
        title.append(f"  {log_line(found.unit_test_set_id)}", "dim not bold")
    console.print(title, soft_wrap=True)
    if not found.runs:
        none = "The set has no completed run"
        if not exists:  # it was named by an id, which a list of runs takes whatever it is of
            none += (
                ", or there is no such set; or is this the id of a run? amigo-async show RUN_ID "
                "shows a run"
            )
        console.print(Text(f"{none}."), soft_wrap=True)
        return
    table = plain_table("unit test", "runs", "newest", "all runs")
    for rates in (found.whole, *found.unit_tests):
        table.add_row(
            name_cell(rates.label, rates.name),
            Text(rates.sparkline),
            _rate(rates.last),
            _rate(rates.total),
        )
    if console.is_terminal and console.width < natural_width(table):
        _show_stacked(console, found)
    else:
        print_table(console, table)
    first, newest = found.runs[0], found.runs[-1]
    span = f"{plural(len(found.runs), 'run')} from {instant(first.created_at)}"
    lines = [f"{span} to {instant(newest.created_at)}, oldest first; intervals of 95%"]
    lines += [line for run in reversed(found.runs) for line in _remarks(run)]
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _show_stacked(console: Console, found: SetHistory) -> None:
    """Write what the table has below one another, where the bars and rates do not fit in a line."""
    for rates in (found.whole, *found.unit_tests):
        console.print(name_cell(rates.label, rates.name), soft_wrap=True)
        for line in (
            rates.sparkline,
            f"newest  {_rate(rates.last)}",
            f"all     {_rate(rates.total)}",
        ):
            console.print(Text(f"  {line}"), soft_wrap=True)


def _rate(counts: RateCounts | None) -> Text:
    return Text("-" if counts is None else rate_in_words(counts))


def _remarks(run: PastRun) -> list[str]:
    """Describe what is to be known of a run, one line for each."""
    if not run.remarks:
        return []
    head = f"{instant(run.created_at)}  run {log_line(run.run_id)}"
    return [head, *(f"  {log_line(line)}" for line in run.remarks)]
