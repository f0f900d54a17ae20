"""Which store URLs may be requested, and file names derived from them. No I/O."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote, urljoin, urlsplit

from amigo_async.protocol.headers import is_encodable
from amigo_async.redact import SecretUrl

# Characters that no URL may contain unencoded: it would be parsed differently than it looks.
_UNFIT = "[\x00-\x20\x7f]"
_HOST = r"[A-Za-z0-9_.:%-]+"


class UnsafeLinkError(ValueError):
    """A URL must not be requested. Internal: callers raise an ``ArtifactError``."""


def check_link(url: str, *, allow_http: bool) -> None:
    """Check that `url` may be a URL of a store.

    Args:
        url: The URL.
        allow_http: Whether it may be plain http, as it may if the base URL is.

    Raises:
        UnsafeLinkError: If it has no host, a scheme other than http and https, or user info, or is
            plain http although that is not allowed. The message does not contain the URL.
    """
    # Parse in another function, so that no traceback shows parts of the URL in local variables.
    problem = _problem(url, allow_http=allow_http)
    if problem is not None:
        raise UnsafeLinkError(problem)


def _problem(url: str, *, allow_http: bool) -> str | None:
    """Why `url` must not be requested; None if it may."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "the store's URL cannot be read"
    if re.search(_UNFIT, url) or not is_encodable(url) or (host and not is_host(host)):
        return "the store's URL cannot be read"
    if parts.scheme not in {"http", "https"} or not host:
        return "the store's URL is not an https URL"
    if parts.username is not None or parts.password is not None:
        return "the store's URL has user info in it"
    if parts.scheme == "http" and not allow_http:
        return "the store's URL is plain http"
    return None


def is_host(host: str) -> bool:
    """Whether `host`, in ASCII, may be a host name or an address; the resolver raises if not."""
    labels = host.removesuffix(".").split(".")
    return bool(re.fullmatch(_HOST, host)) and all(0 < len(label) < 64 for label in labels)


def redirect_target(url: str, location: str, *, allow_http: bool) -> SecretUrl:
    """The URL that a redirect leads to.

    It is used as the store sent it; nothing of the old query is carried over.

    Args:
        url: The URL that was requested.
        location: Its ``Location`` header.
        allow_http: Whether plain http may redirect to plain http.

    Raises:
        UnsafeLinkError: If it leads from https to http, or `check_link` raises.
    """
    target = _joined(url, location)
    if target is None:
        raise UnsafeLinkError("the store's URL cannot be read")
    if url.lower().startswith("https:") and target.lower().startswith("http:"):
        raise UnsafeLinkError("the store redirects from https to http")
    check_link(target, allow_http=allow_http)
    return target


def _joined(url: str, location: str) -> SecretUrl | None:
    """`location` relative to `url`; None if it cannot be parsed."""
    try:
        return SecretUrl(urljoin(url, location))
    except ValueError:
        return None


# File systems allow 255 bytes; the rest is for the suffixes of partial files.
_LONGEST = 200
_LONGEST_SUFFIX = 20

_RESERVED = r'[<>:"/\\|?*]'
_DEVICE = r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)"


def safe_name(url: str, fallback: str) -> str:
    """The last segment of the key of `url` as a file name that is safe on all systems.

    It has no separators, no control or formatting characters, at most 200 bytes with the suffix
    kept, and is neither hidden, nor a parent folder, nor the name of a device on any system.

    Args:
        url: The URL; its query is ignored.
        fallback: The name if nothing is left of the key.
    """
    try:
        path = urlsplit(url).path
    except ValueError:  # not a URL; the request for it raises
        path = ""
    key = unquote(path, errors="replace").replace("\\", "/")
    return _clean(key.rsplit("/", 1)[-1]) or _clean(fallback) or "artifacts"


def safe_segment(text: str) -> str:
    """`text`, such as an id, as the name of a file or folder; usual ids are unchanged."""
    return _clean(text) or "_"


def _clean(name: str) -> str:
    if not (name.isascii() and name.isprintable()):
        name = unicodedata.normalize("NFC", name)
        name = "".join("_" if unicodedata.category(char)[0] == "C" else char for char in name)
    name = re.sub(_RESERVED, "_", name).lstrip(". ").rstrip(". ")
    if name.startswith(("-", "~")) or re.match(_DEVICE, name):
        name = f"_{name}"
    if name.lower().endswith((".part", ".part.jsonl")):  # would be mistaken for a partial file
        name = f"{name}_"
    return _shorten(name)


def _shorten(name: str) -> str:
    """`name` in at most 200 bytes of UTF-8; the end of the stem is cut off."""
    raw = name.encode()
    if len(raw) <= _LONGEST:
        return name
    stem, dot, suffix = name.rpartition(".")
    tail = (dot + suffix).encode() if stem and len(suffix.encode()) <= _LONGEST_SUFFIX else b""
    head = raw[: _LONGEST - len(tail)]
    return head.decode(errors="ignore").rstrip(". ") + tail.decode()
