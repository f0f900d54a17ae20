"""``amigo-async show``: everything about one run, or one of its evaluations in full."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Final

import click
from rich.text import Text

from amigo_async.batch.outcomes import VERDICT_WORDS, BatchResult, RunOutcome
from amigo_async.cli.command import (
    checked_run_id,
    details_options,
    open_client,
    print_notes,
    service_command,
)
from amigo_async.cli.exit_codes import ExitCode
from amigo_async.cli.listing import local_time
from amigo_async.cli.reasons import named
from amigo_async.cli.streams import writing_to_stdout
from amigo_async.cli.summary import STYLES, console_of, print_line
from amigo_async.client import AmigoClient
from amigo_async.errors import ArgumentError, DecodeError
from amigo_async.escaping import encode_json, log_line
from amigo_async.models import (
    EvaluationResult,
    LLMConfig,
    Run,
    SimulationEvaluationSource,
    UnitTestRunSpec,
    VersionInfo,
)
from amigo_async.names import Explanations, Names, evaluated
from amigo_async.report.model import Case, SetReport, UnitTestReport, set_reports
from amigo_async.report.wording import instant, value_in_words
from amigo_async.verdicts.gate import reason_of, verdict_of

# Width of the column of labels.
_WIDTH: Final = 14

_MARKS: Final = {"passed": "✓", "failed": "✗", "errored": "!", "unfinished": "·"}


@click.command(
    help="""Show everything about a run.

    Shows its verdict, the versions that it used, each unit test by each metric, and what was seen
    where it failed and why. With --evaluation, shows one evaluation in full instead.

    For other programs, amigo-async wait RUN_ID --json - writes the same as JSON.

    Exit status: 0 if it is shown, whatever its verdict; 2 usage error, 3 not found or an error.
    """,
)
@click.argument("run_id", metavar="RUN_ID", callback=lambda _, __, text: checked_run_id(text))
@click.option(
    "--evaluation",
    metavar="ID",
    help="Show this evaluation of the run: what was seen, why, and the messages it rests on.",
)
@details_options
@service_command
async def show(*, run_id: str, evaluation: str | None, names: bool, reasons: bool) -> int:
    """Show everything about a run."""
    flaw: DecodeError | None = None
    async with open_client() as client:
        try:
            run = await client.runs.get(run_id)
        except DecodeError as error:  # what can be read of it is shown
            if error.run is None:
                raise
            run, flaw = error.run, error
        known = await client.describe([run]) if names else Names()
        if evaluation is None:
            explanations = await client.explain([run]) if reasons else Explanations()
            lines = _run_lines(run, known, explanations)
        else:
            explanations = Explanations()
            lines = _evaluation_lines(await _read(client, run, evaluation), run, known)
    console = console_of(sys.stdout)
    with writing_to_stdout():
        for line in lines:
            print_line(console, line)
    print_notes((*known.notes, *explanations.notes))
    if flaw is not None:
        raise flaw
    return ExitCode.PASSED


# --- the run ---


def _run_lines(run: Run, names: Names, explanations: Explanations) -> Iterator[Text]:
    verdict = verdict_of(run, None, cancelled=False) if run.is_completed else None
    outcome = RunOutcome(
        unit_test_set_id=run.simulation_unit_test_set_id,
        run_id=run.id,
        verdict=verdict or "timed_out",
        run=run,
        reason=reason_of(run),
        name=names.unit_test_sets.get(run.simulation_unit_test_set_id),
    )
    result = BatchResult((outcome,), names=names, explanations=explanations)
    [each] = set_reports(result, None)
    yield _heading(run, each, verdict)
    yield _field("run", run.id)
    yield _field("set", run.simulation_unit_test_set_id)
    yield _field("created", instant(local_time(run.created_at)))
    yield _field("by", f"user {run.creator.user_id} of {run.creator.org_id}")
    yield _field("artifacts", _artifacts(run))
    yield from (_field(name, text) for name, text in _versions(run.unit_test_run_specs))
    if each.tests:
        yield _field("in all", f"{each.amounts.tests_in_words}; {each.amounts.repeats_in_words}")
    if each.problem is not None and verdict is not None:
        yield _field("reason", each.problem)
    for test, spec in zip(each.tests, _specs_of(run, each.tests), strict=True):
        yield Text()
        yield from _unit_test_lines(test, spec, own_versions=_differ(run.unit_test_run_specs))


def _heading(run: Run, each: SetReport, verdict: str | None) -> Text:
    if verdict is not None:
        words, style = VERDICT_WORDS[verdict], STYLES.get(verdict, "yellow")
    else:
        done = run.progress
        words = "running" if done is None else f"running, {done.done} of {done.total} repeats done"
        words += ", a metric has failed" if run.failed_metrics else ""
        words += ", an error has occurred" if run.errored else ""
        style = "cyan"
    return Text.assemble((named(each.label), "bold"), " ", (words, style))


def _artifacts(run: Run) -> str:
    if run.artifacts_generated:
        return f"amigo-async download {run.id}"
    return "not generated yet" if run.is_completed else "generated after the end of the run"


def _field(name: str, value: str) -> Text:
    return Text.assemble((f"  {name:<{_WIDTH}}", "dim"), log_line(value))


def _differ(specs: Iterable[UnitTestRunSpec]) -> bool:
    """Return whether unit tests used different versions or models."""
    return len({encode_json(_shared(spec)) for spec in specs}) > 1


def _shared(spec: UnitTestRunSpec) -> list[object]:
    state_machine = spec.service_hierarchical_state_machine_version_info
    return [spec.agent_version_info, state_machine, spec.llm_model_preferences]


def _versions(specs: list[UnitTestRunSpec]) -> Iterator[tuple[str, str]]:
    """Yield the versions and models, if all unit tests used the same."""
    if not specs or _differ(specs):
        return
    yield from _versions_of(specs[0])


def _versions_of(spec: UnitTestRunSpec) -> Iterator[tuple[str, str]]:
    yield "agent", _version(spec.agent_version_info)
    yield "state machine", _version(spec.service_hierarchical_state_machine_version_info)
    if spec.llm_model_preferences:
        models = (f"{use}: {_model(one)}" for use, one in spec.llm_model_preferences.items())
        yield "models", ", ".join(models)


def _version(info: VersionInfo | None) -> str:
    return "hidden" if info is None else f"{info.id}, version {info.version}"


def _model(config: LLMConfig) -> str:
    params = f" {encode_json(config.params)}" if config.params else ""
    return f"{config.llm_name}{params}"


def _specs_of(run: Run, tests: Iterable[UnitTestReport]) -> Iterator[UnitTestRunSpec | None]:
    """Yield the spec of each unit test: a unit test that is in the set twice has two."""
    left = list(run.unit_test_run_specs)
    for test in tests:
        found = next((spec for spec in left if spec.unit_test_id == test.id), None)
        if found is not None:
            left.remove(found)
        yield found


def _unit_test_lines(
    test: UnitTestReport, spec: UnitTestRunSpec | None, *, own_versions: bool
) -> Iterator[Text]:
    style = STYLES.get(test.status, "yellow")
    yield Text.assemble((f"{_MARKS[test.status]} ", style), (named(test.label), "bold"))
    yield _field("unit test", test.id)
    if spec is not None:
        yield _field("scenario", _version(spec.scenario_version_info))
        yield _field("persona", _version(spec.persona_version_info))
        if own_versions:
            yield from (_field(name, text) for name, text in _versions_of(spec))
        yield _field("repeats", f"{test.seen}; at most {spec.max_interactions} interactions each")
    for error in test.errors:
        where = f"{error.count} of {test.repeats}, no. {error.repeats}"
        yield Text.assemble(("  ! ", STYLES["errored"]), log_line(f"{error.text} ({where})"))
    for case in test.cases:
        yield from _case_lines(case)


def _case_lines(case: Case) -> Iterator[Text]:
    style = STYLES.get(case.status, "yellow")
    expected = f"expected {case.expected}; " if case.expected else ""
    words = f"{case.label}: {expected}{case.seen}"
    yield Text.assemble((f"  {_MARKS[case.status]} ", style), log_line(words))
    for reason in case.reasons:
        yield Text(f"      {log_line(reason.words)}")
    for evaluation in case.evaluations:
        yield Text(f"      evaluation {log_line(evaluation)}", "dim")


# --- an evaluation ---


async def _read(client: AmigoClient, run: Run, evaluation_id: str) -> EvaluationResult:
    """Read an evaluation of a run.

    Raises:
        ArgumentError: If the run has none with this id, or the user may not see it.
    """
    versions = evaluated(run, failed_only=False)
    if evaluation_id not in versions:
        raise ArgumentError(
            f"run {run.id} has no evaluation {log_line(evaluation_id)}, as far as it is visible; "
            f"amigo-async show {run.id} lists those that failed"
        )
    found = client.evaluations.iterate(
        simulation_unit_test_set_run_id=run.id, metric_id_and_version=versions[evaluation_id]
    )
    async for evaluation in found:
        if evaluation.id == evaluation_id:
            return evaluation
    raise ArgumentError(
        f"evaluation {log_line(evaluation_id)} cannot be seen: it is gone, or the permission "
        "Metric:GetMetricEvaluationResult is missing"
    )


def _evaluation_lines(evaluation: EvaluationResult, run: Run, names: Names) -> Iterator[Text]:
    passed = next(
        one.passed
        for result in run.unit_test_run_results
        if result is not None
        for metric in result.metric_evaluation_results
        for one in metric.results
        if one.metric_evaluation_result_id == evaluation.id
    )
    words, style = ("passed", "green") if passed else ("failed", "red")
    metric = names.metrics.get(evaluation.metric_id, evaluation.metric_id)
    yield Text.assemble((named(metric), "bold"), " ", (words, style))
    yield _field("evaluation", evaluation.id)
    yield _field("metric", f"{evaluation.metric_id}, version {evaluation.metric_version}")
    yield _field("run", run.id)
    source = evaluation.source
    if isinstance(source, SimulationEvaluationSource):
        test = names.unit_tests.get(source.unit_test_id)
        both = f"{named(test)} ({source.unit_test_id})" if test else source.unit_test_id
        yield _field("unit test", both)
        yield _field("repeat", str(source.run_index + 1))
    if evaluation.created_at is not None:
        yield _field("created", instant(local_time(evaluation.created_at)))
    yield _field("seen", value_in_words(evaluation.result))
    references = getattr(source, "references", ())
    if references:
        yield _field("messages", ", ".join(references))
    yield Text()
    for line in evaluation.justification.splitlines() or ["No reason was given."]:
        yield Text(log_line(line))
