"""The proxy for requests to the store: that of the session which was given for the API.

The store's session is one of its own, and does not read the environment: with it aiohttp would
read ``.netrc`` too, and send credentials that it finds there to the store.
"""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from amigo_async.errors import ConfigurationError
from amigo_async.session.aiohttp_compat import proxy_of


def proxy_for(url: str, given: aiohttp.ClientSession) -> URL | None:
    """The proxy through which `given` would ask for `url`; None for none."""
    own = proxy_of(given)
    if own is not None:
        return own
    # Its parts are in no variable, where a traceback would show the query.
    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    if not given.trust_env or proxy_bypass(host or ""):
        return None
    found = URL(getproxies().get(scheme, ""))
    # As aiohttp does, which takes no proxy from the environment that is itself behind TLS.
    return found if found.host and found.scheme != "https" else None


def environment_session() -> aiohttp.ClientSession | None:
    """A session that obeys the proxies of the environment; None where that names none.

    Only then: with ``trust_env`` aiohttp looks into ``.netrc`` for every request.

    Raises:
        ConfigurationError: If one is of a kind that aiohttp would pass by, or take for another.
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
    """Refuse proxies in the environment that cannot be any; aiohttp says little about them.

    Raises:
        ConfigurationError: If there is one.
    """
    for scheme in ("http", "https"):
        found = getproxies().get(scheme)
        if found is not None and not _is_url(found):
            raise ConfigurationError(
                f"{scheme.upper()}_PROXY cannot be read: it must be like http://proxy.example:3128"
            )


def netrc_names(host: str) -> bool:
    """Whether ``.netrc`` has credentials for `host`, which aiohttp would add to requests."""
    try:
        path = os.environ.get("NETRC") or Path.home() / ".netrc"
        return netrc.netrc(os.fspath(path)).authenticators(host) is not None
    except (OSError, RuntimeError, UnicodeDecodeError, netrc.NetrcParseError):
        return False  # aiohttp does without one that cannot be read, too


def _is_url(text: str) -> bool:
    try:
        return bool(URL(text).host)
    except ValueError:
        return False
