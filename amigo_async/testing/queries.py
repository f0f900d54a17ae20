"""Reads what the list endpoint is asked for, and refuses what the contract does not allow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from amigo_async.testing.refusals import RefusalError, invalid

T = TypeVar("T")

ID = re.compile(r"[a-f0-9]{24}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_TRUE = frozenset({"true", "1", "t", "yes", "y", "on"})
_FALSE = frozenset({"false", "0", "f", "no", "n", "off"})
_SORTS = ("+created_at", "-created_at")
_MAX_TOKEN = 2**63


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The filters and the page of a list call."""

    ids: tuple[str, ...]
    set_ids: tuple[str, ...]
    creators: tuple[tuple[str, str], ...]
    is_completed: bool | None
    failed_metrics: bool | None
    errored: bool | None
    created_after: datetime | None
    created_before: datetime | None
    newest_first: bool
    limit: int
    offset: int


class _Reader:
    """Takes the parameters one by one and gathers what is wrong with them."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)
        self.wrong: list[dict[str, Any]] = []

    def many(self, name: str, parse: Callable[[str], T], *, unique: bool = True) -> tuple[T, ...]:
        texts = self._values.get(name, [])
        if unique and len(set(texts)) < len(texts):
            msg = "Items should be unique"
            self.wrong.append(invalid("unique_items", ("query", name), msg, texts))
        found = []
        for number, text in enumerate(texts):
            try:
                found.append(parse(text))
            except ValueError as error:
                self._note(("query", name, number), error, text)
        return tuple(found)

    def one(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """The last value of a parameter, as FastAPI takes it."""
        texts = self._values.get(name)
        if not texts:
            return default
        try:
            return parse(texts[-1])
        except ValueError as error:
            self._note(("query", name), error, texts[-1])
            return default

    def _note(self, loc: tuple[str | int, ...], error: ValueError, text: str) -> None:
        kind, message = error.args if len(error.args) == 2 else ("value_error", str(error))
        self.wrong.append(invalid(kind, loc, message, text))


def read(pairs: Iterable[tuple[str, str]]) -> ListQuery:
    """The filters and the page that are asked for; a refusal with a 422 if any is wrong."""
    reader = _Reader(pairs)
    query = ListQuery(
        ids=reader.many("id", object_id),
        set_ids=reader.many("simulation_unit_test_set_id", object_id),
        creators=reader.many("creator", _creator),
        is_completed=reader.one("is_completed", _boolean, None),
        failed_metrics=reader.one("failed_metrics", _boolean, None),
        errored=reader.one("errored", _boolean, None),
        created_after=reader.one("created_after", _instant, None),
        created_before=reader.one("created_before", _instant, None),
        newest_first=_newest_first(reader.many("sort_by", _sort, unique=False)),
        limit=reader.one("limit", _within(0, 50), 50),
        offset=reader.one("continuation_token", _within(0, _MAX_TOKEN), 0),
    )
    if reader.wrong:
        raise RefusalError(422, reader.wrong)
    return query


def object_id(text: str) -> str:
    """`text`, if it is an id to send; else a `ValueError` of type and message."""
    if ID.fullmatch(text) is None:
        raise ValueError("string_pattern_mismatch", "String should match pattern '^[a-f0-9]{24}$'")
    return text


def _newest_first(sorts: Sequence[str]) -> bool:
    return bool(sorts) and sorts[0].startswith("-")


def _sort(text: str) -> str:
    if text not in _SORTS:
        raise ValueError("value_error", "Value should be '+created_at' or '-created_at'")
    return text


def _creator(text: str) -> tuple[str, str]:
    organization_id, _, user_id = text.partition(",")
    if not organization_id or not user_id:
        raise ValueError("value_error", "Value should have the form 'org_id,user_id'")
    return organization_id, user_id


def _boolean(text: str) -> bool | None:
    lowered = text.lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError("bool_parsing", "Input should be a valid boolean")
    return lowered in _TRUE


def _instant(text: str) -> datetime | None:
    # Python 3.11 reads more than RFC 3339 allows, such as "20240102T03+00"
    if re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d", text) is None:
        raise ValueError("datetime_from_date_parsing", "Input should be a valid datetime")
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("datetime_parsing", "Input should be a valid datetime") from None
    if found.tzinfo is None:
        raise ValueError("timezone_aware", "Input should have timezone info")
    return found


def _within(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if _INTEGER.fullmatch(text) is None:
            raise ValueError("int_parsing", "Input should be a valid integer")
        number = int(text)
        if number < least:
            raise ValueError("greater_than_equal", f"Input should be at least {least}")
        if number > most:
            raise ValueError("less_than_equal", f"Input should be at most {most}")
        return number

    return parse
