"""The Markdown report, e.g. for the summary of a CI job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from amigo_async.batch.outcomes import BatchResult
from amigo_async.report.model import SetReport, headline, set_reports, verdict_in_words
from amigo_async.report.templates import markdown_template
from amigo_async.report.wording import duration, plural
from amigo_async.verdicts.gate import Gate

MARKS: Final = {
    "passed": "✅",
    "failed": "❌",
    "errored": "⚠️",
    "timed_out": "⏱️",
    "cancelled": "🚫",
    "not_started": "⏸️",
}

# GitHub's limit for the summary of a step; it drops a larger one completely.
MAX_BYTES: Final = 1024 * 1024

_MOST_DETAILS: Final = 50
_TABLE: Final = (
    "\n## Sets\n\n"
    "| | Set | Verdict | Unit tests | Repeats passed | Took | Run |\n"
    "| :-: | :-- | :-- | --: | --: | --: | :-- |\n"
)
_DETAILS: Final = "\n## What went wrong\n"
# Bytes reserved for a sentence that says what was omitted.
_NOTICE: Final = 100


def markdown(
    result: BatchResult,
    *,
    gate: Gate | None = None,
    title: str = "Unit test sets",
    max_bytes: int = MAX_BYTES,
) -> str:
    """Render `result` as Markdown: the verdict, a table of the sets, and what went wrong.

    What does not fit into `max_bytes` is omitted, and the text says so: findings are omitted
    first (each set keeps some), then rows of the table, beginning with sets that passed.

    Args:
        result: The result of the batch.
        gate: The gate that gave the verdicts; None for the runs' own flags.
        title: Title of the report.
        max_bytes: Maximum size of the text in UTF-8; the default, 1 MiB, is GitHub's limit. The
            verdict is included in any case.

    Raises:
        ConfigurationError: If the extra ``report`` is not installed.
    """
    sets = set_reports(result, gate)
    parts: Any = markdown_template("summary.md").make_module(
        {
            "title": title,
            "headline": headline(result, sets),
            "marks": MARKS,
            "took": took,
            "plural": plural,
            "verdict_in_words": verdict_in_words,
        }
    )
    head: str = parts.head()
    left = max_bytes - _size(head, _DETAILS, _TABLE) - 2 * _NOTICE
    rows = {each.number: parts.row(each) for each in sets}
    wrong = [each for each in sets if not each.fine]
    details = _details(parts, wrong, max(left - _size(*rows.values()), left // 2))
    table = _table(rows, wrong, left - _size(details))
    return head + details + table


def _details(parts: Any, wrong: list[SetReport], left: int) -> str:
    """Render what went wrong with each set, in not much more than `left` bytes."""
    if not wrong:
        return ""
    shown = wrong[:_MOST_DETAILS]
    sections = {}
    # Sets with few findings first: what they do not need is shared by the others.
    for taken, each in enumerate(sorted(shown, key=_count)):
        section = _section(parts, each, left // (len(shown) - taken))
        sections[each.number] = section
        left -= _size(section)
    omitted = len(wrong) - sum(map(bool, sections.values()))
    return _DETAILS + "".join(sections[each.number] for each in shown) + _notice(omitted, "set")


def _section(parts: Any, each: SetReport, left: int) -> str:
    """Render what went wrong with a set, in `left` bytes; empty if they are too few."""
    heading: str = parts.set_heading(each)
    left -= _size(heading) + _NOTICE
    if left < 0:
        return ""
    lines = _fitting(_findings(parts, each), left)
    return heading + "".join(lines) + _notice(_count(each) - len(lines), "finding")


def _count(each: SetReport) -> int:
    """Return the number of findings of a set."""
    found = sum(len(test.wrong) + len(test.errors) for test in each.wrong)
    return found if each.problem is None else found + 1


def _findings(parts: Any, each: SetReport) -> Iterator[str]:
    if each.problem is not None:
        yield parts.problem(each)
    for test in each.wrong:
        yield from (parts.wrong_case(test, case) for case in test.wrong)
        yield from (parts.error(test, error) for error in test.errors)


def _table(rows: dict[int, str], wrong: list[SetReport], left: int) -> str:
    """Render the table of the sets in `left` bytes; those that did not pass take precedence."""
    if not rows:
        return ""
    first = dict.fromkeys([*(each.number for each in wrong), *rows])
    shown = list(first)[: len(_fitting((rows[number] for number in first), left))]
    return _TABLE + "".join(rows[n] for n in sorted(shown)) + _notice(len(rows) - len(shown), "set")


def _fitting(lines: Iterable[str], left: int) -> list[str]:
    """Return as many of `lines` as fit into `left` bytes."""
    fitting = []
    for line in lines:
        left -= _size(line)
        if left < 0:
            break
        fitting.append(line)
    return fitting


def _notice(omitted: int, noun: str) -> str:
    if not omitted:
        return ""
    more = f"{noun} is" if omitted == 1 else f"{noun}s are"
    return f"\n{omitted:,} more {more} not shown here.\n"


def _size(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)


def took(each: SetReport) -> str:
    """Format the duration of the run of a set; empty if unknown."""
    outcome = each.outcome
    if outcome.started_at is None or outcome.finished_at is None:
        return ""
    return duration((outcome.finished_at - outcome.started_at).total_seconds())
