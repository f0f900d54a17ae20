"""One waiter's interest in runs, and what polling has shown of one run."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol, Self, TypeAlias

from amigo_async.decoding import RunRecord
from amigo_async.errors import AmigoError
from amigo_async.models import Run

# A failure is believed only after this many polls in a row, because a long interval between two
# polls proves nothing.
POLLS_BELIEVED: Final = 3

OnProgress: TypeAlias = Callable[[Run], Awaitable[None] | None]


class Waiting(Protocol):
    """Where waiters are entered while they wait."""

    def add(self, waiter: Waiter) -> None:
        """Enter a waiter."""

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter, with what it still waits for."""


class Waiter:
    """One caller that waits for runs, for as long as its context is open.

    There may be thousands of them, so it holds little.

    Args:
        poller: Where it is entered.
        run_ids: The runs.
        interval: Seconds between two polls; None to adapt.
        require_artifacts: Whether a run counts as over only once its artifacts exist.
        wants_progress: Whether the caller also wants runs in progress.

    Attributes:
        run_ids: The runs, each once.
        left: How many of them have neither ended nor failed.
        updates: What the caller has not received yet: runs, ended or in progress, and errors.
        asleep: Set while the caller sleeps; completing the future wakes the caller.
    """

    __slots__ = (
        "_poller",
        "asleep",
        "interval",
        "left",
        "require_artifacts",
        "run_ids",
        "updates",
        "wants_progress",
    )

    def __init__(
        self,
        poller: Waiting,
        run_ids: Iterable[str],
        *,
        interval: float | None,
        require_artifacts: bool,
        wants_progress: bool,
    ) -> None:
        self._poller = poller
        self.run_ids = tuple(dict.fromkeys(run_ids))
        self.left = len(self.run_ids)
        self.interval = interval
        self.require_artifacts = require_artifacts
        self.wants_progress = wants_progress
        self.updates: deque[Run | AmigoError] | tuple[()] = ()
        self.asleep: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        """Begin to wait."""
        self._poller.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop waiting."""
        self._poller.remove(self)

    def satisfied_by(self, run: Run | RunRecord) -> bool:
        """Whether the wait for this run is over."""
        return run.is_completed and (run.artifacts_generated or not self.require_artifacts)

    def end(self, record: RunRecord) -> None:
        """Stop waiting for a run that is over."""
        self.left -= 1
        self.progress(record)

    def progress(self, record: RunRecord) -> None:
        """Pass a new state of a run on, unless it could not be decoded."""
        if record.run is not None:
            self._add(record.run)

    def fail(self, error: AmigoError) -> None:
        """Stop waiting for a run, with an error."""
        self.left -= 1
        self._add(error)

    def wake(self) -> None:
        """Wake the caller if it sleeps."""
        if self.asleep is not None and not self.asleep.done():
            self.asleep.set_result(None)

    def _add(self, update: Run | AmigoError) -> None:
        if not isinstance(self.updates, deque):  # one that waits has none, and a deque is large
            self.updates = deque()
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
        interval: The shortest interval that a waiter asked for; None to adapt.
        wants_progress: Whether a waiter wants it in progress.
        last: Its last state seen; None before the first.
        last_error: Why the last poll did not show it; None if it did.
        failing: The failed lists with it since the last successful one; None if none failed.
        missing: The successful lists since the last one that showed it; None if all did.
        page_size: How many runs may share a page with it, itself included.
        polls: How often it was polled since it was last requested in any state, that one included.
        full_at: Loop time at which it was last requested in any state.
        due: Loop time of its next poll.
        since: Loop time at which the wait for it began.
    """

    __slots__ = (
        "due",
        "failing",
        "full_at",
        "interval",
        "last",
        "last_error",
        "missing",
        "page_size",
        "polls",
        "since",
        "waiters",
        "wants_progress",
    )

    def __init__(self, due: float, since: float, page_size: int) -> None:
        self.waiters: tuple[Waiter, ...] = ()  # smaller than a list, and mostly of one
        self.interval: float | None = None
        self.wants_progress = False
        self.last: RunRecord | None = None
        self.last_error: AmigoError | None = None
        self.failing: FailureStreak | None = None
        self.missing: FailureStreak | None = None
        self.page_size = page_size
        self.polls = 0
        self.full_at = -math.inf
        self.due = due
        self.since = since

    def attach(self, waiter: Waiter) -> None:
        """Let a waiter wait for it."""
        self.waiters = (*self.waiters, waiter)
        self._sum_up()

    def detach(self, waiter: Waiter) -> None:
        """Let a waiter wait for it no longer."""
        self.waiters = tuple(w for w in self.waiters if w is not waiter)
        self._sum_up()

    def _sum_up(self) -> None:
        """Note what all waiters want together, so that no poll has to ask each of them."""
        intervals = [w.interval for w in self.waiters if w.interval is not None]
        self.interval = min(intervals, default=None)
        self.wants_progress = any(w.wants_progress for w in self.waiters)

    @property
    def must_be_full(self) -> bool:
        """Whether to request it in any state with each poll, not only if it is completed.

        So are runs that were never seen, are missing, or wait for their artifacts, and those whose
        progress somebody wants at an interval of their own.
        """
        if self.last is None or self.missing is not None or self.last.is_completed:
            return True
        return self.wants_progress and self.interval is not None

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
