"""Signals that stop the command: gracefully at the first one, immediately at the second."""

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

from amigo_async.cli.exit_codes import ExitCode

# SIGHUP is sent when the terminal closes; Windows does not have it.
_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")
_SIGNALS: Final = [signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__]

# One press of Ctrl-C may arrive twice: from the terminal, which sends it to every process of the
# group, and from a wrapper (npm, make, a container's init) that forwards it. So a second signal
# within this many seconds counts as the same press.
_ONE_PRESS: Final = 0.5


class Interrupts:
    """Handles the signals that stop one command.

    The first signal cancels the work inside `caught`; the command then reports the result. If it
    arrives during that report, it is ignored; without any `caught`, it cancels the command. A
    second signal, half a second later or more, ends the process immediately.

    Args:
        now: A monotonic clock, in seconds.

    Attributes:
        interrupted: Whether work inside `caught` was cancelled.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.interrupted = False
        self._now = now
        self._first: float | None = None
        self._task: asyncio.Task[Any] | None = None
        self._on_signal: Callable[[], object] = _nothing
        self._close: Callable[[], None] = _nothing
        self._farewell: Callable[[], str] = str

    def run(self, work: Coroutine[Any, Any, int]) -> int:
        """Run `work` in an event loop, and handle signals until the loop is closed.

        Raises:
            KeyboardInterrupt: If a signal stopped it outside of `caught`.
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
    def caught(
        self,
        notify: Callable[[str], object],
        close: Callable[[], None],
        farewell: Callable[[], str] = str,
    ) -> Iterator[None]:
        """Let the first signal cancel what is inside this context, and nothing after it.

        It cancels the task that opened the context; the cancellation ends with the context.

        Args:
            notify: Shows a line to the user.
            close: Restores the terminal.
            farewell: Returns what a second signal leaves to be said, or nothing.
        """
        task = asyncio.current_task()

        def stop() -> None:
            self.interrupted = True
            notify("Stopping; press Ctrl-C again to quit immediately.")
            if task is not None:
                task.cancel()

        self._on_signal, self._close, self._farewell = stop, close, farewell
        try:
            yield
        except asyncio.CancelledError:
            if not self.interrupted or (task is not None and task.uncancel()):
                raise
        finally:
            self._on_signal = self._close = _nothing
            self._farewell = str

    async def _await(self, work: Coroutine[Any, Any, int], numbers: list[signal.Signals]) -> int:
        loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._task is not None:
            self._on_signal = self._task.cancel
        for number in numbers:
            # This is for the wake-up only: without it, a signal that arrives just before the loop
            # goes to sleep is not handled until something else wakes the loop. The handler itself
            # is ours, as the loop's would not run while the loop is blocked by a write.
            with suppress(NotImplementedError):  # of Windows
                loop.add_signal_handler(number, _nothing)
            signal.signal(number, self._handle)
        try:
            if self._first is not None:  # it arrived before the loop was running
                self._on_signal()
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
            with suppress(Exception):  # the signal may have interrupted a write to the same stream
                self._close()
                sys.stderr.flush()
            with suppress(Exception):
                # Past the stream, which may be in the middle of a write.
                os.write(sys.stderr.fileno(), self._farewell().encode(errors="replace"))
            os._exit(ExitCode.INTERRUPTED)

    def _stop(self) -> None:
        self._on_signal()  # looked up now, not when the signal arrived


def ignore_signals() -> None:
    """Ignore further signals, which would disturb the shutdown of the interpreter."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _is_ignored(number: signal.Signals) -> bool:
    """Return whether a signal was ignored before the command started, as nohup does."""
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN


def _nothing() -> None:
    pass
