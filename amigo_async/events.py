"""What the client tells while it works, as typed structs, and how it reaches those who listen.

An event is a frozen struct that encodes to JSON with its name in ``type``. No event carries a
secret.

Each event is also logged, by the logger ``amigo_async``: what runs meet on their way at ``DEBUG``,
starts and ends at ``INFO``, retries, holds, what is lost and what could not be found out at
``WARNING``. A record is one line, and has the event itself as ``amigo_event``. Nothing is shown
unless logging is set up.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import asdict

from amigo_async.cancellation import finish
from amigo_async.escaping import log_line

_log = logging.getLogger("amigo_async")
_log.addHandler(logging.NullHandler())  # silent until the user says where logs go


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
        attached: Whether the run was found, and may be another's: it was there before, or the
            answer to its create was lost.
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


class SecondRunFound(Event, frozen=True):
    """A run turned up that was started besides another one.

    The answer to its create was lost, and it was over when the create was sent again; no list had
    shown it for half a minute.

    Attributes:
        unit_test_set_id: The set.
        run_id: The run whose result is given.
        second_run_id: The run that turned up.
    """

    unit_test_set_id: str
    run_id: str
    second_run_id: str


class RunLeft(Event, frozen=True):
    """A batch was left with ``on_exit="cancel"``, and a run goes on that it does not cancel.

    The run was found, not started, so somebody else may count on it.

    Attributes:
        unit_test_set_id: The set.
        run_id: The run.
    """

    unit_test_set_id: str
    run_id: str


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


class SharingLost(Event, frozen=True):
    """What is shared with other processes cannot be reached; until it can, headers are believed.

    Attributes:
        reason: The error, in one line.
        delay: Seconds until it is tried again.
    """

    reason: str
    delay: float


class SharingRestored(Event, frozen=True):
    """What is shared with other processes can be reached again.

    Attributes:
        after: Seconds since it was lost.
    """

    after: float


# How long a slow listener of a batch may take to catch up at the end, in seconds.
_CATCH_UP: Final = 5.0

# How each event is logged; the words are put together only where somebody listens.
_LOGGED: Final[dict[type[Event], tuple[int, str]]] = {
    SignedIn: (logging.INFO, "signed in for %(expires_in).0f s"),
    RequestRetried: (
        logging.WARNING,
        "%(endpoint)s failed %(attempt)d times, again in %(delay).3g s: %(reason)s",
    ),
    LimitHeld: (
        logging.WARNING,
        "%(endpoint)s waits for its limit, %(delay).3g s or longer; %(queue)d in the queue",
    ),
    RunStarted: (
        logging.INFO,
        "run %(run_id)s of set %(unit_test_set_id)s started (attached: %(attached)s)",
    ),
    RunProgressed: (
        logging.DEBUG,
        "run %(run_id)s of set %(unit_test_set_id)s goes on: %(done)s of %(total)s done",
    ),
    RunFinished: (logging.INFO, "run %(run_id)s of set %(unit_test_set_id)s: %(verdict)s"),
    StartUnresolved: (
        logging.WARNING,
        "whether a run of set %(unit_test_set_id)s was started is not known: %(reason)s",
    ),
    SecondRunFound: (
        logging.WARNING,
        "besides run %(run_id)s of set %(unit_test_set_id)s, run %(second_run_id)s turned up",
    ),
    RunLeft: (
        logging.WARNING,
        "run %(run_id)s of set %(unit_test_set_id)s goes on: it may be another's",
    ),
    ArtifactProgress: (
        logging.DEBUG,
        "artifact of run %(run_id)s: %(received)d of %(total)s bytes",
    ),
    ArtifactSaved: (logging.INFO, "artifact of run %(run_id)s: %(size)d bytes at %(path)s"),
    SharingLost: (
        logging.WARNING,
        "sharing with other processes is lost, again in %(delay).3g s: %(reason)s",
    ),
    SharingRestored: (
        logging.WARNING,
        "sharing with other processes is back after %(after).0f s",
    ),
}


Listener: TypeAlias = Callable[[Event], None]
Emit: TypeAlias = Callable[[Event], None]


class Events:
    """Hands each event to every listener.

    A listener that raises harms nobody: the error goes to the logger ``amigo_async``. What asks
    the program to end, `KeyboardInterrupt` and `SystemExit`, does end it, but not in the middle of
    what tells the event: the event loop raises it, once the step that is under way is done.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self._listeners: list[Listener] = [] if listener is None else [listener]

    def emit(self, event: Event) -> None:
        """Log `event`, and hand it to every listener, at once and in the order they came."""
        _write(event)
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except (KeyboardInterrupt, SystemExit) as error:
                asyncio.get_running_loop().call_soon(_raise, error)
            except BaseException:  # noqa: BLE001  # the listener is the user's: anything can come
                _log.exception("an on_event listener failed on %s", type(event).__name__)

    @contextmanager
    def subscribed(self, listener: Listener) -> Iterator[None]:
        """Let `listener` hear events for as long as the context is open."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)


class BatchListener:
    """Delivers the events of one batch to its listener, and not those of other batches.

    A plain function is called at once. Coroutines of a coroutine function are awaited one after the
    other in a task beside the batch, which waits for them only for a while at its end.

    Args:
        on_event: The listener.
        set_ids: The sets of the batch.
    """

    def __init__(
        self, on_event: Callable[[Event], Awaitable[None] | None], set_ids: Collection[str]
    ) -> None:
        self._on_event = on_event
        self._set_ids = set_ids
        self._run_ids: set[str] = set()
        self._queue: asyncio.Queue[Awaitable[None] | None] = asyncio.Queue()

    @asynccontextmanager
    async def subscribed_to(self, events: Events) -> AsyncIterator[None]:
        """Deliver events while the context is open."""
        consumer = asyncio.create_task(self._await_queued())
        try:
            with events.subscribed(self._deliver):
                yield
        finally:
            self._queue.put_nowait(None)
            await finish(self._catch_up(consumer))

    def _deliver(self, event: Event) -> None:
        set_id, run_id = getattr(event, "unit_test_set_id", None), getattr(event, "run_id", None)
        if set_id in self._set_ids and run_id is not None:
            self._run_ids.add(run_id)
        if (set_id is None or set_id in self._set_ids) and (
            run_id is None or run_id in self._run_ids
        ):
            returned = self._on_event(event)
            if inspect.isawaitable(returned):
                self._queue.put_nowait(returned)

    async def _await_queued(self) -> None:
        while (queued := await self._queue.get()) is not None:
            try:
                await queued
            except (KeyboardInterrupt, SystemExit):
                raise  # the program is asked to end
            except BaseException:  # a listener may raise anything
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # this task is cancelled, not something that the listener awaits
                _log.exception("an on_event listener failed")

    async def _catch_up(self, consumer: asyncio.Task[None]) -> None:
        await asyncio.wait({consumer}, timeout=_CATCH_UP)
        consumer.cancel()
        await asyncio.wait({consumer})
        while not self._queue.empty():
            queued = self._queue.get_nowait()
            if inspect.iscoroutine(queued):
                queued.close()


def _raise(error: BaseException) -> None:
    raise error


def _write(event: Event) -> None:
    """Log `event` where its level is on."""
    level, words = _LOGGED.get(type(event), (logging.DEBUG, "%(event)s"))
    if _log.isEnabledFor(level):
        known = {
            name: log_line(value) if isinstance(value, str) else value
            for name, value in asdict(event).items()
            if value is not None
        }
        fields = {"event": event, "done": "?", "total": "?", **known}
        _log.log(level, words, fields, extra={"amigo_event": event})
