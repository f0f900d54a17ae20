"""Download the artifacts of a batch, a few at a time, and retry what passes by itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import anyio
import backoff

from amigo_async.artifacts import Artifacts, SavedFile, save
from amigo_async.errors import AmigoError, is_transient
from amigo_async.events import Emit, RequestRetried
from amigo_async.polling import PATIENCE

# Concurrent downloads; more would only share the bandwidth.
_CONCURRENT: Final = 8

# The longest pause before a download is retried, in seconds.
_LONGEST_PAUSE: Final = 10.0


class Downloads:
    """Downloads the artifacts of a batch, a few at a time, and retries transient failures.

    A download is retried for as long as a poll would be. While no download succeeds at all, that
    time counts for the batch as a whole, not for each artifact.

    Args:
        artifacts: Opens artifacts.
        emit: Receives an event for each download that will be repeated.
    """

    def __init__(self, artifacts: Artifacts, emit: Emit) -> None:
        self._artifacts = artifacts
        self._emit = emit
        self._slots = anyio.Semaphore(_CONCURRENT)
        self._failing_since = math.inf  # of all downloads: since the last one that succeeded

    async def download(self, run_id: str, folder: Path, before: SavedFile | None) -> SavedFile:
        """Download the artifacts of a run.

        Args:
            run_id: The run.
            folder: A folder for this run alone.
            before: The file that an earlier call saved, from the journal; None if there was none.

        Raises:
            AmigoError: If the failure is permanent, or has lasted too long.
        """
        until, failures = math.inf, 0
        while True:
            try:
                async with self._slots:
                    saved = await save(self._artifacts.source(run_id), folder, before)
            except AmigoError as error:
                now = anyio.current_time()
                self._failing_since = min(self._failing_since, now)
                until = min(until, now + PATIENCE)
                give_up_at = min(until, self._failing_since + PATIENCE)
                if not is_transient(error) or now >= give_up_at:
                    raise
                reason = str(error)
            else:
                self._failing_since = math.inf
                return saved
            delay, failures = backoff.full_jitter(_LONGEST_PAUSE), failures + 1
            self._emit(RequestRetried("store", failures, delay, reason))
            await anyio.sleep(delay)
