"""What ``amigo-async run`` takes from earlier: a journal, or the sets that passed in a result."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from amigo_async.batch import BatchResult, RunOutcome
from amigo_async.batch.outcomes import is_fine
from amigo_async.files import LockedError, close_locked, open_locked
from amigo_async.names import combined
from amigo_async.report.wording import duration, plural

_DAY: Final = 86_400.0


def age(seconds: float) -> str:
    """Format how long ago something was: ``12 s``, ``3 h 20 min``, ``2 days``."""
    return duration(seconds) if seconds < 2 * _DAY else f"{int(seconds / _DAY)} days"


# --- a journal ---


class _Line(msgspec.Struct):
    """The time of a step; a header, and names, have none."""

    what: str
    at: datetime | None = None


def set_aside(journal: str, max_age: float) -> str | None:
    """Rename a journal whose last step is too long ago, so that its sets are run anew. Blocks.

    Args:
        journal: Path of the journal, which may be missing.
        max_age: Seconds since its last step after which it is too old.

    Returns:
        A sentence about it; None if the journal is to be used.
    """
    try:
        descriptor = open_locked(journal, os.O_RDWR)
    except (LockedError, OSError):
        return None  # missing, in use or not readable: the batch says so, if that is an error
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            last = _last_step(file.read())
        if last is None:
            return None
        passed = (datetime.now(UTC) - last).total_seconds()
        if passed <= max_age:
            return None
        kept = f"{journal}.{last.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        if Path(kept).exists():
            kept += f"-{os.getpid()}"
        Path(journal).rename(kept)
    finally:
        close_locked(descriptor)
    return (
        f"{journal} ended {age(passed)} ago, which is longer than --max-age: it was renamed "
        f"{kept}, and all sets are run anew."
    )


def _last_step(content: bytes) -> datetime | None:
    """Return the time of the last step in a journal; None if it has none, or is no journal."""
    decode = msgspec.json.Decoder(_Line).decode
    steps: list[_Line] = []
    for line in content.splitlines():
        with suppress(ValueError, RecursionError):  # perhaps a last line that was cut off
            steps.append(decode(line))
    if not steps or steps[0].what != "journal":
        return None
    return max((step.at for step in steps if step.at is not None), default=None)


def resumed_in_words(outcomes: Iterable[RunOutcome], total: int, journal: str) -> str:
    """Describe the sets whose results a journal had: ``12 sets taken from nightly.jsonl, ...``.

    Args:
        outcomes: Their outcomes, at least one.
        total: The number of all sets of the batch.
        journal: Path of the journal.
    """
    taken = list(outcomes)
    ends = [outcome.finished_at for outcome in taken if outcome.finished_at is not None]
    ago = ""
    if ends:
        ago = f", ended {age(max(0.0, (datetime.now(UTC) - max(ends)).total_seconds()))} ago"
    if len(taken) == total:
        return f"{plural(total, 'set')} taken from {journal}{ago}; nothing started"
    return f"{len(taken)} of {plural(total, 'set')} taken from {journal}{ago}"


def duration_of_runs(outcomes: Iterable[RunOutcome]) -> float | None:
    """Return the seconds from the first start to the last end; None unless all are known."""
    times = [(one.started_at, one.finished_at) for one in outcomes if one.run_id is not None]
    starts = [started for started, _ in times if started is not None]
    ends = [finished for _, finished in times if finished is not None]
    known = len(starts) == len(ends) == len(times) > 0
    return (max(ends) - min(starts)).total_seconds() if known else None


# --- a saved result ---


def sets_to_repeat(result: BatchResult) -> list[str]:
    """Return the ids of the sets that have not passed, each once."""
    return list(dict.fromkeys(o.unit_test_set_id for o in result.outcomes if not is_fine(o)))


def merged(earlier: BatchResult, again: BatchResult) -> BatchResult:
    """Return an earlier result with the outcomes of the sets that were run again.

    Args:
        earlier: The result of all sets.
        again: The result of those that were run again.
    """
    newer = {outcome.unit_test_set_id: outcome for outcome in again.outcomes}
    outcomes = [newer.get(o.unit_test_set_id, o) for o in earlier.outcomes]
    names = replace(combined(earlier.names, again.names), notes=again.names.notes)
    # The reasons of the earlier result are those of runs that are replaced.
    return replace(again, outcomes=outcomes, names=names)
