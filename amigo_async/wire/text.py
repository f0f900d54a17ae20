"""What of a text can travel."""

from __future__ import annotations


def is_encodable(text: str) -> bool:
    """Whether `text` can be written in UTF-8: what has lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
