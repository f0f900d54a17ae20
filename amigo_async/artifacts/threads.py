"""Blocking file work in threads, and what the system says against it in our words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amigo_async.errors import ArtifactError
from amigo_async.threads import in_thread

__all__ = ["explained", "in_thread"]


@contextmanager
def explained(run_id: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` about a file into an `ArtifactError` that says what and where."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else os.fspath(path)
        reason = f"{where}: {error.strerror or error}"
        raise ArtifactError(reason, run_id=run_id) from error
