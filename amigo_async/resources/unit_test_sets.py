"""The unit test sets of an organization, as ``client.unit_test_sets``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Unpack

from amigo_async.decoding import decode_found_unit_test_sets, decode_unit_test_sets
from amigo_async.models import UnitTestSet, UnitTestSetPage
from amigo_async.protocol.endpoints import SEARCH_UNIT_TEST_SETS, UNIT_TEST_SETS
from amigo_async.protocol.requests import Creators, OneOrMany, UnitTestSetFilters, list_request
from amigo_async.resources.paging import Resource
from amigo_async.transport import Session


class UnitTestSets:
    """The unit test sets of an organization, as ``client.unit_test_sets``.

    Records that the user has no permission to see are left out, so an absent one is normal.

    Example::

        async for unit_test_set in client.unit_test_sets.iterate(tag="suite:nightly"):
            print(unit_test_set.name, unit_test_set.repeats)

    Args:
        session: Sends the requests.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._resource = Resource(
            session,
            UNIT_TEST_SETS,
            decode_unit_test_sets,
            lambda page: page.simulation_unit_test_sets,
        )

    async def list(
        self,
        *,
        id: OneOrMany = (),
        tag: OneOrMany = (),
        unit_test_id: OneOrMany = (),
        creator: Creators = (),
        is_deleted: bool | None = None,
        sort_by: OneOrMany = (),
        limit: int | None = None,
        continuation_token: int | None = None,
    ) -> UnitTestSetPage:
        """List one page of the sets that are visible to the user and match all filters.

        Example::

            page = await client.unit_test_sets.list(tag="suite:nightly", is_deleted=False)
            names = [unit_test_set.name for unit_test_set in page.simulation_unit_test_sets]

        Args:
            id: Ids of sets; empty for any.
            tag: Tags, each as ``"key:value"``, ``"key:*"`` for any value, or ``"key:"`` for a tag
                without value; empty for any. How the service combines several is not documented.
            unit_test_id: Ids of unit tests that a set contains; empty for any.
            creator: Users who created the set, each as `UserInfo` or ``"org_id,user_id"``; empty
                for any.
            is_deleted: Whether the set is deleted; None for either.
            sort_by: ``"+updated_at"`` or ``"-updated_at"``; empty for the order of the service.
            limit: Sets a page, 0 to 20; None for the default of the service, 20.
            continuation_token: Where the page begins, from the previous page; None for the first
                page.

        Returns:
            The page, with the token of the next one.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If the response is not a page of sets.
        """
        return await self._resource.page(
            {
                "id": id,
                "tag": tag,
                "unit_test_id": unit_test_id,
                "creator": creator,
                "is_deleted": is_deleted,
                "sort_by": sort_by,
                "limit": limit,
                "continuation_token": continuation_token,
            }
        )

    def iterate(self, **filters: Unpack[UnitTestSetFilters]) -> AsyncIterator[UnitTestSet]:
        """Iterate over the sets of all pages, each once, even if pages shift meanwhile.

        Example::

            async for unit_test_set in client.unit_test_sets.iterate(is_deleted=False):
                print(unit_test_set.id, unit_test_set.name)

        Args:
            **filters: The filters of `list`, with the same meaning. `limit` is the number of
                sets a page, 1 to 20 (20 by default), and `continuation_token` where to
                begin.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If a response is not a page of sets, if pagination does not end, or,
                after all others were yielded, if one of the sets cannot be decoded.
        """
        return self._resource.iterate({**filters})

    async def search(
        self,
        query: str,
        *,
        tag: OneOrMany = (),
        creator: Creators = (),
        unit_test_id: OneOrMany = (),
    ) -> Sequence[UnitTestSet]:
        """Search for sets whose name or description contains `query`.

        Example::

            found = await client.unit_test_sets.search("refund")

        Args:
            query: Text to search for.
            tag: Tags, with the meaning that they have for `list`; empty for any.
            creator: Users who created the set, each as `UserInfo` or ``"org_id,user_id"``; empty
                for any.
            unit_test_id: Ids of unit tests that a set contains; empty for any.

        Returns:
            The sets that were found; one that this version cannot decode is left out.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If the response is not a list of sets.
        """
        request = list_request(
            SEARCH_UNIT_TEST_SETS,
            self._session.organization,
            {"query": query, "tag": tag, "creator": creator, "unit_test_id": unit_test_id},
        )
        return await self._session.call(request, decode_found_unit_test_sets)
