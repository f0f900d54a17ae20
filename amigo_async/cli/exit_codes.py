"""The exit statuses of the command, and which one an ending has.

Where several apply to a batch, the first of failed, errored and timed out counts: what is known
for sure goes before what another try may settle.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from amigo_async.batch import RunOutcome
from amigo_async.errors import ArgumentError, ConfigurationError


class Status(IntEnum):
    """An exit status of the command."""

    PASSED = 0
    FAILED = 1
    MISUSED = 2
    ERRORED = 3
    TIMED_OUT = 4
    INTERRUPTED = 130


_WORST_FIRST = (Status.FAILED, Status.ERRORED, Status.TIMED_OUT, Status.PASSED)


def status_of_batch(outcomes: Iterable[RunOutcome], *, artifacts: bool = False) -> Status:
    """The exit status of a batch.

    Args:
        outcomes: What became of its sets.
        artifacts: Whether artifacts were asked for.
    """
    found = {status_of_outcome(outcome, artifacts=artifacts) for outcome in outcomes}
    return next((status for status in _WORST_FIRST if status in found), Status.PASSED)


def status_of_outcome(outcome: RunOutcome, *, artifacts: bool = False) -> Status:
    """The exit status of a batch of this set alone."""
    if outcome.verdict == "failed":
        return Status.FAILED
    if outcome.verdict == "timed_out":
        return Status.TIMED_OUT
    if outcome.error is not None:
        return status_of_error(outcome.error)
    if outcome.verdict == "not_started":
        return Status.TIMED_OUT  # nothing went wrong, so there was no time left
    if outcome.verdict != "passed":
        return Status.ERRORED
    # Passed; where the deadline cut off the download, the artifacts are missing without an error.
    return Status.TIMED_OUT if artifacts and outcome.artifacts is None else Status.PASSED


def status_of_error(error: Exception) -> Status:
    """The exit status for an error."""
    if isinstance(error, TimeoutError):
        return Status.TIMED_OUT
    if isinstance(error, ArgumentError | ConfigurationError):
        return Status.MISUSED
    return Status.ERRORED
