"""What the sandbox was asked, for tests to look at."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from amigo_async.redact import Secret

Route = Literal["sign_in", "create", "list", "cancel", "artifacts", "store", "unknown"]

_SECRET_HEADERS = frozenset({"authorization", "x-api-key", "cookie"})
_SECRET_PAIRS = frozenset({"X-Amz-Signature", "X-Amz-Credential"})


def masked_headers(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name; the values of secret ones show as ``***`` in a repr."""
    return {
        name.lower(): Secret(value) if name.lower() in _SECRET_HEADERS else value
        for name, value in items
    }


def masked_query(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs of a query; what signs it shows as ``***`` in a repr."""
    return [(name, Secret(value) if name in _SECRET_PAIRS else value) for name, value in pairs]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the sandbox received it, and what it answered.

    Attributes:
        time: When it came, in seconds since the epoch on the sandbox's clock.
        route: Which endpoint, ``"store"``, or ``"unknown"``.
        method: The HTTP method.
        path: The path as it was sent, still encoded, without the query.
        query: The decoded pairs of the query, in order.
        headers: The headers by lower-case name.
        organization_id: The organization in the path; None without one.
        status: The status that was answered; None for none (yet).
        sent: How many bytes of body were handed to the connection.
        ended: When the answer had been sent; None while it has not.
    """

    time: float
    route: Route
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    organization_id: str | None
    status: int | None = None
    sent: int = 0
    ended: float | None = None

    @property
    def range(self) -> str | None:
        """The ``Range`` that was asked for; None for the whole."""
        return self.headers.get("range")

    def values(self, name: str) -> list[str]:
        """All values of one name in the query, in order."""
        return [value for key, value in self.query if key == name]


@dataclass(slots=True)
class Recorder:
    """The latest requests, in the order in which they came.

    Attributes:
        most: How many are kept; older ones are forgotten.
    """

    most: int
    _kept: deque[tuple[int, Request]] = field(default_factory=deque)
    _count: int = 0

    def open(self, request: Request) -> int:
        """Keep a request; its number."""
        self._count += 1
        self._kept.append((self._count, request))
        while len(self._kept) > self.most:
            self._kept.popleft()
        return self._count

    def close(self, number: int, *, status: int | None, sent: int, ended: float | None) -> None:
        """Note what was answered."""
        place = number - self._count - 1
        if -place <= len(self._kept):
            request = replace(self._kept[place][1], status=status, sent=sent, ended=ended)
            self._kept[place] = (number, request)

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()

    def __iter__(self) -> Iterator[Request]:
        """The requests; a copy, since in a thread of its own the sandbox may add to them."""
        return iter([request for _, request in self._kept.copy()])
