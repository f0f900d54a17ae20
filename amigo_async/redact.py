"""Keep keys, tokens and the queries of presigned URLs out of everything that is shown."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

MASK = "***"

# As `html.escape`, whose module is large.
HTML_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})

# A URL's user info and everything behind its "?" may be secret; its host and path are not. A mask
# is left as it is, with the punctuation that a sentence has put behind it.
_URL = (
    r"(?i)(\bhttps?:(?://|\\/\\/))(?:[^\s/?#@\"'<>]*@)?([^\s?#\"'<>)]*)"
    r"(\?(?!\*\*\*[.,:;\]]{0,3}(?:\s|$))[^\s\"'<>)]*)?"
)
_USER = r"//[^/]*@"
_SIGNED = r"(?i)\b((?:X-(?:Amz|Goog)-[\w-]{1,40}|Signature|AWSAccessKeyId)=)[^&\s\"'<>)]+"
_SCHEME = r"(?i)\b(Bearer|Basic)\s+[\w.~+/=-]{16,}"
# Tokens that no one has told of: the answer of a sign in has one, whatever else is wrong with it.
_ISSUED = r'(?i)("(?:id|access|refresh)_token"\s*:\s*")(?:[^"\\]|\\.)+'
_JWT = r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)*"
# One of these is in whatever one of the above finds; most texts have none.
_HINTS = ("http", "x-amz-", "x-goog-", "signature=", "keyid=", "bearer", "basic", "_token", "eyj")

# A shorter secret is none, and would be found in many a word of a page.
_SHORTEST = 8


class Secret(str):
    """A string that is used as it is and shown as ``***``, in tracebacks' local variables too.

    So is a part of it: what shows local variables cuts long ones off first.
    """

    __slots__ = ()

    def __getitem__(self, key: Any) -> Secret:
        return Secret(super().__getitem__(key))

    def __repr__(self) -> str:
        return f"'{MASK}'"


class SecretUrl(Secret):
    """A URL, or a part of one, whose query is a secret; shown without it."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown, *rest = re.split(r"[?#]", str(self), maxsplit=1)
        return repr(redact(re.sub(_USER, "//", shown)) + (f"?{MASK}" if rest else ""))


def masked(value: Any) -> Any:
    """`value` as a `Secret` where it is a string, with such values where it is a mapping."""
    if isinstance(value, Mapping):
        return {name: masked(inner) for name, inner in value.items()}
    return Secret(value) if isinstance(value, str) else value


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without the queries of URLs, credentials of an Authorization, tokens, and `secrets`.

    Args:
        text: Any text.
        secrets: What must not be in it, as it is or as JSON, HTML, URLs and Base64 spell it.
    """
    # The longest first: one may be a part of another.
    forms = [form for secret in secrets if secret for form in _forms(str(secret))]
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    lowered = text.lower()
    if not any(map(lowered.__contains__, _HINTS)):
        return text
    text = re.sub(_URL, lambda m: m[1] + m[2] + (f"?{MASK}" if m[3] else ""), text)
    text = re.sub(_SIGNED, rf"\1{MASK}", text)
    text = re.sub(_SCHEME, rf"\1 {MASK}", text)
    text = re.sub(_ISSUED, rf"\1{MASK}", text)
    return re.sub(_JWT, MASK, text)


def redact_body(body: bytes, secrets: Iterable[str]) -> bytes:
    """The body of an answer without `secrets`: what it repeats of them gets no further.

    Nothing is looked for that only looks like a secret, so a body without them is left as it is.

    Args:
        body: JSON.
        secrets: What must not be in it; those of less than eight characters are left.
    """
    forms = {form for s in secrets if len(s) >= _SHORTEST for form in _forms(str(s))}
    for form in sorted(forms, key=len, reverse=True):
        body = body.replace(form.encode(errors="surrogatepass"), MASK.encode())
    return body


def _forms(secret: str) -> Iterable[str]:
    """`secret` as it may be spelled by whoever repeats it."""
    escaped = json.dumps(secret)[1:-1]
    encoded = secret.encode(errors="surrogatepass")
    yield from (secret, escaped, escaped.replace("/", r"\/"), secret.translate(HTML_ESCAPES))
    doubled = secret.replace("\\", "\\\\")
    yield from (doubled, doubled.replace("'", r"\'"))  # as Python shows strings and bytes
    yield b64encode(encoded).decode()
    for safe in ("", "/"):
        quoted = quote(encoded, safe=safe)
        yield from (quoted, quoted.replace("%20", "+"))
        yield re.sub("%..", lambda m: m[0].lower(), quoted)
