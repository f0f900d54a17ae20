"""Words and numbers for people, shared by the reports and the command."""

from __future__ import annotations

from collections.abc import Iterable
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
from amigo_async.redact import redact

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


# Characters that people read of a justification, and of a name.
MOST_OF_A_JUSTIFICATION: Final = 600
MOST_OF_A_NAME: Final = 200


def criterion_in_words(criterion: SuccessCriterion) -> str:
    """Describe the value that a metric must have."""
    match criterion:
        case BooleanMetricSuccessCriterion(expected_value=value):
            return value_in_words(value)
        case NumericalMetricSuccessCriterion(verb=verb, threshold=threshold):
            return f"{_COMPARISONS.get(verb, verb)} {value_in_words(threshold)}"
        case CategoricalMetricSuccessCriterion(expected_values=[value]):
            return value
        case CategoricalMetricSuccessCriterion(expected_values=values):
            return f"one of {', '.join(values)}"
        case UnknownSuccessCriterion(data=data):
            return f"a criterion that this version does not know: {encode_json(data)}"


def value_in_words(value: bool | float | str | None) -> str:
    """Describe a value of a metric; None means that the metric does not apply."""
    match value:
        case None:
            return "not applicable"
        case bool():
            return "yes" if value else "no"
        case str():
            return short_text(value, MOST_OF_A_NAME) or "nothing"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
    # Not rounded: 0.8999 must not read "expected at least 0.9, saw 0.9".
    return str(value)


def failure_in_words(seen: str | None, repeats: str, justification: str | None) -> str:
    """Describe what was seen in repeats that failed: ``saw 2 in repeat 3: "The agent ..."``.

    Args:
        seen: The value in words; None if it was not read.
        repeats: Numbers of the repeats, from 1.
        justification: Why, in the words of the model that judged; None if it was not read.
    """
    did = "failed" if seen is None else f"saw {seen}"
    found = f"{did} in {repeats_named(repeats)}"
    return f'{found}: "{justification}"' if justification else found


def repeats_named(repeats: str) -> str:
    """Name repeats by their numbers: ``repeat 3``, ``repeats 1-3, 7``."""
    return f"repeat{'' if repeats.isdecimal() else 's'} {repeats}"


def short_text(text: str, most: int) -> str:
    """Return a text on one line, redacted, and cut to `most` characters."""
    return cut_text(" ".join(text.split()), most)


def cut_text(text: str, most: int) -> str:
    """Return a text, redacted, and cut to `most` characters."""
    # Redacted before it is cut, as part of a secret may not look like one.
    shown = redact(text)
    return shown if len(shown) <= most else f"{shown[:most].rstrip()} ..."


def repeats_in_words(passed: int, total: int, failed: int, errored: int, without: int) -> str:
    """Describe the repeats that were asked for: ``9 of 12 repeats passed, 3 errored``.

    Args:
        passed: Number of repeats that passed.
        total: Number of repeats in all.
        failed: Number of repeats that failed.
        errored: Number of repeats with an error.
        without: Number of repeats with neither a result nor an error.
    """
    rest = counts_in_words(
        [(failed, "failed"), (errored, "errored"), (without, "without a result")]
    )
    return ", ".join([f"{passed:,} of {plural(total, 'repeat')} passed", *rest])


def counts_in_words(counts: Iterable[tuple[int, str]]) -> list[str]:
    """Describe the counts that are not 0."""
    return [f"{count:,} {words}" for count, words in counts if count]


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
