"""Write what came of a batch to the files that were asked for."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click

from amigo_async import report
from amigo_async.batch import BatchResult
from amigo_async.cli.carrying import Outputs
from amigo_async.cli.reasons import reasons, verdict
from amigo_async.cli.streams import note, stdout_is_closed, write
from amigo_async.errors import ConfigurationError
from amigo_async.escaping import workflow_command
from amigo_async.report import markdown
from amigo_async.report.markdown import MAX_BYTES
from amigo_async.verdicts.gate import Gate

F = TypeVar("F", bound=Callable[..., Any])

_KINDS = (
    ("json", "Write the result as JSON to this file, - for stdout."),
    ("junit", "Write a JUnit XML report to this file, - for stdout."),
    ("markdown", "Write a Markdown summary to this file, - for stdout."),
    ("html", "Write a page for people to this file, - for stdout."),
)


class Reports(NamedTuple):
    """The files to write; None for those not asked for."""

    json: str | None = None
    junit: str | None = None
    markdown: str | None = None
    html: str | None = None

    @property
    def on_stdout(self) -> bool:
        """Whether one of them goes to stdout, so that nothing else may."""
        return "-" in self

    def check(self, journal: str | None = None) -> None:
        """See that they can be written, before a batch is run for them.

        Folders that are missing are made; a file that is there stays as it is.

        Args:
            journal: Another file that the command writes; None for none.

        Raises:
            click.ClickException: If one cannot be written, or would overwrite another.
            ConfigurationError: If a package is missing.
        """
        if self.count("-") > 1:
            raise click.UsageError("Only one report can go to stdout.")
        taken = set() if journal is None else {os.path.realpath(journal)}
        for kind, path in self._asked_for():
            if path == "-":
                if stdout_is_closed():
                    raise click.UsageError(f"stdout is closed; name a file for --{kind}.")
            else:
                _check_file(path)
                place = os.path.realpath(path)
                if place in taken and not Path(path).is_char_device():
                    raise click.UsageError(f"{path} is named twice; give each a file of its own.")
                taken.add(place)
            _render(kind, BatchResult([]), None, Path(path).parent)  # what is missing is so now

    def write(self, result: BatchResult, gate: Gate | None, outputs: Outputs) -> None:
        """Write them all.

        Args:
            result: What became of the sets.
            gate: What the verdicts were given by; None for the runs' own flags.
            outputs: Keeps what cannot be written.
        """
        for kind, path in self._asked_for():
            with outputs.to(f"the report on stdout (--{kind})" if path == "-" else path):
                text = _render(kind, result, gate, Path(path).parent).rstrip("\n")
                # UTF-8 wherever it goes: XML and HTML declare it, and JSON has no other.
                content = text.encode(errors="replace")
                if path == "-":
                    write(content)
                else:
                    Path(path).write_bytes(content + b"\n")

    def _asked_for(self) -> list[tuple[str, str]]:
        return [(kind, path) for kind, path in self._asdict().items() if path is not None]


def _check_file(path: str) -> None:
    """Ask the file itself whether it can be written: its folder tells little.

    A file that can be written may be in a folder that cannot, as one that is mounted into a
    container, and the other way round.

    Raises:
        click.ClickException: If it cannot.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            target = Path(os.path.realpath(path))  # of a link, which may lead to no file yet
            target.open("xb").close()
            target.unlink()
            return
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            return  # whoever reads a pipe would take the end of this for its end
        Path(path).open("ab").close()
    except OSError as error:
        reason = error.strerror or error
        raise click.ClickException(f"{path} cannot be written: {reason}") from error


def _render(kind: str, result: BatchResult, gate: Gate | None, folder: Path) -> str:
    if kind == "json":
        return report.to_json(result)
    if kind == "junit":
        return report.junit(result, gate=gate)
    if kind == "markdown":
        return report.markdown(result, gate=gate)
    return report.html(result, gate=gate, folder=folder)


def report_options(function: F) -> F:
    """--json, --junit, --markdown and --html."""
    for kind, text in reversed(_KINDS):
        function = click.option(f"--{kind}", metavar="FILE|-", help=text)(function)
    return function


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
