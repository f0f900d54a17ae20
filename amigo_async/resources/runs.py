"""The five endpoints, one method each, as ``client.runs``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final, Unpack

from amigo_async.decoding import run_decode_error
from amigo_async.errors import ArgumentError, DecodeError, NotFoundError
from amigo_async.models import ArtifactsLink, CreatedRun, Run, RunPage, UserInfo
from amigo_async.protocol.requests import OneOrMany, RunFilters
from amigo_async.resources.calls import Calls
from amigo_async.starting import OnConflict, Starts

# So many pages in a row without a run that is new are taken for pages without end. Some are in
# order: runs that are added meanwhile move those that were seen onto the next pages, and what the
# user may not see may be left out of pages.
_MOST_IDLE: Final = 100


class Runs:
    """The runs of an organization."""

    def __init__(self, calls: Calls, starts: Starts) -> None:
        self._calls = calls
        self._starts = starts

    async def create(
        self, unit_test_set_id: str, *, on_conflict: OnConflict = "raise"
    ) -> CreatedRun:
        """Start a run of a set, once, whatever happens to the answer.

        If the answer is lost, the user's unfinished run of the set is taken, with `attached`, as
        it may be another's. If none is listed within half a minute, the request is sent again,
        unless a run of the last minutes is over that may be the one. If the call is cancelled
        while its request is on the wire, its answer is still awaited for a few seconds, and the
        id is told by a `RunStarted` event.

        Args:
            unit_test_set_id: The set, 24 characters of 0-9 and a-f.
            on_conflict: What to do if the user has an unfinished run of this set: ``"raise"``,
                ``"attach"`` (take that run), ``"wait"`` (let it finish, then start) or
                ``"restart"`` (cancel it, see it end, then start). While the service says that
                there is one and no list shows it, ``"wait"`` tries again every ten seconds, and
                the other two do so for half a minute.

        Raises:
            ArgumentError: If an argument cannot be right; nothing was sent.
            ConflictError: If the user has an unfinished run of this set, with its id in
                `existing_run_id` where it could be found. Other than with ``"raise"``, only if
                runs keep coming in the way.
            AmbiguousStartError: If a run may have been started, and it cannot be found out; its
                `candidates` are the runs that may be it.
            DeadlineError: If the budget has no room before the deadline.
            APIError: If the service says no for another reason.
            TransportError: If the service could not be reached; no run was started.
        """
        return await self._starts.start(unit_test_set_id, on_conflict)

    async def list(
        self,
        *,
        id: OneOrMany = (),
        simulation_unit_test_set_id: OneOrMany = (),
        creator: str | UserInfo | Sequence[str | UserInfo] = (),
        is_completed: bool | None = None,
        failed_metrics: bool | None = None,
        errored: bool | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        sort_by: OneOrMany = (),
        limit: int | None = None,
        continuation_token: int | None = None,
    ) -> RunPage:
        """List the runs that match all filters and that the user may see, a page of them.

        Args:
            id: Run ids; empty for any.
            simulation_unit_test_set_id: Set ids; empty for any.
            creator: Who created the run, as `UserInfo` or ``"org_id,user_id"``; empty for any.
            is_completed: Whether the run is over; None for both.
            failed_metrics: Whether a unit test run failed, so far; None for both.
            errored: Whether an error was met, so far; None for both.
            created_after: Created at this time or later, with a time zone; None for any.
            created_before: Created at this time or earlier, with a time zone; None for any.
            sort_by: ``"+created_at"`` or ``"-created_at"``; empty for the service's own order.
            limit: Runs a page, 0 to 50; None for the service's default, 50.
            continuation_token: Where the page begins, from the page before; None for the first.

        Raises:
            ArgumentError: If an argument cannot be right; nothing was sent.
            APIError: If the service says no.
            TransportError: If no answer came.
            DecodeError: If the answer is not a page of runs.
        """
        return await self._calls.page(
            id=id,
            simulation_unit_test_set_id=simulation_unit_test_set_id,
            creator=creator,
            is_completed=is_completed,
            failed_metrics=failed_metrics,
            errored=errored,
            created_after=created_after,
            created_before=created_before,
            sort_by=sort_by,
            limit=limit,
            continuation_token=continuation_token,
        )

    async def iterate(self, **filters: Unpack[RunFilters]) -> AsyncIterator[Run]:
        """Iterate over the runs of all pages, each run once.

        The service counts pages by offset, so runs that appear or vanish meanwhile shift them.
        Each page is therefore asked for from the last run of the page before; where that run is
        not found, the page before is read again. What was seen is not given twice. A run that
        cannot be read at all is told of when all others were given.

        Args:
            **filters: As for `list`. `limit` is the size of a page, 1 to 50 (50 without it), and
                `continuation_token` is where to begin.

        Raises:
            ArgumentError: If an argument cannot be right; nothing was sent.
            APIError: If the service says no.
            TransportError: If no answer came.
            DecodeError: If an answer is not a page of runs, if pages do not come to an end, or
                if there were runs that cannot be read.
        """
        size = filters.pop("limit", None)
        if size == 0:
            raise ArgumentError("limit must be at least 1 to iterate, not 0")
        size = 50 if size is None else size
        start = offset = filters.pop("continuation_token", None) or 0
        seen: set[str] = set()
        overlaps = False
        unreadable: dict[str, str] = {}
        idle = 0
        while True:
            filters["limit"], filters["continuation_token"] = size, offset
            page = await self.list(**filters)
            found = page.simulation_unit_test_set_runs
            shown = {run.id for run in found}
            unreadable |= {i: flaw for i, flaw in page.unreadable.items() if i not in shown}
            shifted = overlaps and bool(found) and found[0].id not in seen
            idle = 0 if shown - seen else idle + 1
            for run in found:
                if run.id not in seen:
                    seen.add(run.id)
                    yield run
            if shifted:
                offset = max(start, offset - size)
                overlaps = offset > start
                continue
            if not page.has_more:
                break
            if idle == _MOST_IDLE:
                raise _page_error(f"has_more is true, but {idle} pages in a row had no new run")
            after = _following(page, offset)
            overlaps = after - 1 > offset
            offset = after - 1 if overlaps else after
        for run_id in seen:
            unreadable.pop(run_id, None)
        if unreadable:
            run_id, flaw = next(iter(unreadable.items()))
            more = f"; and {len(unreadable) - 1} more runs" if len(unreadable) > 1 else ""
            raise run_decode_error(run_id, flaw + more)

    async def get(self, run_id: str) -> Run:
        """Get a run.

        Args:
            run_id: The run.

        Raises:
            ArgumentError: If the id cannot be one; nothing was sent.
            NotFoundError: If there is no such run, or the user may not see it.
            APIError: If the service says no for another reason.
            TransportError: If no answer came.
            DecodeError: If the answer is not a page of runs, or the run cannot be read; as much
                of it as can is in its `run`.
        """
        page = await self.list(id=[run_id])
        found = [run for run in page.simulation_unit_test_set_runs if run.id == run_id]
        if run_id in page.unreadable:
            raise run_decode_error(run_id, page.unreadable[run_id], found[0] if found else None)
        if found:
            return found[0]
        raise NotFoundError.of_run(run_id)

    async def cancel(self, run_id: str) -> None:
        """Ask the service to cancel a run; it may take a while, or not happen at all.

        If the answer is lost, it is asked again. If the run is not in progress then, it is taken
        to be cancelled.

        Args:
            run_id: The run.

        Raises:
            ArgumentError: If the id cannot be one; nothing was sent.
            ConflictError: If the run is not in progress (any more).
            NotFoundError: If there is no such run.
            APIError: If the service says no for another reason.
            TransportError: If no answer came.
        """
        await self._calls.cancel(run_id)

    async def artifacts(self, run_id: str) -> ArtifactsLink:
        """Get a link to the artifacts of a run. Its URL is a secret until it expires.

        Args:
            run_id: The run.

        Raises:
            ArgumentError: If the id cannot be one; nothing was sent.
            ArtifactsNotReadyError: If the run has no artifacts yet.
            NotFoundError: If there is no such run.
            APIError: If the service says no for another reason.
            TransportError: If no answer came.
            DecodeError: If the answer is not a link.
        """
        return await self._calls.link(run_id)


def _following(page: RunPage, offset: int) -> int:
    """The offset behind `page`, which began at `offset`."""
    token = page.continuation_token
    if token is None or not offset < token < 2**63:
        raise _page_error(
            f"has_more is true, but continuation_token is {token!s:.40} after {offset}"
        )
    return token


def _page_error(reason: str) -> DecodeError:
    return DecodeError(reason, method="GET", path="page of runs", status=200)
