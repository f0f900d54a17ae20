"""What one waiter waits for, and what is known of one run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from amigo_async.errors import AmigoError
from amigo_async.models import Run

OnProgress: TypeAlias = Callable[[Run], Awaitable[None] | None]


class Watch:
    """One waiter's interest in some runs.

    Args:
        run_ids: The runs.
        interval: Seconds between two looks; None to adapt.
        require_artifacts: Whether a run counts only once its artifacts are there.
        wants_progress: Whether runs in progress are of interest.

    Attributes:
        pending: The runs that have neither ended nor failed.
        news: What the waiter has not taken yet: runs, ended or in progress, and errors.
        asleep: Set while the waiter sleeps; completing it wakes the waiter.
    """

    __slots__ = ("asleep", "interval", "news", "pending", "require_artifacts", "wants_progress")

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
        self.news: deque[Run | AmigoError] = deque()
        self.asleep: asyncio.Future[None] | None = None

    def satisfied_by(self, run: Run) -> bool:
        """Whether the wait for this run is over."""
        return run.is_completed and (run.artifacts_generated or not self.require_artifacts)

    def see(self, run: Run, *, changed: bool) -> bool:
        """Take a look at a run; True if the wait for it is over."""
        over = self.satisfied_by(run)
        if over:
            del self.pending[run.id]
        if over or (changed and self.wants_progress):
            self._add(run)
        return over

    def fail(self, run_id: str, error: AmigoError) -> None:
        """End the wait for a run with an error."""
        del self.pending[run_id]
        self._add(error)

    def wake(self) -> None:
        """Wake the waiter if it sleeps."""
        if self.asleep is not None and not self.asleep.done():
            self.asleep.set_result(None)

    def _add(self, item: Run | AmigoError) -> None:
        self.news.append(item)
        self.wake()


class Watched:
    """What is known of one run that is waited for.

    Attributes:
        watches: Who waits for it.
        last: Its last state seen; None before the first look.
        misses: How many looks in a row should have shown it and did not.
        looks: How many looks there were.
        due: When it is to be looked at next, in loop time.
        since: Since when it is waited for, in loop time.
    """

    __slots__ = ("due", "last", "looks", "misses", "since", "watches")

    def __init__(self, due: float, since: float) -> None:
        self.watches: list[Watch] = []
        self.last: Run | None = None
        self.misses = 0
        self.looks = 0
        self.due = due
        self.since = since

    @property
    def interval(self) -> float | None:
        """The shortest interval asked for; None to adapt."""
        return min((w.interval for w in self.watches if w.interval is not None), default=None)

    @property
    def wants_progress(self) -> bool:
        """Whether anybody wants to see it in progress."""
        return any(w.wants_progress for w in self.watches)
