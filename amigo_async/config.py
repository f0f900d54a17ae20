"""The configuration of a client, from its arguments and environment variables."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from typing import Final, TypeVar

from msgspec import Struct
from yarl import URL

from amigo_async.auth import ApiKeyAuth, Auth, BasicAuth, BearerAuth
from amigo_async.errors import ConfigurationError
from amigo_async.protocol.requests import extra_headers, header_value, organization_segment
from amigo_async.protocol.urls import is_host
from amigo_async.redact import SecretUrl, masked

T = TypeVar("T")

DEFAULT_BASE_URL: Final = "https://api.amigo.ai"

# The base URLs of Amigo's regions; in all but one of them, an organization is not found (404).
REGIONS: Final = (
    DEFAULT_BASE_URL,
    "https://api-ca-central-1.amigo.ai",
    "https://api-eu-central-1.amigo.ai",
    "https://api-ap-southeast-2.amigo.ai",
)

# The environment variable for each argument of `AmigoClient` that has one.
VARIABLES: Final = {
    "organization_id": "AMIGO_ORGANIZATION_ID",
    "api_key": "AMIGO_API_KEY",
    "api_key_id": "AMIGO_API_KEY_ID",
    "user_id": "AMIGO_USER_ID",
    "base_url": "AMIGO_BASE_URL",
}


class Configuration(Struct, frozen=True):
    """A complete, valid configuration.

    Attributes:
        auth: Credentials.
        organization_id: Id of the organization.
        base_url: URL of the API, without a trailing slash.
        headers: Headers to send with every request.
    """

    auth: Auth
    organization_id: str
    base_url: str
    headers: dict[str, str]


def configure(
    *,
    api_key: str | None,
    api_key_id: str | None,
    user_id: str | None,
    organization_id: str | None,
    base_url: str | None,
    auth: Auth | None,
    mongo_cluster_name: str | None,
    headers: Mapping[str, str] | None,
) -> Configuration:
    """Fill in missing arguments from the environment, and check all of them.

    Surrounding whitespace is stripped: a value that was read from a file often ends in a newline.
    `AmigoClient` documents the arguments.

    Raises:
        ConfigurationError: If a setting is missing or invalid; the message names it.
    """
    organization = _setting("organization_id", organization_id)
    organization_segment(organization)
    if auth is None:
        auth = ApiKeyAuth(
            _setting("api_key", api_key),
            _setting("api_key_id", api_key_id),
            _setting("user_id", user_id),
        )
    elif not isinstance(auth, ApiKeyAuth | BearerAuth | BasicAuth):
        raise ConfigurationError(
            f"auth must be ApiKeyAuth, BearerAuth or BasicAuth, not {type(auth).__name__}"
        )
    elif api_key is not None or api_key_id is not None or user_id is not None:
        raise ConfigurationError("give either auth, or api_key, api_key_id and user_id, not both")
    sent = extra_headers(headers or {})
    if mongo_cluster_name is not None:
        cluster = _cut(mongo_cluster_name)
        sent["x-mongo-cluster-name"] = header_value("mongo_cluster_name", cluster)
    if base_url is None:
        base_url = SecretUrl(os.environ.get(VARIABLES["base_url"], "").strip() or DEFAULT_BASE_URL)
    else:
        base_url = SecretUrl(_cut(base_url)) if isinstance(base_url, str) else base_url
    problem = _problem(base_url)
    if problem is not None:
        raise ConfigurationError(f"base_url {problem}: give a URL like https://api.amigo.ai")
    return Configuration(auth, organization, str(URL(base_url)).rstrip("/"), sent)


def check_settings(
    *,
    request_timeout: float,
    max_attempts: int,
    max_response_bytes: int,
    poll_interval: float | None,
    on_event: object,
    shared: object = None,
) -> None:
    """Check the settings that need nothing from the environment.

    `AmigoClient` documents them.

    Raises:
        ConfigurationError: If a setting is invalid; the message names it.
    """
    numbers = {"request_timeout": request_timeout}
    if poll_interval is not None:
        numbers["poll_interval"] = poll_interval
    for name, seconds in numbers.items():
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not 0 < seconds < math.inf:
            raise ConfigurationError(f"{name} must be seconds above 0, not {seconds!r:.80}")
    counts = {"max_attempts": max_attempts, "max_response_bytes": max_response_bytes}
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigurationError(f"{name} must be at least 1, not {count!r:.80}")
    if inspect.iscoroutinefunction(on_event):
        raise ConfigurationError(
            "on_event must be a plain function here; run_many also takes a coroutine function"
        )
    if shared is not None and (
        isinstance(shared, type) or not callable(getattr(shared, "connect", None))
    ):
        raise ConfigurationError(
            "shared must be an instance, as of amigo_async.redis.RedisSharing(...), "
            f"not {type(shared).__name__}"
        )


def _setting(name: str, given: str | None) -> str:
    value = given if given is not None else os.environ.get(VARIABLES[name])
    value = masked(_cut(value)) if name == "api_key" else _cut(value)
    if not value:
        raise ConfigurationError(
            f"{name} is missing: give {name}= to AmigoClient, or set {VARIABLES[name]}"
        )
    return value


def _cut(value: T) -> T:
    """Strip surrounding whitespace from text; other values are rejected by later checks."""
    return value.strip() if isinstance(value, str) else value  # type: ignore[return-value]  # is T


def _problem(base_url: str) -> str | None:
    """Describe what is wrong with a base URL without quoting it; None if it is valid."""
    try:
        url = URL(base_url)
    except (ValueError, TypeError):
        return "cannot be parsed"
    if url.scheme not in ("http", "https") or not url.raw_host:
        return "has no scheme (http or https), or no host"
    if not is_host(url.raw_host):
        return "has an invalid host name"
    if url.scheme == "http" and url.raw_host.rstrip(".").endswith("amigo.ai"):
        return "has http instead of https, which would expose the key"
    if url.user or url.password or url.raw_query_string or url.raw_fragment:
        return "has a user, query or fragment"
    return None
