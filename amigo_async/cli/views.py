"""Show a batch at work on stderr: live on a terminal, in lines elsewhere, or not at all."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

from amigo_async.batch import RunOutcome
from amigo_async.cli.board import Board, Budgets
from amigo_async.cli.streams import note
from amigo_async.events import Event

# Seconds between two looks at what has changed.
_TICK: Final = 0.25


class View(Protocol):
    """Shows a board."""

    def hear(self, event: Event) -> None:
        """An event came; the board knows it already."""

    def settle(self, key: str, outcome: RunOutcome, said: str | None = None) -> None:
        """Nothing more is done about a set; `said` is what to show instead of its verdict."""

    def say(self, text: str) -> None:
        """Show a line that has to be seen."""

    def tick(self) -> None:
        """Show what has changed."""

    def close(self) -> None:
        """Leave the terminal as it was; may be called twice."""


class Show:
    """A board and the view of it, which hear the same.

    A view whose stderr has gone is given up; what is shown never harms what is done.

    Args:
        board: The board.
        view: The view; None shows nothing but what has to be seen.
    """

    def __init__(self, board: Board, view: View | None) -> None:
        self.board = board
        self._view = view

    def hear(self, event: Event) -> None:
        """Take note of an event and show it."""
        self.board.hear(event)
        self._show(lambda view: view.hear(event))

    def settle(self, key: str, outcome: RunOutcome, said: str | None = None) -> None:
        """Take note of what became of a set and show it, or `said` instead of its verdict."""
        self.board.settle(key, outcome, said)
        self._show(lambda view: view.settle(key, outcome, said))

    def say(self, text: str) -> None:
        """Show a line that has to be seen."""
        if self._view is None:
            note(text)
        self._show(lambda view: view.say(text))

    def tick(self) -> None:
        """Show what has changed."""
        self._show(lambda view: view.tick())

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._show(lambda view: view.close())

    def _show(self, show: Callable[[View], None]) -> None:
        try:
            if self._view is not None:
                show(self._view)
        except OSError:
            self._view = None


@asynccontextmanager
async def showing(board: Board, budgets: Budgets, *, quiet: bool = False) -> AsyncIterator[Show]:
    """Show `board` for as long as the context is open.

    Args:
        board: The board.
        budgets: A snapshot of the budgets.
        quiet: Whether to show nothing but what has to be seen.
    """
    show = Show(board, None if quiet else _view(board, budgets))
    ticking = asyncio.create_task(_tick(show))
    try:
        yield show
    finally:
        ticking.cancel()
        await asyncio.wait({ticking})
        show.close()


async def _tick(show: Show) -> None:
    while True:
        show.tick()
        await asyncio.sleep(_TICK)


def _view(board: Board, budgets: Budgets) -> View:
    if is_terminal():
        from amigo_async.cli.display import LiveView  # noqa: PLC0415  # rich, only where it is used

        return LiveView(board, budgets)
    from amigo_async.cli.plain import PlainView  # noqa: PLC0415  # the other one

    return PlainView(board, budgets)


def is_terminal() -> bool:
    """Whether stderr is a terminal on which lines can be written over."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
