"""What cannot be right, be it a setting or a link, is refused without being shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from amigo_async import AmigoClient, ApiKeyAuth, BasicAuth, BearerAuth
from amigo_async.errors import ConfigurationError
from amigo_async.testing import (
    Fault,
)
from tests.support.evidence import Evidence
from tests.support.secret_scenes import KEY, calls, scene

pytestmark = pytest.mark.anyio


UNSAFE: Final = {
    "no host": "https:/key.zip?X-Amz-Signature={}",
    "user info": "https://user:{}@store.example/key.zip",
    "not a URL": "https://[/key.zip?X-Amz-Signature={}",
    "another scheme": "ftp://store.example/?X-Amz-Signature={}",
}


@pytest.mark.parametrize("link", UNSAFE.values(), ids=UNSAFE)
async def test_refused_link_is_not_shown(tmp_path: Path, link: str) -> None:
    signature = "5f9e0c1d7ab3482694d8e7f60213bc45"
    link = link.format(signature)
    body = {"presigned_url": link, "url_expires_at": "2100-01-01T00:00:00Z"}
    async with scene(tmp_path) as told, told.client() as client:
        told.secrets.add(signature)
        (run_id,) = told.runs(1)
        download = calls(told, client)["store"]
        told.sandbox.fault("artifacts", Fault.garbage(json.dumps(body).encode(), "x/json"))
        await told.attempt("link", download)
        await told.attempt("download", lambda: client.artifacts.download(run_id, tmp_path))
        told.sandbox.fault("store", Fault.status(302, b"", {"Location": link}), times=9)
        await told.attempt("redirect", download)
        told.sandbox.clear_faults()
        told.sandbox.fault("store", Fault.status(302, b"", {"Location": f"?{signature}"}), times=9)
        await told.attempt("without end", download)
        assert "ArtifactError" in "".join(told.evidence.texts["without end"])
        told.check()


BAD_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "a key of two lines": {"api_key": f"{KEY}\n{KEY}"},
    "a key that is not ASCII": {"api_key": f"{KEY}\u2026"},
    "a timeout": {"request_timeout": -1.0},
    "another user": {"user_id": "line\nbreak"},
    "an organization": {"organization_id": ".."},
    "a base URL with a key in it": {"base_url": f"https://user:{quote(KEY, safe='')}@h.example"},
    "a base URL with a query": {"base_url": f"https://h.example/?{quote(KEY, safe='')}"},
    "a base URL that cannot be read": {"base_url": f"https://[?{quote(KEY, safe='')}"},
    "a header": {"headers": {"X-Gateway-Key": f"{KEY}\n"}},
    "a name of a header": {"headers": {"X-Gateway-Key": KEY, "x y": "z"}},
    "both": {"auth": BearerAuth(KEY)},
    "another auth": {"auth": KEY},
}


@pytest.mark.parametrize("settings", BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_invalid_settings_are_not_shown(settings: dict[str, Any]) -> None:
    evidence = Evidence()
    right = {"api_key": KEY, "api_key_id": "k", "user_id": "u", "organization_id": "o"}
    with pytest.raises(ConfigurationError) as caught:
        AmigoClient(**{**right, **settings})
    evidence.errors("error", caught.value)
    assert not evidence.leaks([KEY])


@pytest.mark.parametrize(
    "make", [BearerAuth, lambda token: BasicAuth(token, "u"), lambda key: ApiKeyAuth(key, "k", "u")]
)
def test_bad_credentials_are_not_shown(make: Callable[[str], Any]) -> None:
    evidence = Evidence()
    with pytest.raises(ConfigurationError) as caught:
        make(f"{KEY}\n{KEY}")
    evidence.errors("error", caught.value)
    assert not evidence.leaks([KEY])
