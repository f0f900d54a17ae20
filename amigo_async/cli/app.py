"""The command with all of its subcommands."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import click

from amigo_async.cli.cancel import cancel
from amigo_async.cli.completion import completion
from amigo_async.cli.demo import demo
from amigo_async.cli.download import download
from amigo_async.cli.listing import list_runs
from amigo_async.cli.run import run
from amigo_async.cli.serving import sandbox
from amigo_async.cli.statuses import Status
from amigo_async.cli.wait import wait
from amigo_async.version import __version__

_NAME = "amigo-async"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=_NAME)
def app() -> None:
    """Run unit test sets of Amigo and collect what comes of them.

    Credentials come from AMIGO_API_KEY, AMIGO_API_KEY_ID, AMIGO_USER_ID and
    AMIGO_ORGANIZATION_ID; AMIGO_BASE_URL names the region where it is not the US.
    """


for _command in (run, wait, list_runs, cancel, download, sandbox, demo, completion):
    app.add_command(_command)


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see `amigo_async.cli.main`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an id is worth more than a tick mark
    given = None if arguments is None else list(arguments)
    try:
        status = app.main(given, prog_name=_NAME, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return Status.MISUSED
    except click.Abort:
        return Status.INTERRUPTED
    return int(status or Status.PASSED)
