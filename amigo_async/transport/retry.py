"""When a failed request is sent again, and after which delay.

A request is retried if its failure is transient (`errors.is_transient`: no answer, 408, 5xx but not
501 and 505, an undecodable body) and its endpoint is repeatable: `ATTEMPTS` attempts in all. A
create is not repeatable: `Starts` sends it again, after looking for the run that the lost one may
have started. Nor is a poll retried here, because the poller polls again anyway.

Delays have "full jitter": the n-th is random between 0 and ``min(CAP, BASE * 2 ** (n - 1))``
seconds. ``Retry-After`` is obeyed in full if that ends before the deadline of the surrounding anyio
scopes. Otherwise the error is raised at once, with its `retry_after`.

A refused request (429) had no effect, so every request is sent again, up to `REFUSALS` times in
all. It does not sleep here: its limiter, which the refusal closes for all requests, holds it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import anyio
import backoff

from amigo_async.protocol.headers import LONGEST_WAIT

BASE: Final = 0.5
CAP: Final = 8.0
ATTEMPTS: Final = 4
REFUSALS: Final = 20


class Backoff:
    """Random delays below a ceiling that doubles.

    Args:
        base: The first ceiling in seconds.
        cap: The highest ceiling in seconds.
    """

    def __init__(self, base: float = BASE, cap: float = CAP) -> None:
        self._ceilings: Generator[float, Any, None] = backoff.expo(factor=base, max_value=cap)
        next(self._ceilings)  # backoff's generators start with an empty value

    def next(self) -> float:
        """The next delay in seconds."""
        return backoff.full_jitter(next(self._ceilings))


class Retries:
    """Counts the failed attempts of one request, and decides about the next one.

    Args:
        attempts: Attempts in all.
        base: The first ceiling of the delays in seconds.
        cap: The highest ceiling of the delays in seconds.

    Attributes:
        failures: Failed attempts so far.
    """

    def __init__(self, attempts: int, *, base: float = BASE, cap: float = CAP) -> None:
        self.failures = 0
        self._attempts = attempts
        self._backoff = Backoff(base, cap)

    def next_delay(self, retry_after: float | None) -> float | None:
        """Count a failure, and return the seconds until the next attempt.

        Args:
            retry_after: The delay that the response asks for; None for a random one.

        Returns:
            None if there is no further attempt, because none is left or the delay is too long.
        """
        self.failures += 1
        if self.failures >= self._attempts:
            return None
        delay = self._backoff.next() if retry_after is None else retry_after
        return delay if fits(delay) else None


def fits(delay: float) -> bool:
    """Whether `delay` seconds end before the current deadline, and are at most `LONGEST_WAIT`."""
    return delay <= min(anyio.current_effective_deadline() - anyio.current_time(), LONGEST_WAIT)
