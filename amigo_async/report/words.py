"""How the reports say things."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from amigo_async.escaping import encode_json
from amigo_async.models import (
    BooleanMetricSuccessCriterion,
    CategoricalMetricSuccessCriterion,
    NumericalMetricSuccessCriterion,
    SuccessCriterion,
    UnknownSuccessCriterion,
)

_VERBS: Final = {
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


def criterion_in_words(criterion: SuccessCriterion) -> str:
    """What a metric has to be."""
    match criterion:
        case BooleanMetricSuccessCriterion(expected_value=value):
            return "true" if value else "false"
        case NumericalMetricSuccessCriterion(verb=verb, threshold=threshold):
            return f"{_VERBS.get(verb, verb)} {threshold:g}"
        case CategoricalMetricSuccessCriterion(expected_values=[value]):
            return value
        case CategoricalMetricSuccessCriterion(expected_values=values):
            return f"one of {', '.join(values)}"
        case UnknownSuccessCriterion(data=data):
            return f"a criterion not known to this version: {encode_json(data)}"


def percent(share: float) -> str:
    """`share` in whole percents; 100% and 0% only where it is all or nothing."""
    if 0 < share < 1:
        return f"{min(max(round(100 * share), 1), 99)}%"
    return f"{100 * share:.0f}%"


def duration(length: timedelta) -> str:
    """A length of time, in its two largest units."""
    seconds = max(round(length.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def instant(at: datetime) -> str:
    """A point in time, to the second, with its zone."""
    return at.strftime("%Y-%m-%d %H:%M:%S %Z")


def numbers(repeats: tuple[int, ...]) -> str:
    """Repeats as people count them, from 1, with neighbours drawn together: ``1-3, 7``."""
    spans: list[list[int]] = []
    for repeat in repeats:
        if spans and spans[-1][1] == repeat - 1:
            spans[-1][1] = repeat
        else:
            spans.append([repeat, repeat])
    return ", ".join(f"{a + 1}" if a == b else f"{a + 1}-{b + 1}" for a, b in spans)


def plural(count: int, noun: str) -> str:
    """`count` of `noun`, in the right number."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
