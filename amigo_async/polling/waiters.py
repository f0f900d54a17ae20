"""One waiter's interest in runs, and what polling has shown of one run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from amigo_async.decoding import RunRecord
from amigo_async.errors import AmigoError
from amigo_async.models import Run

# A failure is believed only after this many polls in a row, because a long interval between two
# polls proves nothing.
POLLS_BELIEVED: Final = 3

OnProgress: TypeAlias = Callable[[Run], Awaitable[None] | None]


class Waiter:
    """One caller that waits for runs.

    Args:
        run_ids: The runs.
        interval: Seconds between two polls; None to adapt.
        require_artifacts: Whether a run counts as over only once its artifacts exist.
        wants_progress: Whether the caller also wants runs in progress.

    Attributes:
        pending: The runs that have neither ended nor failed.
        updates: What the caller has not received yet: runs, ended or in progress, and errors.
        asleep: Set while the caller sleeps; completing the future wakes the caller.
    """

    __slots__ = ("asleep", "interval", "pending", "require_artifacts", "updates", "wants_progress")

    def __init__(
        self,
        run_ids: Iterable[str],
        *,
        interval: float | None,
        require_artifacts: bool,
        wants_progress: bool,
    ) -> None:
        self.pending = dict.fromkeys(run_ids)
        self.interval = interval
        self.require_artifacts = require_artifacts
        self.wants_progress = wants_progress
        self.updates: deque[Run | AmigoError] = deque()
        self.asleep: asyncio.Future[None] | None = None

    def satisfied_by(self, run: Run | RunRecord) -> bool:
        """Whether the wait for this run is over."""
        return run.is_completed and (run.artifacts_generated or not self.require_artifacts)

    def end(self, record: RunRecord) -> None:
        """Stop waiting for a run that is over."""
        del self.pending[record.id]
        self.progress(record)

    def progress(self, record: RunRecord) -> None:
        """Pass a new state of a run on, unless it could not be decoded."""
        if record.run is not None:
            self._add(record.run)

    def fail(self, run_id: str, error: AmigoError) -> None:
        """Stop waiting for a run, with an error."""
        del self.pending[run_id]
        self._add(error)

    def wake(self) -> None:
        """Wake the caller if it sleeps."""
        if self.asleep is not None and not self.asleep.done():
            self.asleep.set_result(None)

    def _add(self, update: Run | AmigoError) -> None:
        self.updates.append(update)
        self.wake()


class FailureStreak:
    """Consecutive polls that failed to show a run.

    Attributes:
        since: Loop time of the first one.
        count: How many there were.
    """

    __slots__ = ("count", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 1

    def outlasts(self, seconds: float, now: float) -> bool:
        """Whether it has lasted for `seconds`, and for enough polls to be believed."""
        return self.count >= POLLS_BELIEVED and now - self.since >= seconds


class PolledRun:
    """What is known of one run that is waited for.

    Attributes:
        waiters: Who waits for it.
        last: Its last state seen; None before the first.
        last_error: Why the last poll did not show it; None if it did.
        failing: The failed lists with it since the last successful one; None if none failed.
        missing: The successful lists since the last one that showed it; None if all did.
        page_size: How many runs may share a page with it, itself included.
        polls: How often it was polled.
        due: Loop time of its next poll.
        since: Loop time at which the wait for it began.
    """

    __slots__ = (
        "due",
        "failing",
        "last",
        "last_error",
        "missing",
        "page_size",
        "polls",
        "since",
        "waiters",
    )

    def __init__(self, due: float, since: float, page_size: int) -> None:
        self.waiters: list[Waiter] = []
        self.last: RunRecord | None = None
        self.last_error: AmigoError | None = None
        self.failing: FailureStreak | None = None
        self.missing: FailureStreak | None = None
        self.page_size = page_size
        self.polls = 0
        self.due = due
        self.since = since

    @property
    def interval(self) -> float | None:
        """The shortest interval that a waiter asked for; None to adapt."""
        return min((w.interval for w in self.waiters if w.interval is not None), default=None)

    @property
    def wants_progress(self) -> bool:
        """Whether a waiter wants it in progress."""
        return any(w.wants_progress for w in self.waiters)

    @property
    def failing_often(self) -> bool:
        """Whether more than one list with it failed in a row."""
        return self.failing is not None and self.failing.count > 1

    def list_succeeded(self, page_size: int) -> None:
        """Note a successful list; double the size of its pages again, up to `page_size`."""
        self.failing = None
        self.page_size = max(self.page_size, min(self.page_size * 2, page_size))

    def list_failed(self, error: AmigoError, now: float) -> None:
        """Note that a list with it failed."""
        self.last_error = error
        self.failing = _extended(self.failing, now)

    def was_shown(self) -> None:
        """Note that it was listed, and decoded as far as a waiter needs."""
        self.missing = self.last_error = None

    def was_missing(self, error: AmigoError, now: float) -> FailureStreak:
        """Note that a successful list did not show it, or not in a form that can be decoded."""
        self.last_error = error
        self.missing = _extended(self.missing, now)
        return self.missing


def _extended(streak: FailureStreak | None, now: float) -> FailureStreak:
    if streak is None:
        return FailureStreak(now)
    streak.count += 1
    return streak
