"""The aiohttp sessions of a client: one for the API, one without any credentials for the store."""

from __future__ import annotations

import asyncio
import os

import aiohttp
from yarl import URL

from amigo_async.errors import ConfigurationError
from amigo_async.session.proxies import check_environment, netrc_names, proxy_for


class Connections:
    """Opens the sessions when they are first needed, inside a running loop.

    They belong to that loop, and so does everything else of a client.

    Args:
        given: A session of the caller's for the API; None to open one. The store's session
            shares its connector (and so its TLS settings) and goes through its proxy, but has
            not its headers, cookies and credentials.
        host: The host of the API.

    Raises:
        ConfigurationError: If the session given has an authorization of its own, or would take
            one for `host` from ``.netrc``, or a proxy from the environment that cannot be one.
    """

    def __init__(self, given: aiohttp.ClientSession | None = None, host: str = "") -> None:
        if given is not None:
            _check(given, host)
        self._given = given
        self._api = given
        self._store: aiohttp.ClientSession | None = None
        # The attribute is private: the public one is on its way out of aiohttp.
        self._loop: asyncio.AbstractEventLoop | None = getattr(given, "_loop", None)
        self._closed = False

    def check(self) -> None:
        """Refuse to be used where nothing of the client works.

        Raises:
            ConfigurationError: If the client is closed, or the session that was given, or if
                they belong to another event loop.
        """
        if self._closed:
            raise ConfigurationError("the client is closed; make a new one")
        if self._loop is not asyncio.get_running_loop():
            self._check_loop()
        if self._given is not None and self._given.closed:
            raise ConfigurationError("http: the session given is closed; give an open one")

    def api(self) -> aiohttp.ClientSession:
        """The session for the API, in the event loop in which `check` was called.

        Raises:
            ConfigurationError: If the client is closed, or the session that was given.
        """
        given = self._given
        if self._closed or (given is not None and given.closed):
            self.check()  # raises
        if self._api is None:
            self._api = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
            # aiohttp would send a GET again by itself on a connection that was closed meanwhile:
            # past the gate, and so over the budget. Our own policy does that.
            self._api._retry_connection = False  # noqa: SLF001  # there is no public switch
        return self._api

    def store(self) -> aiohttp.ClientSession:
        """The session for the artifact store, which carries nothing of ours.

        Raises:
            ConfigurationError: As for `check`.
        """
        self.check()
        if self._store is None:
            self._store = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=self.api().connector,
                connector_owner=False,
                auto_decompress=False,
            )
        return self._store

    def store_proxy(self, url: str) -> URL | None:
        """The proxy for a request to the store; None for none."""
        return None if self._given is None else proxy_for(url, self._given)

    async def aclose(self) -> None:
        """Close what was opened here; a second call does nothing.

        Raises:
            ConfigurationError: If it is in use in another event loop.
        """
        if self._loop is not None and not self._loop.is_closed():
            self._check_loop()
        self._closed = True
        if self._store is not None:
            await self._store.close()
        if self._api is not None and self._given is None:
            await self._api.close()

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            what = "client" if self._given is None else "session given as http"
            raise ConfigurationError(
                f"the {what} belongs to another event loop; make one in each loop"
            )


def _check(given: aiohttp.ClientSession, host: str) -> None:
    """Refuse a session whose own credentials would travel with every request."""
    # The attribute is on its way out of aiohttp.
    if getattr(given, "_default_auth", None) is not None or "authorization" in given.headers:
        raise ConfigurationError(
            "http: the session given has an authorization of its own; give one without"
        )
    if given.trust_env:
        check_environment()
    if given.trust_env and netrc_names(host):
        raise ConfigurationError(
            f"http: .netrc has an authorization for {host}, and the session given would send it "
            f"(trust_env=True); remove it from there, or set NETRC={os.devnull}"
        )
