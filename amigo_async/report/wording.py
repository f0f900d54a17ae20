"""Words and numbers for people, shared by the reports and the command."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from amigo_async.escaping import encode_json
from amigo_async.models import (
    BooleanMetricSuccessCriterion,
    CategoricalMetricSuccessCriterion,
    NumericalMetricSuccessCriterion,
    SuccessCriterion,
    UnknownSuccessCriterion,
)

_COMPARISONS: Final = {
    "==": "equal to",
    "!=": "not equal to",
    "<=": "at most",
    "<": "less than",
    ">=": "at least",
    ">": "more than",
}

VERDICT_WORDS: Final = {
    "passed": "passed",
    "failed": "failed",
    "errored": "errored",
    "timed_out": "timed out",
    "cancelled": "cancelled",
    "not_started": "not started",
}

# Why a set did not pass, if neither an error nor its results say so.
UNEXPLAINED: Final = {
    "failed": "a metric failed, but the visible results do not show which",
    "errored": "the run had an error, but the visible results do not show which",
    "timed_out": "the deadline passed before the run ended; the run continues",
    "cancelled": "the run was cancelled",
    "not_started": "no run was started: another set failed, or the time was up",
}


def criterion_in_words(criterion: SuccessCriterion) -> str:
    """Describe the value that a metric must have."""
    match criterion:
        case BooleanMetricSuccessCriterion(expected_value=value):
            return "true" if value else "false"
        case NumericalMetricSuccessCriterion(verb=verb, threshold=threshold):
            return f"{_COMPARISONS.get(verb, verb)} {threshold:g}"
        case CategoricalMetricSuccessCriterion(expected_values=[value]):
            return value
        case CategoricalMetricSuccessCriterion(expected_values=values):
            return f"one of {', '.join(values)}"
        case UnknownSuccessCriterion(data=data):
            return f"a criterion that this version does not know: {encode_json(data)}"


def percent(share: float) -> str:
    """Format a share in whole percents; 100% and 0% only for exactly all and nothing."""
    if 0 < share < 1:
        return f"{min(max(round(100 * share), 1), 99)}%"
    return f"{100 * share:.0f}%"


def duration(length: float) -> str:
    """Format `length` seconds in the two largest units: ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    seconds = max(round(length), 0)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def instant(at: datetime) -> str:
    """Format a time to the second, with its zone."""
    return at.strftime("%Y-%m-%d %H:%M:%S %Z")


def numbers(repeats: tuple[int, ...]) -> str:
    """Format indices of repeats as numbers from 1, consecutive ones as ranges: ``1-3, 7``."""
    spans: list[list[int]] = []
    for repeat in repeats:
        if spans and spans[-1][1] == repeat - 1:
            spans[-1][1] = repeat
        else:
            spans.append([repeat, repeat])
    return ", ".join(f"{a + 1}" if a == b else f"{a + 1}-{b + 1}" for a, b in spans)


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: ``1 run``, ``1,200 runs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
