"""Which URLs of a store may be asked, and where a redirect may lead. No I/O."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from amigo_async.redact import SecretUrl


class UnsafeLinkError(ValueError):
    """A URL that must not be asked. Internal: callers make an ``ArtifactError`` of it."""


def check_link(url: str, *, allow_http: bool) -> None:
    """Refuse what is not a URL of a store.

    Args:
        url: The URL.
        allow_http: Whether it may be plain http, as it may where the API itself is.

    Raises:
        UnsafeLinkError: If it has no host, another scheme than http and https, user info, or is
            plain http without leave. The message does not repeat the URL.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UnsafeLinkError("the store's URL cannot be read") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise UnsafeLinkError("the store's URL is not an https URL")
    if parts.username is not None or parts.password is not None:
        raise UnsafeLinkError("the store's URL has user info in it")
    if parts.scheme == "http" and not allow_http:
        raise UnsafeLinkError("the store's URL is plain http")


def redirect_target(url: str, location: str | None, *, allow_http: bool) -> SecretUrl:
    """Where a redirect leads.

    The new URL is used as the store gave it: nothing of the old query is carried over.

    Args:
        url: The URL that redirects.
        location: Its ``Location`` header.
        allow_http: Whether plain http may lead to plain http.

    Raises:
        UnsafeLinkError: If it leads nowhere, from https to http, or where `check_link` refuses.
    """
    if not location:
        raise UnsafeLinkError("the store redirects to nowhere")
    try:
        target = urljoin(url, location)
    except ValueError:
        raise UnsafeLinkError("the store's URL cannot be read") from None
    if url.lower().startswith("https:") and target.lower().startswith("http:"):
        raise UnsafeLinkError("the store redirects from https to http")
    check_link(target, allow_http=allow_http)
    return SecretUrl(target)
