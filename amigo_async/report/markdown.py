"""The Markdown report, e.g. for the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from amigo_async.batch.outcomes import BatchResult
from amigo_async.report.compared import ComparedBatch, compared_batch
from amigo_async.report.model import (
    FailOn,
    Group,
    Reason,
    SetReport,
    UnitTestReport,
    default_title,
    headline,
    set_reports,
    took,
    verdict_in_words,
)
from amigo_async.report.templates import Markup, markdown_template, markdown_text
from amigo_async.report.wording import plural
from amigo_async.verdicts.gate import Gate

MARKS: Final = {
    "passed": "✅",
    "failed": "❌",
    "undecided": "❔",
    "errored": "⚠️",
    "timed_out": "⏱️",
    "cancelled": "🚫",
    "not_started": "⏸️",
}

COMPARED_MARKS: Final = {
    "regressed": "❌",
    "worse": "⚠️",
    "improved": "✅",
    "better": "✅",
    "no_change_seen": "✅",
    "too_few": "❔",
    "not_comparable": "❔",
    "no_baseline": "❔",
}

# GitHub's limit for the summary of a step; it drops a larger one completely.
MAX_BYTES: Final = 1024 * 1024

_MOST_LISTED: Final = 50
_MOST_OF_A_GROUP: Final = 10
_MOST_REASONS: Final = 3
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_TABLE: Final = (
    "\n## Sets\n\n"
    "| | Set | Verdict | Unit tests | Repeats passed | Took | Run |\n"
    "| :-: | :-- | :-- | --: | --: | --: | :-- |\n"
)
_KNOWN: Final = "\n## Known to fail\n\n"
_WRONG: Final = "\n## What went wrong\n"
# Bytes reserved for a sentence that says what was omitted.
_NOTICE: Final = 100


def markdown(
    result: BatchResult,
    *,
    gate: Gate | None = None,
    title: str | None = None,
    link: str | None = None,
    max_bytes: int = MAX_BYTES,
    fail_on: FailOn = "failure",
) -> str:
    """Render `result` as Markdown: the verdict, a table of the sets, and what went wrong.

    Unit tests that are known to fail, and did not pass, are listed after what went wrong.
    Unit tests that failed by the same criterion, or with the same error, are grouped; of a large
    group the first 10 are shown. What does not fit into `max_bytes` is omitted, and the text says
    so: findings are omitted first (each set keeps some), then rows of the table, beginning with
    sets that passed.

    Args:
        result: The result of the batch.
        gate: The gate that gave the verdicts; None for the runs' own flags.
        title: Title of the report; None for one that names the organization.
        link: URL of a set or unit test elsewhere, with ``{run_id}``, ``{set_id}`` or
            ``{unit_test_id}``; names become links to it. None for no links.
        max_bytes: Maximum size of the text in UTF-8; the default, 1 MiB, is GitHub's limit. The
            verdict is included in any case.
        fail_on: What the verdict is about: ``"failure"``, whether the sets passed, or
            ``"regression"``, whether they got worse than their baselines.

    Raises:
        ArgumentError: If `link` is not an http or https URL with such a placeholder.
        ConfigurationError: If the extra ``report`` is not installed.
    """
    sets = set_reports(result, gate, link)
    parts: Any = markdown_template("summary.md").make_module(
        {
            "title": default_title(result) if title is None else title,
            "headline": headline(result, sets, fail_on),
            "marks": MARKS,
            "took": took,
            "plural": plural,
            "linked": _linked,
            "called": _called,
            "code": _code,
            "reason": _shown_reasons,
            "verdict_in_words": verdict_in_words,
            "compared_marks": COMPARED_MARKS,
            "most_tests": _MOST_OF_A_GROUP,
        }
    )
    head: str = parts.head()
    left = max_bytes - _size(head, _WRONG, _KNOWN, _TABLE) - 4 * _NOTICE
    against = _compared(parts, compared_batch(result), left // 2)
    left -= _size(against)
    rows = {each.number: parts.row(each) for each in sets}
    wrong = [each for each in sets if not each.fine]
    failures = _failures(parts, wrong, max(left - _size(*rows.values()), left // 2))
    known = _known(parts, sets, (left - _size(failures)) // 4)
    table = _table(rows, wrong, left - _size(failures, known))
    return head + against + failures + known + table


def _compared(parts: Any, compared: ComparedBatch | None, left: int) -> str:
    """Render the comparison with the baseline in `left` bytes, what changed first."""
    if compared is None:
        return ""
    heading: str = parts.compared(compared)
    ends: str = parts.uncompared(compared)
    lines = _fitting(
        (parts.compared_set(one) for one in compared.shown), left - _size(heading, ends)
    )
    return heading + "".join(lines) + _notice(len(compared.shown) - len(lines), "set") + ends


def _known(parts: Any, sets: Iterable[SetReport], left: int) -> str:
    """Render the unit tests that are known to fail, and did not pass, in `left` bytes."""
    every = [(s, test) for s in sets for test in s.tests if test.status == "known_failing"]
    lines = _fitting((parts.known(*pair) for pair in every[:_MOST_LISTED]), left)
    if not every:
        return ""
    return _KNOWN + "".join(lines) + _notice(len(every) - len(lines), "unit test")


def _failures(parts: Any, wrong: list[SetReport], left: int) -> str:
    """Render what went wrong with each set, in not much more than `left` bytes."""
    if not wrong:
        return ""
    shown = wrong[:_MOST_LISTED]
    sections = {}
    # Sets with few findings first: what they do not need is shared by the others.
    for taken, each in enumerate(sorted(shown, key=_count)):
        section = _section(parts, each, left // (len(shown) - taken))
        sections[each.number] = section
        left -= _size(section)
    omitted = len(wrong) - sum(map(bool, sections.values()))
    return _WRONG + "".join(sections[each.number] for each in shown) + _notice(omitted, "set")


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
    found = sum(min(len(group.findings), _MOST_OF_A_GROUP) for group in each.groups)
    return found if each.problem is None else found + 1


def _findings(parts: Any, each: SetReport) -> Iterator[str]:
    if each.problem is not None:
        yield parts.problem(each)
    for group in each.groups:
        yield from _group(parts, group)


def _group(parts: Any, group: Group) -> Iterator[str]:
    """Yield the findings of a group, the first with its heading, the last with how many follow."""
    shown = group.findings[:_MOST_OF_A_GROUP]
    for number, finding in enumerate(shown, 1):
        text = parts.group(group) if number == 1 else ""
        text += parts.finding(finding)
        if number == len(shown) < len(group.findings):
            text += parts.more(len(group.findings) - number)
        yield text


def _shown_reasons(reasons: tuple[Reason, ...]) -> tuple[tuple[str, ...], int]:
    """Return the first reasons in words, and the number of others."""
    return tuple(r.words for r in reasons[:_MOST_REASONS]), len(reasons[_MOST_REASONS:])


def _linked(label: str, link: str | None) -> Markup:
    """Return a name, as a link if there is one."""
    shown = markdown_text(label)
    # In the target of a link, only a character reference or a bracket could be misread.
    return shown if link is None else Markup(f"[{shown}]({link.replace('&', '&amp;')})")


def _called(each: SetReport | UnitTestReport) -> Markup:
    """Return the name of a set or unit test, with its id; only the id if the name is unknown."""
    if each.name is not None:
        return Markup(f"{_linked(each.name, each.link)} {_code(each.id)}")
    return _code(each.id) if each.link is None else _linked(each.id, each.link)


def _code(id: str) -> Markup:
    """Return an id as code, which browsers let people select as a whole."""
    # Within code, nothing is escaped.
    return Markup(f"`{id}`") if _PLAIN_ID.fullmatch(id) else markdown_text(id)


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
