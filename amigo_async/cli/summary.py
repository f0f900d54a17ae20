"""What came of it: a table and the reasons on stdout, and what still runs on stderr."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Final

from rich import box
from rich.console import Console, JustifyMethod
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from amigo_async.batch import RunOutcome
from amigo_async.cli.jobs import Ending, Job
from amigo_async.cli.reasons import (
    VERDICTS,
    amount_done,
    count,
    details,
    judged,
    reasons,
    seconds,
    verdicts_said,
)
from amigo_async.cli.streams import drop_stdout, note
from amigo_async.errors import NotFoundError
from amigo_async.escaping import log_line
from amigo_async.verdicts.gate import Gate

STYLES: Final = {"passed": "green", "failed": "red", "errored": "magenta"}

# Columns where the output is not a terminal, so that no id is ever cut or wrapped.
_WIDTH: Final = 120

# Columns of a terminal that are made use of; lines are filled up to them.
_WIDEST: Final = 300

# Columns of a terminal below which lines are left for it to wrap: an id is 24 wide.
_NARROW: Final = 40


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader has left: write to nowhere, and still end with the right exit status."""
        self.quiet = True
        if self.file is sys.stdout:
            drop_stdout()


def console_of(file: IO[str]) -> Console:
    """A console that writes to `file`, with lines long enough for any id where it can be."""
    console = _Console(file=file, highlight=False, width=None if file.isatty() else _WIDTH)
    console.width = min(console.width or _WIDTH, _WIDEST)  # none at all where COLUMNS is 0
    return console


def show_summary(ending: Ending, job: Job, file: IO[str] | None = None) -> None:
    """Write what became of each set.

    Args:
        ending: How the batch ended.
        job: What was asked for.
        file: Where to write; None for stdout.
    """
    outcomes = ending.result.outcomes
    words = {**VERDICTS, "timed_out": "running"} if ending.interrupted else VERDICTS
    console = console_of(file or sys.stdout)
    print_table(console, _table(outcomes, words))
    for outcome in outcomes:
        _show_details(console, outcome, words, job.gate)
    counts = verdicts_said(ending.result.counts, words)
    console.print(Text(f"{counts} in {seconds(ending.elapsed)}", "bold"), soft_wrap=True)
    if job.artifacts is not None:
        saved = len({o.artifacts for o in outcomes if o.artifacts is not None})
        console.print(Text(f"{count(saved, 'artifact')} in {job.artifacts}"), soft_wrap=True)


def _table(outcomes: Iterable[RunOutcome], words: Mapping[str, str]) -> Table:
    table = plain_table("verdict", "set", "run", "tests", "time")
    for outcome in outcomes:
        table.add_row(
            Text(words[outcome.verdict], STYLES.get(outcome.verdict, "yellow")),
            Text(log_line(outcome.unit_test_set_id)),
            Text(log_line(outcome.run_id or "-")),
            amount_done(outcome.run),
            _duration(outcome),
        )
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table with its cells whole; a terminal too narrow for them wraps the lines."""
    width = console.width
    console.width = max(width, _WIDTH)
    console.print(table)
    console.width = width


def plain_table(*columns: str) -> Table:
    """A table whose cells are not wrapped, for `print_table`."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        justify: JustifyMethod = "right" if name in ("tests", "time") else "left"
        table.add_column(name, no_wrap=True, justify=justify)
    return table


def _duration(outcome: RunOutcome) -> str:
    if outcome.started_at is None or outcome.finished_at is None:
        return "-"
    return seconds((outcome.finished_at - outcome.started_at).total_seconds())


def _show_details(
    console: Console, outcome: RunOutcome, words: Mapping[str, str], gate: Gate | None
) -> None:
    tell_all = outcome.verdict in ("failed", "errored")
    lines = judged(outcome, gate) + (reasons(outcome) if tell_all else details(outcome))
    if lines:
        style = STYLES.get(outcome.verdict, "yellow")
        title = f"{log_line(outcome.unit_test_set_id)} {words[outcome.verdict]}"
        console.print(Text(title, style), soft_wrap=True)
    for line in lines:
        if console.is_terminal and console.width >= _NARROW:
            console.print(Padding(Text(line), (0, 0, 0, 2)))
        else:
            console.print(Text(f"  {line}"), soft_wrap=True)


def show_what_goes_on(outcomes: Sequence[RunOutcome], job: Job) -> None:
    """Write to stderr which runs go on, and how to come back to them.

    Args:
        outcomes: What became of the sets.
        job: What was asked for.
    """
    ids = list(dict.fromkeys(o.run_id for o in outcomes if o.run_id is not None and _goes_on(o)))
    if not ids:
        return
    runs = count(len(ids), "run")
    goes_on = f"{runs} {'goes' if len(ids) == 1 else 'go'} on at the service"
    if job.on_exit == "cancel":
        found = {o.run_id for o in outcomes if o.attached}.intersection(ids)
        said = ""
        if len(found) < len(ids):
            said += f"The service was asked to cancel {count(len(ids) - len(found), 'run')}. "
        if found:
            said += f"{count(len(found), 'run')} may be another's, and was not to be cancelled. "
        note(f"{said}To see them end:")
    elif job.journal is None:
        note(f"{goes_on}. To resume:")
    else:
        note(f"{goes_on}: {log_line(' '.join(ids))}")
        note("To resume, give the same command: its journal has them.")
        return
    folder = "" if job.artifacts is None else f" --artifacts {shlex.quote(job.artifacts)}"
    shown = " ".join(shlex.quote(log_line(run_id)) for run_id in ids)
    note(f"  amigo-async wait{folder} {shown}")


def _goes_on(outcome: RunOutcome) -> bool:
    """Whether its run may still be going on: it was not over, or was lost sight of."""
    if outcome.verdict == "timed_out":
        return True
    over = outcome.run is not None and outcome.run.is_completed
    lost = outcome.error is not None and not isinstance(outcome.error, NotFoundError)
    return outcome.verdict == "errored" and lost and not over
