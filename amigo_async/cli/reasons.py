"""Words of the command: why a set did not pass, what an error means, times and sizes."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from amigo_async.batch.outcomes import UNEXPLAINED, VERDICT_WORDS, BatchResult, RunOutcome
from amigo_async.config import VARIABLES
from amigo_async.errors import (
    AmigoError,
    APIError,
    ArgumentError,
    ArtifactsNotReadyError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    TransportError,
)
from amigo_async.escaping import log_line
from amigo_async.events import RequestRetried
from amigo_async.models import Run
from amigo_async.names import Explanations, Names
from amigo_async.report.json import type_of
from amigo_async.report.model import Group, SetReport, named_ids, set_reports
from amigo_async.report.wording import duration, plural, short_text
from amigo_async.verdicts.gate import Gate, shortened

_MOST: Final = 3

_LONGEST_NAME: Final = 100
_LONGEST_ERROR: Final = 300

# Stands for the id of a set while nothing but the id of its run is known.
UNKNOWN_SET: Final = "-"

_NO_NAMES: Final = Names()
_UNEXPLAINED: Final = Explanations()

# How the command calls what the messages of the library call by the names of arguments.
_TERMS: Final = {
    **VARIABLES,
    "simulation_unit_test_set_id": "--set",
    "unit_test_set_ids": "SET",
    "creator": "--creator",
    "created_after": "--created-after",
    "created_before": "--created-before",
    "continuation_token": "--continuation-token",
    "artifacts_dir": "--artifacts",
    "journal": "--journal",
    "tags": "--tag",
    "tag": "--tag",
    "id": "--id",
    "confidence": "--confidence",
    "gate": "--confidence",  # without one, every gate can be passed
    "lengths_from": "--lengths-from",
    "link": "--link",
    "timeout": "--timeout",
    "see on_conflict": "see --on-conflict",
    "wait for the run with require_artifacts=True": "the run has not ended, or has none yet",
}
# The beginning of a message about an argument, and names that occur within sentences.
_SUBJECT: Final = re.compile(rf"^(?:{'|'.join(map(re.escape, _TERMS))})(?=[ :])")
_WITHIN: Final = re.compile(
    rf"\b(?:{'|'.join(VARIABLES)}|see on_conflict|"
    r"wait for the run with require_artifacts=True)(?![\w=])"
)
_REPEATED: Final = " (AMIGO_API_KEY, AMIGO_API_KEY_ID, AMIGO_USER_ID)"


def _in_terms_of_the_command(error: AmigoError) -> str:
    """Return the message of an error with options and variables for the names of arguments."""
    message = log_line(str(error))
    if isinstance(error, APIError):
        # What the service says is left as it is.
        detail = log_line(error.detail or "").rstrip(".")
        end = message.find(detail) + len(detail)
        said, rest = message[:end], message[end:].replace(_REPEATED, "")
        return said + _WITHIN.sub(_term, rest)
    if isinstance(error, ConfigurationError):
        return _WITHIN.sub(_term, message)
    return _SUBJECT.sub(_term, message) if isinstance(error, ArgumentError) else message


def _term(found: re.Match[str]) -> str:
    return _TERMS[found[0]]


def _remedy(error: AmigoError) -> str | None:
    """Return what the user can do about an error, if its message does not say it."""
    kind = type_of(error)  # of one that was read from a report too
    if issubclass(kind, ConflictError):
        return "use --on-conflict attach, wait or restart to deal with the unfinished run"
    if issubclass(kind, ArtifactsNotReadyError):
        return "amigo-async wait RUN_ID --artifacts DIR waits for them"
    if isinstance(error, NotFoundError):
        return _not_found(error)
    if issubclass(kind, TransportError):
        return f"check the network{_proxies()} and AMIGO_BASE_URL"
    return None


def _not_found(error: NotFoundError) -> str:
    if error.path.endswith("signin_with_api_key"):
        return "amigo-async auth check looks for it in the other regions"
    if error.method == "POST":
        return "or is this the id of a run? SET is the id or the name of a set"
    is_set = "is this the id of a set? amigo-async list --set ID shows the runs of a set"
    # Where no request was refused, the message does not mention the region.
    return f"check AMIGO_BASE_URL, or {is_set}" if error.path.startswith("run ") else f"or {is_set}"


def _proxies() -> str:
    """Name the proxies that requests may go through, without their passwords."""
    named = {
        f"{scheme.upper()}_PROXY": urlsplit(url).netloc.rpartition("@")[2]
        for scheme, url in getproxies().items()
        if scheme in ("http", "https")
    }
    return "".join(f", the proxy {log_line(host)} ({name})" for name, host in named.items())


def runs_continue(count: int) -> str:
    """Say that runs go on: ``3 runs continue on the service``."""
    return f"{plural(count, 'run')} {'continues' if count == 1 else 'continue'} on the service"


def retry_in_words(event: RequestRetried) -> str:
    """Say that an attempt failed, why, and when the next one begins."""
    return (
        f"{endpoint_name(event.endpoint)}: attempt {event.attempt} failed, the next in "
        f"{duration(event.delay)}: {log_line(event.reason)}"
    )


def named(name: str) -> str:
    """Escape a name for a line, and cut it if it is very long."""
    return log_line(short_text(name, _LONGEST_NAME))


def set_name(outcome: RunOutcome) -> str:
    """Return the name of the set of an outcome for a line; its id if the name is not known."""
    name = "" if outcome.name is None else named(outcome.name)
    known = outcome.unit_test_set_id != UNKNOWN_SET
    return name or log_line(outcome.unit_test_set_id if known else f"run {outcome.run_id}")


def explain(error: BaseException) -> str:
    """Describe an error in one line, with its remedy if there is one."""
    if not isinstance(error, AmigoError):
        return log_line(str(error)) or type(error).__name__
    message = _in_terms_of_the_command(error) or type(error).__name__
    if isinstance(error, ConflictError) and error.existing_run_id is not None:
        message += f" (run {log_line(error.existing_run_id)})"
    remedy = _remedy(error)
    return message if remedy is None else f"{message}; {remedy}"


def reasons(
    outcome: RunOutcome,
    names: Names = _NO_NAMES,
    explanations: Explanations = _UNEXPLAINED,
    *,
    gate: Gate | None = None,
    most: int = _MOST,
) -> list[str]:
    """Explain why a set did not pass, one line per reason; empty if it passed.

    Args:
        outcome: The outcome of the set.
        names: Names of its unit tests and metrics.
        explanations: What was seen in its conversations.
        gate: The gate that gave the verdict, so that what it allows is no reason; None for the
            run's own flags.
        most: Maximum number of lines for metrics, and for errors of repeats.
    """
    unexplained = UNEXPLAINED.get(outcome.verdict)
    if outcome.verdict == "undecided" and outcome.reason:
        unexplained = log_line(named_ids(outcome.reason, names))
    lines = findings(outcome, names, explanations, gate=gate, most=most)
    return lines or ([] if unexplained is None else [unexplained])


def gate_reasons(outcome: RunOutcome, gate: Gate | None, names: Names = _NO_NAMES) -> list[str]:
    """Explain a gate's verdict if it is not "passed", or passed a run that has failures."""
    run = outcome.run
    if gate is None or run is None or not run.is_completed or outcome.verdict == "cancelled":
        return []
    judgement = gate.judge(run, known_failing=outcome.known_failing)
    lacking = judgement.verdict != "passed" or judgement.fell_back or not run.passed
    if not lacking:
        return []
    result = BatchResult((outcome,), names=names)
    [each] = set_reports(result, gate)
    lines = each.reasons or judgement.reasons  # those of the report have names
    return [log_line(reason) for reason in shortened(lines, _MOST)]


def findings(
    outcome: RunOutcome,
    names: Names = _NO_NAMES,
    explanations: Explanations = _UNEXPLAINED,
    *,
    gate: Gate | None = None,
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
        [each] = set_reports(result, gate)
        for status in ("failed", "errored"):
            groups = [group for group in each.groups if group.status == status]
            lines += shortened([_group_line(each, group) for group in groups], most)
        known = [test for test in each.tests if test.status == "known_failing"]
        told = [log_line(f"known to fail: {test.label}: {test.seen}") for test in known]
        lines += shortened(told, most)
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
