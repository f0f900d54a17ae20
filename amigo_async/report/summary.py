"""A batch as Markdown, for the summary of a job."""

from __future__ import annotations

from typing import Final

from amigo_async.batch.outcomes import BatchResult
from amigo_async.gate import Gate
from amigo_async.report.headline import headline
from amigo_async.report.templates import render_markdown
from amigo_async.report.view import SetView, verdict_in_words, view
from amigo_async.report.words import duration, plural

MARKS: Final = {
    "passed": "✅",
    "failed": "❌",
    "errored": "⚠️",
    "timed_out": "⏱️",
    "cancelled": "🚫",
    "not_started": "⏸️",
}

# GitHub takes 1 MiB of summary for each step; what is left out is in the other reports.
_MOST_DETAILS: Final = 50
_LONGEST_TEXT: Final = 1000


def markdown(
    result: BatchResult, *, gate: Gate | None = None, title: str = "Unit test sets"
) -> str:
    """`result` as Markdown: the verdict, a table of the sets, and what went wrong.

    Args:
        result: The batch.
        gate: What its verdicts were given by; None for the runs' own flags.
        title: What to call the whole.

    Raises:
        ConfigurationError: If the extra ``report`` is not installed.
    """
    sets = view(result, gate)
    wrong = [each for each in sets if not each.fine]
    return render_markdown(
        "summary.md",
        title=title,
        headline=headline(result, sets),
        sets=sets,
        wrong=wrong[:_MOST_DETAILS],
        left_out=len(wrong[_MOST_DETAILS:]),
        marks=MARKS,
        took=took,
        plural=plural,
        shown=_shown,
        verdict_in_words=verdict_in_words,
    )


def took(each: SetView) -> str:
    """How long the run of a set took; empty where that is not known."""
    outcome = each.outcome
    if outcome.started_at is None or outcome.finished_at is None:
        return ""
    return duration(outcome.finished_at - outcome.started_at)


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} ..."
