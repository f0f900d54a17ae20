"""The live display: a line a set as long as they fit, and the active ones where they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from amigo_async.batch import RunOutcome
from amigo_async.cli.board import Board, Budgets, Row
from amigo_async.cli.plain import held, stages_said
from amigo_async.cli.reasons import ENDPOINTS, VERDICTS, seconds, size, stopwatch, verdict
from amigo_async.escaping import log_line
from amigo_async.events import Event, RequestRetried
from amigo_async.ratelimit import BudgetState

# The part of a terminal that is drawn on. Some say that they have 65,535 columns and lines, which
# would take longer to fill than until the next drawing.
_WIDEST: Final = 300
_TALLEST: Final = 200

# Lines beside those of the sets: heading, bar, two blank ones, budgets, two notices, the cursor's.
_OTHER_LINES: Final = 8

_STYLES: Final = {
    "passed": "green",
    "saved": "green",
    "asked": "green",
    "over": "green",
    "failed": "red",
    "errored": "magenta",
    "timed_out": "yellow",
    "cancelled": "yellow",
    "not_started": "yellow",
    "running": "cyan",
    "failing": "red",
    "erroring": "magenta",
    "fetching": "blue",
    "waiting": "dim",
}
_MARKS: Final = {
    "passed": "✓",
    "saved": "✓",
    "asked": "✓",
    "over": "✓",
    "failed": "✗",
    "errored": "!",
    "running": "●",
    "waiting": "·",
}
_BAD: Final = frozenset({"failed", "errored", "timed_out", "cancelled", "not_started"})


class LiveView:
    """Redraws a few lines at the end of the terminal.

    Args:
        board: What is known.
        budgets: A snapshot of the budgets.
        console: Where to draw; None for stderr.
    """

    def __init__(self, board: Board, budgets: Budgets, console: Console | None = None) -> None:
        self._board = board
        self._budgets = budgets
        self._said: str | None = None
        self._retry: tuple[float, str] | None = None
        self.console = console or Console(stderr=True)
        self._live = Live(
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            vertical_overflow="crop",
        )
        self._live.start()

    def hear(self, event: Event) -> None:
        """Keep what the board does not; the rest is shown with the next tick."""
        if isinstance(event, RequestRetried):
            reason = log_line(event.reason)
            text = f"{ENDPOINTS[event.endpoint]} failed and is tried again: {reason}"
            self._retry = (self._board.now() + max(event.delay, 3.0), text)

    def settle(self, key: str, outcome: RunOutcome, said: str | None = None) -> None:
        """The next tick shows it."""

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self._said = text
        self.tick()

    def tick(self) -> None:
        """Draw."""
        height = min(self.console.height, _TALLEST)
        drawn = frame(self._board, self._budgets(), self._notices(), height)
        self._live.update(Constrain(drawn, _WIDEST), refresh=True)

    def close(self) -> None:
        """Take the lines away and show the cursor again."""
        self._live.stop()

    def _notices(self) -> list[str]:
        if self._retry is not None and self._retry[0] < self._board.now():
            self._retry = None
        shown = [self._said, None if self._retry is None else self._retry[1]]
        return [text for text in shown if text is not None]


def frame(
    board: Board, budgets: Mapping[str, BudgetState], notices: Sequence[str], height: int
) -> RenderableType:
    """What to draw.

    Args:
        board: What is known.
        budgets: The budgets.
        notices: Lines that have to be seen.
        height: How many lines there are.
    """
    room = max(1, height - _OTHER_LINES)
    rows = list(board.rows.values())
    shown = rows if len(rows) <= room else choose(rows, room - 1)
    lines: list[RenderableType] = [_heading(board), _overall(board), "", _table(shown, board)]
    if len(shown) < len(rows):
        lines.append(_line(_rest(rows, shown), "dim"))
    lines += ["", _budget_line(budgets)]
    waits = [_line(held(name, b), "yellow") for name, b in budgets.items() if b.waiting]
    told = [_line(text, "bold") for text in notices]
    return Group(*lines, *(told + waits)[:2])


def choose(rows: Sequence[Row], room: int) -> list[Row]:
    """The rows to show where not all fit, in the order asked for, so that they move little."""
    ranked = sorted(rows, key=_rank)[:room]
    keys = {row.key for row in ranked}
    return [row for row in rows if row.key in keys]


def _rank(row: Row) -> tuple[int, float]:
    """What is active comes first, then what went wrong, the newest first; then what waits."""
    if row.stage in ("running", "fetching"):
        return 0, row.began or 0.0
    if row.verdict in _BAD:
        return 1, -(row.ended or 0.0)
    return (2, 0.0) if row.stage == "queued" else (3, -(row.ended or 0.0))


def _state(row: Row) -> str:
    """A row's state in a word, as in `_STYLES`."""
    if row.stage == "done":
        return row.verdict or "passed"
    if row.stage == "fetching":
        return "fetching"
    if row.stage == "queued":
        return "waiting"
    return {"failed": "failing", "errored": "erroring"}.get(row.trouble or "", "running")


def _heading(board: Board) -> RenderableType:
    """The time and how things stand, and at the right the verdicts so far."""
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(ratio=1, no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    verdicts = board.verdicts()
    counts = [
        Text(f"{_MARKS.get(name, '-')} {verdicts[name]}", _STYLES[name])
        for name in VERDICTS
        if verdicts[name]
    ]
    elapsed = stopwatch(board.now() - board.began)
    line.add_row(Text(f"{elapsed}  {stages_said(board)}", "bold"), Text("  ").join(counts))
    return line


def _overall(board: Board) -> RenderableType:
    done = board.stages()["done"]
    style = "red" if _BAD & board.verdicts().keys() else "green"
    return ProgressBar(len(board.rows), done, complete_style=style, finished_style=style)


def _table(rows: Iterable[Row], board: Board) -> RenderableType:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=1)
    table.add_column(width=11, no_wrap=True)
    table.add_column(width=24, no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(justify="right", width=9, no_wrap=True)
    table.add_column(justify="right", width=7, no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, board.now()))
    return table


def _cells(row: Row, now: float) -> tuple[RenderableType, ...]:
    state = _state(row)
    style = _STYLES[state]
    elapsed = row.elapsed(now)
    return (
        Text(_MARKS.get(state, "●" if row.stage in ("running", "fetching") else "-"), style),
        Text(verdict(state), style),
        Text(row.key, "dim" if row.stage in ("queued", "done") else ""),
        _bar(row, style),
        Text(_amount(row)),
        Text("" if elapsed is None else stopwatch(elapsed)),
    )


def _bar(row: Row, style: str) -> RenderableType:
    """How far a row is; nothing where it is not known."""
    done, total = (row.received, row.size) if row.stage == "fetching" else (row.done, row.total)
    if row.stage == "queued" or done is None or not total:
        return ""
    return ProgressBar(total, done, complete_style=style, finished_style=style)


def _amount(row: Row) -> str:
    """How far a row is, in numbers."""
    if row.stage == "fetching":
        if row.received is None:
            return "artifact"
        return size(row.received)
    return "" if row.done is None else f"{row.done}/{row.total}"


def _rest(rows: Iterable[Row], shown: Iterable[Row]) -> str:
    keys = {row.key for row in shown}
    states = Counter(_state(row) for row in rows if row.key not in keys)
    said = ", ".join(f"{number} {verdict(state)}" for state, number in states.most_common())
    return f"and {states.total()} more: {said}"


def _budget_line(budgets: Mapping[str, BudgetState]) -> RenderableType:
    said = "  ".join(_budget(name, budgets[name]) for name in ENDPOINTS if name in budgets)
    return _line(f"left  {said}" if said else "", "dim")


def _budget(name: str, budget: BudgetState) -> str:
    left = "?" if budget.remaining is None else str(budget.remaining)
    turns = "" if not budget.turns_in else f" ({seconds(budget.turns_in)})"
    return f"{ENDPOINTS[name]} {left}/{budget.limit}{turns}"


def _line(text: str, style: str) -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")
