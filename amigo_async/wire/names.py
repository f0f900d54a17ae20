"""A safe file name from the key of a presigned URL. No I/O."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote, urlsplit

# File systems take 255 bytes at most; the rest is room for the suffixes of partial files.
_LONGEST = 200
_LONGEST_SUFFIX = 20

_RESERVED = r'[<>:"/\\|?*]'
_DEVICE = r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)"


def safe_name(url: str, fallback: str) -> str:
    """The last part of the key of `url` as a file name that is safe everywhere.

    It has no separators, no control or formatting characters, nothing that hides it, goes up or
    names a device (on any system), and at most 200 bytes, the suffix kept.

    Args:
        url: The URL; its query is not looked at.
        fallback: What to call it where nothing is left of the key.
    """
    try:
        path = urlsplit(url).path
    except ValueError:  # not a URL; whoever asks for it says so
        path = ""
    key = unquote(path, errors="replace").replace("\\", "/")
    return _clean(key.rsplit("/", 1)[-1]) or _clean(fallback) or "artifacts"


def safe_segment(text: str) -> str:
    """`text`, such as an id, as the name of a file or folder; ids of the usual kind stay as is."""
    return _clean(text) or "_"


def _clean(name: str) -> str:
    if not (name.isascii() and name.isprintable()):
        name = unicodedata.normalize("NFC", name)
        name = "".join("_" if unicodedata.category(char)[0] == "C" else char for char in name)
    name = re.sub(_RESERVED, "_", name).lstrip(". ").rstrip(". ")
    if name.startswith(("-", "~")) or re.match(_DEVICE, name):
        name = f"_{name}"
    if name.lower().endswith((".part", ".part.jsonl")):  # would be taken for a partial file
        name = f"{name}_"
    return _shorten(name)


def _shorten(name: str) -> str:
    """`name` in at most 200 bytes of UTF-8; what is cut off is the end of the stem."""
    raw = name.encode()
    if len(raw) <= _LONGEST:
        return name
    stem, dot, suffix = name.rpartition(".")
    tail = (dot + suffix).encode() if stem and len(suffix.encode()) <= _LONGEST_SUFFIX else b""
    head = raw[: _LONGEST - len(tail)]
    return head.decode(errors="ignore").rstrip(". ") + tail.decode()
