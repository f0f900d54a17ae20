"""Annotations and a job summary, where the command runs in a GitHub Actions workflow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from amigo_async.batch import BatchResult
from amigo_async.cli.reasons import reasons
from amigo_async.cli.streams import note
from amigo_async.cli.words import verdict
from amigo_async.errors import ConfigurationError
from amigo_async.escaping import workflow_command
from amigo_async.gate import Gate
from amigo_async.report import markdown
from amigo_async.report.summary import MAX_BYTES

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
        title = f"Unit test set {outcome.unit_test_set_id} {verdict(outcome.verdict)}"
        note(workflow_command(level, reasons(outcome), title=title))
    if len(bad) > _MOST:
        note(workflow_command("warning", [f"{len(bad) - _MOST} more sets did not pass"]))


def summarize(result: BatchResult, gate: Gate | None) -> None:
    """Append a summary to the job's, in GitHub Actions; elsewhere do nothing.

    Args:
        result: What became of the sets.
        gate: What the verdicts were given by; None for the runs' own flags.
    """
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if os.environ.get("GITHUB_ACTIONS") != "true" or not name:
        return
    path = Path(name)
    there = path.stat().st_size if path.exists() else 0
    try:
        text = markdown(result, gate=gate, max_bytes=MAX_BYTES - there)
    except ConfigurationError as error:
        note(workflow_command("notice", [f"No job summary: {error}"]))
        return
    # GitHub drops the whole summary of a step, with what others wrote, where it is too large.
    if there + len(text.encode()) > MAX_BYTES:
        note(workflow_command("notice", ["No job summary: that of this step is full"]))
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
