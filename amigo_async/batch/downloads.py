"""The artifacts of a batch: a few at a time, with patience for what passes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import anyio
import backoff

from amigo_async.artifacts import Artifacts, SavedFile, save
from amigo_async.errors import AmigoError, is_transient
from amigo_async.polling import PATIENCE

# Downloads side by side: more would only share the same line.
_SIDE_BY_SIDE: Final = 8

# The longest pause before a download that failed in passing is begun again, in seconds.
_PAUSE: Final = 10.0


class Downloads:
    """Fetches the artifacts of a batch.

    Args:
        artifacts: Fetches one.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._slots = anyio.Semaphore(_SIDE_BY_SIDE)
        self._failing_since = math.inf  # all of them, without a single success

    async def fetch(self, run_id: str, folder: Path, before: SavedFile | None = None) -> SavedFile:
        """Have an artifact; what may pass is borne as long as a poll would bear it.

        Where nothing at all can be had, that time is the batch's, not that of each artifact.

        Args:
            run_id: The run.
            folder: The folder of its own.
            before: What the journal says was saved; see `save`.

        Raises:
            AmigoError: What does not pass, or has not passed in time.
        """
        until = math.inf
        while True:
            try:
                async with self._slots:
                    saved = await save(self._artifacts.source(run_id), folder, before)
            except AmigoError as error:
                now = anyio.current_time()
                self._failing_since = min(self._failing_since, now)
                until = min(until, now + PATIENCE)
                if not is_transient(error) or now >= min(until, self._failing_since + PATIENCE):
                    raise
            else:
                self._failing_since = math.inf
                return saved
            await anyio.sleep(backoff.full_jitter(_PAUSE))
