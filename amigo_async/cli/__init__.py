"""The command ``amigo-async``; needs the extra ``cli``, and says so where it is missing."""

from amigo_async.cli.entry import main

__all__ = ["main"]
