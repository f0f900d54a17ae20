"""What the client tells while it works, as typed structs, and how it reaches those who listen.

An event is a frozen struct that encodes to JSON with its name in ``type``. No event carries a
secret.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from msgspec import Struct

_log = logging.getLogger("amigo_async")


class Event(Struct, frozen=True, tag=True):
    """Base of every event."""


class SignedIn(Event, frozen=True):
    """A token was issued.

    Attributes:
        expires_in: Seconds until it expires, by the server's clock.
    """

    expires_in: float


class RequestRetried(Event, frozen=True):
    """A request failed and will be sent again.

    Attributes:
        endpoint: ``sign_in``, ``create``, ``list``, ``cancel`` or ``artifacts``.
        attempt: How many attempts have failed.
        delay: Seconds until the next attempt.
        reason: The error, in one line.
    """

    endpoint: str
    attempt: int
    delay: float
    reason: str


class LimitHeld(Event, frozen=True):
    """A request waits for room in the budget of its endpoint.

    Attributes:
        endpoint: ``sign_in``, ``create``, ``list``, ``cancel`` or ``artifacts``.
        delay: Seconds until it may go at the earliest.
        queue: How many requests wait, this one included.
    """

    endpoint: str
    delay: float
    queue: int


class RunStarted(Event, frozen=True):
    """The id of a run is known.

    Attributes:
        unit_test_set_id: The set.
        run_id: The run.
        attached: Whether the run was there before.
    """

    unit_test_set_id: str
    run_id: str
    attached: bool = False


class RunProgressed(Event, frozen=True):
    """A run was seen in a new state, and goes on.

    Attributes:
        unit_test_set_id: The set.
        run_id: The run.
        done: Unit test runs that are done; None where the permission hides it.
        total: Unit test runs in all; None where the permission hides it.
        failed_metrics: Whether a unit test run failed so far.
        errored: Whether an error was met so far.
    """

    unit_test_set_id: str
    run_id: str
    done: int | None
    total: int | None
    failed_metrics: bool
    errored: bool


class RunFinished(Event, frozen=True):
    """A set of a batch has come to its end; its artifacts may still be on their way.

    Attributes:
        unit_test_set_id: The set.
        run_id: The run.
        verdict: As in `RunOutcome`.
    """

    unit_test_set_id: str
    run_id: str
    verdict: str


class StartUnresolved(Event, frozen=True):
    """A start was cancelled, and whether it started a run could not be found out in time.

    Attributes:
        unit_test_set_id: The set.
        reason: Why, in one line.
    """

    unit_test_set_id: str
    reason: str


class ArtifactProgress(Event, frozen=True):
    """A part of an artifact has come; not more than ten a second for each download.

    Attributes:
        run_id: The run whose artifact it is.
        received: Bytes had so far.
        total: Bytes in all; None where the store does not say.
    """

    run_id: str
    received: int
    total: int | None


class ArtifactSaved(Event, frozen=True):
    """An artifact is whole and has its final name.

    Attributes:
        run_id: The run whose artifact it is.
        path: Where it is.
        size: Its size in bytes.
    """

    run_id: str
    path: str
    size: int


Listener: TypeAlias = Callable[[Event], None]
Emit: TypeAlias = Callable[[Event], None]


class Events:
    """Hands each event to every listener.

    A listener that raises harms nobody: the error goes to the logger ``amigo_async``.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self._listeners: list[Listener] = [] if listener is None else [listener]

    def emit(self, event: Event) -> None:
        """Hand `event` to every listener, at once and in the order they came."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001  # the listener is the user's: anything can come
                _log.exception("an on_event listener failed on %s", type(event).__name__)

    @contextmanager
    def subscribed(self, listener: Listener) -> Iterator[None]:
        """Let `listener` hear events for as long as the context is open."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)
