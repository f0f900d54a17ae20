"""A sign-in of another command, which is waited for, but not for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from amigo_async.auth import StoredToken
from amigo_async.cli import token_cache
from amigo_async.cli.token_cache import TokenCache, TokenFile

pytestmark = pytest.mark.anyio


async def test_another_sign_in_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(token_cache, "monotonic", lambda: now[0])
    monkeypatch.setattr(token_cache, "clock", lambda _: "12:00:00")
    first, second = (TokenFile(tmp_path / "new", "one") for _ in range(2))
    assert await first.claim()
    assert not await second.claim()
    now[0] += 0.9
    assert not await second.claim()
    assert capsys.readouterr().err == ""
    now[0] += 1.1
    assert not await second.claim()
    assert not await second.claim()
    assert capsys.readouterr().err == (
        "sign in: waiting for another amigo-async that is signing in, until at most 12:00:00 "
        "(in 8 s)\n"
    )
    now[0] += 8.0
    assert await second.claim()  # the other may be suspended
    await second.release()
    await first.release()
    third = TokenFile(tmp_path / "new", "one")
    assert await third.claim()
    await third.release()


async def test_a_fresh_token_replaces_the_stored_one(tmp_path: Path) -> None:
    name = "https://api.test/org:key:user"
    await TokenCache(tmp_path).tokens(name).save(StoredToken("old", 0.0), 60.0)
    fresh = TokenCache(tmp_path, fresh=True).tokens(name)
    assert await fresh.load() is None
    await fresh.save(StoredToken("second", 0.0), 60.0)
    for store in (fresh, TokenCache(tmp_path).tokens(name)):
        stored = await store.load()
        assert stored is not None
        assert stored.token == "second"
        assert "second" not in repr(stored)
    assert await TokenCache(tmp_path).tokens("another").load() is None


async def test_only_the_refused_token_is_dropped(tmp_path: Path) -> None:
    store = TokenCache(tmp_path).tokens("one")
    await store.save(StoredToken("second", 0.0), 60.0)
    await store.drop("old")
    assert await store.load() is not None
    await store.drop("second")
    assert await store.load() is None
    assert list(tmp_path.glob("*.json")) == []
