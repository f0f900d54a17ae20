"""The live display: one line per set, or only the most relevant sets if there are too many."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from amigo_async.cli.plain import count_stages, rate_limit_wait
from amigo_async.cli.progress import BatchProgress, Budgets, SetProgress, View
from amigo_async.cli.reasons import LABELS, endpoint_name, label, size, stopwatch
from amigo_async.escaping import log_line
from amigo_async.events import Event, RequestRetried
from amigo_async.ratelimit import BudgetState
from amigo_async.report.wording import duration

# The part of the terminal to draw on. Some terminals report 65,535 columns and lines, which take
# longer to fill than the time between two updates.
_WIDEST: Final = 300
_TALLEST: Final = 200

_SHOW_CURSOR: Final = b"\x1b[?25h"

# Width in columns from which on ids are shown beside names, and below which only verdicts and names
# are shown.
_WIDE: Final = 110
_NARROW: Final = 60

# Lines other than those of sets: heading, bar, two blank ones, rate limits, two notices, cursor.
_OTHER_LINES: Final = 8

_STYLES: Final = {
    "passed": "green",
    "saved": "green",
    "asked": "green",
    "over": "green",
    "failed": "red",
    "errored": "magenta",
    "undecided": "yellow",
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
    "undecided": "?",
    "running": "●",
    "waiting": "·",
}
_BAD: Final = frozenset({"failed", "errored", "undecided", "timed_out", "cancelled", "not_started"})


class LiveView(View):
    """Redraws a few lines at the end of the terminal.

    Args:
        progress: The progress of the batch.
        budgets: Returns the state of the rate limits.
        console: Where to draw; None for stderr.
    """

    def __init__(
        self, progress: BatchProgress, budgets: Budgets, console: Console | None = None
    ) -> None:
        self._progress = progress
        self._budgets = budgets
        self._notice: str | None = None
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

    def on_event(self, event: Event) -> None:
        """Keep the last retry; everything else is in the progress."""
        if isinstance(event, RequestRetried):
            reason = log_line(event.reason)
            text = f"{endpoint_name(event.endpoint)} failed and is retried: {reason}"
            self._retry = (self._progress.now() + max(event.delay, 3.0), text)

    def notify(self, text: str) -> None:
        """Show a line from now on."""
        self._notice = text
        self.refresh()

    def refresh(self) -> None:
        """Redraw the lines."""
        width, height = min(self.console.width, _WIDEST), min(self.console.height, _TALLEST)
        drawn = frame(self._progress, self._budgets(), self._notices(), height, width)
        self._live.update(Constrain(drawn, _WIDEST), refresh=True)

    def close(self) -> None:
        """Remove the lines and show the cursor again."""
        try:
            self._live.stop()
        finally:
            if not self.console.is_dumb_terminal:
                # Once more, past the stream: where a signal has interrupted the drawing of the
                # lines, the console keeps for later what it is told now.
                with suppress(OSError, ValueError):
                    os.write(self.console.file.fileno(), _SHOW_CURSOR)

    def _notices(self) -> list[str]:
        if self._retry is not None and self._retry[0] < self._progress.now():
            self._retry = None
        shown = [self._notice, None if self._retry is None else self._retry[1]]
        return [text for text in shown if text is not None]


def frame(
    progress: BatchProgress,
    budgets: Mapping[str, BudgetState],
    notices: Sequence[str],
    height: int,
    width: int = 80,
) -> RenderableType:
    """Build what is drawn.

    Args:
        progress: The progress of the batch.
        budgets: The state of the rate limits by endpoint.
        notices: Lines that must be seen.
        height: Height of the terminal in lines.
        width: Its width in columns.
    """
    capacity = max(1, height - _OTHER_LINES)
    rows = list(progress.rows.values())
    shown = rows if len(rows) <= capacity else choose(rows, capacity - 1)
    lines: list[RenderableType] = [
        _heading(progress),
        _overall(progress),
        "",
        _table(shown, progress, width),
    ]
    if len(shown) < len(rows):
        lines.append(_line(_rest(rows, shown), "dim"))
    lines += ["", _budget_line(budgets)]
    waits = [_line(rate_limit_wait(name, b), "yellow") for name, b in budgets.items() if b.waiting]
    texts = [_line(text, "bold") for text in notices]
    return Group(*lines, *(texts + waits)[:2])


def choose(rows: Sequence[SetProgress], capacity: int) -> list[SetProgress]:
    """Choose the rows to show if not all fit, in a stable order, so that they move little."""
    ranked = sorted(rows, key=_rank)[:capacity]
    keys = {row.key for row in ranked}
    return [row for row in rows if row.key in keys]


def _rank(row: SetProgress) -> tuple[int, float]:
    """Rank rows: active ones first, then failures (latest first), waiting ones, passed ones."""
    if row.stage in ("running", "fetching"):
        return 0, row.began or 0.0
    if row.verdict in _BAD:
        return 1, -(row.ended or 0.0)
    return (2, 0.0) if row.stage == "queued" else (3, -(row.ended or 0.0))


def _state(row: SetProgress) -> str:
    """Return the state of a row, one of the keys of `_STYLES`."""
    if row.stage == "done":
        return row.verdict or "passed"
    if row.stage == "fetching":
        return "fetching"
    if row.stage == "queued":
        return "waiting"
    return {"failed": "failing", "errored": "erroring"}.get(row.trouble or "", "running")


def _heading(progress: BatchProgress) -> RenderableType:
    """Build the heading: elapsed time and counts by stage; on the right, verdicts so far."""
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(ratio=1, no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    verdicts = progress.verdicts()
    counts = [
        Text(f"{_MARKS.get(name, '-')} {verdicts[name]}", _STYLES[name])
        for name in LABELS
        if verdicts[name]
    ]
    elapsed = stopwatch(progress.now() - progress.began)
    line.add_row(Text(f"{elapsed}  {count_stages(progress)}", "bold"), Text("  ").join(counts))
    return line


def _overall(progress: BatchProgress) -> RenderableType:
    done = progress.stages()["done"]
    style = "red" if _BAD & progress.verdicts().keys() else "green"
    return ProgressBar(len(progress.rows), done, complete_style=style, finished_style=style)


def _table(rows: Sequence[SetProgress], progress: BatchProgress, width: int) -> RenderableType:
    """Build a line for each row; if the terminal is narrow, only the state and the name."""
    narrow = width < _NARROW
    with_ids = width >= _WIDE and any(row.label != row.key for row in rows)
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=1)
    table.add_column(width=11, no_wrap=True)
    if narrow:
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    else:
        table.add_column(width=32 if with_ids else 24, no_wrap=True, overflow="ellipsis")
        if with_ids:
            table.add_column(width=24, no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(justify="right", width=9, no_wrap=True)
        table.add_column(justify="right", width=7, no_wrap=True)
    for row in rows:
        cells = _cells(row)
        if with_ids:
            cells.append(Text("" if row.label == row.key else row.key, "dim"))
        table.add_row(*cells, *(() if narrow else _measures(row, progress.now())))
    return table


def _cells(row: SetProgress) -> list[RenderableType]:
    state = _state(row)
    style = _STYLES[state]
    return [
        Text(_MARKS.get(state, "●" if row.stage in ("running", "fetching") else "-"), style),
        Text(label(state), style),
        Text(row.label, "dim" if row.stage in ("queued", "done") else ""),
    ]


def _measures(row: SetProgress, now: float) -> tuple[RenderableType, ...]:
    elapsed = row.elapsed(now)
    return (
        _bar(row, _STYLES[_state(row)]),
        Text(_amount(row)),
        Text("" if elapsed is None else stopwatch(elapsed)),
    )


def _bar(row: SetProgress, style: str) -> RenderableType:
    """Build the progress bar of a row; empty while its progress is unknown."""
    done, total = (row.received, row.size) if row.stage == "fetching" else (row.done, row.total)
    if row.stage == "queued" or done is None or not total:
        return ""
    return ProgressBar(total, done, complete_style=style, finished_style=style)


def _amount(row: SetProgress) -> str:
    """Format the progress of a row in numbers."""
    if row.stage == "fetching":
        if row.received is None:
            return "artifact"
        return size(row.received)
    return "" if row.done is None else f"{row.done}/{row.total}"


def _rest(rows: Iterable[SetProgress], shown: Iterable[SetProgress]) -> str:
    keys = {row.key for row in shown}
    states = Counter(_state(row) for row in rows if row.key not in keys)
    counts = ", ".join(f"{number} {label(state)}" for state, number in states.most_common())
    return f"and {states.total()} more: {counts}"


def _budget_line(budgets: Mapping[str, BudgetState]) -> RenderableType:
    # A narrow terminal cuts the end of the line, so what is most used up comes first.
    scarce_first = sorted(budgets.items(), key=lambda one: _share_left(one[1]))
    states = "  ".join(_budget(name, budget) for name, budget in scarce_first)
    return _line(f"requests left  {states}" if states else "", "dim")


def _share_left(budget: BudgetState) -> float:
    return 1.0 if budget.remaining is None else budget.remaining / budget.limit


def _budget(name: str, budget: BudgetState) -> str:
    left = "?" if budget.remaining is None else str(budget.remaining)
    turns = "" if not budget.turns_in else f" ({duration(budget.turns_in)})"
    return f"{endpoint_name(name)} {left}/{budget.limit}{turns}"


def _line(text: str, style: str) -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")
