"""Ctrl-C: once to finish tidily, twice to be out at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from amigo_async.cli.statuses import Status

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Counts the signals that ask the command to stop.

    Args:
        say: Shows a line.
        close: Leaves the terminal as it was.

    Attributes:
        interrupted: Whether there was one.
    """

    def __init__(self, say: Callable[[str], None], close: Callable[[], None]) -> None:
        self.interrupted = False
        self._say = say
        self._close = close
        self._task = asyncio.current_task()

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals for as long as the context is open.

        The first one cancels the task that opened it; that cancellation ends with the context.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._interrupt)
        try:
            yield
        except asyncio.CancelledError:
            if not self.interrupted or (self._task is not None and self._task.uncancel()):
                raise
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        if self.interrupted or self._task is None:
            self._close()
            with suppress(OSError):
                sys.stderr.flush()
            os._exit(Status.INTERRUPTED)
        self.interrupted = True
        self._say("Stopping tidily; press Ctrl-C again to be out at once.")
        self._task.cancel()
