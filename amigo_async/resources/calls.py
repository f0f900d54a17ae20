"""The calls of the API as the rooms above need them: one method, one request."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, Unpack

from amigo_async.decoding import (
    RecordPage,
    decode_artifacts_link,
    decode_created_run,
    decode_nothing,
    decode_record_page,
    decode_run_page,
)
from amigo_async.errors import ConflictError
from amigo_async.models import ArtifactsLink, CreatedRun, RunPage
from amigo_async.protocol import requests
from amigo_async.protocol.requests import RunFilters
from amigo_async.protocol.responses import Response
from amigo_async.transport import Guard, Session


class Calls:
    """The calls of one organization. What they take and raise, `Runs` documents."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(self, unit_test_set_id: str, guard: Guard) -> CreatedRun:
        """Start a run; sent once, its answer awaited as `guard` does."""
        request = requests.create_run(self._session.organization, unit_test_set_id)
        return await self._session.call_once(request, decode_created_run, guard)

    def page(self, **filters: Unpack[RunFilters]) -> Coroutine[Any, Any, RunPage]:
        """List a page of runs."""
        request = requests.list_runs(self._session.organization, **filters)
        return self._session.call(request, decode_run_page)

    async def look(self, **filters: Unpack[RunFilters]) -> RecordPage:
        """List a page of runs as a wait needs it; tried once, as a wait looks again anyway."""
        request = requests.list_runs(self._session.organization, **filters)
        return await self._session.call_once(request, decode_record_page, _as_it_comes)

    async def cancel(self, run_id: str) -> None:
        """Cancel a run; where the answer was lost and it is not in progress then, it was this."""
        request = requests.cancel_run(self._session.organization, run_id)
        try:
            await self._session.call(request, decode_nothing)
        except ConflictError as error:
            if not error.after_loss:
                raise

    def link(self, run_id: str) -> Coroutine[Any, Any, ArtifactsLink]:
        """Get a link to the artifacts of a run."""
        request = requests.artifacts_link(self._session.organization, run_id)
        return self._session.call(request, decode_artifacts_link)


def _as_it_comes(sending: Coroutine[Any, Any, Response]) -> Awaitable[Response]:
    return sending
