"""What can happen to one request on the wire."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace

from tests.fault_wire import Answer, Exchange, Happening


async def reset_before(exchange: Exchange) -> None:
    exchange.reset()


async def close_before(exchange: Exchange) -> None:
    pass


async def reset_after(exchange: Exchange) -> None:
    await exchange.work()
    exchange.reset()


async def close_after(exchange: Exchange) -> None:
    await exchange.work()


async def silent_before(exchange: Exchange) -> None:
    await exchange.gone()


async def silent_after(exchange: Exchange) -> None:
    await exchange.work()
    await exchange.gone()


def cut(part: str, then: str) -> Happening:
    """The answer up to the middle of its head or body, then a reset, a close or silence."""

    async def happen(exchange: Exchange) -> None:
        answer = await exchange.work()
        if not answer.body:
            answer = answer.holding(b"{}")
        head = answer.head()
        at = len(head) // 2 if part == "head" else len(head) + -(-len(answer.body) // 2)
        await exchange.send(answer.wire()[:at])
        if then == "silence":
            await exchange.gone()
        elif then == "reset":
            await asyncio.sleep(0.1)
            exchange.reset()

    return happen


def drip(seconds: float, pieces: int = 4) -> Happening:
    """The answer in pieces, with a pause before each."""

    async def happen(exchange: Exchange) -> None:
        data = (await exchange.work()).wire()
        size = -(-len(data) // pieces)
        for at in range(0, len(data), size):
            await asyncio.sleep(seconds / pieces)
            await exchange.send(data[at : at + size])

    return happen


async def rangeless(exchange: Exchange) -> None:
    exchange.request = re.sub(rb"(?i)\r\nRange: [^\r]*", b"", exchange.request)
    await exchange.send((await exchange.work()).wire())


def spoiled(change: Callable[[Answer], Answer | bytes]) -> Happening:
    """The work is done, and its answer changed."""

    async def happen(exchange: Exchange) -> None:
        changed = change(await exchange.work())
        await exchange.send(changed if isinstance(changed, bytes) else changed.wire())

    return happen


def said(data: bytes) -> Happening:
    """These bytes instead of the work."""

    async def happen(exchange: Exchange) -> None:
        await exchange.send(data)

    return happen


def answered(status: int, body: bytes = b'{"detail": "no"}', **headers: str) -> bytes:
    answer = Answer(status, "Said", (("Content-Type", "application/json"),), b"")
    if status == 304:  # has no body
        return answer.using(**headers).wire()
    return replace(answer.holding(body, **headers), status=status).wire()


def headers(**changed: str | None) -> Happening:
    return spoiled(lambda answer: answer.using(**changed))


def body(data: bytes, **changed: str | None) -> Happening:
    return spoiled(lambda answer: answer.holding(data, **changed))


def raw_header(line: str) -> Happening:
    """A header as it is, twice or malformed."""

    def change(answer: Answer) -> bytes:
        answer = answer if answer.body else answer.holding(b"{}")
        head = answer.head()[:-2] + line.encode("latin-1") + b"\r\n\r\n"
        return head + answer.body

    return spoiled(change)


def chunked(answer: Answer) -> bytes:
    answer = answer.holding(answer.body, Content_Length=None, Transfer_Encoding="chunked")
    size = len(answer.body)
    return answer.head() + b"%x\r\n%s\r\n0\r\n\r\n" % (size, answer.body) if size else (
        answer.head() + b"0\r\n\r\n"
    )  # fmt: skip
