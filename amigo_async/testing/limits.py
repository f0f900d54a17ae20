"""Budgets of requests: so many an endpoint, an organization and a window of time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Endpoint = Literal["sign_in", "create", "list", "cancel", "artifacts"]
WindowMode = Literal["fixed", "sliding"]
HeaderStyle = Literal["decimal", "whole"]

DOCUMENTED: Final[Mapping[Endpoint, int]] = {
    "sign_in": 5,
    "create": 20,
    "list": 50,
    "cancel": 10,
    "artifacts": 100,
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a budget stands after a request.

    Attributes:
        admitted: Whether the request may pass.
        limit: How many may pass in a window.
        remaining: How many more may pass now.
        reset: When there is room again, in seconds since the epoch: when a fixed window turns,
            or when the oldest request leaves a sliding one.
        wait: Seconds until then.
    """

    admitted: bool
    limit: int
    remaining: int
    reset: float
    wait: float

    def headers(self, style: HeaderStyle | None, retry_after: HeaderStyle | None) -> dict[str, str]:
        """What the answer to the request says about the budget."""
        headers = {}
        if style is not None:
            headers = {
                "X-RateLimit-Limit": str(self.limit),
                "X-RateLimit-Remaining": str(self.remaining),
                "X-RateLimit-Reset": _written(self.reset, style),
            }
        if not self.admitted and retry_after is not None:
            headers["Retry-After"] = _written(self.wait, retry_after)
        return headers


@dataclass(slots=True)
class _Window:
    """The budget of one organization and endpoint.

    A fixed window begins with the first request after the one before is over. A sliding one looks
    back over its length from every request. Refused requests are not counted.
    """

    began: float = -math.inf
    admitted: deque[float] = field(default_factory=deque)


@dataclass(slots=True)
class Limits:
    """All budgets of a service.

    Attributes:
        limits: Requests a window, by endpoint; None is no limit.
        length: Seconds in a window.
        mode: Whether windows turn or slide.
    """

    limits: dict[Endpoint, int | None]
    length: float
    mode: WindowMode
    _windows: dict[tuple[str, Endpoint], _Window] = field(default_factory=dict)

    def admit(self, organization_id: str, endpoint: Endpoint, now: float) -> Standing | None:
        """Count a request, or refuse it; None where there is no limit."""
        limit = self.limits[endpoint]
        if limit is None:
            return None
        window = self._windows.setdefault((organization_id, endpoint), _Window())
        self._expire(window, now)
        admitted = len(window.admitted) < limit
        if admitted:
            if not window.admitted:
                window.began = now
            window.admitted.append(now)
        began = window.began
        if self.mode == "sliding" and window.admitted:
            began = window.admitted[0]
        reset = max(now, began + self.length)
        return Standing(admitted, limit, max(0, limit - len(window.admitted)), reset, reset - now)

    def _expire(self, window: _Window, now: float) -> None:
        if self.mode == "fixed":
            if now >= window.began + self.length:
                window.admitted.clear()
            return
        while window.admitted and now >= window.admitted[0] + self.length:
            window.admitted.popleft()


def limits_by(given: Mapping[Endpoint, int | None] | None) -> dict[Endpoint, int | None]:
    """The limits of all endpoints; those that are not given are as documented."""
    limits: dict[Endpoint, int | None] = {**DOCUMENTED, **(given or {})}
    unknown = set(limits) - set(DOCUMENTED)
    if unknown:
        raise ValueError(f"limits: no such endpoint: {', '.join(sorted(unknown))}")
    return limits


def _written(seconds: float, style: HeaderStyle) -> str:
    """`seconds` rounded up, so that whoever obeys it never comes too early."""
    if style == "whole":
        return str(math.ceil(seconds))
    thousandths = math.ceil(seconds * 1000)
    if thousandths / 1000 < seconds:  # the product had been rounded down
        thousandths += 1
    return f"{thousandths / 1000:.3f}"
