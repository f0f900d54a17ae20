"""The runs of an organization.

`Runs` is ``client.runs``. `RunCalls` sends single requests, for starts, polls, downloads and
batches.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import datetime
from typing import Any, Unpack

from amigo_async.decoding import (
    RecordPage,
    decode_artifacts_link,
    decode_created_run,
    decode_nothing,
    decode_record_page,
    decode_run_page,
    run_decode_error,
)
from amigo_async.errors import ConflictError, NotFoundError
from amigo_async.models import ArtifactsLink, CreatedRun, Run, RunPage, UserInfo
from amigo_async.protocol import requests
from amigo_async.protocol.endpoints import LIST
from amigo_async.protocol.requests import OneOrMany, RunFilters
from amigo_async.resources.paging import Resource
from amigo_async.starting import OnConflict, Starts
from amigo_async.transport import Guard, Session


class RunCalls:
    """Sends the requests about the runs of one organization.

    Arguments and errors are those of the methods of `Runs`.

    Args:
        session: Sends requests.

    Attributes:
        resource: Lists runs.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.resource = Resource(
            session,
            LIST,
            decode_run_page,
            lambda page: page.simulation_unit_test_set_runs,
            run_decode_error,
        )

    async def create(self, unit_test_set_id: str, guard: Guard) -> CreatedRun:
        """Send a create request once; `guard` awaits the response."""
        request = requests.create_run(self._session.organization, unit_test_set_id)
        return await self._session.call(request, decode_created_run, guard=guard)

    def page(self, **filters: Unpack[RunFilters]) -> Coroutine[Any, Any, RunPage]:
        """List a page of runs."""
        return self.resource.page(filters)

    async def history(
        self, unit_test_set_id: str, limit: int, unreadable: dict[str, str] | None = None
    ) -> list[Run]:
        """List the last completed runs of a set, newest first, without those that are unreadable.

        Args:
            unit_test_set_id: The set.
            limit: Number of runs; up to 50 take one request.
            unreadable: Collects what of the runs cannot be decoded, by id.
        """
        filters: RunFilters = {
            "simulation_unit_test_set_id": unit_test_set_id,
            "is_completed": True,
            "sort_by": "-created_at",
            "limit": min(limit, LIST.page_size),
        }
        found: list[Run] = []
        flaws = {} if unreadable is None else unreadable
        async for run in self.resource.iterate({**filters}, unreadable=flaws):
            found.append(run)
            if len(found) == limit:
                break
        return found

    async def poll(self, **filters: Unpack[RunFilters]) -> RecordPage:
        """List a page of runs, decoded as far as a wait needs; not retried, as waits poll again."""
        request = requests.list_runs(self._session.organization, **filters)
        return await self._session.call(request, decode_record_page, attempts=1)

    async def cancel(self, run_id: str) -> None:
        """Cancel a run; a conflict after a lost answer means that the lost request cancelled it."""
        request = requests.cancel_run(self._session.organization, run_id)
        try:
            await self._session.call(request, decode_nothing)
        except ConflictError as error:
            if not error.after_loss:
                raise

    def artifacts(self, run_id: str) -> Coroutine[Any, Any, ArtifactsLink]:
        """Request a link to the artifacts of a run."""
        request = requests.artifacts_link(self._session.organization, run_id)
        return self._session.call(request, decode_artifacts_link)


class Runs:
    """The runs of an organization, as ``client.runs``.

    Example::

        async for run in client.runs.iterate(simulation_unit_test_set_id=set_id):
            print(run.id, run.is_completed, run.progress)

    Args:
        calls: Sends the requests.
        starts: Starts runs.
    """

    def __init__(self, calls: RunCalls, starts: Starts) -> None:
        self._calls = calls
        self._starts = starts

    async def create(
        self, unit_test_set_id: str, *, on_conflict: OnConflict = "raise"
    ) -> CreatedRun:
        """Start a run of a set, exactly once even if the response is lost.

        If the response is lost, the unfinished run of the set that the user has then is returned,
        marked as `attached` because someone else may have started it. If no such run is listed
        within half a minute, the request is sent again, unless a run completed within the last
        minutes may be the one. If the call is cancelled while the request is being sent, its
        response is still awaited for a few seconds, and the id is reported in a `RunStarted`
        event.

        Example::

            created = await client.runs.create(set_id, on_conflict="attach")
            run_id = created.simulation_unit_test_set_run_id

        Args:
            unit_test_set_id: Id of the set, 24 characters of 0-9 and a-f.
            on_conflict: What to do if the user has an unfinished run of the set: ``"raise"``,
                ``"attach"`` (return that run), ``"wait"`` (let it finish, then start) or
                ``"restart"`` (cancel it, wait until it has ended, then start). If the service
                reports such a run but no list shows it, ``"wait"`` tries again every ten seconds
                for as long as it takes, the other two for half a minute.

        Returns:
            The id of the run, and whether it was attached to rather than started.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            ConflictError: If the user has an unfinished run of the set; `existing_run_id` is its
                id if it could be found. With another `on_conflict` than ``"raise"`` only if new
                runs keep getting in the way.
            AmbiguousStartError: If it cannot be determined whether a run was started;
                `candidates` are the runs that may be it.
            DeadlineError: If the rate limit leaves no request before the deadline.
            APIError: If the service answers with another error.
            TransportError: If the service cannot be reached; no run was started.
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
        """List one page of the runs that are visible to the user and match all filters.

        Example::

            page = await client.runs.list(is_completed=False, sort_by="-created_at", limit=10)
            for run in page.simulation_unit_test_set_runs:
                print(run.id, run.created_at)

        Args:
            id: Ids of runs; empty for any.
            simulation_unit_test_set_id: Ids of sets; empty for any.
            creator: Users who created the run, each as `UserInfo` or ``"org_id,user_id"``; empty
                for any.
            is_completed: Whether the run is completed; None for either.
            failed_metrics: Whether a metric has failed so far; None for either.
            errored: Whether an error has occurred so far; None for either.
            created_after: Created at or after this time, with a time zone; None for any time.
            created_before: Created at or before this time, with a time zone; None for any time.
            sort_by: ``"+created_at"`` or ``"-created_at"``; empty for the order of the service.
            limit: Runs a page, 0 to 50; None for the default of the service, 50.
            continuation_token: Where the page begins, from the previous page; None for the first
                page.

        Returns:
            The page, with the token of the next one.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If the response is not a page of runs.
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

    def iterate(self, **filters: Unpack[RunFilters]) -> AsyncIterator[Run]:
        """Iterate over the runs of all pages, each run once, even if pages shift meanwhile.

        Example::

            async for run in client.runs.iterate(failed_metrics=True, limit=20):
                print(run.id, run.metrics_that_failed)

        Args:
            **filters: The filters of `list`, with the same meaning. `limit` is the number of runs
                a page, 1 to 50 (50 by default), and `continuation_token` where to begin.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If a response is not a page of runs, if pagination does not end, or,
                after all other runs were yielded, if a run cannot be decoded.
        """
        return self._calls.resource.iterate({**filters})

    async def get(self, run_id: str) -> Run:
        """Get a run.

        Example::

            run = await client.runs.get(run_id)

        Args:
            run_id: Id of the run.

        Raises:
            ArgumentError: If the id is invalid; no request was sent.
            NotFoundError: If the run does not exist, or is not visible to the user.
            APIError: If the service answers with another error.
            TransportError: If the service cannot be reached.
            DecodeError: If the response is not a page of runs, or the run cannot be decoded; the
                readable part is in the `run` attribute.
        """
        page = await self.list(id=[run_id])
        found = [run for run in page.simulation_unit_test_set_runs if run.id == run_id]
        if run_id in page.unreadable:
            raise run_decode_error(run_id, page.unreadable[run_id], found[0] if found else None)
        if found:
            return found[0]
        raise NotFoundError.of_run(run_id)

    async def cancel(self, run_id: str) -> None:
        """Ask the service to cancel a run, which may take a while, or not happen at all.

        If the response is lost, the request is sent again; if the run is no longer in progress
        then, it counts as cancelled. `AmigoClient.cancel_and_wait` waits for the end of the run.

        Example::

            created = await client.runs.create(set_id)
            await client.runs.cancel(created.simulation_unit_test_set_run_id)

        Args:
            run_id: Id of the run.

        Raises:
            ArgumentError: If the id is invalid; no request was sent.
            ConflictError: If the run is not in progress, or no longer.
            NotFoundError: If the run does not exist.
            APIError: If the service answers with another error.
            TransportError: If the service cannot be reached.
        """
        await self._calls.cancel(run_id)

    async def artifacts(self, run_id: str) -> ArtifactsLink:
        """Request a link to the artifacts of a run; its URL is a secret until it expires.

        `Artifacts.download` requests one itself.

        Example::

            link = await client.runs.artifacts(run_id)
            print(link.url_expires_at)

        Args:
            run_id: Id of the run.

        Raises:
            ArgumentError: If the id is invalid; no request was sent.
            ArtifactsNotReadyError: If the run has no artifacts yet.
            NotFoundError: If the run does not exist.
            APIError: If the service answers with another error.
            TransportError: If the service cannot be reached.
            DecodeError: If the response is not a link.
        """
        return await self._calls.artifacts(run_id)
