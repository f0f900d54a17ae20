"""A store in memory at the seam of the artifacts room: it does as a script says, then right."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from amigo_async.artifacts import Artifacts, Policy
from amigo_async.errors import TransportError
from amigo_async.events import ArtifactProgress, Event
from amigo_async.models import ArtifactsLink

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECRET = "0123456789abcdef-signature"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Step:
    """What the store does with one request; what is None it does right.

    Attributes:
        status: Answer this status with no body instead.
        headers: Headers over those that would be right; None as a value removes one.
        cut: Break the connection after so many bytes of the body.
        end: End the body after so many bytes, without an error.
        offset: Answer with a range that begins here instead.
        whole: Answer 200 with everything.
        length: Whether to say how long the body is; "close" ends it by closing, "chunked" marks.
        body: The body of an error.
        stop: Answer with a range that ends here instead.
        refuse: No answer at all.
        gate: Wait for this before the byte number `hold` of the body.
    """

    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    cut: int | None = None
    end: int | None = None
    offset: int | None = None
    stop: int | None = None
    whole: bool = False
    length: str = "known"
    body: bytes = b""
    refuse: bool = False
    gate: asyncio.Event | None = None
    hold: int = 0


RIGHT = Step()


@dataclass(frozen=True)
class Asked:
    """One request: the number of the link it came by, and what its headers asked for."""

    link: int
    range: str | None
    if_match: str | None
    if_unmodified_since: str | None


class Response:
    """What the fake store answers."""

    def __init__(
        self, store: FakeStore, status: int, headers: Mapping[str, str], body: bytes, step: Step
    ) -> None:
        self.status = status
        self.headers = headers
        self.given = 0
        self._store = store
        self._body = body
        self._step = step

    async def read(self) -> bytes:
        if self._step.gate is not None and self.given >= self._step.hold:
            await self._step.gate.wait()
        await asyncio.sleep(0)
        limits = [len(self._body), self.given + self._store.chunk]
        limits += [n for n in (self._step.cut, self._step.end) if n is not None]
        data = self._body[self.given : min(limits)]
        self.given += len(data)
        self._store.total += len(data)
        if self._store.listener is not None:
            self._store.listener(self._store.total)
        if not data and self._step.cut is not None and self.given >= self._step.cut:
            raise TransportError("connection reset", method="GET", path="/bucket/key")
        return data


class FakeStore:
    """Serves one object.

    Args:
        content: The object.
        script: What to do with the first requests; later ones are answered right.
        chunk: Bytes a read gives at most.
        forever: What to do with every request after the script.
    """

    def __init__(
        self,
        content: bytes,
        script: Iterable[Step] = (),
        *,
        chunk: int = 7,
        forever: Step = RIGHT,
        headers: Mapping[str, str | None] | None = None,
    ) -> None:
        self.content = content
        self.script = list(script)
        self.chunk = chunk
        self.forever = forever
        self.headers = dict(headers or {})
        self.asked: list[Asked] = []
        self.given: list[tuple[int, int]] = []  # the spans of the object that were handed out
        self.open_now = 0
        self.most_open = 0
        self.dead_links: set[int] = set()
        self.total = 0  # bytes of bodies given so far
        self.listener: Callable[[int], None] | None = None  # hears of the total
        self.expiring = False  # whether a link is dead once something came by it

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'

    @property
    def ranges(self) -> list[str | None]:
        return [asked.range for asked in self.asked]

    @asynccontextmanager
    async def open(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Response]:
        number = int(url.rsplit("-", 1)[1])
        self.asked.append(
            Asked(number, headers.get("Range"), headers.get("If-Match"),
                  headers.get("If-Unmodified-Since"))
        )  # fmt: skip
        assert set(headers) <= {"Range", "If-Match", "If-Unmodified-Since"}
        step = self.script.pop(0) if self.script else self.forever
        await asyncio.sleep(0)
        if step.refuse:
            raise TransportError("connection refused", method="GET", path="/bucket/key")
        if number in self.dead_links:
            step = Step(status=403, body=b"<Error><Code>AccessDenied</Code></Error>")
        response, start = self._answer(headers, step)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            yield response
        finally:
            self.open_now -= 1
            if start is not None and response.given:
                self.given.append((start, start + response.given))
                if self.expiring:
                    self.dead_links.add(number)

    def _answer(self, headers: Mapping[str, str], step: Step) -> tuple[Response, int | None]:
        plain: dict[str, str | None] = {
            "etag": self.etag,
            "last-modified": "Fri, 02 Jan 2026 03:04:05 GMT",
            "content-type": "application/zip",
            "x-amz-request-id": "R1",
            **self.headers,
        }
        size, start, stop = len(self.content), 0, len(self.content)
        status, asked = 200, _RANGE.fullmatch(headers.get("Range", ""))
        if step.status is not None:
            status = step.status
        elif headers.get("If-Match") not in {None, plain["etag"]}:
            status = 412
        elif asked and not step.whole:
            start = int(asked[1]) if step.offset is None else step.offset
            stop = min(size, int(asked[2]) + 1) if asked[2] else size
            stop = stop if step.stop is None else step.stop
            status = 206 if start < size else 416
        if status == 206:
            plain["content-range"] = f"bytes {start}-{stop - 1}/{size}"
        elif status == 416:
            plain["content-range"] = f"bytes */{size}"
        body = self.content[start:stop] if status in {200, 206} else step.body
        if step.length == "known":
            plain["content-length"] = str(len(body))
        elif step.length == "chunked":
            plain["transfer-encoding"] = "chunked"
        plain.update(step.headers)
        given = {name: value for name, value in plain.items() if value is not None}
        response = Response(self, status, given, body, step)
        return response, start if status in {200, 206} else None


class Room:
    """The artifacts room over a fake store, and all it did.

    Args:
        store: The store.
        lifetime: Seconds a link is good for, by the server's clock.
        policy: The policy of the room.
    """

    def __init__(self, store: FakeStore, *, lifetime: float = 3600, **policy: Any) -> None:
        self.store = store
        self.links = 0
        self.events: list[Event] = []
        self.listener: Callable[[Event], None] | None = None
        self.times: list[float] = []
        self.now = START
        self.errors: list[Exception] = []  # what the next requests for a link raise
        self._lifetime = timedelta(seconds=lifetime)
        self.artifacts = Artifacts(
            open=store.open,
            link=self.link,
            server_now=lambda: self.now,
            emit=self.emit,
            policy=Policy(**policy),
        )

    async def link(self, run_id: str) -> ArtifactsLink:
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        self.links += 1
        url = f"https://store.example/bucket/{run_id}/out%20put.zip?X-Amz-Signature={SECRET}-{self.links}"
        return ArtifactsLink(url, self.now + self._lifetime)

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.times.append(asyncio.get_running_loop().time())
        if self.listener is not None:
            self.listener(event)

    @property
    def progress(self) -> list[tuple[int, int | None]]:
        return [(e.received, e.total) for e in self.events if isinstance(e, ArtifactProgress)]

    async def bytes(self, run_id: str = "r1") -> bytes:
        """Everything the stream gives."""
        async with self.artifacts.stream(run_id) as stream:
            return b"".join([chunk async for chunk in stream])
