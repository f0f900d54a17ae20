"""The aiohttp sessions of a client: one for the API, one without any credentials for the store."""

from __future__ import annotations

import aiohttp

from amigo_async.errors import ConfigurationError


class Connections:
    """Opens the sessions when they are first needed, inside a running loop.

    Args:
        given: A session of the caller's for the API; None to open one. The store's session
            shares its connector (and so its TLS settings), but not its headers, cookies and
            credentials.

    Raises:
        ConfigurationError: If the session given has an authorization of its own.
    """

    def __init__(self, given: aiohttp.ClientSession | None = None) -> None:
        if given is not None:
            _check(given)
        self._given = given
        self._api = given
        self._store: aiohttp.ClientSession | None = None
        self._closed = False

    def api(self) -> aiohttp.ClientSession:
        """The session for the API.

        Raises:
            ConfigurationError: If the client, or the session that was given, is closed.
        """
        self._check_open()
        if self._api is None:
            self._api = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
            # aiohttp would send a GET again by itself on a connection that was closed meanwhile:
            # past the gate, and so over the budget. Our own policy does that.
            self._api._retry_connection = False  # noqa: SLF001  # there is no public switch
        return self._api

    def store(self) -> aiohttp.ClientSession:
        """The session for the artifact store, which carries nothing of ours.

        Raises:
            ConfigurationError: If the client, or the session that was given, is closed.
        """
        self._check_open()
        if self._store is None:
            self._store = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=self.api().connector,
                connector_owner=False,
                auto_decompress=False,
            )
        return self._store

    async def aclose(self) -> None:
        """Close what was opened here; a second call does nothing."""
        self._closed = True
        if self._store is not None:
            await self._store.close()
        if self._api is not None and self._given is None:
            await self._api.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigurationError("the client is closed; make a new one")
        if self._given is not None and self._given.closed:
            raise ConfigurationError("http: the session given is closed; give an open one")


def _check(given: aiohttp.ClientSession) -> None:
    """Refuse a session whose own credentials would travel with every request."""
    # The attribute is on its way out of aiohttp.
    if getattr(given, "_default_auth", None) is not None or "authorization" in given.headers:
        raise ConfigurationError(
            "http: the session given has an authorization of its own; give one without"
        )
