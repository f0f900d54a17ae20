"""Annotations and a job summary, where the command runs in a GitHub Actions workflow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from amigo_async.batch import BatchResult
from amigo_async.cli.carrying import note
from amigo_async.cli.reasons import reasons
from amigo_async.cli.words import plain, verdict
from amigo_async.errors import ConfigurationError
from amigo_async.gate import Gate
from amigo_async.report import markdown

# GitHub shows ten annotations of a step; the rest would be lost without a word.
_MOST: Final = 10

_LEVELS: Final = {"timed_out": "warning", "cancelled": "warning", "not_started": "warning"}


def annotate(result: BatchResult) -> None:
    """Tell GitHub Actions of each set that did not pass; elsewhere do nothing."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    bad = [o for o in result.outcomes if o.verdict != "passed" or o.error is not None]
    for outcome in bad[:_MOST]:
        level = _LEVELS.get(outcome.verdict, "error")
        title = _property(f"Unit test set {outcome.unit_test_set_id} {verdict(outcome.verdict)}")
        note(f"::{level} title={title}::{_data(chr(10).join(reasons(outcome)))}")
    if len(bad) > _MOST:
        note(f"::warning::{len(bad) - _MOST} more sets did not pass")


def summarize(result: BatchResult, gate: Gate | None) -> None:
    """Append a summary to the job's, in GitHub Actions; elsewhere do nothing.

    Args:
        result: What became of the sets.
        gate: What the verdicts were given by; None for the runs' own flags.
    """
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if os.environ.get("GITHUB_ACTIONS") != "true" or not path:
        return
    try:
        text = markdown(result, gate=gate)
    except ConfigurationError as error:
        note(f"::notice::No job summary: {_data(plain(str(error)))}")
        return
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(text)


def _data(text: str) -> str:
    """Text as a workflow command takes it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
