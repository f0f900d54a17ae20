"""The entry point of the command ``amigo-async``, which can be interrupted while it is imported.

It is beside the package, as importing anything of the package imports all that its users need,
which takes a moment.
"""

from __future__ import annotations

import signal


def main() -> int:
    """Run the command, and return its exit code; see `amigo_async.cli.main`."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        # Ctrl-C ends the process at once, as it ends other programs, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from amigo_async.cli import main as run  # noqa: PLC0415  # the import that may be interrupted

    signal.signal(signal.SIGINT, handler)
    return run()
