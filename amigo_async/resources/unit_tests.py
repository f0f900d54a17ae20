"""The unit tests of an organization, as ``client.unit_tests``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Unpack

from amigo_async.decoding import decode_unit_tests
from amigo_async.models import UnitTest, UnitTestPage
from amigo_async.protocol.endpoints import UNIT_TESTS
from amigo_async.protocol.requests import Creators, OneOrMany, UnitTestFilters
from amigo_async.resources.paging import Resource
from amigo_async.transport import Session


class UnitTests:
    """The unit tests of an organization, as ``client.unit_tests``.

    Records that the user has no permission to see are left out, so an absent one is normal.

    Example::

        async for unit_test in client.unit_tests.iterate(metric_id=metric_id):
            print(unit_test.name)

    Args:
        session: Sends the requests.
    """

    def __init__(self, session: Session) -> None:
        self._resource = Resource(
            session, UNIT_TESTS, decode_unit_tests, lambda page: page.simulation_unit_tests
        )

    async def list(
        self,
        *,
        id: OneOrMany = (),
        tag: OneOrMany = (),
        service_id: OneOrMany = (),
        persona_id: OneOrMany = (),
        scenario_id: OneOrMany = (),
        metric_id: OneOrMany = (),
        creator: Creators = (),
        is_deleted: bool | None = None,
        sort_by: OneOrMany = (),
        limit: int | None = None,
        continuation_token: int | None = None,
    ) -> UnitTestPage:
        """List one page of the unit tests that are visible to the user and match all filters.

        Example::

            page = await client.unit_tests.list(is_deleted=False, sort_by="-updated_at", limit=10)
            names = [unit_test.name for unit_test in page.simulation_unit_tests]

        Args:
            id: Ids of unit tests; empty for any.
            tag: Tags, each as ``"key:value"``, ``"key:*"`` for any value, or ``"key:"`` for a tag
                without value; empty for any. How the service combines several is not documented.
            service_id: Ids of the services under test; empty for any.
            persona_id: Ids of personas; empty for any.
            scenario_id: Ids of scenarios; empty for any.
            metric_id: Ids of metrics that a unit test has a criterion for; empty for any.
            creator: Users who created the unit test, each as `UserInfo` or ``"org_id,user_id"``;
                empty for any.
            is_deleted: Whether the unit test is deleted; None for either.
            sort_by: ``"+updated_at"`` or ``"-updated_at"``; empty for the order of the service.
            limit: Unit tests a page, 0 to 500; None for the default of the service, 50.
            continuation_token: Where the page begins, from the previous page; None for the first
                page.

        Returns:
            The page, with the token of the next one.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If the response is not a page of unit tests.
        """
        return await self._resource.page(
            {
                "id": id,
                "tag": tag,
                "service_id": service_id,
                "persona_id": persona_id,
                "scenario_id": scenario_id,
                "metric_id": metric_id,
                "creator": creator,
                "is_deleted": is_deleted,
                "sort_by": sort_by,
                "limit": limit,
                "continuation_token": continuation_token,
            }
        )

    def iterate(self, **filters: Unpack[UnitTestFilters]) -> AsyncIterator[UnitTest]:
        """Iterate over the unit tests of all pages, each once, even if pages shift meanwhile.

        Example::

            async for unit_test in client.unit_tests.iterate(tag="area:billing"):
                print(unit_test.id, unit_test.name)

        Args:
            **filters: The filters of `list`, with the same meaning. `limit` is the number of
                unit tests a page, 1 to 500 (500 by default), and `continuation_token` where to
                begin.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If a response is not a page of unit tests, if pagination does not end, or,
                after all others were yielded, if one of the unit tests cannot be decoded.
        """
        return self._resource.iterate({**filters})
