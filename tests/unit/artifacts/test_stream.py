"""The stream: scripted stores against the ranges asked for and the bytes that came."""

from __future__ import annotations

import asyncio
import random
import traceback
from datetime import timedelta

import anyio
import pytest

from amigo_async.errors import (
    ArtifactChangedError,
    ArtifactError,
    ArtifactsNotReadyError,
    ArtifactTruncatedError,
    TransportError,
)
from amigo_async.events import RequestRetried
from amigo_async.protocol.urls import UnsafeLinkError
from tests.unit.artifacts.fake_store import SECRET, FakeStore, Room, Step

pytestmark = pytest.mark.anyio

DATA = bytes(range(40))
BARE: dict[str, str | None] = {"etag": None, "last-modified": None}
UNAVAILABLE = Step(status=503)
UNSAID = Step(headers={"content-range": None})

# name, script, ranges asked for
HEALED: list[tuple[str, list[Step], list[str | None]]] = [
    ("nothing wrong", [], [None]),
    ("refused at first", [Step(refuse=True)], [None, None]),
    ("cut at once", [Step(cut=0)], [None, None]),
    ("cut in the middle", [Step(cut=10)], [None, "bytes=10-"]),
    ("cut before the last byte", [Step(cut=39)], [None, "bytes=39-"]),
    ("cut twice", [Step(cut=10), Step(cut=10)], [None, "bytes=10-", "bytes=20-"]),
    ("ends early without an error", [Step(end=10)], [None, "bytes=10-"]),
    ("5xx at first", [UNAVAILABLE], [None, None]),
    ("5xx in the middle", [Step(cut=10), UNAVAILABLE], [None, "bytes=10-", "bytes=10-"]),
    ("expired at first", [Step(status=403)], [None, None]),
    ("expired in the middle", [Step(cut=9), Step(status=403)], [None, "bytes=9-", "bytes=9-"]),
    ("ranges ignored", [Step(cut=10), Step(whole=True)], [None, "bytes=10-"]),
    (
        "ranges ignored, and cut in what is known",
        [Step(cut=10), Step(whole=True, cut=5)],
        [None, "bytes=10-", "bytes=10-"],
    ),
    ("wrong offset", [Step(cut=10), Step(offset=4)], [None, "bytes=10-", None]),
    ("a range that is not said", [Step(cut=10), UNSAID], [None, "bytes=10-", None]),
    (
        "wrong offset, and cut twice",
        [Step(cut=10), Step(offset=0), Step(cut=20), Step(offset=0), Step(cut=5)],
        [None, "bytes=10-", None, "bytes=20-", None, "bytes=20-"],
    ),
    ("a range cut short", [Step(cut=10), Step(stop=12)], [None, "bytes=10-", "bytes=12-"]),
    ("416 out of turn", [Step(cut=10), Step(status=416)], [None, "bytes=10-", "bytes=10-"]),
    ("chunked", [Step(length="chunked")], [None]),
    ("chunked and cut", [Step(cut=10, length="chunked")], [None, "bytes=10-"]),
    ("until closed, which proves nothing", [Step(length="close")], [None, "bytes=40-"]),
    ("until closed too early", [Step(end=10, length="close")], [None, "bytes=10-"]),
    (
        "no total in the range",
        [Step(cut=10, length="close"), Step(headers={"content-range": "bytes 10-39/*"})],
        [None, "bytes=10-", "bytes=40-"],
    ),
    (
        "the end is not believed of a length that was known",
        [Step(cut=10), Step(whole=True, end=20, length="chunked")],
        [None, "bytes=10-", "bytes=20-"],
    ),
    (
        "a weak ETag",
        [Step(cut=10, headers={"etag": 'W/"x"'}), Step(headers={"etag": 'W/"x"'})],
        [None, "bytes=10-"],
    ),
    ("no ETag", [Step(cut=10, headers={"etag": None})], [None, "bytes=10-"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "ranges"), [case[1:] for case in HEALED], ids=[case[0] for case in HEALED]
)
async def test_what_breaks_is_mended(script: list[Step], ranges: list[str | None]) -> None:
    room = Room(FakeStore(DATA, script))
    assert await room.bytes() == DATA
    assert room.store.ranges == ranges
    assert room.store.open_now == 0
    assert room.progress[-1][0] == len(DATA)


async def test_request_without_a_range_is_told() -> None:
    room = Room(FakeStore(DATA, [Step(cut=10), Step(offset=4)]))
    await room.bytes()
    told = [event.reason for event in room.events if isinstance(event, RequestRetried)]
    assert told[-1] == "asked for bytes from 10, the store answered from 4"


async def test_what_is_known_at_the_start() -> None:
    room = Room(FakeStore(DATA, [UNAVAILABLE]))
    async with room.artifacts.stream("r1") as stream:
        assert stream.size == 40
        assert stream.etag == room.store.etag
        assert stream.content_type == "application/zip"
        assert len(room.store.asked) == 2
    assert room.store.open_now == 0


async def test_a_size_that_is_not_said_is_none() -> None:
    room = Room(
        FakeStore(DATA, [Step(length="chunked")], headers={"etag": None, "content-type": None})
    )
    async with room.artifacts.stream("r1") as stream:
        assert (stream.size, stream.etag, stream.content_type) == (None, None, None)


async def test_asks_for_the_same_object() -> None:
    room = Room(FakeStore(DATA, [Step(cut=10)]))
    await room.bytes()
    assert [asked.if_match for asked in room.store.asked] == [None, room.store.etag]
    weak = {"etag": 'W/"x"'}
    room = Room(FakeStore(DATA, [Step(cut=10)], headers=weak))
    await room.bytes()
    asked = room.store.asked[1]
    assert asked.if_match is None
    assert asked.if_unmodified_since == "Fri, 02 Jan 2026 03:04:05 GMT"


@pytest.mark.parametrize("step", [Step(), Step(whole=True), Step(headers={"etag": '"other"'})])
async def test_a_changed_object_is_an_error(step: Step) -> None:
    store = FakeStore(DATA, [Step(cut=10), step])
    room = Room(store)

    async def read() -> None:
        async with room.artifacts.stream("r1") as stream:
            async for _ in stream:
                store.content = DATA[::-1] if not step.headers else DATA

    with pytest.raises(ArtifactChangedError, match="it changed") as caught:
        await read()
    assert caught.value.run_id == "r1"
    assert store.open_now == 0


NOT_THERE = Step(status=404, body=b"<Code>NoSuchKey</Code>")


async def test_late_object_is_awaited() -> None:
    room = Room(FakeStore(DATA, [NOT_THERE] * 6))
    assert await room.bytes() == DATA
    assert room.links == 1  # the link is right, it is the object that is late
    room = Room(FakeStore(DATA, [Step(cut=10), *[NOT_THERE] * 6]))
    assert await room.bytes() == DATA


async def test_missing_object_is_told() -> None:
    room = Room(FakeStore(DATA, forever=NOT_THERE))
    began = anyio.current_time()
    with pytest.raises(ArtifactError, match=r"answered 404 NoSuchKey$"):
        await room.bytes()
    assert 13 <= anyio.current_time() - began <= 16
    assert 10 <= len(room.store.asked) <= 32


async def test_missing_object_and_a_deadline() -> None:
    room = Room(FakeStore(DATA, forever=NOT_THERE))
    with anyio.fail_after(4), pytest.raises(ArtifactError, match=r"answered 404 NoSuchKey$"):
        await room.bytes()


async def test_missing_again_is_awaited_anew() -> None:
    steps = [step for _ in range(4) for step in (*[NOT_THERE] * 8, Step(cut=1))]
    room = Room(FakeStore(DATA, steps))
    assert await room.bytes() == DATA


WEAK = {"etag": 'W/"e"'}
STRONG = {"etag": '"e"'}


async def test_weakened_etag_is_the_same() -> None:
    """As an edge of a CDN weakens it, one that looks at conditions and one that does not."""
    careless = [Step(cut=10, headers=STRONG), Step(offset=10, cut=10, headers=WEAK)]
    room = Room(FakeStore(DATA, careless, forever=Step(headers=STRONG), headers=STRONG))
    assert await room.bytes() == DATA
    # The first word counts: it is the strong one that the rest is asked for with.
    assert [asked.if_match for asked in room.store.asked] == [None, '"e"', '"e"']
    careful = [Step(cut=10, headers=STRONG), Step(status=412)]
    room = Room(FakeStore(DATA, careful, forever=Step(headers=WEAK), headers=WEAK))
    assert await room.bytes() == DATA
    dates = [asked.if_unmodified_since for asked in room.store.asked]
    assert dates == [None, None, "Fri, 02 Jan 2026 03:04:05 GMT"]
    assert room.store.asked[-1].range == "bytes=10-"


@pytest.mark.parametrize(
    "other",
    [
        {"etag": 'W/"f"'},
        {**WEAK, "last-modified": "Fri, 02 Jan 2026 03:04:06 GMT"},
        {**WEAK, "last-modified": None},
    ],
)
async def test_a_weak_etag_alone_is_no_proof(other: dict[str, str | None]) -> None:
    first = {**STRONG, "last-modified": "Fri, 02 Jan 2026 03:04:05 GMT"}
    room = Room(FakeStore(DATA, [Step(cut=10, headers=first)], headers=other))
    with pytest.raises(ArtifactChangedError):
        await room.bytes()


UNRECOGNIZED = "neither an ETag nor a date"
HOPELESS: list[tuple[str, FakeStore, type[ArtifactError], str, int]] = [
    ("always refused", FakeStore(DATA, forever=Step(refuse=True)), ArtifactError,
     "gave up: .*connection refused", 5),
    ("always 503", FakeStore(DATA, forever=Step(status=503, body=b"<Code>SlowDown</Code>")),
     ArtifactError, "gave up: the store answered 503 SlowDown", 5),
    ("always cut at the same byte", FakeStore(DATA, [Step(cut=10)], forever=Step(cut=0)),
     ArtifactTruncatedError, "gave up after 10 of 40 bytes: .*reset", 5),
    ("always ends at the same byte", FakeStore(DATA, [Step(end=10)], forever=Step(end=0)),
     ArtifactTruncatedError, "gave up after 10 of 40 bytes: the body ended too early", 5),
    ("always the wrong offset, and always cut", FakeStore(DATA, forever=Step(offset=12, cut=10)),
     ArtifactTruncatedError, "gave up after 10 of 40 bytes: .*reset", 9),
    ("always the wrong offset, and no end", FakeStore(DATA, [Step(length="close")],
     forever=Step(offset=12)), ArtifactTruncatedError, "the body has no length", 3),
    ("gone", FakeStore(DATA, forever=Step(status=410, body=b"<Code>Gone</Code>")),
     ArtifactError, "answered 410 Gone$", 1),
    ("elsewhere", FakeStore(DATA, forever=Step(status=301, body=b"<Code>PermanentRedirect</Code>")),
     ArtifactError, "answered 301 PermanentRedirect$", 1),
    ("refuses every link", FakeStore(DATA, forever=Step(status=403, body=b"<Code>Bad</Code>")),
     ArtifactError, "answered 403 Bad, and the same to a fresh link", 2),
    ("refuses, with a strange document", FakeStore(DATA, forever=Step(status=403, body=b"<html>")),
     ArtifactError, "answered 403, and the same", 2),
    ("cannot be recognized", FakeStore(DATA, [Step(cut=10)], headers=BARE),
     ArtifactTruncatedError, UNRECOGNIZED, 1),
    ("cannot be recognized, and the end not be told",
     FakeStore(DATA, [Step(length="close")], headers=BARE),
     ArtifactTruncatedError, UNRECOGNIZED, 1),
    ("the end cannot be told", FakeStore(DATA, forever=Step(whole=True, length="close")),
     ArtifactTruncatedError, "the body has no length", 2),
    ("shorter than what was read", FakeStore(DATA, [Step(cut=20, length="close")],
     forever=Step(whole=True, end=5, length="chunked")),
     ArtifactTruncatedError, "ended too early", 5),
    ("more than announced", FakeStore(DATA, [Step(headers={"content-length": "30"})]),
     ArtifactError, "more bytes than it announced", 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("store", "kind", "message", "requests"),
    [case[1:] for case in HOPELESS],
    ids=[case[0] for case in HOPELESS],
)
async def test_what_cannot_be_mended_is_an_error(
    store: FakeStore, kind: type[ArtifactError], message: str, requests: int
) -> None:
    room = Room(store)
    with pytest.raises(ArtifactError, match=message) as caught:
        await room.bytes()
    assert type(caught.value) is kind
    assert len(store.asked) == requests
    assert store.open_now == 0
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_nothing_to_recognize_at_first() -> None:
    room = Room(FakeStore(DATA, [Step(cut=0)], headers=BARE))
    assert await room.bytes() == DATA


async def test_progress_resets_the_failures() -> None:
    room = Room(FakeStore(DATA, [Step(cut=1)] * 39), attempts=2)
    assert await room.bytes() == DATA
    assert len(room.store.asked) == 40


async def test_pauses_grow_and_obey(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "uniform", lambda least, most: most)
    loop = asyncio.get_running_loop()
    started = loop.time()
    store = FakeStore(DATA, forever=UNAVAILABLE)
    with pytest.raises(ArtifactError):
        await Room(store, attempts=7).bytes()
    assert loop.time() - started == pytest.approx(0.5 + 1 + 2 + 4 + 8 + 15, abs=0.5)

    script = [Step(status=503, headers={"retry-after": wish}) for wish in ("3", "900")]
    started = loop.time()
    assert await Room(FakeStore(DATA, script)).bytes() == DATA
    assert loop.time() - started == pytest.approx(3 + 15, abs=0.5)


async def test_no_pause_past_the_deadline() -> None:
    store = FakeStore(DATA, forever=Step(status=503, headers={"retry-after": "10"}))
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(ArtifactError, match="503"), anyio.fail_after(5):
        await Room(store).bytes()
    assert loop.time() - started < 1
    assert len(store.asked) == 1


async def test_link_replaced_before_it_expires() -> None:
    room = Room(FakeStore(DATA, [Step(cut=8)] * 3), lifetime=60)
    async with room.artifacts.stream("r1") as stream:
        async for _ in stream:
            room.now += timedelta(seconds=20)
    # Requests are made at 0, 40, 80 and 120 s. The first link is used until 55 s, the second one,
    # fetched at 80 s, until 135 s.
    assert [asked.link for asked in room.store.asked] == [1, 1, 2, 2]


async def test_short_lived_links() -> None:
    room = Room(FakeStore(DATA, [Step(cut=8)] * 2), lifetime=3)
    assert await room.bytes() == DATA
    assert [asked.link for asked in room.store.asked] == [1, 2, 3]


async def test_link_expires_every_few_bytes() -> None:
    store = FakeStore(DATA, chunk=4, forever=Step(cut=4))
    store.expiring = True
    room = Room(store)
    assert await room.bytes() == DATA
    assert room.links == 10
    assert len(store.asked) == 10 + 9  # nine of them were refused


async def test_refusal_after_a_failure() -> None:
    script = [Step(status=403), UNAVAILABLE, Step(status=403), UNAVAILABLE]
    room = Room(FakeStore(DATA, script))
    assert await room.bytes() == DATA
    assert room.links == 3


async def test_api_errors_come_through() -> None:
    room = Room(FakeStore(DATA))
    room.errors = [ArtifactsNotReadyError(method="GET", path="/", status=400)]
    with pytest.raises(ArtifactsNotReadyError):
        await room.bytes()
    lost = TransportError("down", method="GET", path="/v1/org")
    room = Room(FakeStore(DATA, [Step(cut=9), Step(status=403)]))

    async def lose_the_api() -> None:
        async with room.artifacts.stream("r1") as stream:
            async for _ in stream:
                room.errors = [lost]

    with pytest.raises(TransportError) as caught:
        await lose_the_api()
    assert caught.value is lost


async def test_unsafe_url_is_an_error() -> None:
    def opened(url: str, headers: object) -> None:
        raise UnsafeLinkError("the store's URL is plain http")

    store = FakeStore(DATA)
    store.open = opened  # type: ignore[assignment] # the seam is what is tested
    with pytest.raises(ArtifactError, match="run r1: the store's URL is plain http"):
        await Room(store).bytes()


async def test_leaving_frees_the_connection() -> None:
    room = Room(FakeStore(DATA))
    async with room.artifacts.stream("r1") as stream:
        assert await anext(stream) == DATA[:7]
        assert room.store.open_now == 1
    assert room.store.open_now == 0
    with pytest.raises(RuntimeError, match="closed"):
        await anext(stream)


async def test_slow_consumer_holds_back() -> None:
    room = Room(FakeStore(DATA))
    async with room.artifacts.stream("r1") as stream:
        await anext(stream)
        await anyio.sleep(1000)
        assert room.progress == [(7, 40)]
        rest = b"".join([chunk async for chunk in stream])
    assert rest == DATA[7:]


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_cancelled_stream(how: str) -> None:
    gate = asyncio.Event()
    room = Room(FakeStore(DATA, [Step(gate=gate)]))

    async def consume() -> None:
        await room.bytes()

    if how == "scope":
        with anyio.move_on_after(3) as scope:
            await consume()
        assert scope.cancelled_caught
    else:
        task = asyncio.ensure_future(consume())
        await anyio.sleep(3)
        assert room.store.open_now == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert room.store.open_now == 0


async def test_progress_is_throttled() -> None:
    data = bytes(500)
    room = Room(FakeStore(data, chunk=1))
    async with room.artifacts.stream("r1") as stream:
        async for _ in stream:
            await anyio.sleep(0.01)
    assert room.progress[-1] == (500, 500)
    assert len(room.times) > 20
    for first in room.times:
        assert sum(first <= time <= first + 1 for time in room.times) <= 10
