"""``amigo-async run`` and ``wait``: run sets, or wait for runs, and report the results."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import IO, Any, NamedTuple, cast, get_args

import click
from msgspec.structs import replace

from amigo_async.batch import (
    ARTIFACTS_PATIENCE,
    BatchOptions,
    BatchResult,
    OnExit,
    OnFailure,
    Order,
)
from amigo_async.batch.outcomes import notes_of_unknown
from amigo_async.cli.command import (
    Outputs,
    check_not_empty,
    details_options,
    fail_on_option,
    gate_options,
    ids_argument,
    open_client,
    parse_duration,
    print_notes,
    quiet_option,
    read_run_ids,
    read_selectors,
    service_command,
    timeout_option,
)
from amigo_async.cli.compare import parse_baseline
from amigo_async.cli.exit_codes import ExitCode, exit_code_of_result
from amigo_async.cli.jobs import (
    EventRelay,
    FinishedJob,
    Job,
    RunAction,
    collect,
    run_actions,
    run_job,
)
from amigo_async.cli.reports import Reports, annotate, report_options, summarize
from amigo_async.cli.resuming import merged, set_aside, sets_to_repeat
from amigo_async.cli.saved_result import read_result
from amigo_async.cli.sets import select, show_plan
from amigo_async.cli.streams import note, writing_to_stdout
from amigo_async.cli.summary import (
    console_of,
    note_what_is_open,
    show_continuing_runs,
    show_summary,
)
from amigo_async.client import AmigoClient
from amigo_async.escaping import log_line
from amigo_async.names import Names, select_unit_tests, unit_test_ids
from amigo_async.protocol.requests import is_id
from amigo_async.report.model import notes_of
from amigo_async.report.wording import plural
from amigo_async.starting import OnConflict
from amigo_async.threads import in_thread
from amigo_async.verdicts.gate import Gate


@click.command(
    help="""Run unit test sets and collect the results.

    SET is the id or the whole name of a set, in upper or lower case; - reads sets from stdin, one
    on each line. The command starts a run of each set, waits for it and downloads its artifacts.
    The result goes to stdout, progress to stderr.

    \b
    Exit status:
        0  all sets passed
        1  a metric failed
        2  usage error
        3  a set errored, was cancelled or could not start, or a report was not written
        4  timed out
        5  undecided: with --confidence, there were too few repeats to tell
      130  interrupted

    If several apply, the first of 1, 3, 4 and 5 is taken. With --fail-on regression, 1 means that a
    set got worse than its baseline, beyond chance; failed metrics do not count.
    """,
)
@ids_argument("SET", what="ids or names")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="KEY:VALUE",
    help="Run the sets with this tag, beside those named. Given several times: those that have all "
    "of the tags.",
)
@click.option(
    "--failed-from",
    type=click.File("rb"),
    metavar="FILE",
    help="Run the sets again that have not passed in FILE, which --json wrote; keep the others.",
)
@click.option("--dry-run", is_flag=True, help="Show which sets would be run, and start nothing.")
@click.option(
    "--artifacts", "artifacts_dir", metavar="DIR", help="Download the artifacts into this folder."
)
@report_options
@details_options
@click.option(
    "--journal", metavar="FILE", help="Record every step in this file; resume from it if it exists."
)
@click.option(
    "--max-age",
    type=parse_duration,
    metavar="DURATION",
    help="With --journal: if it ended longer ago, e.g. 12h, rename it and run all sets.",
)
@timeout_option("--on-exit says what happens to the runs")
@click.option(
    "--on-conflict",
    type=click.Choice(get_args(OnConflict)),
    default="raise",
    show_default=True,
    help="If a set has an unfinished run: report an error, take that run, start one after its "
    "end, or cancel it first.",
)
@click.option(
    "--on-failure",
    type=click.Choice(get_args(OnFailure)),
    default="continue",
    show_default=True,
    help="When a set fails: go on, start no more sets, or cancel the other runs as well.",
)
@click.option(
    "--on-exit",
    type=click.Choice(get_args(OnExit)),
    default="leave",
    show_default=True,
    help="On Ctrl-C and after --timeout: leave unfinished runs alone, or cancel them.",
)
@click.option(
    "--order",
    type=click.Choice(get_args(Order)),
    default="auto",
    show_default=True,
    help="Start the longest sets first if lengths are known, or as given.",
)
@click.option(
    "--lengths-from",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Know lengths from this journal, or result that --json wrote.",
)
@gate_options
@click.option(
    "--baseline",
    metavar="last|N|FILE",
    callback=parse_baseline,
    help="Compare with the last run, the last N, or those in FILE, a saved JSON result.",
)
@fail_on_option
@quiet_option
@service_command
async def run(
    *,
    ids: tuple[str, ...],
    file: IO[str] | None,
    tags: tuple[str, ...],
    failed_from: IO[Any] | None,
    dry_run: bool,
    max_age: float | None,
    names: bool,
    reasons: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Run unit test sets and collect the results."""
    reports = Reports(**{kind: options.pop(kind) for kind in Reports._fields})
    earlier = None if failed_from is None else Earlier(failed_from.name, read_result(failed_from))
    selectors = read_selectors(ids, file)
    if not selectors and not tags and earlier is None:
        check_not_empty(ids, file, "no set")
    _check_selection(selectors, tags, earlier)
    _check_together(options | {"names": names, "max_age": max_age, "fail_on": reports.fail_on})
    if not dry_run:
        reports.check(options["journal"])
    if earlier is not None:
        selectors = sets_to_repeat(earlier.result)
        if not selectors:
            note(f"All sets have passed in {log_line(earlier.name)}; nothing to run.")
            job_result = FinishedJob(earlier.result, None, interrupted=False, unresolved=[])
            job = Job([], cast("BatchOptions", options), quiet)
            return report_result(job_result, reports, job)
    if max_age is not None and not dry_run:
        renamed = await in_thread(set_aside, options["journal"], max_age)
        if renamed is not None:
            note(log_line(renamed))
    relay = EventRelay()
    async with open_client(relay.on_event) as client:
        selected = await select(client, selectors, tags, read=dry_run)
        if dry_run:
            with writing_to_stdout():
                show_plan(
                    console_of(sys.stdout),
                    selected,
                    options["journal"],
                    gate=options["gate"],
                    known_failing=options["known_failing"],
                )
            return ExitCode.PASSED
        options["baseline"] = _of_sets(options["baseline"], selected.ids)
        batch_options = cast("BatchOptions", options | {"describe": names, "explain": reasons})
        job = Job(selected.ids, batch_options, quiet)
        relay.listener = lambda _: None  # the display shows it
        job_result = await run_job(client, job)
    if earlier is None:
        return report_result(job_result, reports, job)
    again = job_result.result
    return report_result(earlier.completed(job_result), reports, job, judged=again)


class Earlier(NamedTuple):
    """A result of which the sets that have not passed are run again.

    Attributes:
        name: Name of its file.
        result: The result.
    """

    name: str
    result: BatchResult

    def completed(self, again: FinishedJob) -> FinishedJob:
        """Return the job that ran sets again, with the outcomes of all other sets."""
        result = merged(self.result, again.result)
        count = len(sets_to_repeat(self.result))
        origin = (
            f"{count} of {plural(len(result.outcomes), 'set')} run again, the rest taken from "
            f"{log_line(self.name)}"
        )
        return again._replace(result=result, origin="; ".join(filter(None, [origin, again.origin])))


def _check_selection(selectors: list[str], tags: tuple[str, ...], earlier: Earlier | None) -> None:
    """Check that sets are selected, in one way.

    Raises:
        click.UsageError: If not.
    """
    if earlier is not None and (selectors or tags):
        raise click.UsageError("--failed-from names the sets; leave out SET, --from and --tag.")
    if earlier is None and not selectors and not tags:
        raise click.UsageError("Give at least one SET, or --from FILE with some, or --tag.")


def _check_together(options: Mapping[str, Any]) -> None:
    """Check that options that need others have them.

    Raises:
        click.UsageError: If not.
    """
    if not options["names"] and not all(map(is_id, options["known_failing"])):
        raise click.UsageError("--known-failing has names: leave out --no-names, or give ids.")
    if options["fail_on"] == "regression" and options["baseline"] is None:
        raise click.UsageError("--fail-on regression needs --baseline.")
    if options["max_age"] is not None and options["journal"] is None:
        raise click.UsageError("--max-age needs --journal.")


def _of_sets(baseline: Any, set_ids: Sequence[str]) -> Any:
    """Return the baselines of these sets alone; a saved result may have others too."""
    if not isinstance(baseline, Mapping):
        return baseline
    return {set_id: run_ids for set_id, run_ids in baseline.items() if set_id in set_ids}


def report_result(
    job_result: FinishedJob,
    reports: Reports,
    job: Job,
    *,
    judged: BatchResult | None = None,
) -> ExitCode:
    """Print the result of a job, and write the reports.

    Args:
        job_result: The result.
        reports: The reports to write, and what exit status 1 is for.
        job: The job.
        judged: The result that decides about the exit code; None for that of `job_result`.

    Returns:
        The exit code.
    """
    result, outputs = job_result.result, Outputs()
    gate = job.options.get("gate")
    reports.show("the summary", partial(show_summary, job_result, job), outputs, extra=True)
    for unresolved in job_result.unresolved:
        note(
            f"A run of set {unresolved.unit_test_set_id} may have been started: "
            f"{log_line(unresolved.reason)}. Check with: amigo-async list --set "
            f"{unresolved.unit_test_set_id}"
        )
    show_continuing_runs(result.outcomes, job)
    print_notes(notes_of(result))
    if reports.fail_on == "regression":
        note_what_is_open(result)
    with outputs.to("the annotations", extra=True):
        annotate(result, reports.fail_on, gate)
    with outputs.to("the summary of the job (GITHUB_STEP_SUMMARY)", extra=True):
        summarize(result, gate, reports)
    reports.write(result, gate, outputs)
    if job_result.interrupted:
        return outputs.print_failures(ExitCode.INTERRUPTED)
    artifacts = job.options.get("artifacts_dir") is not None
    code = exit_code_of_result(judged or result, artifacts=artifacts, fail_on=reports.fail_on)
    return outputs.print_failures(code)


@click.command(
    help="""Wait for runs and collect the results.

    RUN_ID is the id of a run that was started before; - reads ids from stdin. Interrupting the
    command does not stop the runs.

    Exit status: as for run.
    """,
)
@ids_argument("RUN_ID")
@click.option("--artifacts", metavar="DIR", help="Download the artifacts into this folder.")
@report_options
@details_options
@timeout_option("the runs continue after it")
@gate_options
@quiet_option
@service_command
async def wait(
    *,
    ids: tuple[str, ...],
    file: IO[str] | None,
    artifacts: str | None,
    timeout: float | None,
    gate: Gate | None,
    known_failing: list[str],
    names: bool,
    reasons: bool,
    quiet: bool,
    **kinds: Any,
) -> int:
    """Wait for runs and collect the results."""
    reports = Reports(**kinds)
    run_ids = read_run_ids(ids, file)
    reports.check()

    async def act(client: AmigoClient, action: RunAction) -> None:
        run = await client.wait_for_completion(action.run_id, on_progress=action.set_progress)
        called = Names() if all(map(is_id, known_failing)) else await client.describe([run])
        action.known_failing = select_unit_tests(known_failing, unit_test_ids(run), called)
        action.set_finished(run)
        if artifacts is None:
            return
        action.collecting = True
        if not run.artifacts_generated:
            later = await client.wait_for_completion(
                action.run_id, timeout=ARTIFACTS_PATIENCE, require_artifacts=True
            )
            action.set_finished(later)
        await collect(client, action, artifacts)

    results = await run_actions(
        run_ids,
        act,
        fetches=artifacts is not None,
        gate=gate,
        timeout=timeout,
        quiet=quiet,
        names=names,
        reasons=reasons,
    )
    known = results.names.unit_test_sets
    outcomes = [
        replace(outcome, name=known.get(outcome.unit_test_set_id))
        for outcome in (action.outcome() for action in results.actions)
    ]
    result = BatchResult(
        outcomes,
        names=results.names,
        explanations=results.explanations,
        notes=tuple(notes_of_unknown(known_failing, outcomes, results.names)),
    )
    job_result = FinishedJob(result, results.elapsed, results.interrupted, [])
    return report_result(
        job_result, reports, Job(run_ids, {"artifacts_dir": artifacts, "gate": gate})
    )
