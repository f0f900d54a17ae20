"""Progress as lines of text, for logs: one line per event, and a status line now and then."""

from __future__ import annotations

import sys
from typing import Final

from msgspec.structs import replace

from amigo_async.batch import RunOutcome
from amigo_async.batch.outcomes import is_fine
from amigo_async.cli.progress import BatchProgress, Budgets, SetProgress, View
from amigo_async.cli.reasons import (
    clock,
    count_verdicts,
    endpoint_name,
    label,
    reasons,
    retry_in_words,
    size,
    stopwatch,
)
from amigo_async.escaping import log_line
from amigo_async.events import (
    ArtifactSaved,
    BaselineMissing,
    Event,
    RequestRetried,
    RunCompared,
    RunFinished,
    RunLeft,
    RunProgressed,
    RunStarted,
    SecondRunFound,
    SignedIn,
    StartUnresolved,
)
from amigo_async.ratelimit import BudgetState
from amigo_async.report.wording import duration, plural

# Seconds without a line after which a status line is written.
_SILENCE: Final = 30.0

# A wait for a rate limit is written again if its end has moved by more than this many seconds.
_MOVED: Final = 2.0

# Attempts that fail in the same way within this many seconds are written as one line.
_ALIKE: Final = 1.0


class PlainView(View):
    """Writes a line for each event.

    Args:
        progress: The progress of the batch.
        budgets: Returns the state of the rate limits.
    """

    def __init__(self, progress: BatchProgress, budgets: Budgets) -> None:
        self._progress = progress
        self._budgets = budgets
        self._spoke_at = progress.now()
        self._in_trouble: set[str] = set()
        self._retried_at: dict[tuple[str, int, str], float] = {}
        self._waits_until: dict[str, float] = {}

    def on_event(self, event: Event) -> None:
        """Write a line about the event, if it is worth one."""
        row = self._progress.row_of(event)
        if isinstance(event, RunProgressed) and row is not None:
            self._write_trouble(row)
        elif isinstance(event, SignedIn):
            self._write(f"signed in; the token expires in {duration(event.expires_in)}")
        elif isinstance(event, RequestRetried):
            self._write_retry(event)
        elif isinstance(event, BaselineMissing):
            sets = plural(len(event.unit_test_set_ids), "set")
            self._write(f"{sets} not compared: {log_line(event.reason)}")
        elif isinstance(event, RunCompared) and row is not None:
            self._write_compared(event, row)
        elif row is not None and (text := _text(event, row, self._progress.now())):
            self._write(f"{row.title}  {text}")

    def finish(self, key: str, outcome: RunOutcome, result: str | None = None) -> None:
        """Write the outcome of a set, unless it passed or an event has said so."""
        row, names, gate = self._progress.rows[key], self._progress.names, self._progress.gate
        if result is not None:
            if result != "saved":
                self._write(f"{row.title}  {label(result)}")
        elif not is_fine(outcome):
            unnamed = replace(outcome, name=None)  # the line begins with the name
            why = "; ".join(reasons(unnamed, replace(names, unit_test_sets={}), gate=gate, most=1))
            self._write(f"{row.title}  {label(outcome.verdict)}: {why}")

    def notify(self, text: str) -> None:
        """Write a line that must be seen."""
        self._write(text)

    def refresh(self) -> None:
        """Write which rate limits are waited for, and a status line after a while of silence."""
        for endpoint, budget in self._budgets().items():
            self._write_wait(endpoint, budget)
        if self._progress.now() - self._spoke_at >= _SILENCE:
            verdicts = count_verdicts(self._progress.verdicts())
            self._write(count_stages(self._progress) + (f": {verdicts}" if verdicts else ""))

    def _write_retry(self, event: RequestRetried) -> None:
        """Write that an attempt failed; once for all that fail in the same way at the same time."""
        alike, now = (event.endpoint, event.attempt, event.reason), self._progress.now()
        if now - self._retried_at.get(alike, -_ALIKE) < _ALIKE:
            return
        self._retried_at = {alike: now}
        self._write(retry_in_words(event))

    def _write_compared(self, event: RunCompared, row: SetProgress) -> None:
        if event.verdict in ("regressed", "improved"):
            # Among many sets it may be chance, which shows once all have ended.
            alone = ", taken by itself" if len(self._progress.rows) > 1 else ""
            self._write(f"{row.title}  {event.verdict} against its baseline{alone}")

    def _write_trouble(self, row: SetProgress) -> None:
        if row.trouble is not None and row.key not in self._in_trouble:
            self._in_trouble.add(row.key)
            seen = "" if row.done is None else f" after {row.done} of {row.total} unit test runs"
            what = "a metric failed" if row.trouble == "failed" else "an error occurred"
            self._write(f"{row.title}  {what}{seen}; the run continues")

    def _write_wait(self, endpoint: str, budget: BudgetState) -> None:
        """Write that requests wait for a rate limit, once per time at which it reopens."""
        if not budget.waiting or budget.opens_in < 1:
            return
        opens_at = self._progress.now() + budget.opens_in
        if abs(opens_at - self._waits_until.get(endpoint, 0.0)) > _MOVED:
            self._waits_until[endpoint] = opens_at
            self._write(rate_limit_wait(endpoint, budget))

    def _write(self, text: str) -> None:
        now = self._progress.now()
        self._spoke_at = now
        stamp = stopwatch(now - self._progress.began)
        print(f"[{stamp:>5}] {text}", file=sys.stderr, flush=True)


def _text(event: Event, row: SetProgress, now: float) -> str | None:
    """Describe an event of a set; None if it is not worth a line."""
    text = None
    match event:
        case RunStarted(run_id=run_id, attached=attached):
            text = f"{'attached to' if attached else 'started as'} run {log_line(run_id)}"
        case RunFinished(verdict=verdict):
            took = row.elapsed(now)  # unknown of a run that a journal has from earlier
            text = label(verdict) + ("" if took is None else f" after {duration(took)}")
        case ArtifactSaved(path=path, size=length, existed=existed):
            done = "is there already:" if existed else "saved"
            text = f"{done} {log_line(path)} ({size(length)})"
        case StartUnresolved(reason=reason):
            text = f"may have been started: {log_line(reason)}"
        case SecondRunFound(run_id=run_id, second_run_id=second):
            text = f"run {log_line(second)} was found in addition to {log_line(run_id)}"
        case RunLeft(run_id=run_id):
            text = f"run {log_line(run_id)} may be someone else's, and is not cancelled"
    return text


def rate_limit_wait(endpoint: str, budget: BudgetState) -> str:
    """Describe which requests wait for a rate limit, why although some are left, until when."""
    who = f"{endpoint_name(endpoint)}: {plural(budget.waiting, 'request')} waiting"
    if budget.remaining and not budget.opens_in:
        return f"{who}; most of the {budget.remaining} left are kept for other processes"
    until = f"until {clock(budget.opens_in)} (in {duration(budget.opens_in)})"
    if budget.remaining:
        return f"{who} {until}: the service refused one, although it had {budget.remaining} left"
    return f"{who} for the rate limit of {budget.limit}, {until}"


def count_stages(progress: BatchProgress) -> str:
    """Format counts by stage, e.g. ``3 of 12 done, 5 running, 4 waiting``."""
    stages = progress.stages()
    parts = [f"{stages['done']} of {len(progress.rows)} done"]
    parts += [f"{stages['fetching']} fetching"] if stages["fetching"] else []
    parts += [f"{stages['running']} running"] if stages["running"] else []
    parts += [f"{stages['queued']} waiting"] if stages["queued"] else []
    return ", ".join(parts)
