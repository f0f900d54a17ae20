"""What a response says of the budget of its endpoint, on the clock of the loop."""

from __future__ import annotations

from typing import Final

from amigo_async.protocol.headers import LONGEST_WAIT, read_rate_limit, read_retry_after
from amigo_async.protocol.responses import Response
from amigo_async.ratelimit import Told
from amigo_async.server_clock import ServerClock

# A budget's reset that has passed by less than this, in seconds, is news that came late; one that
# is further off is not an instant on the server's clock.
_STALE: Final = 5.0


def told(response: Response, clock: ServerClock) -> Told | None:
    """What a response tells of its budget; None where it makes no sense on its own clock."""
    rate, at = read_rate_limit(response.headers), response.received
    if rate is None or not -_STALE <= rate.reset - clock.now(at) <= LONGEST_WAIT:
        return None
    turns_at = at + clock.until(rate.reset, at)
    return Told(rate.limit, rate.remaining, rate.reset, turns_at)


def pause(response: Response, clock: ServerClock) -> float | None:
    """For how many seconds a refusal closes the budget, as it says; None where it does not say."""
    seconds = read_retry_after(response.headers)
    if seconds is None:
        budget = told(response, clock)
        seconds = None if budget is None else budget.turns_at - response.received
    return seconds


def may_be_of_a_proxy(status: int) -> bool:
    """Whether an answer may be that of a proxy, which knows nothing of budgets."""
    return status >= 500 or status in (407, 408)
