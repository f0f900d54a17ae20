"""The JSON report, and reading it back.

Errors become objects with their type and message, and paths become strings; everything else has
the fields of the structs.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from os import fspath
from pathlib import Path
from typing import Any

import msgspec

from amigo_async import errors
from amigo_async.batch.outcomes import BatchResult, RunOutcome
from amigo_async.errors import AmigoError
from amigo_async.escaping import encode_json


class RecordedError(AmigoError):
    """An error that was read from a report.

    Attributes:
        type: The class name of the original error.
        message: Its message.
    """

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type
        self.message = message


def type_of(error: BaseException) -> type[BaseException]:
    """Return the class of an error; for a `RecordedError` that of the original error.

    Args:
        error: The error. `AmigoError` is returned for one whose class was not of this package, and
            not built in.
    """
    if not isinstance(error, RecordedError):
        return type(error)
    for module in (errors, builtins):
        found = getattr(module, error.type, None)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return AmigoError


class _ErrorFields(msgspec.Struct):
    type: str
    message: str


def to_json(result: BatchResult) -> str:
    """Encode `result` as a JSON object, which begins with ``passed`` and ``counts``.

    The verdict over all comparisons with baselines is at its end, as ``comparison``.

    Args:
        result: The result of the batch.
    """
    return "".join(json_pieces(result))


def json_pieces(result: BatchResult) -> Iterator[str]:
    """Encode `result` as `to_json` does, piece by piece: a large batch is hundreds of megabytes."""
    document: dict[str, Any] = {"passed": result.passed, "counts": result.counts}
    document |= {**msgspec.structs.asdict(result), "comparison": result.comparison}
    before = "{"
    for name, value in document.items():
        yield f'{before}\n  "{name}": '
        before = ","
        if name == "outcomes" and value:
            yield from _listed(value)
        else:
            yield _indented(value, "\n  ")
    yield "\n}"


def _listed(outcomes: Iterable[RunOutcome]) -> Iterator[str]:
    before = "["
    for outcome in outcomes:
        yield before + "\n    " + _indented(outcome, "\n    ")
        before = ","
    yield "\n  ]"


def _indented(value: Any, line: str) -> str:
    return encode_json(value, indent=2, enc_hook=_encode).replace("\n", line)


def from_json(text: str | bytes) -> BatchResult:
    """Decode what `to_json` returned; errors become `RecordedError`.

    Args:
        text: The JSON document.

    Raises:
        msgspec.DecodeError: If `text` is not JSON, or not the result of a batch.
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
    raise NotImplementedError(f"{type(value).__name__} cannot be encoded as JSON")


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Exception:
        fields = msgspec.convert(value, _ErrorFields)
        return RecordedError(fields.type, fields.message)
    return Path(msgspec.convert(value, str))
