"""Write the reports of a batch: files, annotations and the job summary of GitHub Actions."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, TypeAlias, TypeVar

import click

from amigo_async import report
from amigo_async.batch import BatchResult
from amigo_async.batch.outcomes import is_fine
from amigo_async.cli.command import Outputs
from amigo_async.cli.reasons import label, named, reasons, set_name
from amigo_async.cli.streams import note, stdout_is_closed, write, writing_to_stdout
from amigo_async.errors import ConfigurationError
from amigo_async.escaping import workflow_command
from amigo_async.report import markdown
from amigo_async.report.compared import compared_batch
from amigo_async.report.json import json_pieces
from amigo_async.report.links import Links
from amigo_async.report.markdown import MAX_BYTES
from amigo_async.report.model import FailOn, without_metrics
from amigo_async.verdicts.gate import Gate, shortened

# A text, perhaps in pieces: some are so large that a copy takes much memory.
Text: TypeAlias = str | list[str]

F = TypeVar("F", bound=Callable[..., Any])

_KINDS = (
    ("json", "Write the result as JSON to this file, - for stdout."),
    ("junit", "Write a JUnit XML report to this file, - for stdout."),
    ("markdown", "Write a Markdown summary to this file, - for stdout."),
    ("html", "Write an HTML page to this file, - for stdout."),
)


class Reports(NamedTuple):
    """The files to write, None for reports that are not wanted.

    Attributes:
        link: Template of links; None for none.
        title: Title of the Markdown summary and the page; None for the usual one.
        markdown_bytes: Maximum size of the Markdown summary.
        fail_on: What their verdict is about.
    """

    json: str | None = None
    junit: str | None = None
    markdown: str | None = None
    html: str | None = None
    link: str | None = None
    title: str | None = None
    markdown_bytes: int = MAX_BYTES
    fail_on: FailOn = "failure"

    @property
    def on_stdout(self) -> bool:
        """Whether a report goes to stdout, so that nothing else may be printed there."""
        return any(path == "-" for _, path in self._wanted())

    def check(self, journal: str | None = None) -> None:
        """Check that the reports can be written, before the batch is run.

        Missing folders are created; existing files stay as they are.

        Args:
            journal: Path of the journal, which must be another file; None for none.

        Raises:
            click.ClickException: If a file cannot be written, or is named twice.
            ArgumentError: If the template of links is not a URL with ids to fill in.
            ConfigurationError: If a package is missing.
        """
        Links(self.link)
        check_outputs(self._wanted(), journal)
        for kind, path in self._wanted():
            # Rendered once now, so that a missing package is reported before the batch is run.
            self._render(kind, BatchResult([]), None, Path(path).parent)

    def show(
        self,
        what: str,
        write: Callable[[IO[str]], object],
        outputs: Outputs,
        *,
        extra: bool = False,
    ) -> None:
        """Write what is for people to stdout, or to stderr if a report goes to stdout.

        Args:
            what: What it is.
            write: Writes it to a stream.
            outputs: Keeps an error.
            extra: Whether the exit code says what matters of it; see `Outputs.to`.
        """
        if self.on_stdout:
            with suppress(OSError):
                write(sys.stderr)
        else:
            with outputs.to(f"{what} on stdout", extra=extra), writing_to_stdout():
                write(sys.stdout)

    def write(self, result: BatchResult, gate: Gate | None, outputs: Outputs) -> None:
        """Write all reports.

        Args:
            result: The result of the batch.
            gate: The gate that gave the verdicts; None for the runs' own flags.
            outputs: Keeps the errors.
        """
        for kind, path in self._wanted():
            render = partial(self._render, kind, result, gate, Path(path).parent)
            write_output(kind, path, render, outputs)

    def _wanted(self) -> list[tuple[str, str]]:
        paths = {kind: getattr(self, kind) for kind, _ in _KINDS}
        return [(kind, path) for kind, path in paths.items() if path is not None]

    def _render(self, kind: str, result: BatchResult, gate: Gate | None, folder: Path) -> Text:
        if kind == "json":
            return list(json_pieces(result))
        if kind == "junit":
            return report.junit(result, gate=gate, link=self.link, fail_on=self.fail_on)
        if kind == "markdown":
            return report.markdown(
                result,
                gate=gate,
                link=self.link,
                title=self.title,
                max_bytes=self.markdown_bytes,
                fail_on=self.fail_on,
            )
        return report.html(
            result,
            gate=gate,
            link=self.link,
            title=self.title,
            folder=folder,
            fail_on=self.fail_on,
        )


def check_outputs(wanted: Sequence[tuple[str, str]], journal: str | None = None) -> None:
    """Check that outputs can be written.

    Args:
        wanted: The kind and the path of each, ``-`` for stdout.
        journal: Path of the journal, which must be another file; None for none.

    Raises:
        click.ClickException: If a file cannot be written, or is named twice.
    """
    if [path for _, path in wanted].count("-") > 1:
        raise click.UsageError("Only one report can go to stdout.")
    taken = set() if journal is None else {os.path.realpath(journal)}
    for kind, path in wanted:
        if path == "-":
            if stdout_is_closed():
                raise click.UsageError(f"stdout is closed; name a file for --{kind}.")
            continue
        _check_file(path)
        target = os.path.realpath(path)
        if target in taken and not Path(path).is_char_device():
            raise click.UsageError(f"{path} is named twice; give each output a file of its own.")
        taken.add(target)


def write_output(kind: str, path: str, render: Callable[[], Text], outputs: Outputs) -> None:
    """Write an output to its file, or to stdout.

    Args:
        kind: Its kind, which is the name of its option.
        path: Its path, ``-`` for stdout.
        render: Returns its text.
        outputs: Keeps an error.
    """
    with outputs.to(f"the report on stdout (--{kind})" if path == "-" else path):
        text = render()  # all of it, before the file is touched
        # Always UTF-8: XML and HTML declare it, and JSON allows nothing else.
        pieces = [text.rstrip("\n")] if isinstance(text, str) else text
        encoded = (piece.encode(errors="replace") for piece in (*pieces, "\n"))
        if path == "-":
            write(encoded)
        else:
            with Path(path).open("wb") as file:
                file.writelines(encoded)


def _check_file(path: str) -> None:
    """Check that a file can be written, by opening it.

    The permissions of its folder prove little: a file mounted into a container may be writable
    in a read-only folder, and the other way round.

    Raises:
        click.ClickException: If it cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            target = Path(os.path.realpath(path))  # the target of a symlink may not exist yet
            target.open("xb").close()
            target.unlink()
            return
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            return  # opening and closing a pipe would be its end for the reader
        Path(path).open("ab").close()
    except OSError as error:
        reason = error.strerror or error
        raise click.ClickException(f"{path} cannot be written: {reason}") from error


def report_options(function: F) -> F:
    """Add the options --json, --junit, --markdown, --html, --title and --link."""
    function = click.option(
        "--link",
        metavar="URL",
        help="Make names in reports links: a URL with {run_id}, {set_id} or {unit_test_id}.",
    )(function)
    function = click.option(
        "--title", metavar="TEXT", help="Title of the Markdown summary and the HTML page."
    )(function)
    function = click.option(
        "--markdown-bytes",
        type=click.IntRange(1),
        metavar="N",
        default=MAX_BYTES,
        help="The largest Markdown summary, e.g. 65000 for a comment on GitHub.",
    )(function)
    for kind, text in reversed(_KINDS):
        function = click.option(f"--{kind}", metavar="FILE|-", help=text)(function)
    return function


# GitHub shows at most ten annotations per step, and silently drops the rest.
_MOST: Final = 10

_LEVELS: Final = dict.fromkeys(("undecided", "timed_out", "cancelled", "not_started"), "warning")


def annotate(result: BatchResult, fail_on: FailOn = "failure", gate: Gate | None = None) -> None:
    """Print an annotation for each set that regressed or did not pass, in GitHub Actions only.

    Those that decided come first.

    Args:
        result: The result.
        fail_on: What a failure is; where a regression is, a metric that failed is a warning.
        gate: The gate that gave the verdicts; None for the runs' own flags.
    """
    left = _MOST - annotate_regressions(result)
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    counted = without_metrics(result) if fail_on == "regression" else result
    bad = [
        ("warning" if is_fine(as_counted) else _LEVELS.get(as_counted.verdict, "error"), outcome)
        for outcome, as_counted in zip(result.outcomes, counted.outcomes, strict=True)
        if not is_fine(outcome)
    ]
    bad.sort(key=lambda one: one[0] != "error")
    for level, outcome in bad[:left]:
        lines = reasons(outcome, result.names, result.explanations, gate=gate)
        title = f"Unit test set {set_name(outcome)} {label(outcome.verdict)}"
        if outcome.name:
            ids = [f"set {outcome.unit_test_set_id}", f"run {outcome.run_id or '-'}"]
            lines.append(", ".join(ids))
        note(workflow_command(level, lines, title=title))
    if len(bad) > left:
        note(workflow_command("warning", [f"{len(bad) - left} more sets did not pass"]))


def annotate_regressions(result: BatchResult) -> int:
    """Print an annotation for each set that regressed, in GitHub Actions only; return how many."""
    compared = compared_batch(result)
    if compared is None or os.environ.get("GITHUB_ACTIONS") != "true":
        return 0
    regressed = [one for one in compared.sets if one.status == "regressed"][: _MOST - 1]
    for one in regressed:
        lines = shortened(one.words.lines, _MOST)
        note(workflow_command("error", lines, title=f"Unit test set {named(one.label)} regressed"))
    return len(regressed)


def summarize(result: BatchResult, gate: Gate | None, reports: Reports) -> None:
    """Append a summary to the job summary, in GitHub Actions only.

    Args:
        result: The result of the batch.
        gate: The gate that gave the verdicts; None for the runs' own flags.
        reports: The title, the template of links, and what the verdict is about.
    """
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if os.environ.get("GITHUB_ACTIONS") != "true" or not name:
        return
    path = Path(name)
    size = path.stat().st_size if path.exists() else 0
    try:
        text = markdown(
            result,
            gate=gate,
            link=reports.link,
            title=reports.title,
            max_bytes=MAX_BYTES - size,
            fail_on=reports.fail_on,
        )
    except ConfigurationError as error:
        note(workflow_command("notice", [f"No job summary: {error}"]))
        return
    # GitHub drops the whole summary of a step, including what others wrote, if it is too large.
    if size + len(text.encode()) > MAX_BYTES:
        note(workflow_command("notice", ["No job summary: the summary of this step is full"]))
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
