"""Words and numbers for people, shared by the reports and the command."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from amigo_async.escaping import encode_json
from amigo_async.models import (
    BooleanMetricSuccessCriterion,
    CategoricalMetricSuccessCriterion,
    NumericalMetricSuccessCriterion,
    SuccessCriterion,
    UnknownSuccessCriterion,
)
from amigo_async.names import Names
from amigo_async.redact import redact
from amigo_async.verdicts.comparison import (
    Change,
    Comparison,
    RateCounts,
    UnitTestComparison,
    seen_among,
)
from amigo_async.verdicts.statistics import at_most

_COMPARISONS: Final = {
    "==": "equal to",
    "!=": "not equal to",
    "<=": "at most",
    "<": "less than",
    ">=": "at least",
    ">": "more than",
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


def shown_name(name: str | None) -> str | None:
    """Return a name as it is shown; None if it is unknown or blank."""
    return _name(name) or None if name else None


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


def rate_in_words(counts: RateCounts) -> str:
    """Describe a pass rate with its 95% interval: ``8 of 10 passed, 80% (49% to 94%)``."""
    if counts.rate is None or counts.interval is None:
        return "no result"
    low, high = counts.interval
    words = f"{counts.passed:,} of {counts.evaluated:,} passed, {counts.rate:.0%}"
    missing = f"; {counts.missing:,} without a result" if counts.missing else ""
    return f"{words} ({low:.0%} to {high:.0%}){missing}"


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


# --- comparisons ---


COMPARISON_WORDS: Final = {
    "regressed": "regressed",
    "improved": "improved",
    "no_change_seen": "no regression seen",
    "too_few": "too few repeats to tell",
    "not_comparable": "not comparable",
}


class ComparisonWords(NamedTuple):
    """A comparison in words.

    What the service wrote is on one line, redacted and cut, but not yet encoded for the place where
    it is shown.

    Attributes:
        head: The name of the set, the verdict and the counts.
        counts: The counts alone, with the p-value of a change.
        tests: The unit tests behind the verdict, a line each.
        changes: What changed between the runs.
        caveats: What could have been seen, what the verdict does not cover, and what weakens it.
    """

    head: str
    counts: str
    tests: tuple[str, ...]
    changes: tuple[str, ...]
    caveats: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """All of it, with lines about unit tests and changes indented."""
        indented = (f"  {line}" for line in (*self.tests, *self.changes))
        return [self.head, *indented, *self.caveats]


def comparison_in_words(
    comparison: Comparison, names: Names, verdict: str | None = None, *, sets: int = 1
) -> ComparisonWords:
    """Describe a comparison: the verdict, the unit tests behind it, what changed.

    Args:
        comparison: The comparison.
        names: Names of the set and its unit tests; without a name the id stands.
        verdict: The verdict in words, where other sets count too; None for that of the comparison.
        sets: Number of sets that are compared at once, this one among them.
    """
    before, now = comparison.baseline, comparison.candidate
    verdict = verdict or COMPARISON_WORDS[comparison.verdict]
    counts = (
        f"{now.passed:,} of {plural(now.evaluated, 'repeat')} passed, "
        f"before {before.passed:,} of {before.evaluated:,}"
    )
    head = f"{_name(names.unit_test_set(comparison.unit_test_set_id))}: {verdict}"
    if comparison.verdict in ("regressed", "improved"):
        worse = comparison.verdict == "regressed"
        p_value = comparison.p_value if worse else comparison.p_improved
        counts = f"{counts} ({p_in_words(p_value)})."
        head = f"{head}. {counts}"
    elif now.evaluated or before.evaluated:
        head, counts = f"{head} ({counts}).", f"{counts}."
    else:
        head, counts = f"{head}.", ""
    tests = [*comparison.regressed, *comparison.improved]
    return ComparisonWords(
        head,
        counts,
        tuple(_unit_test(one, names, comparison.alpha) for one in tests),
        tuple(changes_in_words(comparison.changes, names)),
        (*_power_in_words(comparison, sets), *_caveats(comparison, names)),
    )


def p_in_words(p_value: float) -> str:
    """Format a p-value: ``p = 0.031``, ``p < 0.0001``."""
    return "p < 0.0001" if p_value < 0.0001 else f"p = {float(f'{p_value:.2g}')}"


def _name(name: str) -> str:
    return short_text(name, MOST_OF_A_NAME)


def share(counts: RateCounts) -> str:
    """Format how many of the evaluated repeats passed: ``4/10``."""
    return f"{counts.passed}/{counts.evaluated}"


def _unit_test(one: UnitTestComparison, names: Names, alpha: float) -> str:
    """Describe a unit test that changed, with the metrics that did."""
    name = _name(names.unit_test(one.unit_test_id))
    shown = metrics_that_changed(one, alpha)
    return f"{name}   {share(one.baseline)} -> {share(one.candidate)}   {shown}".rstrip()


def metrics_that_changed(one: UnitTestComparison, alpha: float) -> str:
    """List the metrics behind the verdict on a unit test: those alone that are beyond chance."""
    worse = one.verdict == "regressed"
    by_p = sorted((m.p_value if worse else m.p_improved, m.name) for m in one.metrics)
    clear = [name for p_value, name in by_p if at_most(p_value, alpha)]
    metrics = clear or [name for _, name in by_p[:1]]
    return ", ".join(_name(name) for name in metrics)


def changes_in_words(changes: Iterable[Change], names: Names) -> list[str]:
    """Describe what changed: in all unit tests on one line, in some of them a line for each.

    Args:
        changes: The changes.
        names: Names of the unit tests; without a name the id stands.
    """
    every, some = [], dict[str, list[str]]()
    for one in changes:
        words = f"{one.what} {_name(one.before)} -> {_name(one.after)}"
        if one.unit_test_id is None:
            every.append(words)
        else:
            some.setdefault(words, []).append(_name(names.unit_test(one.unit_test_id)))
    lines = [", ".join(every)] * bool(every)
    return lines + [f"{words} in {few(tests)}" for words, tests in some.items()]


def _without_result(now: RateCounts, before: RateCounts, *, grew: bool) -> str:
    """Say how many repeats are in no rate."""
    shares = [f"{one.missing:,} of {one.missing + one.evaluated:,}" for one in (now, before)]
    counts = ", before ".join(shares)
    if grew:
        return (
            f"More repeats than before have an error or no result ({counts}); they are in no rate."
        )
    return f"Repeats with an error or no result are in no rate: {counts}."


def few(texts: Sequence[str]) -> str:
    """List texts; of many only the first ones, and how many more there are."""
    most = 5
    more = [f"{len(texts) - most:,} more"] * (len(texts) > most)
    return ", ".join([*texts[:most], *more])


def _power_in_words(comparison: Comparison, sets: int) -> list[str]:
    """Say what could have been seen, where nothing was, in this set among others."""
    if comparison.verdict not in ("no_change_seen", "too_few"):
        return []
    lines = []
    smallest_drop, more_repeats = seen_among(comparison, sets)
    corrected = "" if sets <= 1 else f", with the correction for {sets:,} sets"
    if smallest_drop is not None:
        points = plural(max(1, math.ceil(100 * smallest_drop)), "point")
        lines.append(
            f"A drop of {points} in every unit test would have been seen four times in five"
            f"{corrected}."
        )
    elif not comparison.baseline.passed and comparison.baseline.evaluated:
        lines.append("No repeat of the baseline passed, so that nothing can get worse.")
    elif comparison.verdict == "no_change_seen":
        seen = "No drop would have been seen four times in five"
        lines.append(f"{seen}{corrected}: repeat more often.")
    if more_repeats:
        more = plural(more_repeats, "more repeat")
        lines.append(f"If the rates stay, {more} of each unit test would tell{corrected}.")
    return lines


def _caveats(comparison: Comparison, names: Names) -> list[str]:
    """Say what the verdict does not cover, and what weakens it."""

    def tests(ids: Iterable[str]) -> str:
        return few([_name(names.unit_test(i)) for i in ids])

    lines = [f"{_name(reason)}." for reason in comparison.reasons]
    if comparison.missing:
        count = plural(len(comparison.missing), "unit test")
        lines.append(f"Missing, so not passed: {count}: {tests(comparison.missing)}.")
    alike: dict[str, list[str]] = {}
    for one in comparison.not_comparable:
        alike.setdefault("; ".join(one.reasons), []).append(one.unit_test_id)
    lines += [f"Left out: {tests(ids)}: {_name(reason)}." for reason, ids in alike.items()]
    if comparison.added:
        count = plural(len(comparison.added), "unit test")
        lines.append(f"New: {count}: {tests(comparison.added)}.")
    now, before = comparison.candidate, comparison.baseline
    if now.missing or before.missing or comparison.errors_grew:
        lines.append(_without_result(now, before, grew=comparison.errors_grew))
    if comparison.baselines_differ:
        lines.append(
            "The runs of the baseline differ among themselves beyond chance, so that a regression "
            "is seen more often than it is there."
        )
    return lines
