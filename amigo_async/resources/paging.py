"""What the lists of the API have in common: a page at a time, or the records of all pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from amigo_async.errors import ArgumentError, DecodeError
from amigo_async.protocol.endpoints import Endpoint
from amigo_async.protocol.requests import list_request
from amigo_async.transport import Session

P = TypeVar("P", bound="Paged")
R = TypeVar("R", bound="Identified")

# After this many consecutive pages without a new record, pagination is considered endless. A few
# such pages are normal: new records shift those already seen onto later pages, and records that
# are not visible to the user may leave a page empty.
_MOST_IDLE: Final = 100


class Identified(Protocol):
    """A record of a page."""

    @property
    def id(self) -> str:
        """The id of the record."""


class Paged(Protocol):
    """A page of records."""

    @property
    def has_more(self) -> bool:
        """Whether there are more pages."""

    @property
    def continuation_token(self) -> int | None:
        """The offset of the next page; None on the last."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """What cannot be decoded of which record, by its id."""


class Resource(Generic[P, R]):
    """A list endpoint: its pages, and the records of all of them.

    Args:
        session: Sends the requests.
        endpoint: The endpoint.
        decode: Decodes a page.
        records_of: Returns the records of a page.
        decode_error: Returns the error for a record that cannot be decoded, given its id and what
            is wrong with it; None for one that names the endpoint and the id.
    """

    def __init__(
        self,
        session: Session,
        endpoint: Endpoint,
        decode: Callable[[bytes], P],
        records_of: Callable[[P], Sequence[R]],
        decode_error: Callable[[str, str], DecodeError] | None = None,
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._decode = decode
        self._records_of = records_of
        self._decode_error = decode_error or self._error_of_record

    async def page(self, filters: Mapping[str, Any]) -> P:
        """List one page of the records that match `filters`."""
        request = list_request(self._endpoint, self._session.organization, filters)
        return await self._session.call(request, self._decode)

    async def iterate(
        self, filters: dict[str, Any], *, unreadable: dict[str, str] | None = None
    ) -> AsyncIterator[R]:
        """Iterate over the records of all pages that match `filters`, each record once.

        The service counts pages by offset, so records that appear or vanish meanwhile shift them.
        Each page is therefore requested from the last record of the previous page on; if that
        record is not where it was, the previous page is read again.

        Args:
            filters: The filters; `limit` is the number of records a page, and
                `continuation_token` where to begin.
            unreadable: Collects what of the records cannot be decoded, by id, in place of an error;
                None to raise it.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            DecodeError: If pagination does not end, or, after all other records were yielded, if a
                record cannot be decoded.
        """
        limit = filters.pop("limit", None)
        if limit == 0:
            raise ArgumentError("limit must be at least 1 to iterate, not 0")
        size: Any = limit or self._endpoint.page_size
        start = offset = filters.pop("continuation_token", None) or 0
        seen: set[str] = set()
        overlaps = False
        flaws = {} if unreadable is None else unreadable
        idle = 0
        while True:
            page = await self.page({**filters, "limit": size, "continuation_token": offset})
            found = self._records_of(page)
            shown = {record.id for record in found}
            flaws |= page.unreadable
            shifted = overlaps and bool(found) and found[0].id not in seen
            idle = 0 if shown - seen else idle + 1
            for record in found:
                if record.id not in seen:
                    seen.add(record.id)
                    yield record
            if shifted:
                offset = max(start, offset - size)
                overlaps = offset > start
                continue
            if not page.has_more:
                break
            if idle == _MOST_IDLE:
                raise _page_error(f"has_more is true, but {idle} pages in a row had no new record")
            after = _next_offset(page, offset)
            overlaps = after - 1 > offset
            offset = after - 1 if overlaps else after
        lost = {i: flaw for i, flaw in flaws.items() if i not in seen}
        if lost and unreadable is None:
            record_id, flaw = next(iter(lost.items()))
            more = f"; and {len(lost) - 1} more records" if len(lost) > 1 else ""
            raise self._decode_error(record_id, flaw + more)

    def _error_of_record(self, record_id: str, flaw: str) -> DecodeError:
        path = f"{self._endpoint.name} {record_id}"
        return DecodeError(flaw, method="GET", path=path, status=200, lasting=True)


def _next_offset(page: Paged, offset: int) -> int:
    """The offset after `page`, which began at `offset`."""
    token = page.continuation_token
    if token is None or not offset < token < 2**63:
        raise _page_error(
            f"has_more is true, but continuation_token is {token!s:.40} after {offset}"
        )
    return token


def _page_error(reason: str) -> DecodeError:
    return DecodeError(reason, method="GET", path="page of a list", status=200)
