"""Checks of arguments: a value that cannot be is an error that says what can be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, Final

from amigo_async.errors import ArgumentError

_KINDS: Final[dict[Any, str]] = {
    bool: "True or False",
    bytes: "bytes",
    int: "a whole number",
    str: "a text",
    Iterable: "a list",
    Mapping: "a dictionary",
    int | float | tuple: "a number, or several",
}


def check_seconds(name: str, seconds: float | None) -> None:
    """Check a number of seconds.

    Raises:
        ArgumentError: If `seconds` is neither None nor a number above 0.
    """
    if seconds is None:
        return
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not seconds > 0:
        raise ArgumentError(f"{name} must be seconds above 0, or None, not {seconds!r:.80}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that `value` is one of `choices`.

    Raises:
        ArgumentError: If it is not.
    """
    if value not in choices:
        named = ", ".join(map(repr, choices))
        raise ArgumentError(f"{name} must be one of {named}, not {value!r:.80}")


def check_number(
    name: str, value: object, *, above: float | None = None, to: float = math.inf
) -> None:
    """Check a finite number.

    Args:
        name: What it is called.
        value: The number.
        above: It must be greater than this; None for 0 or more.
        to: It must not be greater than this.

    Raises:
        ArgumentError: If it is not such a number.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    low = 0 if above is None else above
    if not number or not low <= value <= to or value == above or math.isinf(value):  # type: ignore[operator,arg-type]  # is a number
        least = "of 0 or more" if above is None else f"above {above:g}"
        least = "" if above == -math.inf else f" {least}"
        most = "" if math.isinf(to) else f", at most {to:g}"
        raise ArgumentError(f"{name} must be a number{least}{most}, not {value!r:.80}")


def check_count(name: str, value: object, *, least: int = 0) -> None:
    """Check a whole number.

    Args:
        name: What it is called.
        value: The number.
        least: It must not be less than this.

    Raises:
        ArgumentError: If it is not such a number.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{name} must be a whole number of at least {least}, not {value!r:.80}")


def check_text(name: str, value: object) -> None:
    """Check a text that is not empty.

    Raises:
        ArgumentError: If it is not such a text.
    """
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"{name} must be a text that is not empty, not {value!r:.80}")


def check_type(name: str, value: object, kind: type | UnionType) -> None:
    """Check the type of a value.

    Raises:
        ArgumentError: If it is of another type.
    """
    if not isinstance(value, kind):
        wanted = _KINDS.get(kind) or f"of the type {getattr(kind, '__name__', kind)}"
        raise ArgumentError(f"{name} must be {wanted}, not {value!r:.80}")


def check_names(name: str, values: Iterable[str], known: Iterable[str]) -> None:
    """Check that all values are known.

    Raises:
        ArgumentError: If one is not; the message lists those that are.
    """
    names = [str(each) for each in known]
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ArgumentError(f"{name} must be some of {', '.join(names)}, not {values!r:.80}")
    for value in values:
        if value not in names:
            raise ArgumentError(f"{name}: there is no {value!r:.80}; there are {', '.join(names)}")
