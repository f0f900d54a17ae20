"""When a failed request is sent again, and after how long.

A request is sent again if its failure may pass (`errors.is_transient`: no answer, 408, 5xx but 501
and 505, a body that cannot be read) and repeating it does no harm: GET, DELETE and the sign in,
`ATTEMPTS` times in all. A create is not: its repetition belongs to the start, which knows what to
look for first. Nor is a look of a wait, which looks again anyway.

The n-th retry waits for a random time between 0 and ``min(CAP, BASE * 2 ** (n - 1))`` seconds
("full jitter"). ``Retry-After`` is obeyed in full where the deadline of the surrounding anyio
scopes allows it, and not at all otherwise: the error is raised at once, with `retry_after`.

A refusal (429) did nothing, so every request is sent again after one, up to `REFUSALS` times in
all. It does not wait here but at its gate, which a refusal closes for everybody.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import anyio
import backoff

from amigo_async.errors import APIError
from amigo_async.protocol.headers import LONGEST_WAIT

BASE: Final = 0.5
CAP: Final = 8.0
ATTEMPTS: Final = 4
REFUSALS: Final = 20


def fits(delay: float) -> bool:
    """Whether a wait of `delay` seconds ends before the deadline, and within reason."""
    return delay <= min(anyio.current_effective_deadline() - anyio.current_time(), LONGEST_WAIT)


def retry_after(error: Exception) -> float | None:
    """What the service wants to be waited for, in seconds; None where it does not say."""
    return error.retry_after if isinstance(error, APIError) else None


def delays() -> Generator[float, Any, None]:
    """The delays, for `backoff`: each error that is sent in gives the seconds to wait.

    The generator ends, and the error is raised, where the wait would not end in time.
    """
    ceilings = backoff.expo(base=2, factor=BASE, max_value=CAP)
    next(ceilings)
    error = yield 0.0
    while True:
        ceiling = ceilings.send(None)
        wished = retry_after(error)
        delay = backoff.full_jitter(ceiling) if wished is None else wished
        if not fits(delay):
            return
        error = yield delay


def refusals() -> Generator[float, Any, None]:
    """No delay after a refusal that can be waited for; the generator ends at one that cannot."""
    error = yield 0.0
    while fits(retry_after(error) or 0.0):
        error = yield 0.0
