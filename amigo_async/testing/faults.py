"""Faults: what can go wrong on purpose, and which request it happens to."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from amigo_async.protocol.endpoints import ENDPOINTS

Kind = Literal[
    "none",
    "drop",
    "delay",
    "stall",
    "truncate",
    "drip",
    "status",
    "garbage",
    "expired_token",
    "expired_link",
    "ignore_range",
    "wrong_offset",
]

_ROUTES: Final = frozenset({*(endpoint.name for endpoint in ENDPOINTS), "store"})
_ONLY_STORE: Final = frozenset({"expired_link", "ignore_range", "wrong_offset"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong with one request; make it with one of its constructors.

    Attributes:
        kind: The name of the constructor; ``"none"`` for no fault.
        after_work: Whether the work is done first.
        reset: Whether the connection is reset rather than closed.
        seconds: How long a delay or a pause is.
        status_code: The status to answer; None for the one of the work.
        body: The body to answer; None for the one of the work.
        headers: Headers to set.
        after_bytes: How much of the body is sent; None for half of it.
        piece: Bytes between two pauses.
        shift: By how many bytes an offset is wrong.
    """

    kind: Kind
    after_work: bool = True
    reset: bool = False
    seconds: float = 0.0
    status_code: int | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after_bytes: int | None = None
    piece: int = 1024
    shift: int = 0

    @classmethod
    def drop(cls, *, after_work: bool = False, reset: bool = False) -> Fault:
        """Close the connection without an answer, before or after the work."""
        return cls("drop", after_work=after_work, reset=reset)

    @classmethod
    def delay(cls, seconds: float, *, after_work: bool = False) -> Fault:
        """Answer late; delayed work is done even if the client has left by then."""
        return cls("delay", after_work=after_work, seconds=seconds)

    @classmethod
    def stall(cls, after_bytes: int | None = None) -> Fault:
        """Send `after_bytes` of the body (None: half), then be silent."""
        return cls("stall", after_bytes=after_bytes)

    @classmethod
    def truncate(cls, after_bytes: int | None = None, *, reset: bool = False) -> Fault:
        """Announce the whole length, send `after_bytes` of it (None: half) and close."""
        return cls("truncate", after_bytes=after_bytes, reset=reset)

    @classmethod
    def drip(cls, seconds: float, piece: int = 1024) -> Fault:
        """Send the body in pieces of `piece` bytes with `seconds` between them."""
        return cls("drip", seconds=seconds, piece=piece)

    @classmethod
    def status(
        cls,
        status: int,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        after_work: bool = False,
    ) -> Fault:
        """Answer this status; a `body` of None is an error in the service's own form."""
        return cls(
            "status", after_work=after_work, status_code=status, body=body, headers=headers or {}
        )

    @classmethod
    def garbage(
        cls, body: bytes = b"<html><h1>Bad gateway</h1></html>", content_type: str = "text/html"
    ) -> Fault:
        """Do the work and answer its status with this body."""
        return cls("garbage", body=body, headers={"Content-Type": content_type})

    @classmethod
    def expired_token(cls) -> Fault:
        """The API: let the token of the request expire; it is refused from now on."""
        return cls("expired_token")

    @classmethod
    def expired_link(cls) -> Fault:
        """The store: take the link for expired, this once."""
        return cls("expired_link")

    @classmethod
    def ignore_range(cls) -> Fault:
        """The store: send the whole object with 200 where a range was asked for."""
        return cls("ignore_range")

    @classmethod
    def wrong_offset(cls, shift: int = 1) -> Fault:
        """The store: send a range that begins `shift` bytes later, and say so."""
        return cls("wrong_offset", shift=shift)


NO_FAULT: Final = Fault("none")


@dataclass(slots=True)
class _Chance:
    faults: tuple[Fault, ...]
    rate: float
    dice: random.Random


class Faults:
    """The faults that wait for their request: queued ones first, then by chance."""

    def __init__(self) -> None:
        self._queued: dict[str, deque[Fault]] = {}
        self._chances: dict[str, _Chance] = {}

    def queue(self, route: str, fault: Fault, times: int) -> None:
        """Play `fault` on the next `times` requests of `route`."""
        _check(route, fault)
        self._queued.setdefault(route, deque()).extend([fault] * times)

    def at_random(self, route: str, faults: tuple[Fault, ...], rate: float, seed: int) -> None:
        """Play one of `faults` on each request of `route` with probability `rate`."""
        if not faults or not 0.0 <= rate <= 1.0:
            raise ValueError("give at least one fault, and a rate from 0 to 1")
        for fault in faults:
            _check(route, fault)
        # Seeded: the same faults at the same requests each time.
        self._chances[route] = _Chance(faults, rate, random.Random(seed))  # noqa: S311

    def clear(self) -> None:
        """Forget all of them."""
        self._queued.clear()
        self._chances.clear()

    def take(self, route: str) -> Fault:
        """The fault of a request that has just come."""
        if queued := self._queued.get(route):
            return queued.popleft()
        chance = self._chances.get(route)
        if chance is not None and chance.dice.random() < chance.rate:
            return chance.dice.choice(chance.faults)
        return NO_FAULT


def _check(route: str, fault: Fault) -> None:
    if route not in _ROUTES:
        raise ValueError(f"there is no route {route!r}")
    impossible = fault.kind in _ONLY_STORE if route != "store" else fault.kind == "expired_token"
    if impossible or (fault.kind == "expired_token" and route == "sign_in"):
        raise ValueError(f"{fault.kind} cannot happen to {route!r}")
