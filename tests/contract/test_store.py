"""The artifact store of the sandbox behaves as S3 does with presigned links."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yarl

from amigo_async.testing import ArtifactPlan, SetPlan
from tests.support.sandbox_kit import Answer, Caller, serving, sleep

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


def planned(**artifact: Any) -> SetPlan:
    return SetPlan(seconds=1, artifacts_after=1, artifact=ArtifactPlan(**artifact))


async def finished(caller: Caller) -> str:
    """A run that has artifacts."""
    run_id = await caller.start(caller.sandbox.add_set())
    await sleep(3)
    return run_id


def code(answer: Answer) -> str | None:
    """The code in S3's XML."""
    assert answer.headers["Content-Type"] == "application/xml"
    root = ET.fromstring(answer.body)
    assert root.tag == "Error"
    assert root.findtext("Message")
    assert root.findtext("RequestId") == answer.headers["x-amz-request-id"]
    return root.findtext("Code")


# Ranges and conditions: a table that says nothing of the sandbox, for any object of 100 bytes.


@dataclass(frozen=True)
class Case:
    """One request; ``{etag}``, ``{modified}`` and ``{size}`` stand for the object's own."""

    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 206
    span: tuple[int, int] | None = None
    code: str | None = None


SIZE = 100
OLD = "Thu, 01 Jan 2015 00:00:00 GMT"
NEW = "Tue, 01 Jan 2075 00:00:00 GMT"

CASES = [
    Case({}, 200, (0, 100)),
    Case({"Range": "bytes=0-0"}, span=(0, 1)),
    Case({"Range": "bytes=0-99"}, span=(0, 100)),
    Case({"Range": "bytes=10-19"}, span=(10, 20)),
    Case({"Range": "bytes=10-"}, span=(10, 100)),
    Case({"Range": "bytes=99-"}, span=(99, 100)),
    Case({"Range": "bytes=90-1000"}, span=(90, 100)),
    Case({"Range": "bytes=-10"}, span=(90, 100)),
    Case({"Range": "bytes=-1000"}, span=(0, 100)),
    Case({"Range": "bytes=100-"}, 416, code="InvalidRange"),
    Case({"Range": "bytes=100-200"}, 416, code="InvalidRange"),
    Case({"Range": "bytes=-0"}, 416, code="InvalidRange"),
    Case({"Range": "bytes=20-10"}, 200, (0, 100)),
    Case({"Range": "bytes=-"}, 200, (0, 100)),
    Case({"Range": "bytes=a-b"}, 200, (0, 100)),
    Case({"Range": "lines=0-1"}, 200, (0, 100)),
    Case({"Range": "bytes=0-1,5-6"}, 200, (0, 100)),
    Case({"Range": "bytes=5-9", "If-Match": "{etag}"}, span=(5, 10)),
    Case({"Range": "bytes=5-9", "If-Match": "*"}, span=(5, 10)),
    Case({"Range": "bytes=5-9", "If-Match": '"no", {etag}'}, span=(5, 10)),
    Case({"Range": "bytes=5-9", "If-Match": '"no"'}, 412, code="PreconditionFailed"),
    Case({"If-Match": "W/{etag}"}, 412, code="PreconditionFailed"),
    Case({"If-Match": '"no"', "If-Unmodified-Since": NEW}, 412, code="PreconditionFailed"),
    Case({"If-Match": "{etag}", "If-Unmodified-Since": OLD}, 200, (0, 100)),
    Case({"If-Unmodified-Since": "{modified}"}, 200, (0, 100)),
    Case({"If-Unmodified-Since": OLD}, 412, code="PreconditionFailed"),
    Case({"If-None-Match": "{etag}"}, 304),
    Case({"If-None-Match": "W/{etag}"}, 304),
    Case({"If-None-Match": "*"}, 304),
    Case({"If-None-Match": '"no"'}, 200, (0, 100)),
    Case({"If-None-Match": '"no"', "If-Modified-Since": NEW}, 200, (0, 100)),
    Case({"If-Modified-Since": "{modified}"}, 304),
    Case({"If-Modified-Since": OLD}, 200, (0, 100)),
    Case({"If-Modified-Since": "no date"}, 200, (0, 100)),
    Case({"Range": "bytes=5-9", "If-Range": "{etag}"}, span=(5, 10)),
    Case({"Range": "bytes=5-9", "If-Range": '"no"'}, 200, (0, 100)),
    Case({"Range": "bytes=5-9", "If-Range": "W/{etag}"}, 200, (0, 100)),
    Case({"Range": "bytes=5-9", "If-Range": "{modified}"}, span=(5, 10)),
    Case({"Range": "bytes=5-9", "If-Range": OLD}, 200, (0, 100)),
    Case({"Range": "bytes=500-", "If-Range": '"no"'}, 200, (0, 100)),
]


async def test_ranges_and_conditions() -> None:
    async with serving(plan=planned(size=SIZE)) as caller:
        run_id = await finished(caller)
        link, data = await caller.link(run_id), caller.sandbox.artifact_bytes(run_id)
        whole = await caller.fetch("GET", link)
        known = {"etag": whole.headers["ETag"], "modified": whole.headers["Last-Modified"]}
        for case in CASES:
            headers = {name: value.format(**known) for name, value in case.headers.items()}
            answer = await caller.fetch("GET", link, headers=headers)
            assert answer.status == case.status, case
            content_range = answer.headers.get("Content-Range")
            if case.code is not None:
                assert code(answer) == case.code, case
                assert content_range == ("bytes */100" if case.status == 416 else None), case
                continue
            assert answer.headers["ETag"] == known["etag"], case
            if case.span is None:
                assert answer.body == b"", case
                continue
            start, stop = case.span
            assert answer.body == data[start:stop], case
            part = f"bytes {start}-{stop - 1}/100" if case.status == 206 else None
            assert content_range == part, case
            assert answer.headers["Content-Length"] == str(stop - start), case
            assert answer.headers["Accept-Ranges"] == "bytes", case


@pytest.mark.parametrize("wanted", ["bytes=0-", "bytes=-5", "bytes=0-0"])
async def test_range_of_an_empty_object(wanted: str) -> None:
    async with serving(plan=planned(size=0)) as caller:
        link = await caller.link(await finished(caller))
        whole = await caller.fetch("GET", link)
        assert (whole.status, whole.body, whole.headers["Content-Length"]) == (200, b"", "0")
        none = await caller.fetch("GET", link, headers={"Range": wanted})
        assert (none.status, none.headers["Content-Range"]) == (416, "bytes */0")


# Links


async def test_links_expire() -> None:
    async with serving(plan=planned(), link_lifetime=100) as caller:
        run_id = await finished(caller)
        answer = await caller.artifacts(run_id)
        link, expires = answer.json()["presigned_url"], answer.json()["url_expires_at"]
        left = datetime.fromisoformat(expires).timestamp() - caller.now()
        assert 98 < left <= 100
        query = yarl.URL(link).query
        assert (query["X-Amz-Expires"], query["X-Amz-Algorithm"]) == ("100", "AWS4-HMAC-SHA256")
        await sleep(98)
        assert (await caller.fetch("GET", link)).status == 200
        await sleep(2)
        late = await caller.fetch("GET", link)
        assert (late.status, code(late)) == (403, "AccessDenied")
        assert b"<Message>Request has expired</Message>" in late.body
        assert (await caller.fetch("GET", await caller.link(run_id))).status == 200
        expired = await caller.fetch("GET", caller.sandbox.presign(run_id, lifetime=0))
        assert (expired.status, b"<Message>Request has expired</Message>" in expired.body) == (
            403,
            True,
        )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
        ("X-Amz-Expires=900", "X-Amz-Expires=901"),
        ("/sandbox/", "/sandbox2/"),
        ("%2F", "/"),  # what a client does that encodes the query anew
        ("%20", "+"),
        ("%C3%A9", "%c3%a9"),
        ("&X-Amz-Signature", "&extra=1&X-Amz-Signature"),
        ("X-Amz-Credential=AKIA", "X-Amz-Credential=BKIA"),
        ("X-Amz-Date=2", "X-Amz-Date=3"),
        ("&X-Amz-SignedHeaders=host", ""),
    ],
)
async def test_altered_link(old: str, new: str) -> None:
    async with serving(plan=planned(name="out put é+.zip")) as caller:
        link = await caller.link(await finished(caller))
        assert old in link
        answer = await caller.fetch("GET", link.replace(old, new))
        assert (answer.status, code(answer)) == (403, "SignatureDoesNotMatch")
        assert (await caller.fetch("GET", link)).status == 200


@pytest.mark.parametrize("name", ["a b.zip", "50% + é&c=d?#;.zip", "%2F%2e", "..", "ünï/cöde"])
async def test_any_name(name: str) -> None:
    async with serving(plan=planned(name=name)) as caller:
        run_id = await finished(caller)
        answer = await caller.fetch("GET", await caller.link(run_id))
        assert (answer.status, answer.body) == (200, caller.sandbox.artifact_bytes(run_id))


async def test_unsigned_link() -> None:
    async with serving(plan=planned()) as caller:
        link = await caller.link(await finished(caller))
        for unsigned in (link.partition("?")[0], link.partition("&X-Amz-Signature")[0]):
            answer = await caller.fetch("GET", unsigned)
            assert (answer.status, code(answer)) == (403, "AccessDenied")


async def test_link_with_authorization() -> None:
    async with serving(plan=planned()) as caller:
        link = await caller.link(await finished(caller))
        for authorization in (f"Bearer {caller.token}", "Basic eDp5"):
            headers = {"Authorization": authorization}
            answer = await caller.fetch("GET", link, headers=headers)
            assert (answer.status, code(answer)) == (400, "InvalidArgument")
            assert b"Only one auth mechanism allowed" in answer.body


async def test_missing_object_is_404() -> None:
    async with serving(plan=SetPlan(seconds=1, artifacts_after=50)) as caller:
        run_id = await finished(caller)
        link = caller.sandbox.presign(run_id)
        early = await caller.fetch("GET", link)
        assert (early.status, code(early)) == (404, "NoSuchKey")
        await sleep(50)
        assert (await caller.fetch("GET", link)).status == 200


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
async def test_store_is_read_only(method: str) -> None:
    async with serving(plan=planned()) as caller:
        link = await caller.link(await finished(caller))
        answer = await caller.fetch(method, link)
        assert (answer.status, code(answer)) == (405, "MethodNotAllowed")


async def test_head() -> None:
    async with serving(plan=planned(size=1000, checksum="sha256")) as caller:
        run_id = await finished(caller)
        got = await caller.link(run_id)
        assert (await caller.fetch("HEAD", got)).status == 403
        link = caller.sandbox.presign(run_id, method="HEAD", lifetime=1000)
        head, whole = await caller.fetch("HEAD", link), await caller.fetch("GET", got)
        assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "1000")
        changing = {"Date", "x-amz-request-id"}
        assert {k: v for k, v in head.headers.items() if k not in changing} == {
            k: v for k, v in whole.headers.items() if k not in changing
        }
        part = await caller.fetch("HEAD", link, headers={"Range": "bytes=5-9"})
        assert (part.status, part.headers["Content-Range"]) == (206, "bytes 5-9/1000")
        assert (await caller.fetch("GET", link)).status == 403


# Objects


async def test_zip() -> None:
    async with serving(plan=planned()) as caller:
        run_id = await finished(caller)
        answer = await caller.fetch("GET", await caller.link(run_id))
        assert answer.headers["Content-Type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.testzip() is None
            assert json.loads(archive.read("run.json")) == await caller.get(run_id)
            assert len(archive.namelist()) == 4


async def test_json_gz() -> None:
    plan = planned(form="json.gz", name="r.json.gz", content_encoding="gzip")
    async with serving(plan=plan) as caller:
        run_id = await finished(caller)
        answer = await caller.fetch("GET", await caller.link(run_id))
        assert answer.headers["Content-Type"] == "application/gzip"
        assert answer.headers["Content-Encoding"] == "gzip"
        assert json.loads(gzip.decompress(answer.body)) == await caller.get(run_id)


@pytest.mark.parametrize("size", [1, 1000, MIB, 3 * MIB + 17])
async def test_noise(size: int) -> None:
    async with serving(plan=planned(size=size)) as caller:
        run_id = await finished(caller)
        link, data = await caller.link(run_id), caller.sandbox.artifact_bytes(run_id)
        assert len(data) == size
        assert (await caller.fetch("GET", link)).body == data
        for start in {0, size // 2, max(0, MIB - 3), max(0, MIB + 60)}:
            headers = {"Range": f"bytes={start}-{start + 100}"}
            part = await caller.fetch("GET", link, headers=headers)
            if start < size:
                assert part.body == data[start : start + 101]


async def test_tebibyte() -> None:
    async with serving(plan=planned(size=1024**4)) as caller:
        link = await caller.link(await finished(caller))
        headers = {"Range": f"bytes=-{MIB}"}
        answer = await caller.fetch("GET", link, headers=headers)
        assert (answer.status, len(answer.body)) == (206, MIB)
        assert answer.headers["ETag"].endswith('-3"')


@pytest.mark.parametrize(
    ("etag", "size", "is_md5"),
    [
        ("auto", 100, True),
        ("auto", 9 * MIB, False),
        ("md5", 9 * MIB, True),
        ("multipart", 100, False),
    ],
)
async def test_etag(etag: Any, size: int, is_md5: bool) -> None:
    async with serving(plan=planned(size=size, etag=etag)) as caller:
        run_id = await finished(caller)
        answer = await caller.fetch(
            "GET", await caller.link(run_id), headers={"Range": "bytes=0-0"}
        )
        data = caller.sandbox.artifact_bytes(run_id)
        md5 = f'"{hashlib.md5(data).hexdigest()}"'
        assert (answer.headers["ETag"] == md5) is is_md5
        assert answer.headers["ETag"].endswith('-3"') is not is_md5


@pytest.mark.parametrize("kind", ["sha256", "crc32", None])
@pytest.mark.parametrize("size", [1000, 2 * MIB])
async def test_checksum(kind: Any, size: int) -> None:
    async with serving(plan=planned(size=size, checksum=kind)) as caller:
        run_id = await finished(caller)
        link, data = await caller.link(run_id), caller.sandbox.artifact_bytes(run_id)
        whole = await caller.fetch("GET", link)
        told = {k: v for k, v in whole.headers.items() if k.startswith("x-amz-checksum-")}
        digests = {
            "sha256": hashlib.sha256(data).digest(),
            "crc32": zlib.crc32(data).to_bytes(4, "big"),
        }
        wanted = (
            {f"x-amz-checksum-{kind}": base64.b64encode(digests[kind]).decode()} if kind else {}
        )
        assert told == wanted
        part = await caller.fetch("GET", link, headers={"Range": "bytes=0-1"})
        assert not [name for name in part.headers if name.startswith("x-amz-checksum-")]


async def test_last_modified() -> None:
    async with serving(plan=SetPlan(seconds=100, artifacts_after=50)) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        began = caller.now()
        await sleep(500)
        answer = await caller.fetch("GET", await caller.link(run_id))
        modified = parsedate_to_datetime(answer.headers["Last-Modified"])
        assert modified.timestamp() == pytest.approx(began + 150, abs=2)


@pytest.mark.parametrize("artifact", [{}, {"size": 5000}])
async def test_change_artifact(artifact: Any) -> None:
    async with serving(plan=planned(**artifact)) as caller:
        run_id = await finished(caller)
        link = await caller.link(run_id)
        before = await caller.fetch("GET", link)
        await sleep(10)
        caller.sandbox.change_artifact(run_id)
        headers = {"If-Match": before.headers["ETag"], "Range": "bytes=5-"}
        assert (await caller.fetch("GET", link, headers=headers)).status == 412
        after = await caller.fetch("GET", link)
        assert after.body == caller.sandbox.artifact_bytes(run_id)
        assert after.body != before.body
        assert len(after.body) == len(before.body)
        assert after.headers["ETag"] != before.headers["ETag"]
        assert after.headers["Last-Modified"] != before.headers["Last-Modified"]
        caller.sandbox.change_artifact(run_id)
        assert (await caller.fetch("GET", link)).body != after.body
        caller.sandbox.change_artifact(run_id, b"mine")
        assert (await caller.fetch("GET", link)).body == b"mine"
