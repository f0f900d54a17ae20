"""The one file of the room that talks HTTP, over real sockets to a server that plays a part."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from amigo_async.errors import RequestTimeoutError, TransportError
from amigo_async.protocol.urls import UnsafeLinkError
from amigo_async.redact import SecretUrl
from amigo_async.transport.store import Store

pytestmark = pytest.mark.anyio

SECRET = "s3cr3t-signature"
QUERY = f"X-Amz-Signature={SECRET}&a=%2F~b%20c+d"
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "e"\r\n\r\nhello'


class Server:
    """Answers each request with the next of `answers`, byte by byte as they are.

    An answer that is None is never given; one that ends in ``CLOSE`` closes the connection.
    """

    CLOSE = b"<close>"

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.heads: list[str] = []
        self.closed = 0
        self.port = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head.decode())
                answer = self.answers.pop(0)
                if answer is None:
                    await reader.read()
                    break
                writer.write(answer.removesuffix(self.CLOSE))
                await writer.drain()
                if answer.endswith(self.CLOSE):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed += 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> SecretUrl:
        return SecretUrl(f"http://127.0.0.1:{self.port}/bucket/a%2Fb~c%20d.zip?{QUERY}")


@asynccontextmanager
async def opened(server: Server, **options: Any) -> AsyncIterator[Store]:
    async with (
        server.running(),
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
    ):
        yield Store(lambda: session, allow_http=True, **options)


async def whole(store: Store, url: str) -> bytes:
    async with store.open(url, {}) as response:
        body = b""
        while more := await response.read():
            body += more
        return body


async def test_request_has_nothing_of_ours() -> None:
    server = Server(OK)
    async with opened(server) as store, store.open(server.url, {"Range": "bytes=3-"}) as response:
        assert response.status == 200
        assert response.headers["etag"] == '"e"'
        assert await response.read() == b"hello"
        assert await response.read() == b""
    line, *fields = server.heads[0].strip().split("\r\n")
    assert line == f"GET /bucket/a%2Fb~c%20d.zip?{QUERY} HTTP/1.1"
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    agent = headers.pop("user-agent")
    assert "amigo" not in agent.lower()
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "range": "bytes=3-",
    }


async def test_connection_is_reused() -> None:
    server = Server(OK, OK)
    async with opened(server) as store:
        assert await whole(store, server.url) == b"hello"
        assert await whole(store, server.url) == b"hello"
        assert server.closed == 0


async def test_unwanted_body_closes() -> None:
    server = Server(OK.replace(b" 5", b" 50"))
    async with opened(server) as store:
        async with store.open(server.url, {}) as response:
            assert await response.read() == b"hello"
        while not server.closed:
            await asyncio.sleep(0.01)


async def test_encoded_body_is_kept() -> None:
    server = Server(OK.replace(b"ETag", b"Content-Encoding: gzip\r\nETag"))
    async with opened(server) as store:
        assert await whole(store, server.url) == b"hello"


async def test_the_chunks_of_a_chunked_body() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server = Server(
        head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", head + b"3\r\nabc\r\n2\r\nd" + Server.CLOSE
    )
    async with opened(server) as store:
        assert await whole(store, server.url) == b"abcde"
        with pytest.raises(TransportError):
            await whole(store, server.url)


CUT = OK.replace(b" 5", b" 50") + Server.CLOSE
BROKEN: list[tuple[str, bytes | None, type[TransportError]]] = [
    ("closed before the answer", Server.CLOSE, TransportError),
    ("cut short", CUT, TransportError),
    ("not HTTP", b"SSH-2.0-OpenSSH\r\n\r\n" + Server.CLOSE, TransportError),
    ("a head without end", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, TransportError),
    ("no answer", None, RequestTimeoutError),
    ("a stall", OK.replace(b" 5", b" 50"), RequestTimeoutError),
]


@pytest.mark.parametrize(
    ("answer", "kind"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
async def test_breaks_are_transport_errors(
    answer: bytes | None, kind: type[TransportError]
) -> None:
    server = Server(answer, answer)  # aiohttp itself asks once more where it got nothing at all
    async with opened(server, read_timeout=20) as store:
        started = asyncio.get_running_loop().time()
        with pytest.raises(TransportError) as caught:
            await whole(store, server.url)
        took = asyncio.get_running_loop().time() - started
    assert type(caught.value) is kind
    assert took == pytest.approx(20 if kind is RequestTimeoutError else 0, abs=2)
    check_bare(caught.value)


async def test_bytes_before_a_break_are_given() -> None:
    server = Server(CUT)
    async with opened(server) as store, store.open(server.url, {}) as response:
        while not server.closed:  # by now aiohttp knows of the break
            await asyncio.sleep(0.01)
        assert await response.read() == b"hello"
        for _ in range(2):
            with pytest.raises(TransportError):
                await response.read()


def check_bare(error: TransportError) -> None:
    """No secret in the error, nor in a traceback that shows local variables."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    for secret in (SECRET, "X-Amz-Signature"):
        assert secret not in "".join(shown.format())
        assert secret not in repr(error.args) + repr(vars(error))
    assert error.__cause__ is None
    assert error.__context__ is None
    assert (error.method, error.path) == ("GET", "/bucket/a%2Fb~c%20d.zip")


async def test_a_store_that_is_not_there() -> None:
    server = Server()
    async with opened(server) as store:
        pass
    async with aiohttp.ClientSession() as session:
        store = Store(lambda: session, allow_http=True)
        with pytest.raises(TransportError, match="got no response") as caught:
            await whole(store, server.url)
    assert not caught.value.sent
    check_bare(caught.value)


async def test_no_limit_on_the_whole() -> None:
    """Ten bytes, one a minute: far beyond the timeout of a single read, never without a byte."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(50)
            writer.write(b"x")
        writer.close()
        await writer.wait_closed()

    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/k"
    async with server, aiohttp.ClientSession() as session:
        started = loop.time()
        assert await whole(Store(lambda: session, allow_http=True), url) == b"x" * 10
        assert loop.time() - started >= 500


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/k?q", "ftp://127.0.0.1/k", "https://u:p@127.0.0.1/k", "/k"]
)
async def test_urls_that_must_not_be_asked(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(UnsafeLinkError):
            await whole(Store(lambda: session, allow_http=False), url)


def redirect(location: str, status: int = 307) -> bytes:
    return f"HTTP/1.1 {status} Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_requoted(status: int) -> None:
    other = Server(OK)
    async with other.running():
        server = Server(redirect(f"http://localhost:{other.port}/new%2Fkey?x=%20y", status))
        async with opened(server) as store:
            assert await whole(store, server.url) == b"hello"
    assert other.heads[0].startswith("GET /new%2Fkey?x=%20y HTTP/1.1\r\n")
    assert SECRET not in other.heads[0]
    assert "referer" not in other.heads[0].lower()


async def test_redirect_carries_nothing_over() -> None:
    server = Server(redirect("/elsewhere"), OK)
    async with opened(server) as store:
        assert await whole(store, server.url) == b"hello"
    assert server.heads[1].startswith("GET /elsewhere HTTP/1.1\r\n")
    assert SECRET not in server.heads[1]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([redirect("/k")] * 6, "without end"),
        ([redirect("ftp://127.0.0.1/k")], "not an https URL"),
    ],
)
async def test_redirects_that_are_not_followed(answers: list[bytes], message: str) -> None:
    server = Server(*answers)
    async with opened(server) as store:
        with pytest.raises(UnsafeLinkError, match=message) as caught:
            await whole(store, server.url)
    assert len(server.heads) == len(answers)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_redirect_to_nowhere() -> None:
    body = b"<Error><Code>PermanentRedirect</Code></Error>"
    head = f"HTTP/1.1 301 Go\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    server = Server(head + body)
    async with opened(server) as store, store.open(server.url, {}) as response:
        assert response.status == 301
        assert await response.read() == body


async def test_cancel_closes_the_connection() -> None:
    server = Server(None)
    async with opened(server) as store:
        task = asyncio.ensure_future(whole(store, server.url))
        while not server.heads:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not server.closed:
            await asyncio.sleep(0.01)


async def test_slow_reader_holds_the_store() -> None:
    """What is not read stays in the buffers of the system, and the store has to wait."""
    size = 64 * 1024 * 1024
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            while sent < size:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/k"
    async with server, aiohttp.ClientSession() as session:
        store = Store(lambda: session, allow_http=True, read_timeout=1e6)
        async with store.open(url, {}) as response:
            before = -1
            while sent != before:  # until nothing moves any more
                before = sent
                await asyncio.sleep(600)
            assert 0 < sent < size / 2
            read = len(await response.read())
            while more := await response.read():
                read += len(more)
            assert read == size
