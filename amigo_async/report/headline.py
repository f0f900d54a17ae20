"""The verdict on a batch in a few words."""

from __future__ import annotations

from msgspec import Struct

from amigo_async.batch.outcomes import BatchResult
from amigo_async.report.view import SetView
from amigo_async.report.words import VERDICT_WORDS, plural

# Which verdict names a batch that has several; the first that occurs.
_WORST_FIRST = ("failed", "errored", "timed_out", "not_started", "cancelled")


class Headline(Struct, frozen=True):
    """The verdict on a batch in a few words.

    Attributes:
        verdict: ``"passed"``, the worst verdict that occurs, ``"incomplete"`` (all passed, but
            something is missing) or ``"empty"``.
        words: It, as a heading.
        sentence: How many sets came to what.
        tests: Unit tests that are shown.
        repeats: Repeats there is a result of.
        repeats_passed: Of these, the ones that passed every metric.
        tolerated: Repeats that fell short in sets that passed all the same.
    """

    verdict: str
    words: str
    sentence: str
    tests: int
    repeats: int
    repeats_passed: int
    tolerated: int


def headline(result: BatchResult, sets: tuple[SetView, ...]) -> Headline:
    """The verdict on `result`."""
    verdict, words, sentence = _verdict(result)
    counts = [test.counts for each in sets for test in each.tests]
    return Headline(
        verdict=verdict,
        words=words,
        sentence=sentence,
        tests=len(counts),
        repeats=sum(c.evaluated for c in counts),
        repeats_passed=sum(c.passed for c in counts),
        tolerated=sum(each.tolerated for each in sets),
    )


def _verdict(result: BatchResult) -> tuple[str, str, str]:
    total = len(result.outcomes)
    if not total:
        return "empty", "Nothing was run", "No set was asked for."
    if result.passed:
        return "passed", "Passed", "The set passed." if total == 1 else f"All {total} sets passed."
    counts = result.counts
    if counts.get("passed") == total:
        lacking = sum(outcome.error is not None for outcome in result.outcomes)
        sentence = f"All sets passed, but {lacking} of {total} could not be collected whole."
        return "incomplete", "Passed, incomplete", sentence
    worst = next(verdict for verdict in _WORST_FIRST if verdict in counts)
    parts = [f"{counts[v]} {VERDICT_WORDS[v]}" for v in ("passed", *_WORST_FIRST) if v in counts]
    return worst, VERDICT_WORDS[worst].capitalize(), f"{plural(total, 'set')}: {', '.join(parts)}."
