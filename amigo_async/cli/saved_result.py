"""``amigo-async report``: reports from a result that was saved as JSON before."""

from __future__ import annotations

from functools import partial
from typing import IO, Any

import click
import msgspec
from msgspec.structs import replace

from amigo_async.batch import BatchResult, RunOutcome
from amigo_async.batch.outcomes import UNKNOWN_FAILING, notes_of_unknown
from amigo_async.cli.command import (
    Outputs,
    fail_on_option,
    gate_options,
    name_of,
    open_client,
    print_notes,
    read_text,
    service_command,
)
from amigo_async.cli.exit_codes import exit_code_of_result
from amigo_async.cli.jobs import FinishedJob, Job
from amigo_async.cli.reports import Reports, report_options
from amigo_async.cli.summary import note_what_is_open, show_summary
from amigo_async.escaping import log_line
from amigo_async.models import Run
from amigo_async.names import Explanations, Names, combined, select_unit_tests, unit_test_ids
from amigo_async.report import from_json
from amigo_async.report.model import notes_of
from amigo_async.verdicts.gate import EXPLAINED, Gate, passing_again, reason_of, verdict_of


@click.command(
    help="""Write reports from a saved result.

    FILE is what --json of run or wait wrote; - reads it from stdin. Without options, the summary
    goes to stdout. Nothing is asked of the service unless --names or --reasons is given; with
    --json, what they read is saved too, and FILE itself may be named for it.

    Exit status: as for run when it wrote FILE; a run that was interrupted counts as timed out.
    """,
)
@click.argument("file", type=click.File("rb"))
@report_options
@click.option("--names", is_flag=True, help="Read names that FILE does not have.")
@click.option("--reasons", is_flag=True, help="Read why runs failed, as far as FILE lacks it.")
@gate_options
@fail_on_option
@service_command
async def report(
    *,
    file: IO[Any],
    names: bool,
    reasons: bool,
    gate: Gate | None,
    known_failing: list[str],
    **kinds: Any,
) -> int:
    """Write reports from a saved result."""
    reports = Reports(**kinds)
    result = read_result(file)
    reports.check()
    if gate is not None or known_failing:
        outcomes = [_judged(o, gate, known_failing, result.names) for o in result.outcomes]
        result = replace(result, outcomes=outcomes, notes=_notes_on_known(result, known_failing))
    if names or reasons:
        result = await _completed(result, names=names, reasons=reasons)
    outputs = Outputs()
    artifacts = any(outcome.artifacts is not None for outcome in result.outcomes)
    job = Job([outcome.unit_test_set_id for outcome in result.outcomes], {"gate": gate})
    finished = FinishedJob(result, _elapsed(result), interrupted=False, unresolved=[])
    reports.show("the summary", partial(show_summary, finished, job), outputs)
    print_notes(notes_of(result))
    if reports.fail_on == "regression":
        note_what_is_open(result)
    reports.write(result, gate, outputs)
    code = exit_code_of_result(result, artifacts=artifacts, fail_on=reports.fail_on)
    return outputs.print_failures(code)


def read_result(file: IO[Any]) -> BatchResult:
    """Read a result from a file that ``--json`` wrote.

    Raises:
        click.UsageError: If the file is no such result.
        click.FileError: If it cannot be read.
    """
    text = read_text(file)
    try:
        result = from_json(text)
    except msgspec.DecodeError as error:
        raise click.UsageError(
            f"{name_of(file)} is not a result that --json of run or wait wrote: "
            f"{log_line(str(error))}"
        ) from None
    if not result.outcomes:
        raise click.UsageError(f"{name_of(file)} has no outcome: a result has one for each set")
    return result


def _notes_on_known(result: BatchResult, known_failing: list[str]) -> tuple[str, ...]:
    """Return the notes of a result, with what of other known failures is no unit test of it."""
    if not known_failing:
        return result.notes
    kept = [text for text in result.notes if not text.startswith(UNKNOWN_FAILING)]
    return (*kept, *notes_of_unknown(known_failing, result.outcomes, result.names))


def _judged(
    outcome: RunOutcome, gate: Gate | None, known_failing: list[str], names: Names
) -> RunOutcome:
    """Return an outcome as `gate` judges its run, if that has completed."""
    run, cancelled = outcome.run, outcome.verdict == "cancelled"
    if run is None or not run.is_completed:
        return outcome
    known = outcome.known_failing
    if known_failing:
        known = select_unit_tests(known_failing, unit_test_ids(run), names)
    return replace(
        outcome,
        verdict=verdict_of(run, gate, cancelled=cancelled, known_failing=known),
        reason=reason_of(run, gate, known, cancelled=cancelled),
        known_failing=known,
        passing_again=passing_again(run, known),
    )


async def _completed(result: BatchResult, *, names: bool, reasons: bool) -> BatchResult:
    """Return the result with names and reasons that it does not have yet."""
    async with open_client() as client:
        if names:
            runs = [outcome.run for outcome in result.outcomes if outcome.run is not None]
            read = await client.describe(runs, known=result.names)
            known = combined(read, result.names)
            outcomes = [
                replace(o, name=known.unit_test_sets.get(o.unit_test_set_id, o.name))
                for o in result.outcomes
            ]
            result = replace(result, outcomes=outcomes, names=known)
        if reasons:
            explained = await client.explain(_unsuccessful(result), known=result.explanations)
            evaluations = result.explanations.evaluations | explained.evaluations
            result = replace(result, explanations=Explanations(evaluations, explained.notes))
    return result


def _unsuccessful(result: BatchResult) -> list[Run]:
    return [o.run for o in result.outcomes if o.run is not None and o.verdict in EXPLAINED]


def _elapsed(result: BatchResult) -> float | None:
    """Return how many seconds the batch took as far as its times show; None if they do not."""
    outcomes = result.outcomes
    ends = [at for o in outcomes for at in (o.finished_at, o.saved_at) if at is not None]
    starts = [o.started_at for o in outcomes if o.started_at is not None]
    began = [result.began_at] if result.began_at is not None else starts
    if not began or not ends:
        return None
    elapsed = (max(ends) - min(began)).total_seconds()
    return elapsed if elapsed > 0 else None  # a resumed batch may have ended before it began
