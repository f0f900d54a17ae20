"""The command ``amigo-async``; needs the extra ``cli``, and says so where it is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["main"]

# The packages of the extra. Nothing beyond the standard library is imported before `main` runs.
_EXTRA: Final = frozenset({"click", "rich"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: What follows its name; None for what it was started with.

    Returns:
        Its exit status: 0 all passed, 1 a metric failed, 2 used wrongly, 3 errored or could not
        start (as without the extra ``cli``), 4 timed out, 130 interrupted.
    """
    try:
        from amigo_async.cli.app import invoke  # noqa: PLC0415  # needs the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        if sys.stderr is not None:  # closed
            print(
                'amigo-async: the command needs its extra: pip install "amigo-async[cli]"',
                file=sys.stderr,
            )
        return 3
    return invoke(arguments)
