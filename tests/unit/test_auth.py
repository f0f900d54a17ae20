"""Credentials, and the one token of a client: one sign in for all who wait."""

from __future__ import annotations

import asyncio
import base64
import gc
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from amigo_async.auth import (
    ApiKeyAuth,
    BasicAuth,
    BearerAuth,
    GivenToken,
    SignedInToken,
    creator_of,
)
from amigo_async.errors import (
    AmigoError,
    AuthenticationError,
    ConfigurationError,
    DeadlineError,
    TransportError,
)
from amigo_async.models import SignIn, UserInfo
from amigo_async.server_clock import ServerClock

pytestmark = pytest.mark.anyio

EPOCH = 1_767_355_200.0
REFUSED = AuthenticationError(method="POST", path="/sign_in", status=401)
LOST = TransportError("reset", method="POST", path="/sign_in")


class Service:
    """Signs in when it is let to; its clock is far from ours, and the client's knows it.

    What it answers is in `answers`, one after the other: seconds of a token's life, or an error.
    """

    def __init__(self, *answers: float | AmigoError) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.held = 0.0
        self.clock = ServerClock()
        self.arrived = anyio.Event()
        self.go_on = anyio.Event()
        self.go_on.set()

    def hold(self) -> None:
        self.arrived, self.go_on = anyio.Event(), anyio.Event()

    def time(self) -> float:
        return anyio.current_time() + EPOCH

    async def sign_in(self) -> SignIn:
        self.asked += 1
        number = self.asked
        self.arrived.set()
        await self.go_on.wait()
        now = anyio.current_time()
        self.clock.observe(self.time(), now, now)
        answer = self.answers.pop(0)
        if isinstance(answer, AmigoError):
            raise answer
        return SignIn(f"token-{number}", datetime.fromtimestamp(self.time() + answer, UTC))


def token_of(service: Service) -> SignedInToken:
    return SignedInToken(service.sign_in, service.clock, "the-api-key", lambda: service.held)


def bearer(number: int) -> dict[str, str]:
    return {"Authorization": f"Bearer token-{number}"}


async def settle() -> None:
    """Let everything happen that can happen without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


async def gather(token: SignedInToken, count: int) -> list[Mapping[str, str] | BaseException]:
    return list(
        await asyncio.gather(*(token.headers() for _ in range(count)), return_exceptions=True)
    )


async def test_only_the_first_call_signs_in() -> None:
    service = Service(3600)
    token = token_of(service)
    first = await token.headers()
    assert first == bearer(1)
    assert await token.headers() is first
    assert service.asked == 1


async def test_fifty_calls_sign_in_once() -> None:
    service = Service(3600)
    token = token_of(service)
    service.hold()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(token.headers()) for _ in range(50)]
        await service.arrived.wait()
        await settle()
        service.go_on.set()
    assert service.asked == 1
    assert {id(task.result()) for task in tasks} == {id(await token.headers())}


async def test_expired_token_is_renewed_once() -> None:
    service = Service(3600, 3600)
    token = token_of(service)
    await token.headers()
    await anyio.sleep(3600)
    assert await gather(token, 50) == [bearer(2)] * 50
    assert service.asked == 2


async def test_fifty_401s_sign_in_once() -> None:
    service = Service(3600, 3600)
    token = token_of(service)

    async def call() -> Mapping[str, str]:
        headers = await token.headers()
        await anyio.sleep(1)  # all have the same token, and all of them meet a 401
        assert token.refused(headers)
        return await token.headers()

    answers = await asyncio.gather(*(call() for _ in range(50)))
    assert answers == [bearer(2)] * 50
    assert service.asked == 2


async def test_late_401_keeps_a_fresh_token() -> None:
    service = Service(3600, 3600)
    token = token_of(service)
    old = await token.headers()
    token.refused(old)
    fresh = await token.headers()
    assert token.refused(old)  # asking again helps: the token is another one by now
    assert await token.headers() is fresh
    token.refused(dict(fresh))  # equal, but not the one that is held
    assert await token.headers() is fresh
    assert service.asked == 2


async def test_those_who_wait_share_a_failure() -> None:
    refused = AuthenticationError(method="POST", path="/sign_in", status=401)
    refused.__cause__ = LOST
    service = Service(refused, 3600)
    token = token_of(service)
    service.hold()
    tasks = [asyncio.create_task(token.headers()) for _ in range(50)]
    await service.arrived.wait()
    await settle()
    service.go_on.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert service.asked == 1
    assert [type(error) for error in errors] == [AuthenticationError] * 50
    assert len({id(error) for error in errors}) == 50  # each its own, with its own traceback
    assert {str(error) for error in errors} == {str(REFUSED)}
    assert {error.__cause__ for error in errors if isinstance(error, BaseException)} == {LOST}
    # Who comes later tries again.
    assert await token.headers() == bearer(2)
    assert service.asked == 2


async def test_a_retry_signs_in_anew() -> None:
    """The queue of those who waited for the first sign in does not pass its failure on."""
    service = Service(LOST, 3600)
    token = token_of(service)

    async def call_again() -> Mapping[str, str]:
        try:
            return await token.headers()
        except TransportError:
            return await token.headers()

    assert await asyncio.gather(*(call_again() for _ in range(10))) == [bearer(2)] * 10
    assert service.asked == 2


async def test_failures_are_not_shared_later() -> None:
    service = Service(REFUSED, LOST, 3600)
    token = token_of(service)
    with pytest.raises(AuthenticationError):
        await token.headers()
    with pytest.raises(TransportError):
        await token.headers()
    assert await token.headers() == bearer(3)


async def test_failure_keeps_no_caller_alive() -> None:
    class Large:
        """What the caller works with."""

    service = Service(AuthenticationError(method="POST", path="/sign_in", status=401))
    token = token_of(service)

    async def call() -> weakref.ref[Large]:
        large = Large()
        with pytest.raises(AuthenticationError):
            await token.headers()
        return weakref.ref(large)

    alive = await call()
    gc.collect()
    assert alive() is None


async def test_deadline_is_the_callers_own() -> None:
    """Who has no time for what the budget holds is told at once, and the others go on."""
    service = Service(3600)
    token = token_of(service)
    service.held = 9.0
    with pytest.raises(DeadlineError) as caught, anyio.fail_after(8.0):
        await token.headers()
    assert (caught.value.endpoint, caught.value.retry_after) == ("sign_in", 9.0)
    assert service.asked == 0
    with anyio.fail_after(10.0):
        assert await token.headers() == bearer(1)


async def test_sign_in_outlives_its_callers() -> None:
    """It goes on when the one leaves who was the first to need it, and also when all have left."""
    service = Service(3600)
    token = token_of(service)
    service.hold()
    callers = [asyncio.create_task(token.headers()) for _ in range(6)]
    await service.arrived.wait()
    await settle()
    for leaving in (callers[:1], callers[1:]):
        for caller in leaving:
            caller.cancel()
        await settle()
        assert all(caller.cancelled() for caller in leaving)
    late = asyncio.create_task(token.headers())
    await settle()
    service.go_on.set()
    assert await late == bearer(1)
    assert service.asked == 1


async def test_unheard_failure_is_dropped() -> None:
    """Nobody is told, not even the event loop, and the next one signs in."""
    service = Service(LOST, 3600)
    token = token_of(service)
    service.hold()
    caller = asyncio.create_task(token.headers())
    await service.arrived.wait()
    caller.cancel()
    await settle()
    service.go_on.set()
    await settle()
    gc.collect()
    assert await token.headers() == bearer(2)


async def test_closing_ends_the_sign_in() -> None:
    service = Service(3600)
    token = token_of(service)
    service.hold()
    before = asyncio.all_tasks()
    caller = asyncio.create_task(token.headers())
    await service.arrived.wait()
    await token.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await caller
    assert asyncio.all_tasks() == before
    with pytest.raises(ConfigurationError, match="closed"):
        await token.headers()
    assert service.asked == 1


async def test_cancelled_follower() -> None:
    service = Service(3600)
    token = token_of(service)
    service.hold()
    leader = asyncio.create_task(token.headers())
    await service.arrived.wait()
    follower, other = (asyncio.create_task(token.headers()) for _ in range(2))
    await settle()
    follower.cancel()
    service.go_on.set()
    assert list(await asyncio.gather(leader, other)) == [bearer(1)] * 2
    assert follower.cancelled()
    assert service.asked == 1


@pytest.mark.parametrize(
    ("life", "margin"),
    [
        (3600.0, 60.0),
        (601.0, 60.0),
        (600.0, 60.0),
        (300.0, 30.0),
        (10.0, 1.0),
    ],
)
async def test_renewed_before_it_expires(life: float, margin: float) -> None:
    service = Service(life, life)
    token = token_of(service)
    await token.headers()
    # The latest time it can be at the server counts, which is a second ahead after one response.
    lasts = life - margin - 1.1
    await anyio.sleep(lasts - 0.5)
    assert await token.headers() == bearer(1)
    await anyio.sleep(1.1)
    assert await token.headers() == bearer(2)
    assert service.asked == 2


@pytest.mark.parametrize("life", [0.0, -1.0, -3600.0])
async def test_token_that_comes_expired(life: float) -> None:
    """It is used until it is refused."""
    service = Service(life, 3600)
    token = token_of(service)
    first = await token.headers()
    await anyio.sleep(86_400)
    assert await token.headers() is first
    assert service.asked == 1
    token.refused(first)
    assert await token.headers() == bearer(2)


async def test_nothing_secret_is_kept_unknown() -> None:
    service = Service(3600, 3600)
    token = token_of(service)
    assert token.secrets()[0] == "the-api-key"
    first = await token.headers()
    assert "token-1" in token.secrets()
    token.refused(first)
    await token.headers()
    assert {"the-api-key", "token-1", "token-2"} <= set(token.secrets())
    shown = repr((vars(token), await token.headers(), token.secrets()))
    assert "the-api-key" not in shown
    assert "token-" not in shown


async def test_a_bearer_token() -> None:
    token = GivenToken(BearerAuth("hunter2"), "org")
    headers = await token.headers()
    assert headers == {"Authorization": "Bearer hunter2"}
    assert await token.headers() is headers
    assert token.refused(headers) is False
    assert token.secrets() == ("hunter2",)
    assert "hunter2" not in repr((vars(token), headers))


async def test_bearer_of_another_organization() -> None:
    token = GivenToken(BearerAuth("t", organization_id="issuer"), "org")
    assert await token.headers() == {"Authorization": "Bearer t", "X-ORG-ID": "issuer"}


@pytest.mark.parametrize(
    ("auth", "user", "issuer"),
    [
        (BasicAuth("tok:en", "user"), "org_user", {}),
        (BasicAuth("tok:en", "user", "issuer"), "issuer_user", {"X-ORG-ID": "issuer"}),
    ],
)
async def test_a_basic_token(auth: BasicAuth, user: str, issuer: dict[str, str]) -> None:
    token = GivenToken(auth, "org")
    headers = await token.headers()
    encoded = base64.b64encode(f"{user}:tok:en".encode()).decode()
    assert headers == {"Authorization": f"Basic {encoded}", **issuer}
    assert token.secrets() == ("tok:en", encoded)
    assert token.refused(headers) is False
    assert encoded not in repr((vars(token), headers))


@pytest.mark.parametrize(
    ("auth", "organization"),
    [
        (BasicAuth("t", "us:er"), "org"),
        (BasicAuth("t", "user"), "o:rg"),
        (BasicAuth("t", "user", "iss:uer"), "org"),
    ],
)
async def test_no_colon_in_a_basic_user(auth: BasicAuth, organization: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot have a colon"):
        GivenToken(auth, organization)


GIVEN: dict[type[Any], dict[str, str]] = {
    ApiKeyAuth: {"api_key": "k", "api_key_id": "i", "user_id": "u"},
    BearerAuth: {"token": "t", "user_id": "u", "organization_id": "o"},
    BasicAuth: {"token": "t", "user_id": "u", "organization_id": "o"},
}


@pytest.mark.parametrize(
    ("cls", "field"), [(cls, field) for cls, fields in GIVEN.items() for field in fields]
)
@pytest.mark.parametrize(
    "value", ["", " \n", "hunter2\nx", "a\r\nb", "\0", "hunter2ü", 5, b"hunter2"]
)
def test_credentials_are_checked(cls: Any, field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=field) as caught:
        cls(**{**GIVEN[cls], field: value})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "field"), [(cls, field) for cls, fields in GIVEN.items() for field in fields]
)
def test_credentials_are_stripped(cls: Any, field: str) -> None:
    auth = cls(**{**GIVEN[cls], field: "\t hunter2 \r\n"})
    assert auth == cls(**{**GIVEN[cls], field: "hunter2"})
    assert ("hunter2" in repr(auth)) is (field not in ("api_key", "token"))


@pytest.mark.parametrize(
    ("cls", "field"), [(ApiKeyAuth, "api_key"), (BearerAuth, "token"), (BasicAuth, "token")]
)
def test_credentials_hide_their_secret(cls: Any, field: str) -> None:
    auth = cls(**{**GIVEN[cls], field: "hunter2"})
    assert getattr(auth, field) == "hunter2"
    assert "hunter2" not in repr(auth)
    assert f"{field}='***'" in repr(auth)
    changed = replace(auth, user_id="other")
    assert "hunter2" not in repr(changed)


def test_credentials_cannot_be_changed() -> None:
    auth: Any = ApiKeyAuth("k", "i", "u")
    with pytest.raises(AttributeError):
        auth.api_key = "other"


def test_the_headers_of_a_sign_in() -> None:
    headers = ApiKeyAuth("hunter2", "key-id", "user").headers()
    assert headers == {"x-api-key": "hunter2", "x-api-key-id": "key-id", "x-user-id": "user"}
    assert "hunter2" not in repr(headers)


@pytest.mark.parametrize(
    ("auth", "creator"),
    [
        (ApiKeyAuth("k", "i", "u"), UserInfo("org", "u")),
        (BearerAuth("t"), None),
        (BearerAuth("t", organization_id="issuer"), None),
        (BearerAuth("t", "u"), UserInfo("org", "u")),
        (BearerAuth("t", "u", "issuer"), UserInfo("issuer", "u")),
        (BasicAuth("t", "u"), UserInfo("org", "u")),
        (BasicAuth("t", "u", "issuer"), UserInfo("issuer", "u")),
    ],
)
def test_creator_of_our_runs(
    auth: ApiKeyAuth | BearerAuth | BasicAuth, creator: UserInfo | None
) -> None:
    assert creator_of(auth, "org") == creator
