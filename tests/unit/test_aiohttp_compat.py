"""What is used of aiohttp without a public name: that it is there, and does what it is used for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from yarl import URL

import amigo_async
from amigo_async import AmigoClient, BearerAuth
from amigo_async.errors import TransportError
from amigo_async.transport import aiohttp_compat as compat

pytestmark = pytest.mark.anyio

PACKAGE = Path(amigo_async.__file__).parent
COMPAT = PACKAGE / "transport/aiohttp_compat.py"
ID = "0" * 24


# --- what aiohttp may rename ---


async def test_aiohttp_has_the_replay_switch() -> None:
    async with aiohttp.ClientSession() as session:
        assert vars(session)["_retry_connection"] is True
        assert "_retry_connection" in aiohttp.ClientSession.ATTRS
        other = compat.without_replay(session)
        assert vars(other)["_retry_connection"] is False
        assert vars(session)["_retry_connection"] is True
        other.detach()
        assert other.closed
        assert not session.closed


async def test_no_replay_shares_the_rest() -> None:
    async with aiohttp.ClientSession(headers={"X-One": "1"}, cookies={"two": "2"}) as session:
        other = compat.without_replay(session)
        session.headers["X-Later"] = "3"
        kept = {name for name in vars(session) if getattr(other, name) is not vars(session)[name]}
        assert kept == {"_retry_connection"}
        assert other.headers["X-Later"] == "3"
        other.detach()


async def test_loop_of_a_session() -> None:
    async with aiohttp.ClientSession() as session:
        assert compat.loop_of(session) is asyncio.get_running_loop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_settings_of_a_session() -> None:
    auth = aiohttp.BasicAuth("user", "hunter2")
    async with aiohttp.ClientSession() as session:
        assert (compat.proxy_of(session), compat.has_authorization(session)) == (None, False)
    async with aiohttp.ClientSession(proxy="http://proxy.test:3128") as session:
        assert compat.proxy_of(session) == URL("http://proxy.test:3128")
    async with aiohttp.ClientSession(proxy="http://proxy.test:3128", proxy_auth=auth) as session:
        assert compat.proxy_of(session) == URL("http://user:hunter2@proxy.test:3128")
    async with aiohttp.ClientSession(auth=auth) as session:
        assert compat.has_authorization(session)
    async with aiohttp.ClientSession(headers={"AUTHORIZATION": "Bearer t"}) as session:
        assert compat.has_authorization(session)


async def test_unread_part_of_a_body() -> None:
    async def serve(_: bytes, __: int) -> bytes | None:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"0123456789"

    async with (
        serving(serve, close_after=True) as url,
        aiohttp.ClientSession() as session,
        session.get(url) as answer,
    ):
        assert await answer.content.read(4) == b"0123"
        while answer.content.exception() is None:
            await asyncio.sleep(0.01)
        assert compat.unread(answer.content) == b"456789"


def test_private_names_in_one_module() -> None:
    names = {name for name in aiohttp.ClientSession.ATTRS if name.startswith("_")}
    # Those that could be meant: `_loop` and the like are also names of our own.
    telling = {name for name in names if name.startswith(("_retry", "_default", "_trust"))}
    private = re.compile(rf"\b({'|'.join(sorted({*telling, '_buffer_offset'}))})\b")
    assert {"_retry_connection", "_default_proxy", "_default_auth"} <= telling
    assert {"_retry_connection", "_default_proxy", "_default_auth", "_buffer_offset"} <= set(
        private.findall(COMPAT.read_text())
    )
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if path != COMPAT:
            assert not private.search(text), path
            assert not re.search(r"from aiohttp\.(?!abc|web)", text), path


# --- replays ---


@asynccontextmanager
async def serving(
    answer: Callable[..., object], *, close_after: bool = False
) -> AsyncIterator[str]:
    """A server for requests without a body; None for closing the connection without an answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                number += 1
                said = await answer(head, number)  # type: ignore[misc]
                if said is None:
                    break
                writer.write(said)
                if close_after:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


EMPTY = (
    b'{"simulation_unit_test_set_runs": [], "has_more": false, "continuation_token": null,'
    b' "filter_values": null}'
)


def ok(body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


@asynccontextmanager
async def clients(url: str, *, given: bool, **settings: int) -> AsyncIterator[AmigoClient]:
    """A client with a session of its own, or with one that is given."""
    async with (
        aiohttp.ClientSession() as http,
        AmigoClient(
            auth=BearerAuth("token"),
            organization_id="acme",
            base_url=url,
            http=http if given else None,
            **settings,  # type: ignore[arg-type]
        ) as client,
    ):
        yield client


@pytest.mark.parametrize("given", [True, False])
async def test_closed_connection_sends_once(given: bool) -> None:
    seen: list[int] = []

    async def once_each(_: bytes, number: int) -> bytes | None:
        seen.append(number)
        return ok(EMPTY) if number == 1 else None

    async with serving(once_each) as url:
        async with clients(url, given=given, max_attempts=1) as client:
            await client.runs.list()
            with pytest.raises(TransportError):
                await client.runs.list()
        assert seen == [1, 2]
        seen.clear()
        async with aiohttp.ClientSession() as plain:  # which is why
            for _ in range(2):
                await (await plain.get(url)).read()
        assert seen == [1, 2, 1]


@pytest.mark.parametrize("given", [True, False])
async def test_lost_cancel_is_no_conflict(
    given: bool,
) -> None:
    cancelled: list[bool] = []

    async def serve(head: bytes, number: int) -> bytes | None:
        if head.startswith(b"GET"):
            return ok(EMPTY)
        cancelled.append(True)
        body = b'{"detail": "not in progress"}'
        conflict = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        return None if len(cancelled) == 1 else conflict

    async with serving(serve) as url, clients(url, given=given) as client:
        await client.runs.list()
        await client.runs.cancel(ID)
    assert len(cancelled) == 2


# --- headers ---


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    "headers",
    [
        [b"Content-Security-Policy: " + b"x" * 64 * 1024],
        [b"X-Header-%d: value" % number for number in range(1_000)],
    ],
    ids=["64 KiB", "1,000 lines"],
)
async def test_long_headers_are_read(given: bool, headers: list[bytes]) -> None:
    async def serve(_: bytes, __: int) -> bytes:
        return ok(EMPTY, *headers)

    async with serving(serve) as url, clients(url, given=given, max_attempts=1) as client:
        page = await client.runs.list()
    assert page.simulation_unit_test_set_runs == []


async def test_endless_headers_are_not_read() -> None:
    async def serve(_: bytes, __: int) -> bytes:
        return ok(EMPTY, b"X-Header: " + b"x" * 1024 * 1024)

    async with serving(serve) as url, clients(url, given=False, max_attempts=1) as client:
        with pytest.raises(TransportError, match="not HTTP"):
            await client.runs.list()


async def test_given_session_is_unchanged() -> None:
    async def serve(_: bytes, __: int) -> bytes:
        return ok(EMPTY, b"Set-Cookie: gateway=node-7; Path=/")

    async with serving(serve) as url, aiohttp.ClientSession(headers={"X-Team": "qa"}) as http:
        before = dict(vars(http))
        client = AmigoClient(
            auth=BearerAuth("token"), organization_id="acme", base_url=url, http=http
        )
        await client.runs.list()
        assert {cookie.key for cookie in http.cookie_jar} <= {"gateway"}
        await client.aclose()
        assert vars(http) == before
        assert not http.closed
        async with http.get(url) as answer:
            assert answer.status == 200
        assert urlsplit(url).hostname == "127.0.0.1"
