"""The metrics of an organization, as ``client.metrics``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Unpack

from amigo_async.decoding import decode_metrics
from amigo_async.models import Metric, MetricPage
from amigo_async.protocol.endpoints import METRICS
from amigo_async.protocol.requests import Creators, MetricFilters, OneOrMany
from amigo_async.resources.paging import Resource
from amigo_async.transport import Session


class Metrics:
    """The metrics of an organization, as ``client.metrics``.

    Records that the user has no permission to see are left out, so an absent one is normal.

    Example::

        async for metric in client.metrics.iterate(type="numerical"):
            print(metric.name)

    Args:
        session: Sends the requests.
    """

    def __init__(self, session: Session) -> None:
        self._resource = Resource(session, METRICS, decode_metrics, lambda page: page.metrics)

    async def list(
        self,
        *,
        id: OneOrMany = (),
        tag: OneOrMany = (),
        applied_to_service: OneOrMany = (),
        type: OneOrMany = (),
        creator: Creators = (),
        is_deleted: bool | None = None,
        sort_by: OneOrMany = (),
        limit: int | None = None,
        continuation_token: int | None = None,
    ) -> MetricPage:
        """List one page of the metrics that are visible to the user and match all filters.

        Example::

            page = await client.metrics.list(is_deleted=True)
            names = [metric.name for metric in page.metrics]

        Args:
            id: Ids of metrics; empty for any.
            tag: Tags, each as ``"key:value"``, ``"key:*"`` for any value, or ``"key:"`` for a tag
                without value; empty for any. How the service combines several is not documented.
            applied_to_service: Ids of services that a metric is applied to; empty for any.
            type: ``"boolean"``, ``"numerical"`` or ``"categorical"``; empty for any.
            creator: Users who created the metric, each as `UserInfo` or ``"org_id,user_id"``; empty
                for any.
            is_deleted: Whether the metric is deleted; None for the default of the service, which
                leaves deleted metrics out.
            sort_by: ``"+updated_at"`` or ``"-updated_at"``; empty for the order of the service.
            limit: Metrics a page, 0 to 50; None for the default of the service, 50.
            continuation_token: Where the page begins, from the previous page; None for the first
                page.

        Returns:
            The page, with the token of the next one.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If the response is not a page of metrics.
        """
        return await self._resource.page(
            {
                "id": id,
                "tag": tag,
                "applied_to_service": applied_to_service,
                "type": type,
                "creator": creator,
                "is_deleted": is_deleted,
                "sort_by": sort_by,
                "limit": limit,
                "continuation_token": continuation_token,
            }
        )

    def iterate(self, **filters: Unpack[MetricFilters]) -> AsyncIterator[Metric]:
        """Iterate over the metrics of all pages, each once, even if pages shift meanwhile.

        Example::

            async for metric in client.metrics.iterate():
                print(metric.id, metric.name)

        Args:
            **filters: The filters of `list`, with the same meaning. `limit` is the number of
                metrics a page, 1 to 50 (50 by default), and `continuation_token` where to
                begin.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If a response is not a page of metrics, if pagination does not end, or,
                after all others were yielded, if one of the metrics cannot be decoded.
        """
        return self._resource.iterate({**filters})
