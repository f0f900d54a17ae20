"""Signals that ask the command to stop: the first is obeyed tidily, a second one at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

from amigo_async.cli.exit_codes import Status

# The last is sent when the terminal goes away; Windows has none.
_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")
_SIGNALS: Final = [signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__]

# One press of Ctrl-C may arrive twice: from the terminal, which sends it to every process of the
# group, and from a wrapper (npm, make, a container's init) that forwards it. Nobody presses twice
# within half a second and means it.
_ONE_PRESS: Final = 0.5


class Interrupts:
    """Handles the signals that ask one command to stop.

    What the first one does depends on what is being done: work inside `caught` is cancelled
    tidily, other work is cancelled, and what comes after the work inside `caught` (telling what
    came of it) is not disturbed. Another one, half a second later or more, ends the process.

    Args:
        now: A clock that does not go back, in seconds.

    Attributes:
        interrupted: Whether work inside `caught` was stopped.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.interrupted = False
        self._now = now
        self._first: float | None = None
        self._task: asyncio.Task[Any] | None = None
        self._obey: Callable[[], object] = _nothing
        self._close: Callable[[], None] = _nothing

    def run(self, work: Coroutine[Any, Any, int]) -> int:
        """Run `work` in an event loop, and handle the signals until that is closed.

        Raises:
            KeyboardInterrupt: If a signal stopped it before it was inside `caught`.
        """
        before = {n: signal.signal(n, self._handle) for n in _SIGNALS if not _is_ignored(n)}
        try:
            return asyncio.run(self._await(work, list(before)))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    @contextmanager
    def caught(self, say: Callable[[str], object], close: Callable[[], None]) -> Iterator[None]:
        """Let the first signal stop what is inside this context, and nothing after it.

        It cancels the task that opened the context; that cancellation ends with the context.

        Args:
            say: Shows a line.
            close: Leaves the terminal as it was.
        """
        task = asyncio.current_task()

        def stop() -> None:
            self.interrupted = True
            say("Stopping tidily; press Ctrl-C again to be out at once.")
            if task is not None:
                task.cancel()

        self._obey, self._close = stop, close
        try:
            yield
        except asyncio.CancelledError:
            if not self.interrupted or (task is not None and task.uncancel()):
                raise
        finally:
            self._obey = self._close = _nothing

    async def _await(self, work: Coroutine[Any, Any, int], numbers: list[signal.Signals]) -> int:
        loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._task is not None:
            self._obey = self._task.cancel
        for number in numbers:
            # For the wake-up that comes with it: a signal that arrives just before the loop goes
            # to sleep would not be seen before something else wakes the loop. The handler itself
            # is ours, as the loop's would not run while the loop is held up by a write.
            with suppress(NotImplementedError):  # of Windows
                loop.add_signal_handler(number, _nothing)
            signal.signal(number, self._handle)
        try:
            if self._first is not None:  # it came before there was a loop to stop
                self._obey()
            return await work
        finally:
            self._task = None
            for number in numbers:
                loop.remove_signal_handler(number)
                signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        now = self._now()
        if self._first is None:
            self._first = now
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(self._stop)
        elif now - self._first >= _ONE_PRESS:
            with suppress(Exception):  # the interrupted write may have been to the same stream
                self._close()
                sys.stderr.flush()
            os._exit(Status.INTERRUPTED)

    def _stop(self) -> None:
        self._obey()  # what it is now, not when the signal came


def ignore_signals() -> None:
    """Let no signal that arrives twice disturb the end of an interpreter that was interrupted."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _is_ignored(number: signal.Signals) -> bool:
    """Whether a signal is to be ignored, as nohup wants it of a hangup."""
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN


def _nothing() -> None:
    pass
