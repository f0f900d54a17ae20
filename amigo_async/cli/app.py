"""The command with all of its subcommands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from amigo_async.cli.actions import cancel, download
from amigo_async.cli.carrying import tell
from amigo_async.cli.demo import demo, sandbox
from amigo_async.cli.exit_codes import Status
from amigo_async.cli.listing import list_runs
from amigo_async.cli.run import run, wait
from amigo_async.cli.signals import ignore_signals
from amigo_async.cli.streams import drop_stdout, prepare_streams, settle_streams, writing_to_stdout
from amigo_async.version import __version__

_VARIABLE = "_AMIGO_ASYNC_COMPLETE"
_KINDS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command(
    help="""Write the script that makes a shell complete this command's arguments.

    For instance: eval "$(amigo-async completion bash)" in ~/.bashrc, the same with zsh in
    ~/.zshrc, or amigo-async completion fish | source in fish's configuration.
    """,
)
@click.argument("shell", type=click.Choice(tuple(_KINDS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Write the script that makes a shell complete this command's arguments."""
    click.echo(_KINDS[shell](ctx.find_root().command, {}, _NAME, _VARIABLE).source())
    return Status.PASSED


_NAME = "amigo-async"


# The help of the commands is not in docstrings, which python -OO takes away.
@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Run unit test sets of Amigo and collect what comes of them.

    Credentials come from AMIGO_API_KEY, AMIGO_API_KEY_ID, AMIGO_USER_ID and
    AMIGO_ORGANIZATION_ID; AMIGO_BASE_URL names the region where it is not the US. HTTP_PROXY,
    HTTPS_PROXY and NO_PROXY are obeyed.
    """,
)
@click.version_option(__version__, prog_name=_NAME)
def app() -> None:
    """Run one of the subcommands."""


for _command in (run, wait, list_runs, cancel, download, sandbox, demo, completion):
    app.add_command(_command)


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see `amigo_async.cli.main`."""
    prepare_streams()
    try:
        status = _invoke(arguments)
    finally:
        settle_streams()
    if status == Status.INTERRUPTED and arguments is None:
        ignore_signals()
    return status


def _invoke(arguments: Sequence[str] | None) -> int:
    given = None if arguments is None else list(arguments)
    streams = sys.stdout, sys.stderr
    try:
        with writing_to_stdout():  # what click itself writes: help, the version, a script
            status = app.main(given, prog_name=_NAME, standalone_mode=False)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        return Status.MISUSED
    except click.Abort:
        return Status.INTERRUPTED
    except SystemExit:
        if (sys.stdout, sys.stderr) == streams:
            raise
        # This is what click makes of a broken pipe, having put streams of its own in their place.
        sys.stdout, sys.stderr = streams
        drop_stdout()
        return Status.PASSED  # the reader has left, and needs no more
    except OSError as error:
        tell(error)
        return Status.ERRORED
    return int(status or Status.PASSED)
