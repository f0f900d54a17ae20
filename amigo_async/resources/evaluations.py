"""The evaluations of conversations by metrics, as ``client.evaluations``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Unpack

from amigo_async.decoding import decode_evaluations
from amigo_async.models import EvaluationPage, EvaluationResult
from amigo_async.protocol.endpoints import EVALUATIONS
from amigo_async.protocol.requests import EvaluationFilters, OneOrMany
from amigo_async.resources.paging import Resource
from amigo_async.transport import Session


class Evaluations:
    """The evaluations of conversations by metrics, as ``client.evaluations``.

    Records that the user has no permission to see are left out, so an absent one is normal.

    Example::

        async for evaluation in client.evaluations.iterate(simulation_unit_test_set_run_id=run_id):
            print(evaluation.result, evaluation.justification)

    Args:
        session: Sends the requests.
    """

    def __init__(self, session: Session) -> None:
        self._resource = Resource(
            session, EVALUATIONS, decode_evaluations, lambda page: page.metric_evaluation_results
        )

    async def list(
        self,
        *,
        simulation_unit_test_set_run_id: OneOrMany = (),
        metric_id_and_version: OneOrMany = (),
        metric_id: OneOrMany = (),
        conversation_id: OneOrMany = (),
        source_type: OneOrMany = (),
        timestamp_after: datetime | None = None,
        timestamp_before: datetime | None = None,
        sort_by: OneOrMany = (),
        limit: int | None = None,
        continuation_token: int | None = None,
    ) -> EvaluationPage:
        """List one page of the evaluations that are visible to the user and match all filters.

        Example::

            page = await client.evaluations.list(metric_id_and_version=f"{metric_id}-", limit=10)
            results = [evaluation.result for evaluation in page.metric_evaluation_results]

        Args:
            simulation_unit_test_set_run_id: Ids of runs; empty for evaluations of anything.
            metric_id_and_version: Metrics, each as ``"METRIC_ID-VERSION"``, or ``"METRIC_ID-"`` for
                any version; empty for any.
            metric_id: Ids of metrics; empty for any. The service deprecates this filter in favour
                of `metric_id_and_version`.
            conversation_id: Ids of real conversations; empty for evaluations of anything.
            source_type: ``"simulation"``, ``"post-session"`` or ``"manual"``; empty for any.
            timestamp_after: Evaluated at or after this time, with a time zone; None for any time.
            timestamp_before: Evaluated at or before this time, with a time zone; None for any time.
            sort_by: ``"+created_at"`` or ``"-created_at"``; empty for the order of the service.
            limit: Evaluations a page, 0 to 500; None for the default of the service, 500.
            continuation_token: Where the page begins, from the previous page; None for the first
                page.

        Returns:
            The page, with the token of the next one.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If the response is not a page of evaluations.
        """
        return await self._resource.page(
            {
                "simulation_unit_test_set_run_id": simulation_unit_test_set_run_id,
                "metric_id_and_version": metric_id_and_version,
                "metric_id": metric_id,
                "conversation_id": conversation_id,
                "source_type": source_type,
                "timestamp_after": timestamp_after,
                "timestamp_before": timestamp_before,
                "sort_by": sort_by,
                "limit": limit,
                "continuation_token": continuation_token,
            }
        )

    def iterate(self, **filters: Unpack[EvaluationFilters]) -> AsyncIterator[EvaluationResult]:
        """Iterate over the evaluations of all pages, each once, even if pages shift meanwhile.

        Example::

            async for evaluation in client.evaluations.iterate(source_type="simulation"):
                print(evaluation.metric_id, evaluation.result)

        Args:
            **filters: The filters of `list`, with the same meaning. `limit` is the number of
                evaluations a page, 1 to 500 (500 by default), and `continuation_token` where to
                begin.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If a response is not a page of evaluations, if pagination does not end, or,
                after all others were yielded, if one of the evaluations cannot be decoded.
        """
        return self._resource.iterate({**filters})
