"""The requests about runs, one method a request: what starts, polls, downloads and batches use.

`Runs` is what users call. It differs from these methods where more than one request is needed, as
in `Runs.create` and `Runs.iterate`.
"""

from __future__ import annotations

from collections.abc import Coroutine
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
from amigo_async.errors import ConflictError
from amigo_async.models import ArtifactsLink, CreatedRun, RunPage
from amigo_async.protocol import requests
from amigo_async.protocol.endpoints import LIST
from amigo_async.protocol.requests import RunFilters
from amigo_async.resources.paging import Resource
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
