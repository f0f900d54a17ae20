"""Keep keys, tokens and the queries of presigned URLs out of everything that is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"

# A URL's user info and everything behind its "?" may be secret; its host and path are not.
_URL = re.compile(
    r"(\bhttps?://)(?:[^\s/?#@\"'<>]*@)?([^\s?#\"'<>)]*)(\?[^\s\"'<>)]*)?", re.IGNORECASE
)
_SIGNED = re.compile(r"(?i)\b((?:X-Amz-[\w-]+|Signature|AWSAccessKeyId)=)[^&\s\"'<>)]+")
_SCHEME = re.compile(r"(?i)\b(Bearer|Basic)\s+[\w.~+/=-]{16,}")


class Secret(str):
    """A string that is used as it is and shown as ``***``, in tracebacks' local variables too."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{MASK}'"


class SecretUrl(Secret):
    """A URL whose query is a secret; shown without it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(redact(str.__str__(self)))


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without the queries of URLs, credentials of an Authorization, and `secrets`."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    text = _URL.sub(lambda m: m[1] + m[2] + (f"?{MASK}" if m[3] else ""), text)
    text = _SIGNED.sub(rf"\1{MASK}", text)
    return _SCHEME.sub(rf"\1 {MASK}", text)
