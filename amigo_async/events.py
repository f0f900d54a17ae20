"""The events that a client emits, and their delivery to listeners.

An event is a frozen struct that encodes to JSON with its class name in ``type``. No event contains
a secret.

Each event is also logged to the logger ``amigo_async``: progress at ``DEBUG``, starts and ends at
``INFO``, retries, requests held by a rate limit and everything lost or unresolved at ``WARNING``. A
log record is one line that begins with the organization, as in ``[acme] signed in for 3600 s``, and
has the event as its attribute ``amigo_event`` and the organization as ``amigo_organization_id``.
Nothing is shown unless the application configures logging.

What concerns a batch rather than a run has its `batch_id`: `TooFewRepeats`, `NamesRead`,
`DetailsMissing`, `RunCompared`, `BaselineMissing`, `SetFinished` and `BatchFinished`. Each set of a
batch has one `SetFinished`, whatever became of it, and each batch one `BatchFinished`, which is its
last event.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import asdict, replace

from amigo_async.cancellation import finish
from amigo_async.escaping import log_line

_log = logging.getLogger("amigo_async")
_log.addHandler(logging.NullHandler())  # silent until logging is configured


class Event(Struct, frozen=True, tag=True, kw_only=True):
    """Base class of all events.

    Attributes:
        organization_id: The organization of the client that emitted the event; None for an event
            that no client has emitted.
    """

    organization_id: str | None = None


class SignedIn(Event, frozen=True):
    """A token was issued.

    Attributes:
        expires_in: Seconds until it expires, by the server's clock.
    """

    expires_in: float


class RequestRetried(Event, frozen=True):
    """A request failed and will be retried.

    A create whose response was lost may have started a run: it is sent again only if no list shows
    such a run for `delay` seconds. A list that does not show a run counts as failed as well, once,
    if the run's id is all that suggests that it exists.

    Attributes:
        endpoint: ``sign_in``, ``create``, ``list``, ``cancel``, ``artifacts``, another list such as
            ``unit_test_sets``, or ``store`` for a request to the artifact store.
        attempt: Number of attempts that have failed.
        delay: Seconds until the next attempt.
        reason: The error, in one line.
    """

    endpoint: str
    attempt: int
    delay: float
    reason: str


class LimitHeld(Event, frozen=True):
    """A request is waiting for the rate limit of its endpoint.

    Attributes:
        endpoint: ``sign_in``, ``create``, ``list``, ``cancel``, ``artifacts``, or another list such
            as ``unit_test_sets``.
        delay: Seconds until the request can be sent at the earliest.
        queue: Number of waiting requests, including this one.
    """

    endpoint: str
    delay: float
    queue: int


class RunStarted(Event, frozen=True):
    """A run was started or attached to; its id is known from now on.

    Attributes:
        unit_test_set_id: Id of the set.
        run_id: Id of the run.
        attached: Whether the run was found rather than started, and may belong to someone else:
            it existed before, or the response to the create request was lost.
    """

    unit_test_set_id: str
    run_id: str
    attached: bool = False


class RunProgressed(Event, frozen=True):
    """A poll returned a new state of an unfinished run.

    Attributes:
        unit_test_set_id: Id of the set.
        run_id: Id of the run.
        done: Number of repeats that are done; None if hidden by a missing permission.
        total: Number of repeats in all; None if hidden by a missing permission.
        failed_metrics: Whether a metric has failed so far.
        errored: Whether an error has occurred so far.
    """

    unit_test_set_id: str
    run_id: str
    done: int | None
    total: int | None
    failed_metrics: bool
    errored: bool


class RunFinished(Event, frozen=True):
    """A run of a batch is completed; its artifacts may not be downloaded yet.

    Not every set has a run that is completed: `SetFinished` is emitted for each set.

    Attributes:
        unit_test_set_id: Id of the set.
        run_id: Id of the run.
        verdict: ``passed``, ``failed``, ``undecided``, ``errored`` or ``cancelled``, as in
            `RunOutcome`.
    """

    unit_test_set_id: str
    run_id: str
    verdict: str


class StartUnresolved(Event, frozen=True):
    """A start was cancelled, and it is unknown whether it started a run.

    Attributes:
        unit_test_set_id: Id of the set.
        reason: Why this is unknown, in one line.
    """

    unit_test_set_id: str
    reason: str


class SecondRunFound(Event, frozen=True):
    """A set was run a second time: another run of the same start appeared in the lists.

    The response to its create request was lost, no list showed the run for half a minute, and it
    was completed when the request was sent again.

    Attributes:
        unit_test_set_id: Id of the set.
        run_id: Id of the run whose result is reported.
        second_run_id: Id of the run that appeared later.
    """

    unit_test_set_id: str
    run_id: str
    second_run_id: str


class RunLeft(Event, frozen=True):
    """A batch with ``on_exit="cancel"`` left a run uncancelled.

    The run was found rather than started here, so someone else may rely on it.

    Attributes:
        unit_test_set_id: Id of the set.
        run_id: Id of the run.
    """

    unit_test_set_id: str
    run_id: str


class ArtifactProgress(Event, frozen=True):
    """Part of an artifact was received; emitted at most ten times a second per download.

    Attributes:
        run_id: Id of the run.
        received: Number of bytes received so far.
        total: Size of the artifact in bytes; None if the store does not say.
    """

    run_id: str
    received: int
    total: int | None


class ArtifactSaved(Event, frozen=True):
    """An artifact was downloaded completely and has its final name.

    Attributes:
        run_id: Id of the run.
        path: Path of the file.
        size: Size of the file in bytes.
        existed: Whether the file was there before, with this content, so that it was kept.
    """

    run_id: str
    path: str
    size: int
    existed: bool = False


class NamesRead(Event, frozen=True):
    """Names were read for a batch with ``describe=True``, each by its id.

    Attributes:
        unit_test_sets: Names of sets.
        unit_tests: Names of unit tests.
        metrics: Names of metrics.
        batch_id: Id of the batch.
    """

    unit_test_sets: dict[str, str]
    unit_tests: dict[str, str]
    metrics: dict[str, str]
    batch_id: str = ""


class TooFewRepeats(Event, frozen=True):
    """Sets have too few repeats to pass the gate; emitted before the first run is started.

    Attributes:
        unit_test_set_ids: Ids of the sets.
        fewest_repeats: Number of repeats that could pass, if all of them pass.
        reason: The gate and the remedy, in one line.
        batch_id: Id of the batch.
    """

    unit_test_set_ids: tuple[str, ...]
    fewest_repeats: int
    reason: str
    batch_id: str = ""


class DetailsMissing(Event, frozen=True):
    """Some names or reasons of a batch could not be read; its outcomes are not affected.

    Attributes:
        reason: What is missing and why, in one line.
        batch_id: Id of the batch.
    """

    reason: str
    batch_id: str = ""


class SetFinished(Event, frozen=True):
    """The outcome of a set is known: the last event about this set in this batch.

    Emitted once for each set of a batch, even if the set is named twice, no run of it was started,
    or the batch was left before its end. Only a `RunCompared` may follow, if its baseline is read
    late.

    Attributes:
        unit_test_set_id: Id of the set.
        run_id: Id of its run; None if none was started.
        verdict: The verdict as in `RunOutcome`, such as ``passed`` or ``not_started``.
        error: The error of the start, the wait or the download, in one line; None if there was
            none.
        error_type: Name of the class of the error; None if there was none.
        batch_id: Id of the batch.
    """

    unit_test_set_id: str
    run_id: str | None
    verdict: str
    error: str | None = None
    error_type: str | None = None
    batch_id: str = ""


class BatchFinished(Event, frozen=True):
    """A batch has ended or was left: its last event.

    Attributes:
        batch_id: Id of the batch.
        passed: Whether every set passed, as in `BatchResult`.
        counts: Number of sets by verdict, for the verdicts that occur.
        seconds: Seconds since the batch was opened.
    """

    batch_id: str
    passed: bool
    counts: dict[str, int]
    seconds: float


class RunCompared(Event, frozen=True):
    """A run of a batch was compared with its baseline.

    Attributes:
        unit_test_set_id: Id of the set.
        run_id: Id of the run.
        verdict: ``regressed``, ``improved``, ``no_change_seen``, ``too_few`` or
            ``not_comparable``, for this set alone.
        baseline_run_ids: Ids of the runs that it was compared with.
        regressed: Ids of the unit tests that got worse, as far as single ones can be named.
        batch_id: Id of the batch.
    """

    unit_test_set_id: str
    run_id: str
    verdict: str
    baseline_run_ids: tuple[str, ...]
    regressed: tuple[str, ...]
    batch_id: str = ""


class BaselineMissing(Event, frozen=True):
    """Completed runs of a batch could not be compared; their outcomes are not affected.

    Attributes:
        unit_test_set_ids: Ids of the sets.
        reason: Why, in one line; emitted once for all sets with the same reason.
        batch_id: Id of the batch.
    """

    unit_test_set_ids: tuple[str, ...]
    reason: str
    batch_id: str = ""


class SharingLost(Event, frozen=True):
    """The connection for sharing rate limits with other processes was lost.

    Until it is restored, the client relies on the rate limit headers of the API alone.

    Attributes:
        reason: The error, in one line.
        delay: Seconds until the next attempt to connect.
    """

    reason: str
    delay: float


class SharingRestored(Event, frozen=True):
    """The connection for sharing rate limits with other processes was restored.

    Attributes:
        after: Seconds since the connection was lost.
    """

    after: float


# How long a slow listener of a batch may take to catch up at the end, in seconds.
_CATCH_UP: Final = 5.0

# Level and message of each event. A message is formatted only if its level is enabled.
_LOGGED: Final[dict[type[Event], tuple[int, str]]] = {
    SignedIn: (logging.INFO, "signed in for %(expires_in).0f s"),
    RequestRetried: (
        logging.WARNING,
        "%(endpoint)s failed, attempt %(attempt)d, retry in %(delay).3g s: %(reason)s",
    ),
    LimitHeld: (
        logging.WARNING,
        "%(endpoint)s waits at least %(delay).3g s for its rate limit; %(queue)d in the queue",
    ),
    RunStarted: (
        logging.INFO,
        "run %(run_id)s of set %(unit_test_set_id)s started (attached: %(attached)s)",
    ),
    RunProgressed: (
        logging.DEBUG,
        "run %(run_id)s of set %(unit_test_set_id)s in progress: %(done)s of %(total)s done",
    ),
    RunFinished: (logging.INFO, "run %(run_id)s of set %(unit_test_set_id)s: %(verdict)s"),
    StartUnresolved: (
        logging.WARNING,
        "unknown whether a run of set %(unit_test_set_id)s was started: %(reason)s",
    ),
    SecondRunFound: (
        logging.WARNING,
        "set %(unit_test_set_id)s was run twice: run %(run_id)s and run %(second_run_id)s",
    ),
    RunLeft: (
        logging.WARNING,
        "run %(run_id)s of set %(unit_test_set_id)s was not cancelled: it was not started here",
    ),
    ArtifactProgress: (
        logging.DEBUG,
        "artifact of run %(run_id)s: %(received)d of %(total)s bytes",
    ),
    ArtifactSaved: (logging.INFO, "artifact of run %(run_id)s: %(size)d bytes at %(path)s"),
    NamesRead: (logging.DEBUG, "names were read"),
    TooFewRepeats: (logging.WARNING, "%(reason)s"),
    DetailsMissing: (logging.WARNING, "names or reasons are missing: %(reason)s"),
    RunCompared: (
        logging.INFO,
        "run %(run_id)s of set %(unit_test_set_id)s against its baseline: %(verdict)s",
    ),
    BaselineMissing: (logging.WARNING, "runs were not compared: %(reason)s"),
    SetFinished: (logging.INFO, "set %(unit_test_set_id)s ended: %(verdict)s%(because)s"),
    BatchFinished: (
        logging.INFO,
        "batch %(batch_id)s ended after %(seconds).3g s: %(counts)s",
    ),
    SharingLost: (
        logging.WARNING,
        "sharing with other processes lost, next attempt in %(delay).3g s: %(reason)s",
    ),
    SharingRestored: (
        logging.WARNING,
        "sharing with other processes restored after %(after).0f s",
    ),
}


Listener: TypeAlias = Callable[[Event], None]
Emit: TypeAlias = Callable[[Event], None]


class Events:
    """Delivers each event to every listener.

    An exception of a listener affects nobody else. The first is logged to the logger
    ``amigo_async`` with its traceback; the following ones are counted, and their number is logged
    at the end. Only `KeyboardInterrupt` and `SystemExit` end the program: the event loop raises
    them after the current step, not in the middle of the code that emits the event.

    Args:
        listener: The first listener; None for none.
        organization_id: The organization that events and log records name; None for none.
    """

    def __init__(
        self, listener: Listener | None = None, organization_id: str | None = None
    ) -> None:
        self.organization_id = organization_id
        self._listeners: list[tuple[Listener, ListenerFailures]] = []
        if listener is not None:
            self._listeners.append((listener, ListenerFailures(organization_id)))

    def emit(self, event: Event) -> None:
        """Log `event` and call every listener, in the order of subscription."""
        event = replace(event, organization_id=self.organization_id)
        _write(event)
        for listener, failures in tuple(self._listeners):
            try:
                listener(event)
            except (KeyboardInterrupt, SystemExit) as error:
                asyncio.get_running_loop().call_soon(_raise, error)
            except BaseException:  # noqa: BLE001  # a listener may raise anything
                failures.note()

    @contextmanager
    def subscribed(self, listener: Listener) -> Iterator[None]:
        """Deliver events to `listener` while the context is open."""
        failures = ListenerFailures(self.organization_id)
        self._listeners.append((listener, failures))
        try:
            yield
        finally:
            self._listeners.remove((listener, failures))
            failures.report()

    def close(self) -> None:
        """Log how often the first listener has failed."""
        for _, failures in self._listeners:
            failures.report()


class ListenerFailures:
    """Counts the exceptions of a listener, and logs the first one with its traceback.

    Args:
        organization_id: The organization that log records name; None for none.
    """

    def __init__(self, organization_id: str | None) -> None:
        self._organization_id = organization_id
        self._count = 0

    def note(self) -> None:
        """Take in the exception that is being handled."""
        self._count += 1
        if self._count == 1:
            words = (
                "an on_event listener failed; further failures are counted and logged at the end"
            )
            _log_line(logging.ERROR, words, {}, self._organization_id, exc_info=True)

    def report(self) -> None:
        """Log how often the listener has failed since the first time."""
        more, self._count = self._count - 1, 0
        if more > 0:
            words = "an on_event listener failed %(more)d more times"
            _log_line(logging.ERROR, words, {"more": more}, self._organization_id)


class BatchListener:
    """Delivers the events of one batch to its listener, and not those of other batches.

    A plain function is called at once. Coroutines of a coroutine function are awaited one after the
    other in a task beside the batch, which waits for them only for a while at its end.

    Args:
        on_event: The listener.
        set_ids: The sets of the batch.
        batch_id: Id of the batch.
    """

    def __init__(
        self,
        on_event: Callable[[Event], Awaitable[None] | None],
        set_ids: Collection[str],
        batch_id: str,
    ) -> None:
        self._on_event = on_event
        self._set_ids = set_ids
        self._batch_id = batch_id
        self._run_ids: set[str] = set()
        self._queue: asyncio.Queue[Awaitable[None] | None] = asyncio.Queue()

    @asynccontextmanager
    async def subscribed_to(self, events: Events) -> AsyncIterator[None]:
        """Deliver events while the context is open."""
        failures = ListenerFailures(events.organization_id)
        consumer = asyncio.create_task(self._await_queued(failures))
        try:
            with events.subscribed(self._deliver):
                yield
        finally:
            self._queue.put_nowait(None)
            await finish(self._catch_up(consumer))
            failures.report()

    def _deliver(self, event: Event) -> None:
        if getattr(event, "batch_id", self._batch_id) != self._batch_id:
            return
        set_id, run_id = getattr(event, "unit_test_set_id", None), getattr(event, "run_id", None)
        if set_id in self._set_ids and run_id is not None:
            self._run_ids.add(run_id)
        if (set_id is None or set_id in self._set_ids) and (
            run_id is None or run_id in self._run_ids
        ):
            returned = self._on_event(event)
            if inspect.isawaitable(returned):
                self._queue.put_nowait(returned)

    async def _await_queued(self, failures: ListenerFailures) -> None:
        while (queued := await self._queue.get()) is not None:
            try:
                await queued
            except (KeyboardInterrupt, SystemExit):
                raise  # the program is asked to end
            except BaseException:  # a listener may raise anything
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # this task is cancelled, not something that the listener awaits
                failures.note()

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
    """Log `event` if its level is enabled."""
    level, words = _LOGGED.get(type(event), (logging.DEBUG, "%(event)s"))
    if _log.isEnabledFor(level):
        known = {
            name: log_line(value) if isinstance(value, str) else value
            for name, value in asdict(event).items()
            if value is not None
        }
        fields = {"event": event, "done": "?", "total": "?", **known}
        if isinstance(event, SetFinished):
            fields["because"] = f": {known['error']}" if event.error else ""
        elif isinstance(event, BatchFinished):
            fields["counts"] = ", ".join(f"{n} {verdict}" for verdict, n in event.counts.items())
        _log_line(level, words, fields, event.organization_id, event=event)


def _log_line(
    level: int,
    words: str,
    fields: dict[str, object],
    organization_id: str | None,
    *,
    event: Event | None = None,
    exc_info: bool = False,
) -> None:
    """Log a line that names the organization, and give its record the attributes of this module."""
    extra = {"amigo_event": event, "amigo_organization_id": organization_id}
    if organization_id is not None:
        words = f"[%(organization_id)s] {words}"
        fields = {**fields, "organization_id": log_line(organization_id)}
    _log.log(level, words, *([fields] if fields else []), extra=extra, exc_info=exc_info or None)
