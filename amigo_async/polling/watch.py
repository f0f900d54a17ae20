"""What one waiter waits for, and what is known of one run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from amigo_async.decoding import RunRecord
from amigo_async.errors import AmigoError
from amigo_async.models import Run

# As many looks in a row have to agree before what they tell of a run is believed, so that long
# intervals between them prove nothing.
LOOKS_BELIEVED: Final = 3

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

    def satisfied_by(self, run: Run | RunRecord) -> bool:
        """Whether the wait for this run is over."""
        return run.is_completed and (run.artifacts_generated or not self.require_artifacts)

    def end(self, record: RunRecord) -> None:
        """End the wait for a run that is over."""
        del self.pending[record.id]
        self.progress(record)

    def progress(self, record: RunRecord) -> None:
        """Give a new state of a run, as far as it can be read."""
        if record.run is not None:
            self._add(record.run)

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


class Doubt:
    """Looks in a row that told nothing of a run.

    Attributes:
        since: When the first of them was, in loop time.
        count: How many there were.
    """

    __slots__ = ("count", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 1

    def outlasts(self, seconds: float, now: float) -> bool:
        """Whether it has gone on for so long, and for some looks."""
        return self.count >= LOOKS_BELIEVED and now - self.since >= seconds


class Watched:
    """What is known of one run that is waited for.

    Attributes:
        watches: Who waits for it.
        last: Its last state seen; None before the first look.
        last_error: Why the last look told nothing of it; None if it did.
        failing: The looks since the last list with it that was answered; None if none failed.
        lacking: The answered lists since it was last seen whole; None if all showed it.
        page_size: How many runs it may be asked for together with, itself included.
        looks: How many looks there were.
        due: When it is to be looked at next, in loop time.
        since: Since when it is waited for, in loop time.
    """

    __slots__ = (
        "due",
        "failing",
        "lacking",
        "last",
        "last_error",
        "looks",
        "page_size",
        "since",
        "watches",
    )

    def __init__(self, due: float, since: float, page_size: int) -> None:
        self.watches: list[Watch] = []
        self.last: RunRecord | None = None
        self.last_error: AmigoError | None = None
        self.failing: Doubt | None = None
        self.lacking: Doubt | None = None
        self.page_size = page_size
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

    @property
    def failing_often(self) -> bool:
        """Whether more than one list with it failed in a row."""
        return self.failing is not None and self.failing.count > 1

    def answered(self, page_size: int) -> None:
        """A list with it was answered: it may share a larger page again, up to `page_size`."""
        self.failing = None
        self.page_size = max(self.page_size, min(self.page_size * 2, page_size))

    def found(self) -> None:
        """Its state was seen, and could be read as far as somebody wants it."""
        self.lacking = self.last_error = None

    def failed(self, error: AmigoError, now: float) -> None:
        """A list with it failed."""
        self.last_error = error
        self.failing = _once_more(self.failing, now)

    def lacks(self, error: AmigoError, now: float) -> Doubt:
        """A list was answered that should have told of it and did not."""
        self.last_error = error
        self.lacking = _once_more(self.lacking, now)
        return self.lacking


def _once_more(doubt: Doubt | None, now: float) -> Doubt:
    if doubt is None:
        return Doubt(now)
    doubt.count += 1
    return doubt
