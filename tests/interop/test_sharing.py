"""Replicas that share an organization in a real Redis, in real time; and what becomes without."""

from __future__ import annotations

from tests.support.needs import needs_modules

needs_modules("cryptography", "redis")

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
from cryptography.fernet import Fernet
from redis.asyncio import Redis

from amigo_async import AmigoClient, AuthenticationError, ConfigurationError
from amigo_async.auth import SignedInToken, StoredToken
from amigo_async.events import Event, SharingLost, SharingRestored
from amigo_async.ratelimit.shared import LeaseQueue
from amigo_async.redis import RedisSharing
from amigo_async.server_clock import ServerClock
from amigo_async.testing import Fault, Sandbox, SetPlan
from tests.support.redis_server import PASSWORD, RedisServer

# Real processes take several times as long on a busy machine.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

UNLIMITED: Any = dict.fromkeys(["sign_in", "create", "list", "cancel", "artifacts"])


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """A loop whose time is real, as it is for Redis."""
    return "asyncio", {"debug": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Any]:
    """The server, empty, as an administrator sees it."""
    async with Redis.from_url(server.url) as asking:
        await asking.flushall()
        yield asking


# --- processes ---

SCALED: Any = {"create": 40, "list": 500, "artifacts": None}
WINDOW = 1.2


def windows(sandbox: Sandbox) -> list[int]:
    """How many sets were started in each window of the service."""
    counts: list[int] = []
    ends = 0.0
    for request in sandbox.requests:
        if request.route == "create" and request.status == 201:
            if request.time >= ends:
                ends = request.time + WINDOW
                counts.append(0)
            counts[-1] += 1
    return counts


class Replicas:
    """Four processes that do 120 sets of one organization, and end with the context."""

    def __init__(self, sandbox: Sandbox, url: str) -> None:
        ids = sandbox.add_sets(120)
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.replica"],
                env={**os.environ, **sandbox.environment()},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        for number, process in enumerate(self._processes):
            assert process.stdin is not None
            told = {
                "sets": ids[number::4],
                "redis": url,
                "settings": {"poll_interval": 0.3},
                # A busy machine is not a Redis that is lost; one that is lost is not tried again
                # before they are done.
                "sharing": {"timeout": 30.0, "cooldown": 3600.0},
            }
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def go(self) -> None:
        """Let them begin, when all can."""
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    def done(self) -> tuple[Counter[str], list[Counter[str]]]:
        """The verdicts of all, and the events of each."""
        told = [json.loads(process.stdout.read()) for process in self._processes if process.stdout]
        assert [one["errors"] for one in told] == [[]] * 4
        verdicts = sum((Counter[str](one["verdicts"]) for one in told), Counter[str]())
        return verdicts, [Counter(one["events"]) for one in told]


@pytest.mark.timeout(300)
def test_four_processes_fill_windows(tmp_path: Path) -> None:
    plan = SetPlan(seconds=0.2)
    with (
        RedisServer(tmp_path) as server,
        Sandbox(plan=plan, limits=SCALED, window=WINDOW).in_thread() as sandbox,
        Replicas(sandbox, server.url) as replicas,
    ):
        replicas.go()
        verdicts, events = replicas.done()
        assert verdicts == {"passed": 120}
        assert [request for request in sandbox.requests if request.status == 429] == []
        assert max(windows(sandbox)) <= 40
        assert len(windows(sandbox)) <= 6  # 3, unless the machine is too busy to fill one
        assert not any(one["SharingLost"] for one in events)


@pytest.mark.timeout(300)
def test_redis_killed_meanwhile(tmp_path: Path) -> None:
    plan = SetPlan(seconds=0.2)
    with (
        RedisServer(tmp_path) as server,
        # Windows that leave something to do when it is killed, however busy the machine is.
        Sandbox(plan=plan, limits=SCALED, window=2.5 * WINDOW).in_thread() as sandbox,
        Replicas(sandbox, server.url) as replicas,
    ):
        replicas.go()
        while sandbox.count("create", status=201) < 45:
            time.sleep(0.02)
        server.kill()
        verdicts, events = replicas.done()
        assert verdicts == {"passed": 120}
        assert len(sandbox.runs) == 120
        lost = [one["SharingLost"] for one in events]
        assert max(lost) == 1  # one that needs nothing more does not notice
        assert sum(lost) >= 1
        assert not any(one["SharingRestored"] for one in events)


# --- a place in Redis ---


async def place_of(
    server: RedisServer, emit: Callable[[Event], None] = lambda _: None, **more: Any
) -> Any:
    return RedisSharing(server.url, **more).connect(emit)


async def test_eight_connections_never_overspend(server: RedisServer, redis: Any) -> None:
    lost: list[Event] = []
    places = [await place_of(server, lost.append) for _ in range(8)]
    all_of = [LeaseQueue(place, "create", "create", 100, 30.0) for place in places]
    held: list[int | None] = []

    async def take(reservations: LeaseQueue) -> None:
        held.append(await reservations.take(lambda _: None))

    async with anyio.create_task_group() as group:
        for one in all_of:
            for _ in range(20):
                group.start_soon(take, one)
        while not held:
            await asyncio.sleep(0.001)
        first = held[0]
        assert first is not None
        all_of[0].report(lambda budget, at: budget.answered(at.store_time, first, None))
        while len(held) < 100:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        assert len(held) == len(set(held)) == 100
        group.cancel_scope.cancel()
    for one, place in zip(all_of, places, strict=True):
        await one.aclose()
        await place.aclose()
    assert lost == []


async def test_quota_of_a_dead_process(server: RedisServer, redis: Any) -> None:
    gone, alive = await place_of(server), await place_of(server)
    first = LeaseQueue(gone, "sign_in", "sign_in", 5, 0.4)
    await first.take(lambda _: None)
    await gone.aclose()  # without a word, as a process that is killed
    began = asyncio.get_running_loop().time()
    second = LeaseQueue(alive, "sign_in", "sign_in", 5, 0.4)
    with anyio.fail_after(60):
        await second.take(lambda _: None)
    assert asyncio.get_running_loop().time() - began > 0.3
    await second.aclose()
    await alive.aclose()


async def test_records_expire_and_name_no_user(server: RedisServer, redis: Any) -> None:
    async with Sandbox() as sandbox:
        key = Fernet.generate_key()
        async with sandbox.client(shared=RedisSharing(server.url, token_key=key)) as client:
            await client.runs.list()
        names = [name.decode() for name in await redis.keys()]
        assert len(names) == 3
        for name in names:
            assert name.startswith("amigo_async:2:")
            assert 0 < await redis.ttl(name) <= 7200
            assert sandbox.user_id not in name
            assert sandbox.api_key_id not in name


async def test_given_redis_client_stays_open(server: RedisServer, redis: Any) -> None:
    async with (
        Redis.from_url(server.url, decode_responses=True) as given,
        Sandbox(limits={"create": 3}, window=1.0) as sandbox,
    ):
        sharing = RedisSharing(given, token_key=Fernet.generate_key())
        for _ in range(2):
            async with sandbox.client(shared=sharing) as client:
                await client.runs.list()
        assert sandbox.count("sign_in") == 1
        assert await given.ping()


async def test_evicted_records_begin_anew(server: RedisServer, redis: Any) -> None:
    heard: list[Event] = []
    sharing = RedisSharing(server.url, token_key=Fernet.generate_key())
    async with (
        Sandbox(limits=UNLIMITED) as sandbox,
        sandbox.client(shared=sharing, on_event=heard.append) as client,
    ):
        await client.runs.list()
        await redis.flushall()
        await client.runs.list()
        for name in await redis.keys():
            await redis.set(name, b"\xff spoiled")
        sandbox.expire_tokens()
        await client.runs.list()
        for name in await redis.keys():
            assert b"spoiled" not in await redis.get(name)
    assert not [event for event in heard if isinstance(event, SharingLost)]


# --- without it ---


async def deny_writes(redis: Any, _: RedisServer) -> None:
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")


async def fill_with_lists(redis: Any, _: RedisServer) -> None:
    for name in await redis.keys():
        await redis.delete(name)
        await redis.rpush(name, "not ours")


async def ask_for_a_password(redis: Any, _: RedisServer) -> None:
    await redis.config_set("requirepass", PASSWORD)
    for client in await redis.client_list():
        if client["cmd"] != "client|list":
            await redis.client_kill_filter(_id=client["id"])


async def run_out_of_memory(redis: Any, _: RedisServer) -> None:
    await redis.config_set("maxmemory", 1)


async def kill(_: Any, server: RedisServer) -> None:
    server.kill()


async def hang(_: Any, server: RedisServer) -> None:
    server.hang()


@pytest.mark.parametrize(
    ("breakage", "word"),
    [
        (deny_writes, "read only"),
        (fill_with_lists, "WRONGTYPE"),
        (ask_for_a_password, "uthenticat"),
        (run_out_of_memory, "memory"),
        (kill, ""),
        (hang, "no answer in time"),
    ],
)
async def test_redis_errors_fail_nothing(
    tmp_path: Path, breakage: Callable[..., Any], word: str
) -> None:
    heard: list[Event] = []
    async with Sandbox(limits=UNLIMITED) as sandbox:
        with RedisServer(tmp_path) as server:
            sharing = RedisSharing(server.url, timeout=0.3, token_key=Fernet.generate_key())
            async with (
                Redis.from_url(server.url) as redis,
                sandbox.client(shared=sharing, on_event=heard.append) as client,
            ):
                await client.runs.list()
                await breakage(redis, server)
                for _ in range(3):
                    await client.runs.list()
                await client.runs.create(sandbox.add_set())
                sandbox.expire_tokens()
                await client.runs.list()
    (lost,) = [event for event in heard if isinstance(event, SharingLost | SharingRestored)]
    assert isinstance(lost, SharingLost)
    assert word in lost.reason
    assert lost.delay == 30.0


async def test_absent_redis_fails_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "amigo_async")
    heard: list[Event] = []
    url = f"redis://user:{PASSWORD.replace('/', '%2F')}@127.0.0.1:1/0"
    async with (
        Sandbox(limits=UNLIMITED) as sandbox,
        sandbox.client(shared=RedisSharing(url), on_event=heard.append) as client,
    ):
        await client.runs.list()
        await client.runs.list()
    (lost,) = [event for event in heard if isinstance(event, SharingLost)]
    (record,) = caplog.records
    assert lost.reason in record.getMessage()
    assert PASSWORD not in repr(heard) + caplog.text


async def test_a_wrong_password_is_told_without_it(tmp_path: Path) -> None:
    heard: list[Event] = []
    with RedisServer(tmp_path, password=PASSWORD) as server:
        wrong = server.url.replace("//", "//:wrong-word@")
        right = server.url.replace("//", f"//:{PASSWORD.replace('/', '%2F')}@")
        for url in (wrong, right):
            sharing = RedisSharing(url)
            async with (
                Sandbox(limits=UNLIMITED) as sandbox,
                sandbox.client(shared=sharing, on_event=heard.append) as client,
            ):
                await client.runs.list()
    (lost,) = [event for event in heard if isinstance(event, SharingLost)]
    assert "WRONGPASS" in lost.reason or "invalid" in lost.reason
    assert "wrong-word" not in repr(heard)


async def test_redis_that_comes_back(tmp_path: Path) -> None:
    heard: list[Event] = []
    server = RedisServer(tmp_path)
    with server:
        sharing = RedisSharing(server.url, cooldown=0.2)
        async with (
            Sandbox(limits=UNLIMITED) as sandbox,
            sandbox.client(shared=sharing, on_event=heard.append) as client,
        ):
            await client.runs.list()
            server.kill()
            await client.runs.list()
            server.start()
            await asyncio.sleep(0.25)
            await client.runs.list()
        async with Redis.from_url(server.url) as redis:
            assert await redis.keys()
    told = [event for event in heard if isinstance(event, SharingLost | SharingRestored)]
    assert [type(event) for event in told] == [SharingLost, SharingRestored]
    assert isinstance(told[1], SharingRestored)
    assert told[1].after > 0.2


# --- tokens ---


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Sandbox]:
    async with Sandbox(limits={**UNLIMITED, "sign_in": 5}, **settings) as sandbox:
        yield sandbox


async def looks(sandbox: Sandbox, count: int, sharing: Callable[[], RedisSharing]) -> None:
    """Let so many replicas look at once, each with a client of its own."""

    async def look() -> None:
        async with sandbox.client(shared=sharing()) as client:
            await client.runs.list()

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(look)


@pytest.mark.parametrize(("shared", "sign_ins"), [(True, 1), (False, 4)])
async def test_shared_token_one_sign_in(
    server: RedisServer, redis: Any, shared: bool, sign_ins: int
) -> None:
    key = Fernet.generate_key().decode() if shared else None
    async with serving() as sandbox:
        await looks(sandbox, 4, lambda: RedisSharing(server.url, token_key=key))
        assert sandbox.count("sign_in") == sign_ins
        assert sandbox.count("sign_in", status=200) == sign_ins


async def everything_in(redis: Any) -> bytes:
    return b"".join([name + (await redis.dump(name)) for name in await redis.keys()])


async def test_a_token_in_redis_is_encrypted(server: RedisServer, redis: Any) -> None:
    key = Fernet.generate_key()
    async with serving() as sandbox:
        async with sandbox.client(shared=RedisSharing(server.url, token_key=key)) as client:
            await client.runs.list()
            token = str(client._session._auth._token)  # type: ignore[attr-defined]
        assert len(token) > 20
        kept = await everything_in(redis)
        assert b"token" in kept
        for secret in (token, token[10:30], str(sandbox.api_key), key.decode()):
            assert secret.encode() not in kept
        (name,) = [name for name in await redis.keys() if b":token:" in name]
        assert token.encode() in Fernet(key).decrypt(await redis.get(name))


async def test_foreign_tokens_are_ignored(server: RedisServer, redis: Any) -> None:
    first, second = Fernet.generate_key(), Fernet.generate_key()

    async with serving() as sandbox:
        await looks(sandbox, 1, lambda: RedisSharing(server.url, token_key=first))
        await looks(sandbox, 1, lambda: RedisSharing(server.url, token_key=second))
        assert sandbox.count("sign_in") == 2
        # With both keys the old tokens are read, and new ones can be.
        await looks(sandbox, 1, lambda: RedisSharing(server.url, token_key=[first, second]))
        assert sandbox.count("sign_in") == 2
        sandbox.add_user("other")
        (name,) = [name for name in await redis.keys() if b":token:" in name]
        async with sandbox.client(
            user_id="other", shared=RedisSharing(server.url, token_key=second)
        ) as client:
            await client.runs.list()
            (other,) = {n for n in await redis.keys() if b":token:" in n} - {name}
        await redis.set(other, await redis.get(name))
        async with sandbox.client(
            user_id="other", shared=RedisSharing(server.url, token_key=second)
        ) as client:
            await client.runs.list()
        assert sandbox.count("sign_in") == 4


async def test_refused_token_is_renewed_for_all(server: RedisServer, redis: Any) -> None:
    key = Fernet.generate_key()
    async with serving() as sandbox, anyio.create_task_group() as group:
        clients = [sandbox.client(shared=RedisSharing(server.url, token_key=key)) for _ in range(4)]
        for client in clients:
            await client.runs.list()
        sandbox.expire_tokens()
        for client in clients:
            group.start_soon(client.runs.list)
        while sandbox.count("list", status=200) < 8:
            await asyncio.sleep(0.01)
        assert sandbox.count("sign_in") == 2
        for client in clients:
            await client.aclose()


async def test_token_left_before_the_claim() -> None:
    class Tokens:
        """Where somebody leaves a token between the look for it and the claim."""

        left: StoredToken | None = None
        claimed = 0

        async def load(self) -> StoredToken | None:
            return self.left

        async def save(self, kept: StoredToken, life: float) -> None:
            raise AssertionError

        async def drop(self, token: str) -> None:
            raise AssertionError

        async def claim(self) -> bool:
            self.left = StoredToken("theirs", time.time() + 3600)
            self.claimed += 1
            return True

        async def release(self) -> None:
            self.claimed -= 1

    async def sign_in() -> Any:
        raise AssertionError

    tokens = Tokens()
    auth = SignedInToken(sign_in, ServerClock(), "key", lambda: 0.0, tokens)
    assert (await auth.headers())["Authorization"] == "Bearer theirs"
    assert tokens.claimed == 0


async def test_death_during_a_sign_in(server: RedisServer, redis: Any) -> None:
    key = Fernet.generate_key()
    async with serving() as sandbox:
        await looks(sandbox, 1, lambda: RedisSharing(server.url, token_key=key))
        (name,) = [name for name in await redis.keys() if b":token:" in name]
        await redis.delete(name)
        await redis.set(name + b":claim", "somebody", px=400)
        began = time.monotonic()
        await looks(sandbox, 2, lambda: RedisSharing(server.url, token_key=key))
        assert time.monotonic() - began > 0.3
        assert sandbox.count("sign_in") == 2


async def test_refused_key_blocks_nobody(server: RedisServer, redis: Any) -> None:
    sharing = RedisSharing(server.url, token_key=Fernet.generate_key())
    async with serving() as sandbox:
        async with sandbox.client(api_key="wrong", shared=sharing) as client:
            with pytest.raises(AuthenticationError):
                await client.runs.list()
        sandbox.fault("sign_in", Fault.delay(0.1))
        await looks(sandbox, 2, lambda: sharing)
        assert sandbox.count("sign_in", status=200) == 1


# --- arguments ---


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("http://host",), "redis"),
        (("",), "redis"),
        (("redis://:hunter2/part@host:6379/0",), "redis"),
        (("redis://:12/hunter2@host/0",), "redis"),
        (("redis://host:hunter2",), "redis"),
        ((6379,), "redis"),
        (("redis://host", "hunter2"), "token_key"),
        (("redis://host", []), "token_key"),
        (("redis://host", 5), "token_key"),
        (("redis://host", ["A" * 43 + "=", b"hunter2"]), "token_key"),
        (("redis://host", None, ""), "prefix"),
        (("redis://host", None, "x", 0), "timeout"),
        (("redis://host", None, "x", 1, float("inf")), "cooldown"),
    ],
    ids=str,
)
def test_invalid_settings_are_named(arguments: Any, word: str) -> None:
    names = ("redis", "token_key", "prefix", "timeout", "cooldown")
    given = dict(zip(names, arguments, strict=False))
    with pytest.raises(ConfigurationError) as refused:
        RedisSharing(given.pop("redis"), **given)
    assert str(refused.value).startswith(word)
    assert refused.tb.tb_next is not None
    shown = traceback.TracebackException(
        refused.type, refused.value, refused.tb.tb_next, capture_locals=True
    )
    assert "hunter2" not in "".join(shown.format())


@pytest.mark.parametrize("shared", ["redis://host", RedisSharing, 5], ids=repr)
def test_not_a_sharing_store(shared: Any) -> None:
    with pytest.raises(ConfigurationError, match="shared must be"):
        AmigoClient(api_key="k", api_key_id="i", user_id="u", organization_id="o", shared=shared)


def test_the_password_is_not_shown() -> None:
    for url in (
        "redis://user:hunter2@host:6379/3",
        "redis://host:6379/3?password=hunter2",
        "rediss://:hunter2@host:6379/3",
    ):
        sharing = RedisSharing(url, token_key=Fernet.generate_key())
        assert repr(sharing).endswith("://host:6379/3>")
        shown = repr([sharing, vars(sharing), sharing.connect(lambda _: None)])
        assert "hunter2" not in shown
    assert repr(RedisSharing(Redis())) == "<RedisSharing with a given Redis client>"


def test_missing_extra() -> None:
    code = """
import sys
sys.modules["redis"] = None
try:
    import amigo_async.redis
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "ConfigurationError amigo_async.redis needs its extra: "
        'install amigo-async[redis] (in a clone: pip install ".[redis]")\n'
    )
