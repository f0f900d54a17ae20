"""A batch as JSON, and back.

Errors become their type and message, paths become strings; everything else is as in the structs.
"""

from __future__ import annotations

from os import fspath
from pathlib import Path
from typing import Any

import msgspec

from amigo_async.batch.outcomes import BatchResult
from amigo_async.errors import AmigoError
from amigo_async.escaping import encode_json


class RecordedError(AmigoError):
    """An error that was read from a report.

    Attributes:
        type: The name of its class when it was raised.
        message: What it said.
    """

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type
        self.message = message


class _Told(msgspec.Struct):
    type: str
    message: str


def to_json(result: BatchResult) -> str:
    """`result` as a JSON object, its ``passed`` and ``counts`` first.

    `from_json` reads it back.

    Args:
        result: The batch.
    """
    document = {"passed": result.passed, "counts": result.counts}
    return encode_json(document | msgspec.structs.asdict(result), indent=2, enc_hook=_encode)


def from_json(text: str | bytes) -> BatchResult:
    """The batch that `to_json` wrote; its errors are `RecordedError`.

    Args:
        text: What `to_json` gave.

    Raises:
        msgspec.DecodeError: If it is not JSON, or not a batch.
    """
    try:
        result = msgspec.json.decode(text, type=BatchResult, dec_hook=_decode)
    except (UnicodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"JSON cannot be read: {type(error).__name__}") from None
    return msgspec.structs.replace(result, outcomes=tuple(result.outcomes))


def _encode(value: Any) -> Any:
    if isinstance(value, RecordedError):
        return {"type": value.type, "message": value.message}
    if isinstance(value, Exception):
        return {"type": type(value).__name__, "message": str(value)}
    if isinstance(value, Path):
        return fspath(value)
    raise NotImplementedError(f"{type(value).__name__} has no form in JSON")


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Exception:
        told = msgspec.convert(value, _Told)
        return RecordedError(told.type, told.message)
    return Path(msgspec.convert(value, str))
