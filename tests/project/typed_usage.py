"""The public API as users write it. Type checkers read this; nothing runs it.

A line that must not type-check ends in a ``type: ignore`` with its code: where it does type-check,
``warn_unused_ignores`` makes an error of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Unpack, assert_type

import aiohttp

from amigo_async import (
    AmigoClient,
    APIError,
    ApiKeyAuth,
    ArtifactsLink,
    ArtifactStream,
    BasicAuth,
    Batch,
    BatchOptions,
    BatchResult,
    BearerAuth,
    BudgetState,
    Cancellation,
    ConflictError,
    CreatedRun,
    DeadlineError,
    Explanations,
    Names,
    Run,
    RunOutcome,
    RunPage,
    UserInfo,
    ValidationError,
    WaitTimeoutError,
)
from amigo_async.events import Event, RunStarted
from amigo_async.models import (
    BooleanMetricSuccessCriterion,
    CategoricalMetricSuccessCriterion,
    ErroredRun,
    FailedMetric,
    NumericalMetricSuccessCriterion,
    Progress,
    SuccessCriterion,
    UnitTestRunResult,
    UnknownSuccessCriterion,
)


def listen(event: Event) -> None:
    if isinstance(event, RunStarted):
        assert_type(event.run_id, str)
        assert_type(event.attached, bool)


async def listen_slowly(event: Event) -> None:
    listen(event)


async def clients(http: aiohttp.ClientSession) -> None:
    async with AmigoClient() as client:
        assert_type(client, AmigoClient)
    own = AmigoClient(
        api_key="k",
        api_key_id="i",
        user_id="u",
        organization_id="o",
        base_url="https://api.amigo.ai",
        mongo_cluster_name=None,
        headers={"X-Mine": "1"},
        request_timeout=10,
        max_attempts=2,
        max_response_bytes=1024 * 1024,
        poll_interval=5,
        on_event=listen,
        http=http,
    )
    await own.aclose()
    AmigoClient(auth=ApiKeyAuth("k", "i", "u"))
    AmigoClient(auth=BearerAuth("t", user_id="u", organization_id="o"))
    AmigoClient(auth=BasicAuth("t", "u"))
    AmigoClient("key")  # type: ignore[call-arg]  # by keyword only
    AmigoClient(auth="token")  # type: ignore[arg-type]  # not a kind of credentials
    AmigoClient(on_event=listen_slowly)  # type: ignore[arg-type]  # it is called at once
    BasicAuth("t")  # type: ignore[call-arg]  # Basic needs a user
    assert_type(client.budgets(), dict[str, BudgetState])


async def endpoints(client: AmigoClient, set_id: str) -> None:
    created = await client.runs.create(set_id, on_conflict="attach")
    assert_type(created, CreatedRun)
    assert_type(created.attached, bool)
    await client.runs.create(set_id, on_conflict="replace")  # type: ignore[arg-type]  # no such way
    run_id = created.simulation_unit_test_set_run_id
    page = await client.runs.list(
        id=[run_id],
        simulation_unit_test_set_id=(set_id,),
        creator=[UserInfo("o", "u"), "o,u"],
        is_completed=True,
        failed_metrics=None,
        errored=False,
        created_after=datetime.now(UTC),
        created_before=None,
        sort_by="+created_at",
        limit=10,
        continuation_token=page_token(None),
    )
    assert_type(page, RunPage)
    assert_type(page.continuation_token, int | None)
    await client.runs.list(is_completed="yes")  # type: ignore[arg-type]  # not a bool
    await client.runs.list(name="x")  # type: ignore[call-arg]  # no such filter
    assert_type(client.runs.iterate(id=run_id, limit=5), AsyncIterator[Run])
    client.runs.iterate(name="x")  # type: ignore[call-arg]  # no such filter
    async for run in client.runs.iterate(sort_by=["-created_at"]):
        assert_type(run, Run)
    assert_type(await client.runs.get(run_id), Run)
    await client.runs.cancel(run_id)
    link = await client.runs.artifacts(run_id)
    assert_type(link, ArtifactsLink)
    assert_type(link.url_expires_at, datetime)


def page_token(page: RunPage | None) -> int | None:
    return None if page is None else page.continuation_token


def show(run: Run) -> None:
    assert_type(run.passed, bool)
    assert_type(run.progress, Progress | None)
    if run.progress is not None:
        assert_type(run.progress.done, int)
    assert_type(run.metrics_that_failed, tuple[FailedMetric, ...] | None)
    assert_type(run.runs_that_errored, tuple[ErroredRun, ...] | None)
    assert_type(run.unit_test_run_results, list[UnitTestRunResult | None])
    run.errored = True  # type: ignore[misc]  # frozen
    for spec in run.unit_test_run_specs:
        for metric in spec.metrics_to_evaluate:
            assert_type(describe(metric.success_criterion), str)


def describe(criterion: SuccessCriterion) -> str:
    match criterion:
        case BooleanMetricSuccessCriterion(expected_value=value):
            assert_type(value, bool)
            return str(value)
        case NumericalMetricSuccessCriterion(verb=verb, threshold=threshold):
            assert_type(threshold, float)
            return f"{verb} {threshold}"
        case CategoricalMetricSuccessCriterion(expected_values=values):
            assert_type(values, list[str])
            return ", ".join(values)
        case UnknownSuccessCriterion(data=data):
            return repr(data)


async def waits(client: AmigoClient, run_id: str) -> None:
    async def progress(run: Run) -> None:
        assert_type(run.id, str)

    run = await client.wait_for_completion(
        run_id, timeout=60, poll_interval=1.5, require_artifacts=True, on_progress=progress
    )
    assert_type(run, Run)
    await client.wait_for_completion(run_id, on_progress=show)
    async for finished in client.as_completed([run_id], timeout=1):
        assert_type(finished, Run)
    assert_type(await client.cancel_and_wait(run_id, timeout=None), Cancellation)


async def artifacts(client: AmigoClient, run_id: str) -> None:
    async with client.artifacts.stream(run_id) as stream:
        assert_type(stream, ArtifactStream)
        assert_type(stream.size, int | None)
        assert_type(stream.etag, str | None)
        assert_type(stream.content_type, str | None)
        async for data in stream:
            assert_type(data, bytes)
    assert_type(await client.artifacts.download(run_id, "results/", connections=4), Path)
    assert_type(await client.artifacts.download(run_id, Path("a.zip")), Path)


async def batches(client: AmigoClient, set_ids: list[str]) -> None:
    result = await client.run_many(
        set_ids,
        artifacts_dir=Path("results"),
        timeout=3600,
        on_conflict="restart",
        on_failure="cancel_rest",
        on_exit="cancel",
        journal="batch.jsonl",
        on_event=listen_slowly,
        describe=True,
        explain=True,
        explain_timeout=None,
    )
    assert_type(result, BatchResult)
    assert_type(result.names, Names)
    assert_type(result.explanations, Explanations)
    assert_type(result.passed, bool)
    for outcome in result.outcomes:
        assert_type(outcome, RunOutcome)
        assert_type(outcome.run_id, str | None)
        assert_type(outcome.name, str | None)
        assert_type(outcome.run, Run | None)
        assert_type(outcome.artifacts, Path | None)
        if outcome.verdict == "errored":
            assert_type(outcome.unit_test_set_id, str)
    await client.run_many(set_ids, on_exit="kill")  # type: ignore[arg-type]  # no such way
    await client.run_many(set_ids, on_failures="stop")  # type: ignore[call-arg]  # no such option
    client.open_batch(set_ids, artifacts="results")  # type: ignore[call-arg]  # no such option
    assert_type(await wrapped(client, set_ids, timeout=60, gate=None), BatchResult)
    await wrapped(client, set_ids, timeout="1h")  # type: ignore[arg-type]  # not seconds
    async with client.open_batch(set_ids, on_event=listen) as batch:
        assert_type(batch, Batch)
        async for outcome in batch:
            assert_type(outcome, RunOutcome)


async def wrapped(
    client: AmigoClient, set_ids: list[str], **options: Unpack[BatchOptions]
) -> BatchResult:
    return await client.run_many(set_ids, **options)


async def errors(client: AmigoClient, run_id: str) -> float | None:
    try:
        await client.wait_for_completion(run_id, timeout=60)
    except ConflictError as error:
        assert_type(error.existing_run_id, str | None)
    except ValidationError as error:
        assert_type(error.field_errors, dict[str, str])
    except APIError as error:
        assert_type(error.status, int)
        assert_type(error.request_id, str | None)
        return error.retry_after
    except DeadlineError as error:
        return error.retry_after
    except WaitTimeoutError as error:
        assert_type(error.last_run, Run | None)
        assert_type(error.run_ids, tuple[str, ...])
    return None
