"""Fault injection: what goes wrong, and with which request."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from amigo_async.checks import check_choice, check_count, check_names, check_number, check_type
from amigo_async.errors import ArgumentError
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

_ROUTES: Final = (*(endpoint.name for endpoint in ENDPOINTS), "store")
_ONLY_STORE: Final = frozenset({"expired_link", "ignore_range", "wrong_offset"})


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to inject into a request; create it with one of the class methods.

    For example, `Fault.drop` with ``after_work=True`` starts a run and loses the response, if
    it is injected into a ``"create"``; see `Sandbox.fault`.

    Attributes:
        kind: The name of the class method; ``"none"`` for no fault.
        after_work: Whether the request is performed first.
        reset: Whether the connection is reset instead of closed.
        seconds: Length of a delay or a pause, in seconds.
        status_code: Status of the response; None for the regular one.
        body: Body of the response; None for the regular one.
        headers: Headers to set in the response.
        after_bytes: Bytes of the body to send; None for half of it.
        piece: Bytes to send between two pauses.
        shift: Bytes by which an offset is wrong.

    Raises:
        ArgumentError: If a setting is invalid; the message names it.
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

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, get_args(Kind))
        check_number("seconds", self.seconds)
        if self.status_code is not None:
            check_count("status", self.status_code, least=100)
            check_number("status", self.status_code, to=999)
        if self.body is not None:
            check_type("body", self.body, bytes)
        if self.after_bytes is not None:
            check_count("after_bytes", self.after_bytes)
        check_count("piece", self.piece, least=1)
        check_type("shift", self.shift, int)

    @classmethod
    def drop(cls, *, after_work: bool = False, reset: bool = False) -> Fault:
        """Close the connection without a response.

        Args:
            after_work: Whether to perform the request first.
            reset: Whether to reset the connection instead of closing it.
        """
        return cls("drop", after_work=after_work, reset=reset)

    @classmethod
    def delay(cls, seconds: float, *, after_work: bool = False) -> Fault:
        """Respond late.

        Args:
            seconds: The delay in seconds.
            after_work: Whether to perform the request before the delay instead of after it. It
                is performed in any case, even if the client has disconnected.
        """
        return cls("delay", after_work=after_work, seconds=seconds)

    @classmethod
    def stall(cls, after_bytes: int | None = None) -> Fault:
        """Send a part of the body, then nothing more, with the connection open.

        Args:
            after_bytes: Bytes to send; None for half of the body.
        """
        return cls("stall", after_bytes=after_bytes)

    @classmethod
    def truncate(cls, after_bytes: int | None = None, *, reset: bool = False) -> Fault:
        """Announce the whole length, but close the connection after a part of the body.

        Args:
            after_bytes: Bytes to send; None for half of the body.
            reset: Whether to reset the connection instead of closing it.
        """
        return cls("truncate", after_bytes=after_bytes, reset=reset)

    @classmethod
    def drip(cls, seconds: float, piece: int = 1024) -> Fault:
        """Send the body slowly.

        Args:
            seconds: Pause before each piece, in seconds.
            piece: Bytes per piece.
        """
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
        """Respond with a status.

        Args:
            status: The HTTP status.
            body: The body; None for an error in the format of the service.
            headers: Headers to set; None for none.
            after_work: Whether to perform the request first.
        """
        return cls(
            "status", after_work=after_work, status_code=status, body=body, headers=headers or {}
        )

    @classmethod
    def garbage(
        cls, body: bytes = b"<html><h1>Bad gateway</h1></html>", content_type: str = "text/html"
    ) -> Fault:
        """Perform the request, and respond with its status but another body.

        Args:
            body: The body.
            content_type: Its ``Content-Type``.
        """
        return cls("garbage", body=body, headers={"Content-Type": content_type})

    @classmethod
    def expired_token(cls) -> Fault:
        """Expire the token of the request, for good. Not for the store and sign-ins."""
        return cls("expired_token")

    @classmethod
    def expired_link(cls) -> Fault:
        """Treat the link as expired, for this request. Only for the store."""
        return cls("expired_link")

    @classmethod
    def ignore_range(cls) -> Fault:
        """Respond to a range request with 200 and the whole object. Only for the store."""
        return cls("ignore_range")

    @classmethod
    def wrong_offset(cls, shift: int = 1) -> Fault:
        """Respond with another range than the requested one. Only for the store.

        Args:
            shift: Bytes by which the range starts later.
        """
        return cls("wrong_offset", shift=shift)


NO_FAULT: Final = Fault("none")


@dataclass(slots=True)
class _RandomFaults:
    faults: tuple[Fault, ...]
    rate: float
    dice: random.Random


class Faults:
    """The faults of a sandbox: queued ones first, then random ones."""

    def __init__(self) -> None:
        self._queued: dict[str, deque[Fault]] = {}
        self._chances: dict[str, _RandomFaults] = {}

    def queue(self, route: str, fault: Fault, times: int) -> None:
        """Inject `fault` into the next `times` requests of `route`."""
        _check(route, fault)
        check_count("times", times, least=1)
        self._queued.setdefault(route, deque()).extend([fault] * times)

    def at_random(self, route: str, faults: tuple[Fault, ...], rate: float, seed: int) -> None:
        """Inject one of `faults` into each request of `route` with probability `rate`."""
        check_number("rate", rate, to=1.0)
        if not faults:
            raise ArgumentError("faults_at_random needs at least one fault to choose from")
        for fault in faults:
            _check(route, fault)
        # Seeded, so that the same requests get the same faults every time.
        self._chances[route] = _RandomFaults(faults, rate, random.Random(seed))  # noqa: S311

    def clear(self) -> None:
        """Remove all faults."""
        self._queued.clear()
        self._chances.clear()

    def take(self, route: str) -> Fault:
        """Return the fault of the next request of `route`."""
        if queued := self._queued.get(route):
            return queued.popleft()
        chance = self._chances.get(route)
        if chance is not None and chance.dice.random() < chance.rate:
            return chance.dice.choice(chance.faults)
        return NO_FAULT


def _check(route: str, fault: Fault) -> None:
    check_names("route", [route], _ROUTES)
    check_type("fault", fault, Fault)
    impossible = fault.kind in _ONLY_STORE if route != "store" else fault.kind == "expired_token"
    if impossible or (fault.kind == "expired_token" and route == "sign_in"):
        only = "only to 'store'" if fault.kind in _ONLY_STORE else "only where a token is sent"
        raise ArgumentError(f"{fault.kind} cannot happen to {route!r}, {only}")
