"""The summary of a job: a table and reasons on stdout, runs that continue on stderr."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Final

from rich import box
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from amigo_async.batch import BatchResult, RunOutcome
from amigo_async.cli.jobs import FinishedJob, Job
from amigo_async.cli.reasons import (
    LABELS,
    amount_done,
    count_verdicts,
    findings,
    gate_reasons,
    named,
    reasons,
    runs_continue,
    set_name,
)
from amigo_async.cli.streams import drop_stdout, note
from amigo_async.errors import NotFoundError
from amigo_async.escaping import log_line
from amigo_async.report.compared import ComparedBatch, ComparedSet, compared_batch
from amigo_async.report.model import took
from amigo_async.report.wording import duration, plural
from amigo_async.verdicts.gate import Gate, shortened

STYLES: Final = {"passed": "green", "failed": "red", "errored": "magenta"}  # others: yellow

_COMPARED_STYLES: Final = {"regressed": "red", "improved": "green", "no_change_seen": "green"}

# Unit tests of a compared set that are named.
_MOST_TESTS: Final = 10

# Width if the output is not a terminal, wide enough that no id is cut or wrapped.
_WIDTH: Final = 120

# Maximum width on a terminal: lines are padded up to the width.
_WIDEST: Final = 300

# Width of names in tables: with it, a table with run ids fits 80 columns, and one with both 120.
_NAME_WIDTH: Final = 26

# Width from which on tables have the ids of sets beside their names.
_WIDE: Final = 115

# Width from which on tables have all of their columns.
_FULL: Final = 78

_NUMBERS: Final = ("tests", "time", "repeats")

# Below this width, lines are left for the terminal to wrap: an id alone has 24 characters.
_NARROW: Final = 40

# A width that no table needs: measured with less, a table would be said to fit it.
_UNBOUNDED: Final = 10_000


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Drop further output: the reader has closed it, but the exit code must be right."""
        self.quiet = True
        if self.file is sys.stdout:
            drop_stdout()


def console_of(file: IO[str]) -> Console:
    """Return a console that writes to `file`, wide enough for any id unless it is a terminal."""
    console = _Console(file=file, highlight=False, width=None if file.isatty() else _WIDTH)
    console.width = min(console.width or _WIDTH, _WIDEST)  # None if COLUMNS is 0
    return console


def show_summary(job_result: FinishedJob, job: Job, file: IO[str] | None = None) -> None:
    """Write a table of the sets, and the reasons why sets did not pass.

    Args:
        job_result: The result.
        job: The job.
        file: Where to write; None for stdout.
    """
    outcomes = job_result.result.outcomes
    words = {**LABELS, "timed_out": "running"} if job_result.interrupted else LABELS
    console = console_of(file or sys.stdout)
    if job_result.origin is not None:
        console.print(Text(job_result.origin, "bold yellow"), soft_wrap=True)
    print_table(console, _table(outcomes, words, console))
    for outcome in outcomes:
        _show_reasons(console, outcome, words, job.options.get("gate"), job_result.result)
    compared = compared_batch(job_result.result)
    if compared is not None:
        show_compared(console, compared)
    counts = count_verdicts(job_result.result.counts, words)
    if job_result.elapsed is not None:
        counts += f" in {duration(job_result.elapsed)}"
    console.print(Text(counts, "bold"), soft_wrap=True)
    folder = job.options.get("artifacts_dir")
    if folder is not None:
        saved = len({o.artifacts for o in outcomes if o.artifacts is not None})
        console.print(Text(f"{plural(saved, 'artifact')} in {folder}"), soft_wrap=True)


def show_compared(console: Console, compared: ComparedBatch) -> None:
    """Write what came of comparing sets with their baselines: what changed first.

    Args:
        console: Where to write.
        compared: The comparisons.
    """
    style = _COMPARED_STYLES.get(compared.status, "yellow")
    title = f"Against the baseline: {compared.sentence[:1].lower()}{compared.sentence[1:]}"
    print_line(console, Text(log_line(title), style))
    for one in compared.shown:
        print_line(console, Text(log_line(one.words.head)))
        for line in _indented(one):
            print_line(console, Text(line))
    rest = [compared.rest] if compared.rest else []
    for line in (*rest, *(missing.words for missing in compared.uncompared)):
        print_line(console, Text(log_line(line)))


def note_what_is_open(result: BatchResult) -> None:
    """Say on stderr why it is open whether a batch regressed, and what does not count as failed."""
    compared = compared_batch(result)
    if compared is None:
        note("Note: nothing was compared with a baseline, so nothing counts as a regression.")
    elif compared.undecided is not None:
        note(f"Note: {compared.undecided} It does not count as a regression.")
    failed = result.counts.get("failed", 0)
    if failed:
        note(f"Note: {plural(failed, 'set')} failed a metric, which --fail-on regression ignores.")


def _indented(one: ComparedSet) -> list[str]:
    """Return what is below the head of a set, with the ids of unit tests cut to the first ones."""
    tests = shortened([log_line(line) for line in one.words.tests], _MOST_TESTS)
    rest = [log_line(line) for line in (*one.words.changes, *one.words.caveats)]
    return [f"  {line}" for line in (*tests, *rest)]


def is_wide(console: Console) -> bool:
    """Return whether the ids of sets fit beside their names."""
    return console.width >= _WIDE


def is_narrow(console: Console) -> bool:
    """Return whether a table does not fit that has a name and the id of a run side by side."""
    return console.is_terminal and console.width < _FULL


def _table(outcomes: Sequence[RunOutcome], words: Mapping[str, str], console: Console) -> Table:
    if is_narrow(console):
        return _narrow_table(outcomes, words)
    with_ids = is_wide(console) and any(outcome.name for outcome in outcomes)
    table = plain_table("verdict", "set", "tests", "time", "run", *(["set id"] * with_ids))
    for outcome in outcomes:
        ids = [outcome.run_id or "-", *([outcome.unit_test_set_id] * with_ids)]
        table.add_row(
            Text(words[outcome.verdict], STYLES.get(outcome.verdict, "yellow")),
            name_cell(outcome.unit_test_set_id, outcome.name),
            amount_done(outcome.run),
            took(outcome) or "-",
            *(Text(log_line(text), "dim") for text in ids),
        )
    return table


def _narrow_table(outcomes: Iterable[RunOutcome], words: Mapping[str, str]) -> Table:
    """Return a table of 40 columns, with the id of each run below its set."""
    table = plain_table("verdict", "set, run")
    for outcome in outcomes:
        verdict = Text(words[outcome.verdict], STYLES.get(outcome.verdict, "yellow"))
        table.add_row(verdict, name_cell(outcome.unit_test_set_id, outcome.name))
        if outcome.run_id is not None:
            table.add_row("", Text(log_line(outcome.run_id), "dim"))
    return table


def name_cell(id: str, name: str | None) -> Text:
    """Return the name of a set for a table, cut to a width; its id if the name is not known."""
    if not name or not name.strip():
        return Text(log_line(id))
    cell = Text(named(name))
    cell.truncate(_NAME_WIDTH, overflow="ellipsis")
    return cell


def print_table(console: Console, table: Table) -> None:
    """Print a table without cutting cells; a narrow terminal wraps its lines."""
    width = console.width
    console.width = max(width, _WIDTH, natural_width(table))
    console.print(table)
    console.width = width


def print_line(console: Console, line: Text) -> None:
    """Print a line; on a terminal it is wrapped between words, below its own indentation."""
    if not line.plain or not console.is_terminal or console.width < _NARROW:
        console.print(line, soft_wrap=True)
        return
    indent = len(line.plain) - len(line.plain.lstrip(" "))
    console.print(Padding(line[indent:], (0, 0, 0, indent), expand=False))


def natural_width(table: Table) -> int:
    """Return the width at which no cell of a table is cut."""
    console = Console(width=_UNBOUNDED)
    return Measurement.get(console, console.options, table).maximum


def plain_table(*columns: str) -> Table:
    """Return an empty table whose cells are not wrapped, for `print_table`."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        justify: JustifyMethod = "right" if name in _NUMBERS else "left"
        table.add_column(name, no_wrap=True, justify=justify)
    return table


def _show_reasons(
    console: Console,
    outcome: RunOutcome,
    words: Mapping[str, str],
    gate: Gate | None,
    result: BatchResult,
) -> None:
    describe = reasons if outcome.verdict in ("failed", "errored") else findings
    lines = gate_reasons(outcome, gate, result.names)
    lines += describe(outcome, result.names, result.explanations, gate=gate)
    if lines:
        style = STYLES.get(outcome.verdict, "yellow")
        title = Text(f"{set_name(outcome)} {words[outcome.verdict]}", style)
        if outcome.name:
            title.append(f"  {log_line(outcome.unit_test_set_id)}", "dim not bold default")
        console.print(title, soft_wrap=True)
    for line in lines:
        print_line(console, Text(f"  {line}"))


def show_continuing_runs(outcomes: Sequence[RunOutcome], job: Job) -> None:
    """Print to stderr which runs continue, and how to wait for them.

    Args:
        outcomes: The outcomes of the sets.
        job: The job.
    """
    continuing = [o for o in outcomes if o.run_id is not None and _continues(o)]
    ids = list(dict.fromkeys(o.run_id for o in continuing if o.run_id is not None))
    if not ids:
        return
    if job.options.get("on_exit") == "cancel":
        attached = {o.run_id for o in outcomes if o.attached}.intersection(ids)
        cancelled = len(ids) - len(attached)
        text = ""
        if cancelled:
            text += f"The service was asked to cancel {plural(cancelled, 'run')}. "
        if attached:
            text += f"{plural(len(attached), 'run')} may be someone else's, and was not cancelled. "
        note(f"{text}To wait for their end:")
    elif job.options.get("journal") is None:
        note(f"{runs_continue(len(ids))}. To resume:")
    else:
        note(f"{runs_continue(len(ids))}: {log_line(' '.join(ids))}")
        note("To resume, run the same command again: the journal has them.")
        return
    artifacts_dir = job.options.get("artifacts_dir")
    folder = "" if artifacts_dir is None else f" --artifacts {shlex.quote(str(artifacts_dir))}"
    shown = " ".join(shlex.quote(log_line(run_id)) for run_id in ids)
    note(f"  amigo-async wait{folder} {shown}")


def _continues(outcome: RunOutcome) -> bool:
    """Return whether the run may be still in progress: it had not ended when last seen."""
    if outcome.verdict == "timed_out":
        return True
    ended = outcome.run is not None and outcome.run.is_completed
    lost = outcome.error is not None and not isinstance(outcome.error, NotFoundError)
    return outcome.verdict == "errored" and lost and not ended
