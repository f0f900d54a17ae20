"""Keep keys, tokens and the queries of presigned URLs out of everything that is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

MASK = "***"

# A URL's user info and everything behind its "?" may be secret; its host and path are not.
_URL = re.compile(
    r"(\bhttps?:(?://|\\/\\/))(?:[^\s/?#@\"'<>]*@)?([^\s?#\"'<>)]*)(\?[^\s\"'<>)]*)?",
    re.IGNORECASE,
)
_SIGNED = re.compile(r"(?i)\b((?:X-Amz-[\w-]{1,40}|Signature|AWSAccessKeyId)=)[^&\s\"'<>)]+")
_SCHEME = re.compile(r"(?i)\b(Bearer|Basic)\s+[\w.~+/=-]{16,}")
# Tokens that no one has told of: the answer of a sign in has one, whatever else is wrong with it.
_TOKEN_FIELD = re.compile(r'(?i)("(?:id|access|refresh)_token"\s*:\s*")(?:[^"\\]|\\.)+')
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)*")


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
    """`text` without the queries of URLs, credentials of an Authorization, tokens, and `secrets`.

    Args:
        text: Any text.
        secrets: What must not be in it, as it is or as JSON and URLs spell it.
    """
    # The longest first: one may be a part of another.
    for secret in sorted(map(str, secrets), key=len, reverse=True):
        for form in (secret, secret.replace("/", r"\/"), quote(secret, safe="", errors="replace")):
            text = text.replace(form, MASK) if form else text
    text = _URL.sub(lambda m: m[1] + m[2] + (f"?{MASK}" if m[3] else ""), text)
    text = _SIGNED.sub(rf"\1{MASK}", text)
    text = _SCHEME.sub(rf"\1 {MASK}", text)
    text = _TOKEN_FIELD.sub(rf"\1{MASK}", text)
    return _JWT.sub(MASK, text)
