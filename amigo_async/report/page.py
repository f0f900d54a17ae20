"""A batch as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import Final
from urllib.parse import quote

from amigo_async.batch.outcomes import BatchResult
from amigo_async.files import check_path
from amigo_async.gate import Gate
from amigo_async.report.headline import headline
from amigo_async.report.matrix import matrices
from amigo_async.report.summary import took
from amigo_async.report.templates import page_template
from amigo_async.report.timeline import timeline
from amigo_async.report.view import Case, verdict_in_words, view
from amigo_async.report.words import VERDICT_WORDS, duration, instant, percent, plural
from amigo_async.version import __version__

MARKS: Final = {
    "passed": "✓",
    "failed": "✕",
    "errored": "!",
    "timed_out": "…",
    "cancelled": "⊘",
    "not_started": "○",
    "incomplete": "!",
    "empty": "○",
    "unfinished": "…",
}


def html(
    result: BatchResult,
    *,
    gate: Gate | None = None,
    title: str = "Unit test sets",
    folder: str | PathLike[str] | None = None,
) -> str:
    """`result` as one HTML page, for a browser or a phone, in dark and light.

    Args:
        result: The batch.
        gate: What its verdicts were given by; None for the runs' own flags.
        title: What to call the whole.
        folder: Where the page will be, so that it links to the artifacts relative to itself;
            None for the links to be as the paths are.

    Raises:
        ArgumentError: If `folder` cannot be the name of one.
        ConfigurationError: If the extra ``report`` is not installed.
    """
    if folder is not None:
        check_path("folder", folder)
    sets = view(result, gate)
    return page_template("page.html").render(
        title=title,
        headline=headline(result, sets),
        counts=result.counts,
        sets=sets,
        timeline=timeline(result, sets),
        matrices=matrices,
        marks=MARKS,
        words=VERDICT_WORDS,
        verdict_in_words=verdict_in_words,
        took=took,
        duration=duration,
        instant=instant,
        percent=percent,
        plural=plural,
        capitalized=lambda text: text[:1].upper() + text[1:],
        rate=_rate,
        link=lambda path: _link(path, folder),
        version=__version__,
    )


def _rate(case: Case) -> float | None:
    """The share of evaluated repeats that passed."""
    return case.counts.passed / case.counts.evaluated if case.counts.evaluated else None


def _link(path: Path, folder: str | PathLike[str] | None) -> str:
    """A link to `path` from a page in `folder`."""
    if folder is not None:
        path = Path(os.path.relpath(path, folder))
    elif path.is_absolute():
        return path.as_uri()
    # The dot keeps a name with a colon from being taken for a scheme.
    return "./" + quote(os.fsencode(path.as_posix()))
