"""Connections cut at random points: the bytes are the same, and none is fetched twice."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amigo_async.errors import (
    ArtifactError,
)
from amigo_async.testing import VirtualTimeLoop
from tests.unit.artifacts.artifact_files import NAME, names, no_file_left_open, small  # noqa: F401 # fixtures
from tests.unit.artifacts.fake_store import FakeStore, Room, Step

UNAVAILABLE = Step(status=503)


@given(
    size=st.integers(0, 200),
    chunk=st.integers(1, 50),
    cuts=st.lists(
        st.one_of(
            st.integers(0, 60).map(lambda n: Step(cut=n)),
            st.integers(0, 60).map(lambda n: Step(end=n)),
            st.sampled_from([Step(refuse=True), UNAVAILABLE]),
            st.integers(0, 60).map(lambda n: Step(cut=n, length="chunked")),
        ),
        max_size=12,
    ),
)
def test_stream_cut_anywhere(size: int, chunk: int, cuts: list[Step]) -> None:
    data = random.Random(size).randbytes(size)
    store = FakeStore(data, cuts, chunk=chunk)

    async def read() -> bytes:
        return await Room(store, attempts=len(cuts) + 1).bytes()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(read()) == data
    # Each byte was handed out once.
    handed = [n for start, stop in store.given for n in range(start, stop)]
    assert sorted(handed) == list(range(size))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(0, 3000),
    connections=st.sampled_from([1, 1, 3]),
    steps=st.lists(
        st.one_of(
            st.integers(0, 900).map(lambda n: Step(cut=n)),
            st.integers(0, 900).map(lambda n: Step(end=n)),
            st.sampled_from([Step(refuse=True), Step(status=503), Step(cut=50, length="chunked")]),
        ),
        max_size=10,
    ),
    attempts=st.integers(2, 6),
)
@pytest.mark.usefixtures("small")
def test_file_cut_anywhere(
    tmp_path: Path, size: int, connections: int, steps: list[Step], attempts: int
) -> None:
    """Failures that end a call are followed by another call, as after a crash."""
    data = random.Random(size).randbytes(size)
    fake = FakeStore(data, steps, chunk=37)
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()

    async def download() -> Path:
        while True:
            try:
                room = Room(fake, attempts=attempts)
                return await room.artifacts.download("r1", folder, connections=connections)
            except ArtifactError:
                assert names(folder) in ([], [f"{NAME}.part", f"{NAME}.part.jsonl"])

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        path = runner.run(download())
    assert path.read_bytes() == data
    assert names(folder) == [NAME]
    handed = [n for start, stop in fake.given for n in range(start, stop)]
    # Only where several connections are ended together is something given and not taken.
    assert len(handed) - len(set(handed)) <= (37 * 2 * len(steps) if connections > 1 else 0)
    assert set(handed) == set(range(size))
