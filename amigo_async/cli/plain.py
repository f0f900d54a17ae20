"""Progress in lines, for logs: each thing that happens once, and a sign of life now and then."""

from __future__ import annotations

import sys
from typing import Final

from amigo_async.batch import RunOutcome
from amigo_async.cli.board import Board, Budgets, Row
from amigo_async.cli.reasons import (
    ENDPOINTS,
    clock,
    count,
    reasons,
    seconds,
    size,
    stopwatch,
    verdict,
    verdicts_said,
)
from amigo_async.escaping import log_line
from amigo_async.events import (
    ArtifactSaved,
    Event,
    RequestRetried,
    RunFinished,
    RunLeft,
    RunProgressed,
    RunStarted,
    SecondRunFound,
    SignedIn,
    StartUnresolved,
)
from amigo_async.ratelimit import BudgetState

# Seconds of silence after which a line says how things stand.
_SILENCE: Final = 30.0

# A wait for a limit is told again if its end moved by more than this, in seconds.
_MOVED: Final = 2.0

# Attempts that fail alike within this time, in seconds, are one line.
_ALIKE: Final = 1.0


class PlainView:
    """Writes a line for each thing that happens.

    Args:
        board: What is known.
        budgets: A snapshot of the budgets.
    """

    def __init__(self, board: Board, budgets: Budgets) -> None:
        self._board = board
        self._budgets = budgets
        self._spoke_at = board.now()
        self._in_trouble: set[str] = set()
        self._retried_at: dict[tuple[str, int, str], float] = {}
        self._held_until: dict[str, float] = {}

    def hear(self, event: Event) -> None:
        """Write what happened, if it is worth a line."""
        row = self._board.row_of(event)
        if isinstance(event, RunProgressed) and row is not None:
            self._progressed(row)
        elif isinstance(event, SignedIn):
            self._write(f"signed in; the token is good for {seconds(event.expires_in)}")
        elif isinstance(event, RequestRetried):
            self._retried(event)
        elif row is not None and (said := _said(event, row, self._board.now())):
            self._write(f"{row.key}  {said}")

    def settle(self, key: str, outcome: RunOutcome, said: str | None = None) -> None:
        """Write what became of a set, if it was not good or no event has told it."""
        row = self._board.rows[key]
        if said is not None:
            if said != "saved":
                self._write(f"{row.key}  {verdict(said)}")
        elif outcome.verdict != "passed" or outcome.error is not None:
            why = "; ".join(reasons(outcome, most=1))
            self._write(f"{row.key}  {verdict(outcome.verdict)}: {why}")

    def say(self, text: str) -> None:
        """Write a line that has to be seen."""
        self._write(text)

    def tick(self) -> None:
        """Write what is being waited for, and a sign of life after a while of silence."""
        for endpoint, budget in self._budgets().items():
            self._held(endpoint, budget)
        if self._board.now() - self._spoke_at >= _SILENCE:
            verdicts = verdicts_said(self._board.verdicts())
            self._write(stages_said(self._board) + (f": {verdicts}" if verdicts else ""))

    def close(self) -> None:
        """There is nothing to put back."""

    def _retried(self, event: RequestRetried) -> None:
        """Write of an attempt that failed, once for all that fail alike at about the same time."""
        alike, now = (event.endpoint, event.attempt, event.reason), self._board.now()
        if now - self._retried_at.get(alike, -_ALIKE) < _ALIKE:
            return
        self._retried_at = {alike: now}
        self._write(
            f"{ENDPOINTS[event.endpoint]}: attempt {event.attempt} failed, the next in "
            f"{seconds(event.delay)}: {log_line(event.reason)}"
        )

    def _progressed(self, row: Row) -> None:
        if row.trouble is not None and row.key not in self._in_trouble:
            self._in_trouble.add(row.key)
            seen = "" if row.done is None else f" after {row.done} of {row.total} unit test runs"
            what = "a metric failed" if row.trouble == "failed" else "an error was met"
            self._write(f"{row.key}  {what}{seen}; it goes on")

    def _held(self, endpoint: str, budget: BudgetState) -> None:
        """Write who waits for a limit, once for each time that it opens."""
        if not budget.waiting or budget.opens_in < 1:
            return
        opens_at = self._board.now() + budget.opens_in
        if abs(opens_at - self._held_until.get(endpoint, 0.0)) > _MOVED:
            self._held_until[endpoint] = opens_at
            self._write(held(endpoint, budget))

    def _write(self, text: str) -> None:
        now = self._board.now()
        self._spoke_at = now
        stamp = stopwatch(now - self._board.began)
        print(f"[{stamp:>5}] {text}", file=sys.stderr, flush=True)


def _said(event: Event, row: Row, now: float) -> str | None:
    """What to say of an event of a set; None for those that are not worth a line."""
    said = None
    match event:
        case RunStarted(run_id=run_id, attached=attached):
            said = f"{'attached to' if attached else 'started as'} run {log_line(run_id)}"
        case RunFinished(verdict=word):
            said = f"{verdict(word)} after {seconds(row.elapsed(now) or 0.0)}"
        case ArtifactSaved(path=path, size=length):
            said = f"saved {log_line(path)} ({size(length)})"
        case StartUnresolved(reason=reason):
            said = f"may have been started: {log_line(reason)}"
        case SecondRunFound(run_id=run_id, second_run_id=second):
            said = f"run {log_line(second)} turned up besides {log_line(run_id)}"
        case RunLeft(run_id=run_id):
            said = f"run {log_line(run_id)} may be another's, and is not cancelled"
    return said


def held(endpoint: str, budget: BudgetState) -> str:
    """Who waits for a limit, and until when."""
    return (
        f"{ENDPOINTS[endpoint]}: {count(budget.waiting, 'request')} held back by the limit of "
        f"{budget.limit}; room in {seconds(budget.opens_in)}, at {clock(budget.opens_in)}"
    )


def stages_said(board: Board) -> str:
    """How many sets there are of each stage, e.g. ``3 of 12 done, 5 running, 4 waiting``."""
    stages = board.stages()
    parts = [f"{stages['done']} of {len(board.rows)} done"]
    parts += [f"{stages['fetching']} fetching"] if stages["fetching"] else []
    parts += [f"{stages['running']} running"] if stages["running"] else []
    parts += [f"{stages['queued']} waiting"] if stages["queued"] else []
    return ", ".join(parts)
