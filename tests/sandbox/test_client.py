"""The client against the sandbox, over real sockets: calls, authorization, retries."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
import pytest

from amigo_async import (
    AmigoClient,
    ArtifactsNotReadyError,
    AuthenticationError,
    BasicAuth,
    BearerAuth,
    ConfigurationError,
    ConflictError,
    DecodeError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ServiceUnavailableError,
    TransportError,
    UserInfo,
)
from amigo_async.events import Event, RequestRetried
from amigo_async.testing import Fault, Permission, Sandbox, SetPlan
from tests.support.connections import Counting
from tests.support.small_api import SmallApi

pytestmark = pytest.mark.anyio

SETTINGS: Final[dict[str, Any]] = {
    "api_key": "k",
    "api_key_id": "i",
    "user_id": "u",
    "organization_id": "o",
}
REFUSED_WHEN_CLOSED: Final = (
    *("run_many", "open_batch", "async with", "create", "list", "wait", "as_completed", "cancel"),
    *("stream", "download", "select_sets", "describe", "explain"),
)


async def start(client: AmigoClient, sandbox: Sandbox, plan: SetPlan | None = None) -> str:
    created = await client.runs.create(sandbox.add_set(plan))
    return created.simulation_unit_test_set_run_id


# --- the five calls ---


async def test_a_run_from_start_to_artifacts(client: AmigoClient, sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(SetPlan(seconds=30.0, outcome="failed"))
    created = await client.runs.create(set_id)
    run_id = created.simulation_unit_test_set_run_id
    assert not created.attached
    with pytest.raises(ArtifactsNotReadyError, match="require_artifacts"):
        await client.runs.artifacts(run_id)
    run = await client.wait_for_completion(run_id, require_artifacts=True)
    assert (run.id, run.simulation_unit_test_set_id) == (run_id, set_id)
    assert run.creator == UserInfo(sandbox.organization_id, sandbox.user_id)
    assert not run.passed
    assert run.progress == (9, 9)
    assert run.metrics_that_failed
    assert all(failed.metric is not None for failed in run.metrics_that_failed)
    assert run.runs_that_errored == ()
    link = await client.runs.artifacts(run_id)
    assert link.presigned_url.startswith(sandbox.store_url)
    with pytest.raises(ConflictError):
        await client.runs.cancel(run_id)


async def test_every_filter(client: AmigoClient, sandbox: Sandbox) -> None:
    passed = await start(client, sandbox, SetPlan(seconds=1.0))
    failed = await start(client, sandbox, SetPlan(seconds=1.0, outcome="failed"))
    errored = await start(client, sandbox, SetPlan(seconds=1.0, outcome="errored"))
    await anyio.sleep(10)
    running = await start(client, sandbox, SetPlan(seconds=1e6))
    everything = [passed, failed, errored, running]
    runs = {run.id: run for run in sandbox.runs}
    me = UserInfo(sandbox.organization_id, sandbox.user_id)

    async def found(**filters: Any) -> list[str]:
        page = await client.runs.list(**filters)
        return [run.id for run in page.simulation_unit_test_set_runs]

    assert await found(sort_by="+created_at") == everything
    assert await found(sort_by=["-created_at"]) == everything[::-1]
    assert await found(id=[failed, passed, failed]) == [passed, failed]
    assert await found(id=failed) == [failed]
    assert await found(simulation_unit_test_set_id=[runs[errored].unit_test_set_id]) == [errored]
    assert await found(is_completed=False) == [running]
    assert await found(failed_metrics=True) == [failed]
    assert await found(errored=True) == [errored]
    assert await found(creator=me) == await found(creator=[f"{me.org_id},{me.user_id}"])
    assert await found(creator="sandbox,nobody") == []
    assert await found(created_after=runs[running].created_at) == [running]
    assert running not in await found(created_before=runs[errored].created_at)
    zone = datetime.now(UTC).astimezone().tzinfo
    assert await found(created_after=runs[running].created_at.astimezone(zone)) == [running]
    assert await found(limit=0) == []
    page = await client.runs.list(limit=3, sort_by="+created_at")
    assert (page.has_more, page.continuation_token) == (True, 3)
    assert page.filter_values is not None
    rest = await client.runs.list(limit=3, sort_by="+created_at", continuation_token=3)
    assert [run.id for run in rest.simulation_unit_test_set_runs] == [running]
    assert (rest.has_more, rest.filter_values) == (False, None)
    assert sandbox.count("list", status=422) == 0


async def test_get(client: AmigoClient, sandbox: Sandbox) -> None:
    run_id = await start(client, sandbox)
    assert (await client.runs.get(run_id)).id == run_id
    with pytest.raises(NotFoundError, match="0" * 24):
        await client.runs.get("0" * 24)


async def test_cancel_and_wait(client: AmigoClient, sandbox: Sandbox) -> None:
    long = SetPlan(seconds=600.0, cancel_after=20.0)
    cancelled = await client.cancel_and_wait(await start(client, sandbox, long))
    assert cancelled.state == "cancelled"
    assert cancelled.run is not None
    assert cancelled.run.is_completed
    short = await start(client, sandbox, SetPlan(seconds=1.0))
    await client.wait_for_completion(short)
    assert (await client.cancel_and_wait(short)).state == "finished"
    stubborn = SetPlan(seconds=600.0, cancel_after=500.0)
    still = await client.cancel_and_wait(await start(client, sandbox, stubborn), timeout=60.0)
    assert still.state == "running"
    assert still.run is not None
    assert not still.run.is_completed


async def test_iterate_gives_each_run_once(client: AmigoClient, sandbox: Sandbox) -> None:
    for _ in range(7):
        await start(client, sandbox)
    everything = [run.id for run in sandbox.runs]
    for limit in (1, 2, 3, 7, 50, None):
        found = [run.id async for run in client.runs.iterate(limit=limit, sort_by="+created_at")]
        assert found == everything
    found = [r.id async for r in client.runs.iterate(continuation_token=4, sort_by="+created_at")]
    assert found == everything[4:]


async def test_iterate_while_runs_are_added(client: AmigoClient, sandbox: Sandbox) -> None:
    for _ in range(8):
        await start(client, sandbox)
    everything = {run.id for run in sandbox.runs}
    found = []
    async for run in client.runs.iterate(limit=3, sort_by="-created_at"):
        found.append(run.id)
        if len(found) in (3, 5):
            await start(client, sandbox)  # on top: the rest moves down
    assert len(found) == len(set(found))
    assert everything <= set(found)


async def test_iterate_while_runs_drop_out(client: AmigoClient, sandbox: Sandbox) -> None:
    ids = [
        await start(client, sandbox, SetPlan(seconds=20.0 if number < 4 else 1e6))
        for number in range(12)
    ]
    found = []
    async for run in client.runs.iterate(limit=4, is_completed=False, sort_by="+created_at"):
        found.append(run.id)
        if len(found) == 4:
            await anyio.sleep(60)  # the first page is over, and out of the list
    assert len(found) == len(set(found))
    assert set(ids[4:]) <= set(found)


async def test_iterate_does_not_go_in_circles(client: AmigoClient, sandbox: Sandbox) -> None:
    body = (
        b'{"simulation_unit_test_set_runs":[],"has_more":true,'
        b'"continuation_token":null,"filter_values":null}'
    )
    sandbox.fault("list", Fault.status(200, body))
    with pytest.raises(DecodeError, match="continuation_token"):
        [run async for run in client.runs.iterate()]


@pytest.mark.parametrize(
    ("missing", "hidden"),
    [
        ([Permission.GET_SET, Permission.GET_TEST], True),
        ([Permission.GET_TEST], False),
        ([], False),
    ],
)
async def test_what_a_permission_hides_is_none(
    sandbox: Sandbox, missing: list[Permission], hidden: bool
) -> None:
    plan = SetPlan(seconds=1.0, outcome="failed")
    sandbox.add_user("reader", permissions=[p.value for p in Permission if p not in missing])
    async with sandbox.client(user_id="reader") as client:
        run = await client.wait_for_completion(await start(client, sandbox, plan))
    assert run.failed_metrics
    assert (run.progress is None) is hidden
    assert (run.runs_that_errored is None) is hidden
    assert (run.metrics_that_failed is None) is bool(missing)


# --- headers ---


async def test_documented_and_own_headers(sandbox: Sandbox) -> None:
    own = {"Sec-WebSocket-Protocol": "a, b", "X-Trace": "7"}
    async with sandbox.client(mongo_cluster_name="cluster-1", headers=own) as client:
        await client.runs.list()
    sign_in, listing = sandbox.requests
    for request in (sign_in, listing):
        assert request.headers["x-mongo-cluster-name"] == "cluster-1"
        assert request.headers["sec-websocket-protocol"] == "a, b"
        assert request.headers["x-trace"] == "7"
        assert request.headers["user-agent"].startswith("amigo_async/")
    assert "x-api-key" not in listing.headers
    assert "x-org-id" not in listing.headers


async def test_token_of_another_organization(sandbox: Sandbox) -> None:
    sandbox.add_user("guest", organization_id="elsewhere", guest_of=[sandbox.organization_id])
    token = sandbox.issue_token("guest", organization_id="elsewhere")
    for auth in (
        BearerAuth(token, "guest", organization_id="elsewhere"),
        BasicAuth(token, "guest", organization_id="elsewhere"),
    ):
        async with sandbox.client(auth=auth) as client:
            run_id = await start(client, sandbox)
            assert (await client.runs.get(run_id)).creator == UserInfo("elsewhere", "guest")
    assert all(r.headers["x-org-id"] == "elsewhere" for r in sandbox.requests)


async def test_organization_is_one_segment(sandbox: Sandbox) -> None:
    sandbox.add_organization("b ü?c#d")
    async with sandbox.client(
        organization_id="b ü?c#d", auth=BearerAuth(sandbox.issue_token())
    ) as client:
        with pytest.raises(AuthenticationError):
            await client.runs.list()
    (request,) = sandbox.requests
    assert request.organization_id == "b ü?c#d"
    with pytest.raises(ConfigurationError, match="organization_id"):
        sandbox.client(organization_id="a/../b")


# --- authorization ---


@pytest.mark.parametrize("kind", [BearerAuth, BasicAuth])
async def test_given_token_is_not_renewed(
    sandbox: Sandbox, kind: type[BearerAuth | BasicAuth]
) -> None:
    async with sandbox.client(auth=kind(sandbox.issue_token(), sandbox.user_id)) as client:
        await client.runs.list()
        sandbox.expire_tokens()
        with pytest.raises(AuthenticationError, match="expired"):
            await client.runs.list()
    assert sandbox.count("sign_in") == 0
    assert sandbox.count("list", status=401) == 1


async def test_expired_token_is_renewed_once() -> None:
    async with Sandbox(limits={"list": None}) as sandbox, sandbox.client() as client:
        await client.runs.list()
        sandbox.expire_tokens()
        await asyncio.gather(*(client.runs.list() for _ in range(100)))
        assert sandbox.count("sign_in") == 2
        assert sandbox.count("list", status=200) == 101


async def test_wrong_key_is_tried_once(sandbox: Sandbox) -> None:
    async with sandbox.client(api_key="wrong-key-0123456789") as client:
        calls = [client.runs.list() for _ in range(50)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sandbox.count("sign_in") == 1
    assert sandbox.count("list") == 0
    assert {type(end) for end in ends} == {AuthenticationError}
    assert "AMIGO_API_KEY" in str(ends[0])
    assert "wrong-key" not in str(ends[0])


# --- failures ---


@pytest.mark.parametrize(
    "fault",
    [
        Fault.drop(after_work=True, reset=True),
        Fault.status(502, b"<html><title>Bad gateway</title></html>"),
        Fault.garbage(),
        Fault.stall(),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status_code or ''}",
)
async def test_transient_failures_are_retried(sandbox: Sandbox, fault: Fault) -> None:
    heard: list[Event] = []
    async with sandbox.client(on_event=heard.append) as client:
        run_id = await start(client, sandbox)
        for route in ("list", "artifacts", "cancel"):
            sandbox.fault(route, fault, times=2)
        assert (await client.runs.get(run_id)).id == run_id
        assert sandbox.count("list") == 3
        retried = [event for event in heard if isinstance(event, RequestRetried)]
        assert [(event.endpoint, event.attempt) for event in retried] == [("list", 1), ("list", 2)]
        assert retried[0].delay <= 0.5
        await client.wait_for_completion(run_id, require_artifacts=True)
        await client.runs.artifacts(run_id)


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (Fault.status(500), ServerError, "500"),
        (Fault.status(503), ServiceUnavailableError, "503"),
        (Fault.drop(), TransportError, "closed"),
        (Fault.delay(100.0), RequestTimeoutError, "no answer in time"),
        (Fault.garbage(), DecodeError, "cannot be decoded"),
        (Fault.truncate(), TransportError, "broke off"),
    ],
)
async def test_four_attempts_then_raised(
    client: AmigoClient, sandbox: Sandbox, fault: Fault, kind: type[Exception], says: str
) -> None:
    sandbox.fault("list", fault, times=10)
    with pytest.raises(kind, match=says) as caught:
        await client.runs.list()
    assert "GET /v1/sandbox/simulation/unit_test_set_run/" in str(caught.value)
    assert sandbox.count("list") == 4


async def test_twenty_refusals_then_raised(client: AmigoClient, sandbox: Sandbox) -> None:
    refusal = Fault.status(429, headers={"Retry-After": "1"})
    sandbox.fault("list", refusal, times=19)
    await client.runs.list()
    assert sandbox.count("list", status=429) == 19
    sandbox.fault("list", refusal, times=30)
    with pytest.raises(RateLimitError):
        await client.runs.list()
    assert sandbox.count("list", status=429) == 19 + 20


async def test_retry_after_is_obeyed(client: AmigoClient, sandbox: Sandbox) -> None:
    sandbox.fault("list", Fault.status(503, headers={"Retry-After": "40"}))
    began = anyio.current_time()
    await client.runs.list()
    assert 40 <= anyio.current_time() - began < 42


async def test_refusals_in_a_row_are_counted(client: AmigoClient, sandbox: Sandbox) -> None:
    """Twenty would be too many; a failure of another kind begins a new row."""
    refusal = Fault.status(429, headers={"Retry-After": "1"})
    for fault, times in ((refusal, 15), (Fault.status(503), 1), (refusal, 10)):
        sandbox.fault("list", fault, times=times)
    await client.runs.list()
    assert sandbox.count("list", status=429) == 25


async def test_retry_after_beyond_the_deadline(client: AmigoClient, sandbox: Sandbox) -> None:
    await client.runs.list()
    sandbox.fault("list", Fault.status(503, headers={"Retry-After": "40"}))
    began = anyio.current_time()
    with pytest.raises(ServiceUnavailableError) as caught, anyio.fail_after(30):
        await client.runs.list()
    assert caught.value.retry_after == 40
    assert anyio.current_time() - began < 2


async def test_refusal_beyond_the_deadline(client: AmigoClient, sandbox: Sandbox) -> None:
    await client.runs.list()
    sandbox.spend("list", 50)
    with pytest.raises(RateLimitError) as caught, anyio.fail_after(30):
        await client.runs.list()
    assert caught.value.retry_after is not None
    assert 55 <= caught.value.retry_after <= 60


# --- lives and ends ---


async def test_cancelled_call_frees_connection(sandbox: Sandbox) -> None:
    connector = Counting()
    async with aiohttp.ClientSession(connector=connector) as http, sandbox.client(http=http) as one:
        await one.runs.list()
        for fault in (Fault.delay(100.0), Fault.stall(), Fault.drip(5.0, piece=10)):
            sandbox.fault("list", fault)
            with anyio.move_on_after(1) as scope:
                await one.runs.list()
            assert scope.cancelled_caught
            assert not connector.held()


async def test_given_session_is_left_open(sandbox: Sandbox) -> None:
    async with aiohttp.ClientSession(headers={"X-From": "theirs"}) as http:
        async with sandbox.client(http=http) as client:
            run_id = await start(client, sandbox, SetPlan(seconds=1.0))
            await client.wait_for_completion(run_id, require_artifacts=True)
            async with client.artifacts.stream(run_id) as stream:
                data = b"".join([chunk async for chunk in stream])
        assert not http.closed
    assert data == sandbox.artifact_bytes(run_id)
    api = [request for request in sandbox.requests if request.route != "store"]
    assert {request.headers["x-from"] for request in api} == {"theirs"}
    store = [request for request in sandbox.requests if request.route == "store"]
    assert not any("x-from" in request.headers for request in store)


@pytest.mark.parametrize("call", REFUSED_WHEN_CLOSED)
async def test_closed_client_refuses(sandbox: Sandbox, call: str, tmp_path: Path) -> None:
    set_id = sandbox.add_set(SetPlan(seconds=0.0))
    async with sandbox.client() as client:
        run_id = (await client.runs.create(set_id)).simulation_unit_test_set_run_id
        run = await client.wait_for_completion(run_id)
    asked = len(sandbox.requests)

    async def as_completed() -> None:
        async for _ in client.as_completed([run_id]):
            pass

    async def stream() -> None:
        async with client.artifacts.stream(run_id):
            pass

    async def open_batch() -> None:
        async with client.open_batch([set_id], journal=tmp_path / "journal"):
            pass

    async def enter() -> None:
        async with client:
            pass

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "run_many": lambda: client.run_many([set_id], artifacts_dir=tmp_path / "files"),
        "open_batch": open_batch,
        "async with": enter,
        "create": lambda: client.runs.create(set_id),
        "list": client.runs.list,
        "wait": lambda: client.wait_for_completion(run_id),
        "as_completed": as_completed,
        "cancel": lambda: client.cancel_and_wait(run_id),
        "stream": stream,
        "download": lambda: client.artifacts.download(run_id, tmp_path),
        "select_sets": lambda: client.select_sets("name"),
        "describe": lambda: client.describe([run]),
        "explain": lambda: client.explain([run]),
    }
    assert set(calls) == set(REFUSED_WHEN_CLOSED)
    with pytest.raises(ConfigurationError, match="the client is closed; make a new one"):
        await calls[call]()
    assert len(sandbox.requests) == asked
    assert list(tmp_path.iterdir()) == []


async def test_failing_client_listener_is_counted_at_the_end(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_: Event) -> None:
        raise ZeroDivisionError

    async with sandbox.client(on_event=failing) as client:
        await client.run_many(sandbox.add_sets(3, SetPlan(seconds=5.0)))
        (first,) = [r for r in caplog.records if r.levelname == "ERROR"]
        assert first.exc_info is not None
    _, last = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert re.fullmatch(r"\[sandbox\] an on_event listener failed \d+ more times", last)


def test_attributes_of_a_client_are_documented() -> None:
    client = AmigoClient(**SETTINGS)
    parts = [name for name in vars(client) if not name.startswith("_")]
    # Python 3.13 takes the indentation of a docstring away, the versions before it keep it.
    documentation = inspect.getdoc(AmigoClient) or ""
    documented = documentation.partition("Attributes:")[2].partition("Args:")[0]
    assert re.findall(r"^    (\w+):", documented, re.MULTILINE) == [
        *sorted(parts, key=documented.index)
    ]
    assert {"runs", "artifacts"} <= set(parts)


def test_budgets_needs_a_loop() -> None:
    client = AmigoClient(**SETTINGS)
    with pytest.raises(ConfigurationError, match="no asyncio event loop is running"):
        client.budgets()


@pytest.mark.parametrize("http", ["x", aiohttp.ClientSession, object()])
def test_http_must_be_a_session(http: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^http must be an aiohttp\.ClientSession"):
        AmigoClient(**SETTINGS, http=http)


async def test_closed_client_or_session(sandbox: Sandbox) -> None:
    client = sandbox.client()
    await client.runs.list()
    await client.aclose()
    await client.aclose()
    with pytest.raises(ConfigurationError, match="client is closed"):
        await client.runs.list()
    async with aiohttp.ClientSession() as http:
        theirs = sandbox.client(http=http)
    with pytest.raises(ConfigurationError, match="session given is closed"):
        await theirs.runs.list()


@pytest.mark.parametrize("given", [False, True])
async def test_closed_while_a_call_waits(given: bool) -> None:
    async with (
        Sandbox(limits={"list": 1}) as sandbox,
        aiohttp.ClientSession() as http,
        sandbox.client() as other,
    ):
        client = sandbox.client(http=http) if given else sandbox.client()
        await client.runs.list()
        waiting = asyncio.create_task(client.runs.list())
        await asyncio.sleep(1.0)
        assert client.budgets()["list"].waiting == 1
        await (http.close() if given else client.aclose())
        with pytest.raises(ConfigurationError, match="closed"):
            await waiting
        assert other.budgets()["list"].in_flight == 0
        await other.runs.list()  # at once: the room is still there
        assert [r.status for r in sandbox.requests if r.method == "GET"] == [200, 200]
        await client.aclose()


async def _listening(_: Event) -> None:
    """Hear nothing."""


@pytest.mark.parametrize(
    "setting",
    [
        {"request_timeout": 0},
        {"request_timeout": float("nan")},
        {"poll_interval": -1.0},
        {"max_attempts": 0},
        {"max_attempts": 2.5},
        {"on_event": _listening},
    ],
    ids=lambda setting: next(iter(setting)),
)
async def test_invalid_settings(sandbox: Sandbox, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        sandbox.client(**setting)


async def test_budgets_are_shown_as_they_are(client: AmigoClient, sandbox: Sandbox) -> None:
    assert client.budgets() == {}
    await client.runs.list()
    state = client.budgets()["list"]
    assert (state.limit, state.remaining, state.waiting) == (50, 49, 0)
    assert set(client.budgets()) == {"sign_in", "list"}


async def test_reprs_name_no_secret(client: AmigoClient, sandbox: Sandbox) -> None:
    assert repr(client) == f"<AmigoClient sandbox at {sandbox.base_url}>"
    await client.runs.list()
    everything = repr([client, vars(client), sandbox.requests])
    for secret in (sandbox.api_key, sandbox.requests[1].headers["authorization"].split()[1]):
        assert str(secret) not in everything


@pytest.mark.parametrize("repeats", [True, False])
async def test_pages_without_end_are_an_error(repeats: bool) -> None:
    pages = itertools.count(1)

    def lists(page: dict[str, Any]) -> object:
        more = {"has_more": True, "continuation_token": 50 * next(pages)}
        return page | more | ({} if repeats else {"simulation_unit_test_set_runs": []})

    async with SmallApi().serving() as api, api.client() as client:
        await client.runs.create("a" * 24)
        api.lists = lists
        with pytest.raises(DecodeError, match="100 pages in a row had no new record"):
            async for _ in client.runs.iterate():
                pass


async def test_some_empty_pages() -> None:
    pages = itertools.count(1)

    def lists(page: dict[str, Any]) -> object:
        number = next(pages)
        if number >= 30:
            return page
        more = {"has_more": True, "continuation_token": 50 * number}
        return page | more | {"simulation_unit_test_set_runs": []}

    async with SmallApi().serving() as api, api.client() as client:
        created = await client.runs.create("a" * 24)
        api.lists = lists
        found = [run.id async for run in client.runs.iterate()]
        assert found == [created.simulation_unit_test_set_run_id]


async def test_unreadable_run_is_raised_last() -> None:
    def shape(record: dict[str, Any], age: float) -> None:
        if record["simulation_unit_test_set_id"] == "a" * 24:
            record["created_at"] = None
        if record["simulation_unit_test_set_id"] == "b" * 24:
            record["unit_test_run_specs"] = None

    async with SmallApi().serving() as api, api.client() as client:
        bad, partly, good = [
            (await client.runs.create(s * 24)).simulation_unit_test_set_run_id for s in "abc"
        ]
        api.shape = shape
        page = await client.runs.list()
        assert [run.id for run in page.simulation_unit_test_set_runs] == [partly, good]
        assert set(page.unreadable) == {bad, partly}
        seen = []
        with pytest.raises(DecodeError, match=rf"run {bad} .*`\$.created_at`"):
            async for run in client.runs.iterate():
                seen.append(run.id)
        assert seen == [partly, good]
        assert (await client.runs.get(good)).id == good
        with pytest.raises(DecodeError, match=r"created_at") as caught:
            await client.runs.get(bad)
        assert caught.value.run is None
        with pytest.raises(DecodeError, match=r"unit_test_run_specs") as caught:
            await client.runs.get(partly)
        assert caught.value.run is not None
        assert caught.value.run.id == partly
