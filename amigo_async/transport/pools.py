"""The aiohttp sessions of a client: one for the API, one without credentials for the store."""

from __future__ import annotations

import asyncio
import netrc
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import finalize

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from amigo_async.errors import ConfigurationError
from amigo_async.threads import in_name_thread
from amigo_async.transport.aiohttp_compat import (
    has_authorization,
    loop_of,
    proxy_of,
    without_replay,
)

# The share of a given session's connections that downloads may use, so that slow downloads leave
# some for the API.
_STORE_SHARE: Final = 0.5


class Connections:
    """Opens the sessions at the first request, in the running event loop.

    They belong to that loop, like everything else of a client.

    Args:
        given: The caller's session for the API; None to open one. The store's session shares its
            connector (with its TLS settings) and its proxy, but not its headers, cookies and
            credentials. Without a given session, both have connections of their own.
        host: The host of the API.

    Raises:
        ConfigurationError: If the given session has an authorization, or would take one for `host`
            from ``.netrc``, or an invalid proxy from the environment.
    """

    def __init__(self, given: aiohttp.ClientSession | None = None, host: str = "") -> None:
        if given is not None:
            _check(given, host)
        self._given = given
        self._api: aiohttp.ClientSession | None = None
        self._store: aiohttp.ClientSession | None = None
        self._loop = None if given is None else loop_of(given)
        self._store_slots: asyncio.Semaphore | None = None
        self._closed = False
        if given is not None:
            self._api = without_replay(given)
            # Otherwise, aiohttp would warn about a session that was not closed.
            finalize(self, self._api.detach)
            if given.connector is not None and given.connector.limit:
                share = max(1, int(given.connector.limit * _STORE_SHARE))
                self._store_slots = asyncio.Semaphore(share)

    def check(self) -> None:
        """Check that the client can be used here.

        Raises:
            ConfigurationError: If the client or the given session is closed, or if they belong to
                another event loop.
        """
        if self._closed:
            raise ConfigurationError("the client is closed; make a new one")
        if self._loop is not running_loop():
            self._check_loop()
        if self._given is not None and self._given.closed:
            raise ConfigurationError("http: the session given is closed; give an open one")

    def api(self) -> aiohttp.ClientSession:
        """The session for the API; call `check` first.

        Raises:
            ConfigurationError: If the client or the given session is closed.
        """
        given = self._given
        if self._closed or (given is not None and given.closed):
            self.check()  # raises
        if self._api is None:
            session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), connector=_connector()
            )
            self._api = without_replay(session)
            session.detach()
        return self._api

    def store(self) -> aiohttp.ClientSession:
        """The session for the artifact store, without headers, cookies and credentials.

        Raises:
            ConfigurationError: If the client or the given session is closed, or if they belong to
                another event loop.
        """
        self.check()
        if self._store is None:
            given = self._given
            self._store = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=_connector() if given is None else given.connector,
                connector_owner=given is None,
                auto_decompress=False,
            )
        return self._store

    @asynccontextmanager
    async def store_connection(self) -> AsyncIterator[None]:
        """Wait until one more store response leaves connections for the API."""
        if self._store_slots is None:
            yield
        else:
            async with self._store_slots:
                yield

    def store_proxy(self, url: str) -> URL | None:
        """The proxy for a request to the store; None for no proxy."""
        return None if self._given is None else proxy_for(url, self._given)

    async def aclose(self) -> None:
        """Close the sessions that were opened here; a second call does nothing.

        Raises:
            ConfigurationError: If they are in use in another event loop.
        """
        if self._loop is not None and not self._loop.is_closed():
            self._check_loop()
        self._closed = True
        if self._store is not None:
            await self._store.close()
        if self._api is not None and self._given is None:
            await self._api.close()
        elif self._api is not None:
            self._api.detach()

    def _check_loop(self) -> None:
        loop = running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            what = "client" if self._given is None else "session given as http"
            raise ConfigurationError(
                f"the {what} belongs to another event loop; make one in each loop"
            )


def running_loop() -> asyncio.AbstractEventLoop:
    """The running event loop.

    Raises:
        ConfigurationError: If no event loop of asyncio is running.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "no asyncio event loop is running here; call this in the event loop of the client"
        ) from None


def _check(given: aiohttp.ClientSession, host: str) -> None:
    """Reject what is no session, or would send credentials of its own with every request."""
    if not isinstance(given, aiohttp.ClientSession):
        raise ConfigurationError(
            f"http must be an aiohttp.ClientSession or None, not {type(given).__name__}"
        )
    if has_authorization(given):
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


class _Resolver(AbstractResolver):
    """Resolves names in threads of this package; aiohttp uses those of the application."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a host name; the signature is that of aiohttp."""
        return await in_name_thread(_resolve, host, port, family)

    async def close(self) -> None:
        """Nothing to close."""


def _resolve(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found: list[ResolveResult] = []
    for kind, _, proto, _, address in socket.getaddrinfo(
        host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    ):
        numeric = str(address[0])
        if kind == socket.AF_INET6 and len(address) == 4 and address[3]:
            numeric += f"%{address[3]}"  # the interface of a link-local address
        found.append(
            ResolveResult(
                hostname=host,
                host=numeric,
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
        )
    return found


def _connector() -> aiohttp.TCPConnector:
    # With aiodns installed, aiohttp needs no threads.
    threaded = aiohttp.DefaultResolver is aiohttp.ThreadedResolver
    return aiohttp.TCPConnector(resolver=_Resolver() if threaded else None)


def proxy_for(url: str, given: aiohttp.ClientSession) -> URL | None:
    """The proxy that `given` would use for `url`; None for no proxy."""
    own = proxy_of(given)
    if own is not None:
        return own
    # The URL is not split into a variable, where a traceback would show its query.
    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    if not given.trust_env or proxy_bypass(host or ""):
        return None
    found = URL(getproxies().get(scheme, ""))
    # Like aiohttp, which does not use a proxy of the environment that is itself behind TLS.
    return found if found.host and found.scheme != "https" else None


def environment_session() -> aiohttp.ClientSession | None:
    """A session that uses the proxies of the environment; None if there are none.

    With ``trust_env``, aiohttp reads ``.netrc`` for every request, hence only then.

    Raises:
        ConfigurationError: If aiohttp does not support the kind of a proxy.
    """
    named = {scheme: url for scheme, url in getproxies().items() if scheme in ("http", "https")}
    if not named:
        return None
    for scheme, url in named.items():
        kind, separator, _ = url.partition("://")
        if separator and kind.lower() != "http":
            raise ConfigurationError(
                f"{scheme.upper()}_PROXY has a proxy of another kind than http: it must be like "
                "http://proxy.example:3128"
            )
    return aiohttp.ClientSession(trust_env=True, cookie_jar=aiohttp.DummyCookieJar())


def check_environment() -> None:
    """Check the proxies of the environment, about which aiohttp says little.

    Raises:
        ConfigurationError: If one is not a URL.
    """
    for scheme in ("http", "https"):
        found = getproxies().get(scheme)
        if found is not None and not _is_url(found):
            raise ConfigurationError(
                f"{scheme.upper()}_PROXY cannot be read: it must be like http://proxy.example:3128"
            )


def netrc_names(host: str) -> bool:
    """Whether ``.netrc`` has credentials for `host`, which aiohttp would send."""
    try:
        path = os.environ.get("NETRC") or Path.home() / ".netrc"
        return netrc.netrc(os.fspath(path)).authenticators(host) is not None
    except (OSError, RuntimeError, UnicodeDecodeError, netrc.NetrcParseError):
        return False  # aiohttp ignores an unreadable file, too


def _is_url(text: str) -> bool:
    try:
        return bool(URL(text).host)
    except ValueError:
        return False
