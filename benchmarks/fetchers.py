"""What takes part in the benchmark of downloads, each in a process of its own.

``python -m benchmarks.fetchers WHO`` does the job that comes as JSON on standard input, and writes
what it took from when everything was loaded. What is large is loaded where it is used.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

OURS: Final = "amigo_async"
BARE: Final = "bare aiohttp"
BOTO: Final = "aiobotocore"
CURL: Final = "curl"
SYNCED: Final = "curl and sync"
ARIA2: Final = "aria2"


class Job(Struct, frozen=True):
    """What is to be fetched.

    Attributes:
        store: Where the store is: ``http://HOST:PORT``.
        bucket: The first part of the path.
        keys: The rest of the path, of each file; they are saved under these names.
        size: How large each is.
        folder: Where they are saved.
        connections: Connections for one file.
        at_once: Files at once.
        api: Where an API is that gives a link to the one file; None where the link is known.
    """

    store: str
    bucket: str
    keys: list[str]
    size: int
    folder: str
    connections: int
    at_once: int
    api: str | None = None

    def url(self, key: str) -> str:
        """Where a file is."""
        return f"{self.store}/{self.bucket}/{key}"

    def target(self, key: str) -> str:
        """Where it is to be."""
        return f"{self.folder}/{key}"

    def ranges(self) -> list[tuple[int, int]]:
        """A file in as many parts as there are connections: first byte, and that behind."""
        step = -(-self.size // self.connections)
        return [(n, min(n + step, self.size)) for n in range(0, self.size, step)]


class Spent(Struct, frozen=True):
    """What a job took: seconds, and seconds of the processor."""

    seconds: float
    cpu: float


Fetch: TypeAlias = Callable[[Job], Coroutine[Any, Any, None]]


async def _each(job: Job, fetch: Callable[[str], Awaitable[object]]) -> None:
    """Fetch every file, so many at once."""
    keys = iter(job.keys)

    async def work() -> None:
        for key in keys:
            await fetch(key)

    async with asyncio.TaskGroup() as group:
        for _ in range(job.at_once):
            group.create_task(work())


async def amigo_async(job: Job) -> None:
    """The package: a client that gets its link from the API, or its room of artifacts alone."""
    from amigo_async import AmigoClient  # noqa: PLC0415  # see above

    if job.api is None:
        await _room(job)
        return
    async with AmigoClient(
        api_key="key",
        api_key_id="key-id",
        user_id="user-1",
        organization_id="acme",
        base_url=job.api,
    ) as client:
        await client.artifacts.download("0" * 24, f"{job.folder}/", connections=job.connections)


async def _room(job: Job) -> None:
    import aiohttp  # noqa: PLC0415  # see above

    from amigo_async.artifacts import Artifacts  # noqa: PLC0415
    from amigo_async.models import ArtifactsLink  # noqa: PLC0415
    from amigo_async.transport.store import Store  # noqa: PLC0415

    expires = datetime.now(UTC) + timedelta(hours=1)

    async def link(key: str) -> ArtifactsLink:
        return ArtifactsLink(job.url(key), expires)

    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        room = Artifacts(
            open=Store(lambda: session, allow_http=True).open,
            link=link,
            server_now=lambda: datetime.now(UTC),
            emit=lambda _: None,
        )
        await _each(job, lambda key: room.download(key, f"{job.folder}/"))


async def bare(job: Job) -> None:
    """The least that can be done with aiohttp: no check, no retry, written in the loop."""
    import aiohttp  # noqa: PLC0415  # see above

    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:

        async def part(key: str, start: int, stop: int) -> None:
            headers = {} if job.connections == 1 else {"Range": f"bytes={start}-{stop - 1}"}
            async with session.get(job.url(key), headers=headers, raise_for_status=True) as answer:
                with _opened(job.target(key), start) as file:
                    async for chunk in answer.content.iter_any():
                        file.write(chunk)

        async def whole(key: str) -> None:
            if job.connections > 1:  # ranges cannot be asked for before the size is known
                async with session.head(job.url(key), raise_for_status=True):
                    pass
            await asyncio.gather(*(part(key, *r) for r in job.ranges()))

        await _each(job, whole)


async def aiobotocore(job: Job) -> None:
    """``get_object`` without a signature."""
    # These have no types.
    from aiobotocore.config import AioConfig  # type: ignore[import-untyped] # noqa: PLC0415
    from aiobotocore.session import get_session  # type: ignore[import-untyped] # noqa: PLC0415
    from botocore import UNSIGNED  # type: ignore[import-untyped] # noqa: PLC0415

    config = AioConfig(signature_version=UNSIGNED, s3={"addressing_style": "path"})
    async with get_session().create_client(
        "s3", region_name="us-east-1", endpoint_url=job.store, config=config
    ) as client:

        async def part(key: str, start: int, stop: int) -> None:
            asked = {} if job.connections == 1 else {"Range": f"bytes={start}-{stop - 1}"}
            answer = await client.get_object(Bucket=job.bucket, Key=key, **asked)
            async with answer["Body"] as body:
                with _opened(job.target(key), start) as file:
                    async for chunk in body.iter_chunks(256 * 1024):
                        file.write(chunk)

        async def whole(key: str) -> None:
            if job.connections > 1:
                await client.head_object(Bucket=job.bucket, Key=key)
            await asyncio.gather(*(part(key, *r) for r in job.ranges()))

        await _each(job, whole)


def _opened(path: str, offset: int) -> BinaryIO:
    """The file, to be written from `offset` on beside others who write to it."""
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb")
    file.seek(offset)
    return file


# What each needs, loaded before the time is taken.
LOADED: Final = {OURS: "amigo_async.client", BARE: "aiohttp", BOTO: "aiobotocore.session"}
FETCHERS: Final[dict[str, Fetch]] = {OURS: amigo_async, BARE: bare, BOTO: aiobotocore}


def curl(job: Job) -> list[str]:
    """curl; it asks for the size before ranges, and those are not joined."""
    listed = Path(job.folder, "curl.txt")
    parts = [
        (key, part)
        for key in job.keys
        for part in (job.ranges() if job.connections > 1 else [None])
    ]
    blocks = []
    for number, (key, part) in enumerate(parts):
        output = job.target(key) if part is None else f"{job.target(key)}.{number}"
        lines = [f'url = "{job.url(key)}"', f'output = "{output}"', "fail"]
        lines += [] if part is None else [f'range = "{part[0]}-{part[1] - 1}"']
        blocks.append("\n".join(lines))
    listed.write_text("\nnext\n".join(blocks) if job.connections > 1 else "\n".join(blocks))
    most = str(max(job.at_once, job.connections))
    common = ["curl", "-q", "-s", "-S", "-f"]
    if len(parts) == 1:
        return [*common, "-K", str(listed)]
    command = [*common, *("-Z", "--parallel-immediate", "--parallel-max", most, "-K", str(listed))]
    command.append("--no-progress-meter")
    if job.connections == 1:
        return command
    first = shlex.join([*common, "-o", os.devnull, "-I", job.url(job.keys[0])])
    return ["sh", "-c", f"{first} && exec {shlex.join(command)}"]


def aria2(job: Job) -> list[str]:
    """aria2, with the quickest way to take room on the disk."""
    listed = Path(job.folder, "aria2.txt")
    listed.write_text("".join(f"{job.url(key)}\n  out={key}\n" for key in job.keys))
    each = str(job.connections)
    return [
        *("aria2c", "--no-conf", "-q", "--file-allocation=falloc", "-d", job.folder),
        *("-x", each, "-s", each, "-k", "1M", "-j", str(job.at_once), "-i", str(listed)),
    ]


def synced(job: Job) -> list[str]:
    """curl, and then what it saved is written to the disk, as the package does."""
    return ["sh", "-c", f"( {shlex.join(curl(job))} ) && sync {shlex.quote(job.folder)}/*"]


PROGRAMS: Final[dict[str, Callable[[Job], list[str]]]] = {
    CURL: curl,
    SYNCED: synced,
    ARIA2: aria2,
}


def main() -> None:
    """Do the job, and tell what it took."""
    fetch, job = FETCHERS[sys.argv[1]], msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    importlib.import_module(LOADED[sys.argv[1]])
    if len(job.keys) > 1:
        asyncio.run(fetch(replace(job, keys=[])))  # loads the rest
    began, cpu = time.perf_counter(), time.process_time()
    asyncio.run(fetch(job))
    spent = Spent(time.perf_counter() - began, time.process_time() - cpu)
    sys.stdout.buffer.write(msgspec.json.encode(spent))


if __name__ == "__main__":
    main()
