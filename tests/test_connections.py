"""The aiohttp sessions: opened when needed, shared where they should be, closed by their owner."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from amigo_async import AmigoClient, BearerAuth
from amigo_async.errors import ConfigurationError
from amigo_async.session import Connections

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened() -> AsyncIterator[Connections]:
    connections = Connections()
    try:
        yield connections
    finally:
        await connections.aclose()


async def test_a_session_is_opened_once() -> None:
    async with opened() as connections:
        assert connections.api() is connections.api()
        assert connections.store() is connections.store()
        assert connections.store() is not connections.api()


async def test_nothing_is_opened_before_it_is_needed() -> None:
    connections = Connections()
    assert (connections._api, connections._store) == (None, None)
    await connections.aclose()
    await connections.aclose()


async def test_both_sessions_share_their_connections() -> None:
    async with opened() as connections:
        assert connections.store().connector is connections.api().connector


async def test_no_cookie_is_kept() -> None:
    async with opened() as connections:
        assert isinstance(connections.api().cookie_jar, aiohttp.DummyCookieJar)
        assert isinstance(connections.store().cookie_jar, aiohttp.DummyCookieJar)


async def test_the_store_gets_nothing_of_a_given_session() -> None:
    async with aiohttp.ClientSession(
        headers={"X-Secret": "hunter2"}, cookies={"session": "hunter2"}
    ) as given:
        connections = Connections(given)
        store = connections.store()
        assert connections.api() is given
        assert store.connector is given.connector
        assert dict(store.headers) == {}
        assert store.auth is None
        assert not list(store.cookie_jar)
        await connections.aclose()


async def test_own_sessions_are_closed() -> None:
    connections = Connections()
    api, store = connections.api(), connections.store()
    connector = api.connector
    await connections.aclose()
    assert api.closed
    assert store.closed
    assert connector is not None
    assert connector.closed
    await connections.aclose()


async def test_a_given_session_stays_open_with_its_connections() -> None:
    async with aiohttp.ClientSession() as given:
        connections = Connections(given)
        store = connections.store()
        await connections.aclose()
        assert store.closed
        assert not given.closed
        assert given.connector is not None
        assert not given.connector.closed


async def test_a_closed_client_says_so() -> None:
    connections = Connections()
    await connections.aclose()
    for get in (connections.api, connections.store):
        with pytest.raises(ConfigurationError, match="the client is closed; make a new one"):
            get()


async def test_a_given_session_that_was_closed_is_named() -> None:
    given = aiohttp.ClientSession()
    connections = Connections(given)
    assert connections.api() is given
    await given.close()
    for get in (connections.api, connections.store):
        with pytest.raises(ConfigurationError, match="http: the session given is closed"):
            get()
    await connections.aclose()


async def test_a_given_session_with_credentials_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated in newer versions of aiohttp
        with_auth = aiohttp.ClientSession(auth=aiohttp.BasicAuth("user", "hunter2"))
    async with with_auth as given:
        with pytest.raises(ConfigurationError, match="authorization of its own") as caught:
            Connections(given)
        assert "hunter2" not in str(caught.value)
    async with aiohttp.ClientSession(headers={"AUTHORIZATION": "Bearer hunter2"}) as given:
        with pytest.raises(ConfigurationError, match="authorization of its own"):
            Connections(given)


async def test_a_client_closes_its_own_session_and_leaves_a_given_one() -> None:
    async with aiohttp.ClientSession() as given:
        async with AmigoClient(auth=BearerAuth("t"), organization_id="o", http=given) as client:
            assert client._wiring.connections.api() is given
        assert not given.closed
    async with AmigoClient(auth=BearerAuth("t"), organization_id="o") as client:
        own = client._wiring.connections.api()
    assert own.closed
