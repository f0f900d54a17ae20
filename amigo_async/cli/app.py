"""The command line with all of its subcommands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from amigo_async.cli.account import auth
from amigo_async.cli.actions import cancel, download
from amigo_async.cli.command import print_error
from amigo_async.cli.compare import compare
from amigo_async.cli.demo import demo, sandbox
from amigo_async.cli.exit_codes import ExitCode
from amigo_async.cli.history import history
from amigo_async.cli.listing import list_runs
from amigo_async.cli.run import run, wait
from amigo_async.cli.saved_result import report
from amigo_async.cli.show import show
from amigo_async.cli.signals import ignore_signals
from amigo_async.cli.streams import drop_stdout, prepare_streams, settle_streams, writing_to_stdout
from amigo_async.version import __version__

_VARIABLE = "_AMIGO_ASYNC_COMPLETE"
_SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command(
    help="""Print the shell script that enables completion.

    For example, add eval "$(amigo-async completion bash)" to ~/.bashrc, the same with zsh to
    ~/.zshrc, or amigo-async completion fish | source to the configuration of fish.
    """,
)
@click.argument("shell", type=click.Choice(tuple(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the shell script that enables completion."""
    click.echo(_SHELLS[shell](ctx.find_root().command, {}, _NAME, _VARIABLE).source())
    return ExitCode.PASSED


_NAME = "amigo-async"


# The help texts are not docstrings, as python -OO removes those.
@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Run Amigo's unit test sets and collect the results.

    Credentials come from the variables AMIGO_API_KEY, AMIGO_API_KEY_ID, AMIGO_USER_ID and
    AMIGO_ORGANIZATION_ID, or from a file that --env-file names. For a region other than the US,
    set AMIGO_BASE_URL; amigo-async auth check finds it. HTTP_PROXY, HTTPS_PROXY and NO_PROXY are
    respected.

    To begin with, amigo-async demo needs no credentials.
    """,
)
@click.version_option(__version__, prog_name=_NAME)
def app() -> None:
    """Run one of the subcommands."""


for _command in (
    run,
    wait,
    report,
    list_runs,
    show,
    cancel,
    download,
    history,
    compare,
    auth,
    sandbox,
    demo,
    completion,
):
    app.add_command(_command)


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see `amigo_async.cli.main`."""
    prepare_streams()
    try:
        code = _invoke(arguments)
    finally:
        settle_streams()
    if code == ExitCode.INTERRUPTED and arguments is None:
        ignore_signals()
    return code


def _invoke(arguments: Sequence[str] | None) -> int:
    given = None if arguments is None else list(arguments)
    streams = sys.stdout, sys.stderr
    try:
        with writing_to_stdout():  # what click itself prints: help, the version, a script
            code = app.main(given, prog_name=_NAME, standalone_mode=False)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        return ExitCode.USAGE_ERROR
    except click.Abort:
        return ExitCode.INTERRUPTED
    except SystemExit:
        if (sys.stdout, sys.stderr) == streams:
            raise
        # Click exits like this on a broken pipe, after replacing the streams by its own.
        sys.stdout, sys.stderr = streams
        drop_stdout()
        return ExitCode.PASSED  # the reader has closed it, and needs no more
    except OSError as error:
        print_error(error)
        return ExitCode.ERRORED
    return int(code or ExitCode.PASSED)
