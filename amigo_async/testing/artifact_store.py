"""The artifact store: an object store that behaves like S3 with presigned links."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import io
import math
import random
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from functools import cache
from secrets import token_bytes, token_hex
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode
from xml.sax.saxutils import escape

import msgspec

from amigo_async.redact import SecretUrl
from amigo_async.testing.documents import run_document
from amigo_async.testing.faults import Fault
from amigo_async.testing.server import (
    Content,
    RecordedRequest,
    RefusalError,
    Reply,
    Route,
    ServiceClock,
)
from amigo_async.testing.simulation import ArtifactPlan, SimulatedRun, remember

BUCKET: Final = "artifact-bucket"
_MIB: Final = 1024 * 1024
_MD5_UP_TO: Final = 8 * _MIB
_CACHED: Final = 256
_ZIP_TIME: Final = (2024, 1, 1, 0, 0, 0)  # fixed, so that the same run has the same bytes
_TYPES: Final = {"zip": "application/zip", "json.gz": "application/gzip"}
_CODES: Final = {
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "SlowDown",
    503: "SlowDown",
}
_TIMESTAMP: Final = "%Y%m%dT%H%M%SZ"
_SIGNATURE: Final = "&X-Amz-Signature="
_RANGE: Final = re.compile(r"bytes=(?P<first>\d*)-(?P<last>\d*)")


@cache
def _noise() -> bytes:
    return random.Random(0).randbytes(_MIB) * 2  # noqa: S311  # repeatable on purpose


class Noise:
    """Random bytes that are computed when they are read; the same for the same seed.

    Each block of 1 MiB has the same noise, rotated by another offset.

    Args:
        seed: The seed.
        size: Size in bytes.
    """

    def __init__(self, seed: str, size: int) -> None:
        self._seed = seed
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._size)
        return b"".join(
            self._block(at // _MIB)[at % _MIB : min(_MIB, at % _MIB + stop - at)]
            for at in (start, *range(start - start % _MIB + _MIB, stop, _MIB))
        )

    def _block(self, number: int) -> memoryview:
        rotated = zlib.crc32(f"{self._seed} {number}".encode()) % _MIB
        return memoryview(_noise())[rotated : rotated + _MIB]


@dataclass(slots=True)
class StoredObject:
    """An object in the store.

    Attributes:
        content: Its bytes.
        plan: Its plan.
        modified: When it was last modified, in whole seconds since the epoch.
        etag: The ETag, quoted; empty before `prepare`.
        checksum: The checksum in base64; empty before `prepare`, and without one.
    """

    content: Content
    plan: ArtifactPlan
    modified: int
    etag: str = ""
    checksum: str = ""

    def prepare(self) -> None:
        """Compute the ETag and the checksum, which may need to read the whole content."""
        kind = self.plan.etag
        if kind == "auto":
            kind = "md5" if len(self.content) <= _MD5_UP_TO else "multipart"
        if self.plan.checksum is not None:
            self.checksum = base64.b64encode(_digest(self.content, self.plan.checksum)).decode()
        if kind == "md5":
            self.etag = f'"{_digest(self.content, "md5").hex()}"'
        else:
            # Not the MD5 of the content, so that clients that take it for one fail.
            self.etag = f'"{_digest(self.content[:1024], "md5").hex()}-3"'

    def headers(self) -> dict[str, str]:
        """Return the headers that every response for the object has."""
        default = "binary/octet-stream" if self.plan.size is not None else _TYPES[self.plan.form]
        headers = {
            "ETag": self.etag,
            "Last-Modified": formatdate(self.modified, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Type": self.plan.content_type or default,
        }
        if self.plan.content_encoding is not None:
            headers["Content-Encoding"] = self.plan.content_encoding
        return headers


def _blocks(content: Content) -> Iterator[bytes]:
    return (content[at : at + _MIB] for at in range(0, len(content), _MIB))


def _digest(content: Content, kind: str) -> bytes:
    if kind == "crc32":
        crc = 0
        for block in _blocks(content):
            crc = zlib.crc32(block, crc)
        return crc.to_bytes(4, "big")
    digest = hashlib.new(kind, usedforsecurity=False)
    for block in _blocks(content):
        digest.update(block)
    return digest.digest()


def _packed(form: str, document: dict[str, Any]) -> bytes:
    """Pack the results of a run as a ZIP of JSON files, or as one JSON document in gzip."""
    whole = msgspec.json.format(msgspec.json.encode(document), indent=2)
    if form == "json.gz":
        return gzip.compress(whole, mtime=0)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("run.json", _ZIP_TIME), whole, zipfile.ZIP_DEFLATED)
        for number, result in enumerate(document["unit_test_run_results"]):
            name = zipfile.ZipInfo(f"unit_tests/{number + 1:03}.json", _ZIP_TIME)
            text = msgspec.json.format(msgspec.json.encode(result), indent=2)
            archive.writestr(name, text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


class ArtifactStore:
    """Serves the artifacts of runs, which are created when they are first requested.

    Args:
        runs: All runs by id.
        clock: The service's clock.
        new_id: Creates ids of requests.

    Attributes:
        url: The base URL of links.
    """

    def __init__(
        self, runs: Mapping[str, SimulatedRun], clock: ServiceClock, new_id: Callable[[], str]
    ) -> None:
        self.url = ""
        self._runs = runs
        self._clock = clock
        self._new_id = new_id
        self._key_id = "AKIA" + token_hex(8).upper()
        self._secret = token_bytes(32)
        self._objects: dict[str, StoredObject] = {}
        # Replacements of artifacts: time and content; None for random content of the same size.
        self._changes: dict[str, list[tuple[float, bytes | None]]] = {}

    def artifact(self, run: SimulatedRun) -> StoredObject:
        """Return the artifact of a run, even if it is not available yet."""
        found = self._objects.get(run.id)
        if found is not None:
            return found
        made = self._make(run)
        if not run.has_artifacts(self._clock.now()):
            return made
        return remember(self._objects, run.id, made, _CACHED)

    def change(self, run: SimulatedRun, data: bytes | None) -> None:
        """Replace the artifact of a run; `data` of None for random content of the original size."""
        self._changes.setdefault(run.id, []).append((self._clock.now(), data))
        self._objects.pop(run.id, None)

    def _make(self, run: SimulatedRun) -> StoredObject:
        plan, changes = run.plan.artifact, self._changes.get(run.id)
        content: Content
        if plan.size is not None:
            content = Noise(run.id, plan.size)
        else:
            info = run.info(math.inf)
            content = _packed(plan.form, run_document(run, info, tests=True, full=True))
        if not changes:
            return StoredObject(content, plan, int(run.started + (run.artifacts_after or 0.0)))
        at, data = changes[-1]
        content = data if data is not None else Noise(f"{run.id} {len(changes)}", len(content))
        return StoredObject(content, plan, int(at))

    # --- links ---

    def presign(self, run: SimulatedRun, method: str, lifetime: int) -> tuple[SecretUrl, float]:
        """Return a link to the artifact of a run, and its expiry in seconds since the epoch.

        It looks like a link of S3, but its signature is an HMAC of the method, path and query.
        """
        issued = int(self._clock.now())
        timestamp = datetime.fromtimestamp(issued, UTC).strftime(_TIMESTAMP)
        query = urlencode(
            {
                "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                "X-Amz-Credential": f"{self._key_id}/{timestamp[:8]}/us-east-1/s3/aws4_request",
                "X-Amz-Date": timestamp,
                "X-Amz-Expires": lifetime,
                "X-Amz-SignedHeaders": "host",
            }
        )
        target = f"{_path(run)}?{query}"
        signature = self._sign(method, target)
        return SecretUrl(f"{self.url}{target}{_SIGNATURE}{signature}"), issued + lifetime

    def _sign(self, method: str, target: str) -> str:
        return hmac.digest(self._secret, f"{method} {target}".encode(), "sha256").hex()

    def _check(self, request: RecordedRequest) -> None:
        """Check what S3 checks before it looks for the object.

        Raises:
            RefusalError: If S3 would refuse the request.
        """
        if request.method not in {"GET", "HEAD"}:
            raise RefusalError(405, "The specified method is not allowed against this resource.")
        if "authorization" in request.headers:
            raise RefusalError(400, "Only one auth mechanism allowed", code="InvalidArgument")
        query, found, signature = request.raw_query.rpartition(_SIGNATURE)
        if not found:
            raise RefusalError(403, "Access Denied")
        wanted = self._sign(request.method, f"{request.path}?{query}")
        if not hmac.compare_digest(wanted.encode(), signature.encode()):
            message = (
                "The request signature we calculated does not match the signature you provided."
            )
            raise RefusalError(403, message, code="SignatureDoesNotMatch")
        signed = dict(request.query)
        issued = datetime.strptime(signed["X-Amz-Date"], _TIMESTAMP).replace(tzinfo=UTC)
        if self._clock.now() >= issued.timestamp() + int(signed["X-Amz-Expires"]):
            raise RefusalError(403, "Request has expired")

    # --- the backend of the server ---

    def route(self, method: str, path: str) -> tuple[Route, str | None]:  # noqa: ARG002  # a Backend
        """Return ``"store"``, and the organization, which is the first part of the key."""
        parts = path.split("/")
        return "store", unquote(parts[2]) if len(parts) > 3 and parts[1] == BUCKET else None

    async def answer(self, request: RecordedRequest, fault: Fault) -> Reply:
        """Respond with an object, a range of it, or an error of S3."""
        try:
            found = await self._find(request, fault)
            reply = _conditional(request, found, fault)
        except RefusalError as refusal:
            return self.refuse(request, refusal)
        return replace(reply, headers={**self._ids(), **reply.headers})

    async def _find(self, request: RecordedRequest, fault: Fault) -> StoredObject:
        if fault.kind == "expired_link":
            raise RefusalError(403, "Request has expired")
        self._check(request)
        run = self._runs.get(request.path.split("/")[3])
        if run is None or not run.has_artifacts(self._clock.now()):
            raise RefusalError(404, "The specified key does not exist.")
        found = self.artifact(run)
        if not found.etag and len(found.content) <= _MIB:
            found.prepare()
        elif not found.etag:
            await asyncio.to_thread(found.prepare)
        return found

    def refuse(self, request: RecordedRequest, refusal: RefusalError) -> Reply:
        """Return the XML error document of S3 for a refusal."""
        usual = "InternalError" if refusal.status >= 500 else "InvalidRequest"
        ids = self._ids()
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{refusal.code or _CODES.get(refusal.status, usual)}</Code>"
            f"<Message>{escape(str(refusal.detail))}</Message>"
            f"<Resource>{escape(request.path)}</Resource>"
            f"<RequestId>{ids['x-amz-request-id']}</RequestId></Error>"
        )
        headers = {"Content-Type": "application/xml", **ids, **refusal.headers}
        return Reply(refusal.status, headers, body.encode())

    def _ids(self) -> dict[str, str]:
        return {"Server": "AmazonS3", "x-amz-request-id": self._new_id()[:16].upper()}


def _path(run: SimulatedRun) -> str:
    """Return the encoded path of the artifact of a run."""
    organization_id, name = run.set.organization_id, run.plan.artifact.name
    return f"/{BUCKET}/{quote(organization_id, safe='')}/{run.id}/{quote(name, safe='')}"


# --- conditions and ranges, according to RFC 9110 and S3 ---


def _conditional(request: RecordedRequest, found: StoredObject, fault: Fault) -> Reply:
    """Respond with the object, a range of it, or the status that the conditions require."""
    headers, size = found.headers(), len(found.content)
    if _is_unmodified(request.headers, found.etag, found.modified):
        return Reply(304, headers)
    part = _wanted(request.headers, found.etag, found.modified, size)
    if part is None or fault.kind == "ignore_range":
        if found.checksum:
            headers[f"x-amz-checksum-{found.plan.checksum}"] = found.checksum
        return Reply(200, headers, found.content)
    if fault.kind == "wrong_offset":
        part = range(min(max(0, part.start + fault.shift), part.stop - 1), part.stop)
    headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return Reply(206, headers, found.content, part)


def _is_unmodified(headers: Mapping[str, str], etag: str, modified: int) -> bool:
    """Evaluate the preconditions of a request; return whether a 304 is due (RFC 9110, 13.2.2).

    Raises:
        RefusalError: With a 412, if a precondition fails.
    """
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is not None:
        holds = _lists(match, etag)
    else:
        holds = modified <= _seconds(headers.get("if-unmodified-since"), modified)
    if not holds:
        raise RefusalError(412, "At least one of the pre-conditions you specified did not hold")
    if none_match is not None:
        return _lists(none_match.replace("W/", ""), etag)
    return modified <= _seconds(headers.get("if-modified-since"), modified - 1)


def _lists(tags: str, etag: str) -> bool:
    """Return whether a list of entity tags contains `etag`; like S3, also without quotes."""
    found = [tag.strip() for tag in tags.split(",")]
    return "*" in found or etag in found or etag.strip('"') in found


def _wanted(headers: Mapping[str, str], etag: str, modified: int, size: int) -> range | None:
    """Return the requested range; None for the whole object.

    Like S3, this ignores multiple ranges, other units and invalid ranges, and any range if
    ``If-Range`` names another object.

    Raises:
        RefusalError: With a 416, if the object has no byte of the range.
    """
    found = _RANGE.fullmatch(headers.get("range", "").strip())
    if found is None or not _is_same(headers.get("if-range"), etag, modified):
        return None
    first, last = found["first"], found["last"]
    if (not first and not last) or (first and last and int(last) < int(first)):
        return None
    if first:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    else:
        start, stop = max(0, size - int(last)), size
    if start >= size:
        message = "The requested range is not satisfiable"
        raise RefusalError(416, message, {"Content-Range": f"bytes */{size}"})
    return range(start, stop)


def _is_same(condition: str | None, etag: str, modified: int) -> bool:
    """Return whether ``If-Range`` matches the object, by its strong tag or exact date."""
    if condition is None or condition == etag:
        return True
    return not condition.startswith(('"', "W/")) and _seconds(condition, -1) == modified


def _seconds(date: str | None, default: float) -> float:
    """Parse an HTTP date into seconds since the epoch; `default` if it is missing or invalid."""
    try:
        return parsedate_to_datetime(date).timestamp() if date else default
    except ValueError:
        return default
