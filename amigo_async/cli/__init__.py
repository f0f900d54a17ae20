"""The command ``amigo-async``; needs the extra ``cli``, and says so if it is missing."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["main"]

# The packages of the extra. Only the standard library is imported before `main` runs.
_EXTRA: Final = frozenset({"click", "dotenv", "platformdirs", "rich"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The arguments without the name of the command; None for those of the process.

    Returns:
        The exit code: 0 all passed, 1 a metric failed, 2 usage error, 3 errored or could not
        start (also without the extra ``cli``), 4 timed out, 5 undecided, 130 interrupted.
    """
    handler = signal.getsignal(signal.SIGINT)
    silenced = arguments is None and handler is signal.default_int_handler
    if silenced:
        # Ctrl-C ends the process at once, as it ends other programs, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from amigo_async.cli.app import invoke  # noqa: PLC0415  # needs the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        if sys.stderr is not None:  # None if it was closed
            from amigo_async.errors import missing_extra  # noqa: PLC0415  # only where it is used

            print(f"amigo-async: {missing_extra('the command', 'cli')}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    if silenced:
        signal.signal(signal.SIGINT, handler)
    return invoke(arguments)
