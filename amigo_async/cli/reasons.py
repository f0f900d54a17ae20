"""Words of the command: why a set did not pass, what an error means, times and sizes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from amigo_async.batch import BatchResult, RunOutcome
from amigo_async.errors import (
    AmigoError,
    ArtifactsNotReadyError,
    ConflictError,
    NotFoundError,
    TransportError,
)
from amigo_async.escaping import log_line
from amigo_async.models import Run
from amigo_async.names import Explanations, Names
from amigo_async.report.json import type_of
from amigo_async.report.model import Group, SetReport, set_reports
from amigo_async.report.wording import UNEXPLAINED, VERDICT_WORDS, plural, short_text
from amigo_async.verdicts.gate import Gate

_MOST: Final = 3

_LONGEST_NAME: Final = 100
_LONGEST_ERROR: Final = 300

_NO_NAMES: Final = Names()
_UNEXPLAINED: Final = Explanations()

_REMEDIES: Final[tuple[tuple[type[AmigoError], str], ...]] = (
    (ConflictError, "use --on-conflict attach, wait or restart to deal with the unfinished run"),
    (ArtifactsNotReadyError, "amigo-async wait RUN_ID --artifacts DIR waits for them"),
    (NotFoundError, "check the id, and the region in AMIGO_BASE_URL"),
    (TransportError, "check the network and AMIGO_BASE_URL"),
)


def named(name: str) -> str:
    """Escape a name for a line, and cut it if it is very long."""
    return log_line(short_text(name, _LONGEST_NAME))


def set_name(outcome: RunOutcome) -> str:
    """Return the name of the set of an outcome for a line; its id if the name is not known."""
    name = "" if outcome.name is None else named(outcome.name)
    return name or log_line(outcome.unit_test_set_id)


def explain(error: BaseException) -> str:
    """Describe an error in one line, with its remedy if there is one."""
    message = log_line(str(error)) or type(error).__name__
    if isinstance(error, ConflictError) and error.existing_run_id is not None:
        message += f" (run {log_line(error.existing_run_id)})"
    for kind, remedy in _REMEDIES:
        if issubclass(type_of(error), kind):
            return f"{message}; {remedy}"
    return message


def reasons(
    outcome: RunOutcome,
    names: Names = _NO_NAMES,
    explanations: Explanations = _UNEXPLAINED,
    *,
    most: int = _MOST,
) -> list[str]:
    """Explain why a set did not pass, one line per reason; empty if it passed.

    Args:
        outcome: The outcome of the set.
        names: Names of its unit tests and metrics.
        explanations: What was seen in its conversations.
        most: Maximum number of lines for metrics, and for errors of repeats.
    """
    unexplained = UNEXPLAINED.get(outcome.verdict)
    lines = details(outcome, names, explanations, most=most)
    return lines or ([] if unexplained is None else [unexplained])


def gate_reasons(outcome: RunOutcome, gate: Gate | None, names: Names = _NO_NAMES) -> list[str]:
    """Explain a gate's verdict if it is not "passed", or passed a run that has failures."""
    run = outcome.run
    if gate is None or run is None or not run.is_completed or outcome.verdict == "cancelled":
        return []
    judgement = gate.judge(run)
    lacking = judgement.verdict != "passed" or judgement.fell_back or not run.passed
    if not lacking:
        return []
    result = BatchResult((outcome,), names=names)
    [each] = set_reports(result, gate)
    lines = each.reasons or judgement.reasons  # those of the report have names
    return [log_line(reason) for reason in shortened(lines, _MOST)]


def details(
    outcome: RunOutcome,
    names: Names = _NO_NAMES,
    explanations: Explanations = _UNEXPLAINED,
    *,
    most: int = _MOST,
) -> list[str]:
    """Explain what the results and errors of a set show, one line per reason.

    Unit tests that failed by the same metric, or with the same error, share a line.
    """
    lines: list[str] = []
    if outcome.run is not None:
        if outcome.run.was_cut_short and outcome.reason is not None:
            lines.append(log_line(outcome.reason))
        result = BatchResult((outcome,), names=names, explanations=explanations)
        [each] = set_reports(result, None)
        for status in ("failed", "errored"):
            groups = [group for group in each.groups if group.status == status]
            lines += shortened([_group_line(each, group) for group in groups], most)
    if outcome.error is not None:
        lines.append(explain(outcome.error))
    return lines


def _group_line(each: SetReport, group: Group) -> str:
    """Describe what unit tests have in common that failed, by the example of the first."""
    first, *others = group.findings
    path = [each.name, first.test.label, first.case.label if first.case else None]
    if first.case is None:
        what = f"{short_text(group.title, _LONGEST_ERROR)}, {first.words}"
    else:
        what = first.case.words
    line = f"{' / '.join(filter(None, path))}: {what}"
    if others:
        labels = ", ".join(one.test.label for one in others[:_MOST])
        more = f" and {len(others) - _MOST} more" if len(others) > _MOST else ""
        line += f" (and {plural(len(others), 'other unit test')}: {labels}{more})"
    return log_line(line)


def amount_done(run: Run | None) -> str:
    """Format how many unit test runs are done, e.g. ``7/8``."""
    progress = None if run is None else run.progress
    return "-" if progress is None else f"{progress.done}/{progress.total}"


# The endpoints in the order in which they are shown.
ENDPOINTS: Final = ("create", "list", "artifacts", "cancel", "sign_in")

# Verdicts, and what the actions of the command come to.
LABELS: Final = {
    "passed": "passed",
    "saved": "saved",
    "asked": "asked",
    "over": "over",
    **VERDICT_WORDS,
}

_KIB: Final = 1024


def endpoint_name(endpoint: str) -> str:
    """Format the name of an endpoint for people."""
    return endpoint.replace("_", " ")


def label(name: str) -> str:
    """Format a verdict, or what an action of the command came to, for people."""
    return LABELS.get(name, name)


def count_verdicts(counts: Mapping[Any, int], words: Mapping[str, str] = LABELS) -> str:
    """Format counts by verdict, e.g. ``2 passed, 1 failed``."""
    return ", ".join(f"{counts[name]} {word}" for name, word in words.items() if counts.get(name))


def stopwatch(duration: float) -> str:
    """Format a duration in seconds as a stopwatch does: ``0:12``, ``1:02:03``."""
    minutes, rest = divmod(int(duration), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def clock(from_now: float) -> str:
    """Format the local time of day in `from_now` seconds, across changes of summer time too."""
    return time.strftime("%H:%M:%S", time.localtime(time.time() + from_now))


def size(number: int) -> str:
    """Format a size in bytes: ``312 B``, ``1.4 KiB``, ``20 MiB``."""
    if number < _KIB:
        return f"{number} B"
    value, units = number / _KIB, ["KiB", "MiB", "GiB"]
    while value >= _KIB and len(units) > 1:
        value /= _KIB
        del units[0]
    return f"{value:.1f} {units[0]}" if value < 10 else f"{value:.0f} {units[0]}"


def shortened(items: Sequence[str], most: int) -> list[str]:
    """Return the first `most` items, and a line that says how many more there are."""
    rest = len(items) - most
    return [*items[:most], f"and {rest} more"] if rest > 0 else list(items)
