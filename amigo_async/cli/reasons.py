"""Why a set did not simply pass, a line a reason."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from amigo_async.batch import RunOutcome
from amigo_async.errors import (
    AmigoError,
    ArtifactsNotReadyError,
    ConflictError,
    NotFoundError,
    TransportError,
)
from amigo_async.escaping import log_line
from amigo_async.models import ErroredRun, FailedMetric, Run
from amigo_async.verdicts.gate import Gate

_MOST: Final = 3

_REMEDIES: Final[tuple[tuple[type[AmigoError], str], ...]] = (
    (ConflictError, "--on-conflict attach, wait or restart deals with the run that is in the way"),
    (ArtifactsNotReadyError, "amigo-async wait RUN_ID --artifacts DIR waits for them"),
    (NotFoundError, "the region is in AMIGO_BASE_URL"),
    (TransportError, "check the network and AMIGO_BASE_URL"),
)

_WITHOUT_DETAIL: Final[Mapping[str, list[str]]] = {
    "failed": ["metrics failed; the user may not see which"],
    "errored": ["the run met an error; the user may not see which"],
    "timed_out": ["it goes on"],
    "not_started": ["nothing was started"],
    "cancelled": ["it was cancelled"],
}


def explain(error: BaseException) -> str:
    """An error in one line, with what to do about it."""
    said = log_line(str(error)) or type(error).__name__
    if isinstance(error, ConflictError) and error.existing_run_id is not None:
        said += f" (run {log_line(error.existing_run_id)})"
    for kind, remedy in _REMEDIES:
        if isinstance(error, kind):
            return f"{said}; {remedy}"
    return said


def reasons(outcome: RunOutcome, *, most: int = _MOST) -> list[str]:
    """Why a set did not simply pass; empty for one that did.

    Args:
        outcome: What became of the set.
        most: How many lines to give for metrics and for errors.
    """
    return details(outcome, most=most) or _WITHOUT_DETAIL.get(outcome.verdict, [])


def judged(outcome: RunOutcome, gate: Gate | None) -> list[str]:
    """Why a gate gave its verdict, where it passed what has failures, or did not pass."""
    run = outcome.run
    if gate is None or run is None or not run.is_completed or outcome.verdict == "cancelled":
        return []
    judgement = gate.judge(run)
    lacking = judgement.verdict != "passed" or judgement.fell_back or not run.passed
    return [log_line(reason) for reason in shortened(judgement.reasons, _MOST)] if lacking else []


def details(outcome: RunOutcome, *, most: int = _MOST) -> list[str]:
    """As `reasons`, without those that the verdict alone tells."""
    lines: list[str] = []
    if outcome.run is not None:
        if outcome.run.was_cut_short and outcome.reason is not None:
            lines.append(log_line(outcome.reason))
        lines += shortened([_failed(m) for m in outcome.run.metrics_that_failed or ()], most)
        lines += shortened([_errored(e) for e in outcome.run.runs_that_errored or ()], most)
    if outcome.error is not None:
        lines.append(explain(outcome.error))
    return lines


def amount_done(run: Run | None) -> str:
    """How many unit test runs are done of how many, e.g. ``7/8``."""
    progress = None if run is None else run.progress
    return "-" if progress is None else f"{progress.done}/{progress.total}"


def _failed(metric: FailedMetric) -> str:
    name = metric.metric.success_criterion_name if metric.metric else metric.metric_id
    return (
        f"{log_line(name)} failed in {metric.failed} of {count(metric.evaluated, 'repeat')} of "
        f"unit test {log_line(metric.unit_test_id)}"
    )


def _errored(errored: ErroredRun) -> str:
    return (
        f"repeat {errored.repeat + 1} of unit test {log_line(errored.unit_test_id)}: "
        f"{log_line(errored.error)}"
    )


# In the order of interest.
ENDPOINTS: Final = {
    "create": "start",
    "list": "look",
    "artifacts": "fetch",
    "cancel": "cancel",
    "sign_in": "sign in",
}

VERDICTS: Final = {
    "passed": "passed",
    "saved": "saved",
    "asked": "asked",
    "over": "over",
    "failed": "failed",
    "errored": "errored",
    "timed_out": "timed out",
    "cancelled": "cancelled",
    "not_started": "not started",
}

_KIB: Final = 1024


def verdict(name: str) -> str:
    """A verdict in words."""
    return VERDICTS.get(name, name)


def verdicts_said(counts: Mapping[Any, int], words: Mapping[str, str] = VERDICTS) -> str:
    """How many there are of each verdict, e.g. ``2 passed, 1 failed``."""
    return ", ".join(f"{counts[name]} {said}" for name, said in words.items() if counts.get(name))


def count(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def seconds(duration: float) -> str:
    """A duration in words: ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(duration)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def stopwatch(duration: float) -> str:
    """A duration as on a stopwatch: ``0:12``, ``1:02:03``."""
    minutes, rest = divmod(int(duration), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def clock(from_now: float) -> str:
    """The time of day here in so many seconds, also where summer time begins or ends until then."""
    return time.strftime("%H:%M:%S", time.localtime(time.time() + from_now))


def size(number: int) -> str:
    """A size: ``312 B``, ``1.4 KiB``, ``20 MiB``."""
    if number < _KIB:
        return f"{number} B"
    value, units = number / _KIB, ["KiB", "MiB", "GiB"]
    while value >= _KIB and len(units) > 1:
        value /= _KIB
        del units[0]
    return f"{value:.1f} {units[0]}" if value < 10 else f"{value:.0f} {units[0]}"


def shortened(items: Sequence[str], most: int) -> list[str]:
    """The first items, and how many more there are."""
    rest = len(items) - most
    return [*items[:most], f"and {rest} more"] if rest > 0 else list(items)
