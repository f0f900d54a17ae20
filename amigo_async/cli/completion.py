"""``amigo-async completion``: completion of its arguments in a shell."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from amigo_async.cli.statuses import Status

_NAME = "amigo-async"
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
