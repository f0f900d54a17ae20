"""Asyncio SDK for the simulation runs of the Amigo API.

Start with `AmigoClient` and its method `run_many`; `amigo_async.guides` explains how things work.

The public API is what this module exports, `amigo_async.errors`, `amigo_async.events`,
`amigo_async.models`, `amigo_async.otel`, `amigo_async.report`, `amigo_async.testing`, and the
extras `amigo_async.redis` and `amigo_async.dask`. Everything else may change without notice.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amigo_async.exports import *  # noqa: F403
    from amigo_async.exports import __all__ as __all__


def __getattr__(name: str) -> Any:
    """Import everything with the first use of anything.

    Importing the package itself costs nothing: every run of pytest does it for the plugin, and
    the command has to take Ctrl-C while it is loading.
    """
    # The import system and tools ask every module for such names, so nobody uses the package yet.
    if name.startswith("__") and name not in ("__all__", "__version__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    exports = import_module("amigo_async.exports")
    globals().update({exported: getattr(exports, exported) for exported in exports.__all__})
    globals()["__all__"] = exports.__all__
    if name in globals():  # also a submodule that was imported meanwhile
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*globals(), *__getattr__("__all__")])
