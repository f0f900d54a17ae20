"""Remove keys, tokens and the queries of presigned URLs from everything that is shown."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

MASK = "***"

# The escapes of `html.escape`; importing `html` would cost more than this table.
HTML_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})

# The user info and query of a URL may be secret, its host and path are not. A query that is already
# masked is left alone, with any punctuation after it.
_URL = (
    r"(?i)(\bhttps?:(?://|\\/\\/))(?:[^\s/?#@\"'<>]*@)?([^\s?#\"'<>)]*)"
    r"(\?(?!\*\*\*[.,:;\]]{0,3}(?:\s|$))[^\s\"'<>)]*)?"
)
_USER = r"//[^/]*@"
_SIGNED = r"(?i)\b((?:X-(?:Amz|Goog)-[\w-]{1,40}|Signature|AWSAccessKeyId)=)[^&\s\"'<>)]+"
_SCHEME = r"(?i)\b(Bearer|Basic)\s+[\w.~+/=-]{16,}"
# Tokens in the response of a sign in, which may be shown if the rest cannot be decoded.
_ISSUED = r'(?i)("(?:id|access|refresh)_token"\s*:\s*")(?:[^"\\]|\\.)+'
_JWT = r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)*"
# Every match of the patterns above contains one of these; most texts contain none.
_HINTS = ("http", "x-amz-", "x-goog-", "signature=", "keyid=", "bearer", "basic", "_token", "eyj")

# Shorter secrets are not replaced: they would match parts of ordinary words.
_SHORTEST = 8


class Secret(str):
    """A string whose `repr` is ``***``, as tracebacks show local variables by their `repr`.

    Slices are secrets too, because tools that show local variables truncate long ones first.
    """

    __slots__ = ()

    def __getitem__(self, key: Any) -> Secret:
        return Secret(super().__getitem__(key))

    def __repr__(self) -> str:
        return f"'{MASK}'"


class SecretUrl(Secret):
    """A URL, or part of one, whose `repr` leaves out the user info and the query."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown, *rest = re.split(r"[?#]", str(self), maxsplit=1)
        return repr(redact(re.sub(_USER, "//", shown)) + (f"?{MASK}" if rest else ""))


def masked(value: Any) -> Any:
    """Return a string as a `Secret`, a mapping with masked values, and anything else as is."""
    if isinstance(value, Mapping):
        return {name: masked(inner) for name, inner in value.items()}
    return Secret(value) if isinstance(value, str) else value


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Replace queries of URLs, authorizations, tokens and `secrets` in a text by ``***``.

    Args:
        text: Any text.
        secrets: Strings to replace, also where they are encoded as JSON, HTML, URL or Base64.
    """
    # The longest first: a secret may be part of another.
    forms = [form for secret in secrets if secret for form in _forms(str(secret))]
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    if not may_hold_secrets(text):
        return text
    text = re.sub(_URL, lambda m: m[1] + m[2] + (f"?{MASK}" if m[3] else ""), text)
    text = re.sub(_SIGNED, rf"\1{MASK}", text)
    text = re.sub(_SCHEME, rf"\1 {MASK}", text)
    text = re.sub(_ISSUED, rf"\1{MASK}", text)
    return re.sub(_JWT, MASK, text)


def may_hold_secrets(text: str) -> bool:
    """Return whether `redact` may replace something in a text, without secrets that are given."""
    lowered = text.lower()
    return any(map(lowered.__contains__, _HINTS))


def redact_body(body: bytes, secrets: Iterable[str]) -> bytes:
    """Replace `secrets` that a response body repeats by ``***``.

    Unlike `redact`, this replaces nothing that merely looks like a secret.

    Args:
        body: JSON.
        secrets: Strings to replace; those shorter than eight characters are not replaced.
    """
    forms = {form for s in secrets if len(s) >= _SHORTEST for form in _forms(str(s))}
    for form in sorted(forms, key=len, reverse=True):
        body = body.replace(form.encode(errors="surrogatepass"), MASK.encode())
    return body


@lru_cache(maxsize=16)  # the same few secrets are looked for in every page of runs
def _forms(secret: str) -> tuple[str, ...]:
    """Return `secret` in the encodings in which a text may repeat it."""
    escaped = json.dumps(secret)[1:-1]
    encoded = secret.encode(errors="surrogatepass")
    doubled = secret.replace("\\", "\\\\")
    forms = [secret, escaped, escaped.replace("/", r"\/"), secret.translate(HTML_ESCAPES)]
    forms += [doubled, doubled.replace("'", r"\'")]  # as in the repr of strings and bytes
    forms.append(b64encode(encoded).decode())
    for safe in ("", "/"):
        quoted = quote(encoded, safe=safe)
        forms += [quoted, quoted.replace("%20", "+")]
        forms.append(re.sub("%..", lambda m: m[0].lower(), quoted))
    return tuple(forms)
