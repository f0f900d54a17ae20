"""The rate limits of the sandbox: requests per endpoint, organization and window."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Final, Literal, get_args

from amigo_async.checks import check_choice, check_count, check_names, check_number, check_type
from amigo_async.protocol.endpoints import ENDPOINTS, EndpointName

WindowMode = Literal["fixed", "sliding"]
HeaderStyle = Literal["decimal", "whole"]

_PRECISION: Final[Mapping[HeaderStyle, Decimal]] = {
    "decimal": Decimal("0.001"),
    "whole": Decimal(1),
}


@dataclass(frozen=True, slots=True)
class QuotaState:
    """The state of a quota after a request.

    Attributes:
        admitted: Whether the request is within the limit.
        limit: Requests per window.
        remaining: Requests left in this window.
        reset: Time at which a fixed window ends, or the oldest request leaves a sliding one, in
            seconds since the epoch.
        wait: Seconds until `reset`.
    """

    admitted: bool
    limit: int
    remaining: int
    reset: float
    wait: float

    def headers(self, style: HeaderStyle | None, retry_after: HeaderStyle | None) -> dict[str, str]:
        """Return the rate limit headers of the response."""
        headers = {}
        if style is not None:
            headers = {
                "X-RateLimit-Limit": str(self.limit),
                "X-RateLimit-Remaining": str(self.remaining),
                "X-RateLimit-Reset": _rounded_up(self.reset, style),
            }
        if not self.admitted and retry_after is not None:
            headers["Retry-After"] = _rounded_up(self.wait, retry_after)
        return headers


def _rounded_up(seconds: float, style: HeaderStyle) -> str:
    """Format seconds for a header, rounded up: a client must not retry too early."""
    return str(Decimal(seconds).quantize(_PRECISION[style], ROUND_CEILING))


@dataclass(slots=True)
class _Window:
    """The admitted requests of one organization and endpoint."""

    began: float = -math.inf
    admitted: deque[float] = field(default_factory=deque)


class Quotas:
    """The quotas of all organizations and endpoints.

    A fixed window begins with the first request after the end of the previous one. A sliding
    window covers the time before each request.

    Args:
        limits: Requests per window by endpoint, None for no limit; the documented limit for
            endpoints that are not given.
        length: Length of a window in seconds.
        mode: Whether windows are fixed or sliding.
    """

    def __init__(
        self, limits: Mapping[EndpointName, int | None], length: float, mode: WindowMode
    ) -> None:
        documented = {endpoint.name: endpoint.limit for endpoint in ENDPOINTS}
        check_type("limits", limits, Mapping)
        check_names("limits", limits, documented)
        for name, limit in limits.items():
            if limit is not None:
                check_count(f"limits[{name!r}]", limit)
        check_number("window", length, above=0)
        check_choice("window_mode", mode, get_args(WindowMode))
        self._limits: dict[EndpointName, int | None] = {**documented, **limits}
        self._length = length
        self._mode = mode
        self._windows: dict[tuple[str, str], _Window] = {}
        self._lock = threading.Lock()  # `Sandbox.spend` may be called from another thread

    def admit(self, organization_id: str, endpoint: EndpointName, now: float) -> QuotaState | None:
        """Count a request if it is within the limit; None if there is no limit."""
        limit = self._limits[endpoint]
        if limit is None:
            return None
        with self._lock:
            window = self._windows.setdefault((organization_id, endpoint), _Window())
            self._expire(window, now)
            admitted = len(window.admitted) < limit
            if admitted:
                if not window.admitted:
                    window.began = now
                window.admitted.append(now)
            reset = max(now, window.began + self._length)
            return QuotaState(admitted, limit, limit - len(window.admitted), reset, reset - now)

    def _expire(self, window: _Window, now: float) -> None:
        if self._mode == "fixed":
            if now >= window.began + self._length:
                window.admitted.clear()
            return
        while window.admitted and now >= window.admitted[0] + self._length:
            window.admitted.popleft()
        if window.admitted:
            window.began = window.admitted[0]
