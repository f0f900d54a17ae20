"""The whole way, from `AmigoClient` to the file, over real sockets and in virtual time."""

from __future__ import annotations

import os
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from amigo_async import AmigoClient
from amigo_async.errors import (
    ArtifactChangedError,
    ArtifactError,
    ArtifactsNotReadyError,
    ArtifactTruncatedError,
)
from amigo_async.testing import ArtifactPlan, Fault, Sandbox, SetPlan

pytestmark = pytest.mark.anyio

SIZE = 3_000_000


@asynccontextmanager
async def finished(
    *, artifacts_after: float | None = 0.0, link_lifetime: int = 900, **artifact: object
) -> AsyncIterator[tuple[Sandbox, AmigoClient, str]]:
    """A sandbox, a client, and a run that is over."""
    async with Sandbox(link_lifetime=link_lifetime) as sandbox, sandbox.client() as client:
        plan = SetPlan(
            seconds=0,
            artifacts_after=artifacts_after,
            artifact=ArtifactPlan(**{"size": SIZE, **artifact}),  # type: ignore[arg-type] # by name
        )
        created = await client.runs.create(sandbox.add_set(plan))
        yield sandbox, client, created.simulation_unit_test_set_run_id


def links(sandbox: Sandbox) -> int:
    return sandbox.count("artifacts", status=200)


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("checksum", [None, "sha256", "crc32"])
async def test_a_download(tmp_path: Path, connections: int, checksum: str | None) -> None:
    async with finished(checksum=checksum, size=20_000_000) as (sandbox, client, run_id):
        path = await client.artifacts.download(run_id, tmp_path, connections=connections)
        assert path == tmp_path / "artifacts.zip"
        same = path.read_bytes() == sandbox.artifact_bytes(run_id)
        assert same
        assert links(sandbox) == 1
        for request in sandbox.requests:
            if request.route == "store":
                assert not {"authorization", "cookie", "x-api-key", "x-org-id"} & set(
                    request.headers
                )


async def test_a_stream() -> None:
    async with finished(content_type="application/x-thing") as (sandbox, client, run_id):
        async with client.artifacts.stream(run_id) as stream:
            assert stream.size == SIZE
            assert stream.content_type == "application/x-thing"
            same = b"".join([chunk async for chunk in stream]) == sandbox.artifact_bytes(run_id)
        assert same


async def test_what_is_encoded_stays_encoded(tmp_path: Path) -> None:
    async with finished(size=None, form="json.gz", content_encoding="gzip") as (
        sandbox,
        client,
        run_id,
    ):
        path = await client.artifacts.download(run_id, tmp_path)
        assert path.read_bytes() == sandbox.artifact_bytes(run_id)


async def test_no_artifacts_yet(tmp_path: Path) -> None:
    async with finished(artifacts_after=None) as (_, client, run_id):
        with pytest.raises(ArtifactsNotReadyError):
            await client.artifacts.download(run_id, tmp_path)
        with pytest.raises(ArtifactsNotReadyError):
            async with client.artifacts.stream(run_id):
                pass
    assert os.listdir(tmp_path) == []  # noqa: PTH208 # pathlib is not for async functions


async def test_a_link_that_expires_ten_times(tmp_path: Path) -> None:
    """Each stall lasts longer than a link: the client sees it by the server's clock."""
    async with finished(link_lifetime=30) as (sandbox, client, run_id):
        sandbox.fault("store", Fault.stall(200_000), times=10)
        path = await client.artifacts.download(run_id, tmp_path)
        same = path.read_bytes() == sandbox.artifact_bytes(run_id)
        assert same
        assert links(sandbox) == 11
        assert sandbox.count("store", status=403) == 0


async def test_an_object_that_changes_meanwhile(tmp_path: Path) -> None:
    async with finished() as (sandbox, client, run_id):
        sandbox.fault("store", Fault.truncate(1000))
        async with client.artifacts.stream(run_id) as stream:
            sandbox.change_artifact(run_id)
            with pytest.raises(ArtifactChangedError):
                async for _ in stream:
                    pass


async def test_a_store_that_stops_short(tmp_path: Path) -> None:
    async with finished() as (sandbox, client, run_id):
        sandbox.fault("store", Fault.truncate(1000))
        sandbox.fault("store", Fault.truncate(0), times=10)
        with pytest.raises(ArtifactTruncatedError, match=f"after 1000 of {SIZE} bytes") as caught:
            await client.artifacts.download(run_id, tmp_path)
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        text = "".join(shown.format())
        assert "/artifact-bucket/" in text
        assert "X-Amz-" not in text
        sandbox.clear_faults()
        sandbox.forget_requests()
        path = await client.artifacts.download(run_id, tmp_path)
        same = path.read_bytes() == sandbox.artifact_bytes(run_id)
        assert same
        assert [r.range for r in sandbox.requests if r.route == "store"] == ["bytes=1000-"]


async def test_a_second_call_finds_the_file(tmp_path: Path) -> None:
    async with finished(etag="md5") as (sandbox, client, run_id):
        path = await client.artifacts.download(run_id, tmp_path)
        assert await client.artifacts.download(run_id, tmp_path) == path
        sandbox.change_artifact(run_id)
        with pytest.raises(ArtifactError, match="exists already, with other content"):
            await client.artifacts.download(run_id, tmp_path)
