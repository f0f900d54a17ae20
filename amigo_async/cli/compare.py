"""``amigo-async compare``: whether runs of sets are worse or better than others, beyond chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Literal, TypeAlias

import click
from msgspec.structs import replace

from amigo_async.batch import BatchResult, RunOutcome
from amigo_async.batch.baselines import NO_BASELINE, SPARE, compare_with_last
from amigo_async.cli.command import (
    Outputs,
    fail_on_option,
    names_option,
    open_client,
    print_notes,
    service_command,
)
from amigo_async.cli.exit_codes import ExitCode
from amigo_async.cli.reports import Reports, annotate_regressions, report_options
from amigo_async.cli.saved_result import read_result
from amigo_async.cli.sets import select
from amigo_async.cli.streams import note
from amigo_async.cli.summary import console_of, note_what_is_open, show_compared
from amigo_async.client import AmigoClient
from amigo_async.errors import ArgumentError
from amigo_async.escaping import log_line
from amigo_async.models import Run
from amigo_async.names import Names, combined
from amigo_async.protocol.requests import check_run_id
from amigo_async.report.compared import compared_batch
from amigo_async.report.model import FailOn
from amigo_async.threads import in_thread
from amigo_async.verdicts.gate import reason_of, verdict_of

# What --baseline of run was given: the last run, so many of the last, or run ids by set id.
Given: TypeAlias = Literal["last"] | int | Mapping[str, Sequence[str]]


def parse_baseline(_: click.Context, __: click.Parameter, text: str | None) -> Given | None:
    """Parse ``last``, a number, or the name of a file with a saved result."""
    if text is None or text == "last":
        return None if text is None else "last"
    if text.isdecimal():
        if int(text) < 1:
            raise click.BadParameter("the number of runs must be at least 1")
        return int(text)
    if not Path(text).is_file():
        raise click.BadParameter(f"{text!r} is neither last, nor a number, nor a file")
    runs: dict[str, list[str]] = {}
    for outcome in _read(text).outcomes:
        if outcome.run_id is not None and _flaw(outcome) is None:
            runs.setdefault(outcome.unit_test_set_id, []).append(outcome.run_id)
    if not runs:
        raise click.BadParameter(f"{text} has no completed run")
    return runs


@click.command(
    help="""Compare runs: is the second worse or better than the first, beyond chance?

    Each of the two is the id of a run, or a result that --json of run or wait wrote; of two results
    all sets that both have are compared. With --set, the newest run of a set is compared with those
    before it. The options for reports are those of run.

    Exit status: 0 compared, whatever failed in the runs; 2 usage error, 3 could not be read. With
    --fail-on regression, 1 if a set got worse beyond chance; where too few repeats leave that open,
    a line says so.
    """,
)
@click.argument("runs", nargs=-1, metavar="[RUN_OR_FILE RUN_OR_FILE]")
@click.option("--set", "set_name", metavar="SET", help="Compare the newest run of this set.")
@click.option(
    "--last",
    type=click.IntRange(1),
    metavar="N",
    help="With --set: compare with the N runs before.  [default: 1]",
)
@report_options
@names_option
@fail_on_option
@service_command
async def compare(
    *,
    runs: tuple[str, ...],
    set_name: str | None,
    last: int | None,
    names: bool,
    fail_on: FailOn,
    **kinds: Any,
) -> int:
    """Compare runs: is the second worse or better than the first, beyond chance?"""
    reports = Reports(**kinds, fail_on="regression")  # the runs themselves are not in question
    if (set_name is None and len(runs) != 2) or (set_name is not None and runs):
        raise click.UsageError("Give two runs or files, or --set SET, perhaps with --last N.")
    if last is not None and set_name is None:
        raise click.UsageError("--last needs --set.")
    given = [_given(text) for text in runs]
    reports.check()
    if given and all(isinstance(one, BatchResult) for one in given):
        result = await _compared([one for one in given if isinstance(one, BatchResult)])
    else:
        async with open_client() as client:
            if set_name is not None:
                [set_id] = (await select(client, [set_name], ())).ids
                pair = await _newest(client, set_id, last or 1)
            else:
                pair = [await _read_run(client, one) for one in given]
            known = Names()
            if names:
                known = await client.describe(_all_runs(pair), known=_names_of(pair))
            result = await _compared(pair, known, most=last or 1 if set_name else None)
    return _report(result, reports, fail_on)


def _given(text: str) -> BatchResult | str:
    """Return the saved result in a file, or the id of a run.

    Raises:
        click.UsageError: If it is neither.
    """
    if Path(text).exists():
        return _read(text)
    try:
        return check_run_id("RUN_OR_FILE", text)
    except ArgumentError:
        raise click.UsageError(
            f"{log_line(text)} is neither the id of a run nor a file that exists; "
            "--json of run or wait writes a result to compare."
        ) from None


def _read(path: str) -> BatchResult:
    try:
        with Path(path).open("rb") as file:
            return read_result(file)
    except OSError as error:
        raise click.FileError(path, error.strerror) from error


async def _read_run(client: AmigoClient, given: BatchResult | str) -> BatchResult:
    if isinstance(given, BatchResult):
        return given
    return BatchResult([_outcome(await client.runs.get(given))])


async def _newest(client: AmigoClient, set_id: str, last: int) -> list[BatchResult]:
    """Return the runs of a set before the newest one that ran every repeat, and that one.

    Raises:
        click.ClickException: If there is none.
    """
    runs = await client.history(set_id, limit=last + 1 + SPARE)
    whole = [run for run in runs if not run.was_cut_short]
    if not whole:
        raise click.ClickException(f"set {set_id} has no completed run that ran every repeat")
    newest, *before = map(_outcome, whole)
    return [BatchResult(before), BatchResult([newest])]


def _outcome(run: Run) -> RunOutcome:
    return RunOutcome(
        unit_test_set_id=run.simulation_unit_test_set_id,
        run_id=run.id,
        verdict=verdict_of(run, None, cancelled=False) if run.is_completed else "timed_out",
        run=run,
        reason=reason_of(run),
        started_at=run.created_at,
    )


def _all_runs(pair: Sequence[BatchResult]) -> list[Run]:
    return [outcome.run for side in pair for outcome in side.outcomes if outcome.run is not None]


def _names_of(pair: Sequence[BatchResult]) -> Names:
    return reduce(combined, (side.names for side in pair))


async def _compared(
    pair: Sequence[BatchResult], names: Names | None = None, *, most: int | None = None
) -> BatchResult:
    """Return the second result with its comparisons to the first.

    Args:
        pair: Both results.
        names: Names that were read; None for those of the results alone.
        most: Number of runs of a set to compare with, of those that are comparable; None for all.

    Raises:
        click.UsageError: If they have no set in common.
    """
    baseline, candidate = pair
    known = combined(names or Names(), _names_of(pair))
    past: dict[str, list[RunOutcome]] = {}
    for outcome in baseline.outcomes:
        past.setdefault(outcome.unit_test_set_id, []).append(outcome)
    sets = {outcome.unit_test_set_id for outcome in candidate.outcomes}
    if past and not sets & past.keys():
        raise click.UsageError("The two have no set in common.")
    for set_id in past.keys() - sets:
        note(f"Note: set {log_line(known.unit_test_set(set_id))} is in the first alone.")
    outcomes = [
        replace(
            await in_thread(
                _with_comparison, outcome, past.get(outcome.unit_test_set_id, ()), most
            ),
            name=known.unit_test_sets.get(outcome.unit_test_set_id, outcome.name),
        )
        for outcome in candidate.outcomes
    ]
    return replace(candidate, outcomes=outcomes, names=known)


def _with_comparison(
    outcome: RunOutcome, past: Sequence[RunOutcome], most: int | None
) -> RunOutcome:
    flaws = [_flaw(one) for one in past]
    flaw = _flaw(outcome)
    if flaw is None and None not in flaws:
        flaw = next(iter(flaws), NO_BASELINE)
    whole = [one.run for one, flawed in zip(past, flaws, strict=True) if flawed is None]
    runs = list({run.id: run for run in whole if run is not None}.values())
    if flaw is not None or outcome.run is None:
        return replace(outcome, comparison=None, uncompared=flaw)
    if any(run.id == outcome.run.id for run in runs):
        return replace(outcome, comparison=None, uncompared="both are the same run")
    found = compare_with_last(runs, outcome.run, most, outcome.known_failing)
    return replace(outcome, comparison=found, uncompared=None)


def _flaw(outcome: RunOutcome) -> str | None:
    """Return why a run cannot be compared; None if it can."""
    run = outcome.run
    if run is None:
        return "no run was started" if outcome.run_id is None else "the run was not read"
    if not run.is_completed:
        return f"run {run.id} has not ended"
    return f"run {run.id} was cut short" if run.was_cut_short else None


def _report(result: BatchResult, reports: Reports, fail_on: FailOn) -> ExitCode:
    """Print the comparisons, and write the reports; return the exit code."""
    outputs, compared = Outputs(), compared_batch(result)
    if compared is not None:
        reports.show(
            "the comparison", lambda file: show_compared(console_of(file), compared), outputs
        )
    print_notes(result.names.notes)
    with outputs.to("the annotations", extra=True):
        annotate_regressions(result)
    reports.write(result, None, outputs)
    if fail_on == "regression":
        note_what_is_open(result)
    regressed = result.comparison is not None and result.comparison.verdict == "regressed"
    failed = fail_on == "regression" and regressed
    return outputs.print_failures(ExitCode.FAILED if failed else ExitCode.PASSED)
