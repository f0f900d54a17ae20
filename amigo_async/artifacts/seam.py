"""What the room needs from outside, as callables, so that it works and is tested without HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol, TypeAlias

from msgspec import Struct

from amigo_async.events import Event
from amigo_async.models import ArtifactsLink


class StoreResponse(Protocol):
    """A response of the store.

    Attributes:
        status: The status.
        headers: The headers, their names in lower case.
    """

    @property
    def status(self) -> int: ...  # noqa: D102 # documented above

    @property
    def headers(self) -> Mapping[str, str]: ...  # noqa: D102 # documented above

    async def read(self) -> bytes:
        """The next bytes as they come; empty at the end of the body.

        Raises:
            TransportError: If the connection broke, stalled, or ended before the body did.
        """
        ...


# Asks for a URL with these headers; raises TransportError, and UnsafeLinkError for a URL that
# must not be asked.
Open: TypeAlias = Callable[[str, Mapping[str, str]], AbstractAsyncContextManager[StoreResponse]]
# A fresh link to the artifacts of a run; raises what the API answers.
FetchLink: TypeAlias = Callable[[str], Awaitable[ArtifactsLink]]
# The time on the server's clock, aware.
ServerNow: TypeAlias = Callable[[], datetime]
Emit: TypeAlias = Callable[[Event], None]


class Policy(Struct, frozen=True):
    """How patient the room is.

    The pause after the n-th failure in a row is a random time between 0 and
    ``min(longest_pause, base_pause * 2 ** (n - 1))`` seconds, or what ``Retry-After`` says. A
    single new byte resets the count.

    Attributes:
        attempts: Failures in a row, without a new byte between them, after which to give up.
        base_pause: Seconds; the ceiling of the first pause.
        longest_pause: Seconds; the ceiling of every pause, also of one the store asks for.
        link_margin: Seconds before its expiry from which on a link is not used any more.
        missing_patience: Seconds for which a 404 of the store is borne: the service has just
            given the link, so a replica or a cache may be behind.
        busy_patience: Seconds for which another download to the same file is waited for without
            anything new in it.
    """

    attempts: int = 5
    base_pause: float = 0.5
    longest_pause: float = 15.0
    link_margin: float = 5.0
    missing_patience: float = 15.0
    busy_patience: float = 300.0


class Seam(Struct, frozen=True):
    """The callables together."""

    open: Open
    link: FetchLink
    server_now: ServerNow
    emit: Emit
