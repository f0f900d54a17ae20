"""Write what came of a batch to the files that were asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from amigo_async import report
from amigo_async.batch import BatchResult
from amigo_async.cli.carrying import write
from amigo_async.gate import Gate

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

    def check(self) -> None:
        """See that they can be written, before a batch is run for them.

        Raises:
            click.ClickException: If not.
            ConfigurationError: If a package is missing.
        """
        if self.count("-") > 1:
            raise click.UsageError("Only one report can go to stdout.")
        for kind, path in self._asked_for():
            folder = Path(path).parent
            if Path(path).is_dir() or not os.access(folder, os.W_OK | os.X_OK):
                raise click.ClickException(f"{path} cannot be written; name a file in a folder")
            _render(kind, BatchResult([]), None, folder)  # what is missing is missing now

    def write(self, result: BatchResult, gate: Gate | None) -> None:
        """Write them all.

        Args:
            result: What became of the sets.
            gate: What the verdicts were given by; None for the runs' own flags.

        Raises:
            OSError: If one cannot be written.
        """
        for kind, path in self._asked_for():
            text = _render(kind, result, gate, Path(path).parent).rstrip("\n")
            if path == "-":
                write(text)
            else:
                Path(path).write_text(f"{text}\n", encoding="utf-8")

    def _asked_for(self) -> list[tuple[str, str]]:
        return [(kind, path) for kind, path in self._asdict().items() if path is not None]


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
