"""The exit codes of the command.

If several apply to a batch, the first of failed, errored, timed out and undecided wins: a certain
result counts more than one that another attempt may change.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from amigo_async.batch import BatchResult, RunOutcome
from amigo_async.errors import ArgumentError, ConfigurationError
from amigo_async.report.json import type_of
from amigo_async.report.model import FailOn, without_metrics


class ExitCode(IntEnum):
    """An exit code of the command."""

    PASSED = 0
    FAILED = 1
    USAGE_ERROR = 2
    ERRORED = 3
    TIMED_OUT = 4
    UNDECIDED = 5
    INTERRUPTED = 130


_WORST_FIRST = (ExitCode.FAILED, ExitCode.ERRORED, ExitCode.TIMED_OUT, ExitCode.UNDECIDED)


def exit_code_of_result(
    result: BatchResult, *, artifacts: bool = False, fail_on: FailOn = "failure"
) -> ExitCode:
    """Return the exit code for the result of a batch, as `exit_code_of_batch` does.

    Args:
        result: The result.
        artifacts: Whether artifacts were to be downloaded.
        fail_on: What `ExitCode.FAILED` is for. A comparison that leaves open whether anything
            regressed is none.
    """
    if fail_on == "failure":
        return exit_code_of_batch(result.outcomes, artifacts=artifacts)
    if result.comparison is not None and result.comparison.verdict == "regressed":
        return ExitCode.FAILED
    return exit_code_of_batch(without_metrics(result).outcomes, artifacts=artifacts)


def exit_code_of_batch(outcomes: Iterable[RunOutcome], *, artifacts: bool = False) -> ExitCode:
    """Return the exit code for a batch.

    Args:
        outcomes: The outcomes of its sets.
        artifacts: Whether artifacts were to be downloaded.
    """
    found = {_exit_code_of_outcome(outcome, artifacts=artifacts) for outcome in outcomes}
    return next((code for code in _WORST_FIRST if code in found), ExitCode.PASSED)


def _exit_code_of_outcome(outcome: RunOutcome, *, artifacts: bool) -> ExitCode:
    if outcome.verdict == "failed":
        return ExitCode.FAILED
    if outcome.verdict == "timed_out":
        return ExitCode.TIMED_OUT
    if outcome.error is not None:
        timed_out = exit_code_of_error(outcome.error) is ExitCode.TIMED_OUT
        return ExitCode.TIMED_OUT if timed_out else ExitCode.ERRORED
    if outcome.verdict == "not_started":
        return ExitCode.TIMED_OUT  # without an error, the deadline must have passed
    code = {"passed": ExitCode.PASSED, "undecided": ExitCode.UNDECIDED}.get(outcome.verdict)
    if code is None:
        return ExitCode.ERRORED
    # If the deadline cut off the download, artifacts are missing without an error.
    return ExitCode.TIMED_OUT if artifacts and outcome.artifacts is None else code


def exit_code_of_error(error: Exception) -> ExitCode:
    """Return the exit code for an error."""
    kind = type_of(error)
    if issubclass(kind, TimeoutError):
        return ExitCode.TIMED_OUT
    if issubclass(kind, ArgumentError | ConfigurationError):
        return ExitCode.USAGE_ERROR
    return ExitCode.ERRORED
