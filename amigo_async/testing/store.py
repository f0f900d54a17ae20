"""The artifact store: an object store that behaves as S3 does with presigned links."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote
from xml.sax.saxutils import escape

from amigo_async.redact import SecretUrl
from amigo_async.shield import finish
from amigo_async.testing.contents import Held
from amigo_async.testing.epoch import Epoch
from amigo_async.testing.faults import Fault
from amigo_async.testing.front import Asked, Reply
from amigo_async.testing.objects import BUCKET, Objects, StoredObject
from amigo_async.testing.ranges import Part, UnsatisfiableError, judge, part
from amigo_async.testing.record import Route
from amigo_async.testing.signing import SignatureError, Signer
from amigo_async.testing.world import Run

_INLINE_UP_TO = 1024 * 1024
_CODES = {
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "SlowDown",
    500: "InternalError",
    503: "SlowDown",
}


class Store:
    """What the store answers.

    Args:
        objects: Its objects.
        signer: What checks the links.
        epoch: Its clock.
        new_id: Makes ids of requests.
    """

    def __init__(
        self, objects: Objects, signer: Signer, epoch: Epoch, new_id: Callable[[], str]
    ) -> None:
        self._objects = objects
        self._signer = signer
        self._epoch = epoch
        self._new_id = new_id
        self.base = ""

    def presign(self, run: Run, method: str, lifetime: int) -> tuple[SecretUrl, float]:
        """A link to a run's artifact and when it expires."""
        path, now = self._objects.path(run), self._epoch.now()
        return self._signer.presign(method, self.base, path, now=now, lifetime=lifetime)

    def identify(self, method: str, path: str) -> tuple[Route, str | None]:  # noqa: ARG002  # a Backend
        """Everything here is one route; the organization is the first part of the key."""
        parts = path.split("/")
        return "store", unquote(parts[2]) if len(parts) > 3 and parts[1] == BUCKET else None

    def failure(self, asked: Asked, status: int) -> Reply:
        """An answer with `status` and S3's XML."""
        code = _CODES.get(status, "InternalError" if status >= 500 else "InvalidRequest")
        return self._refused(asked, SignatureError(code, "The request was refused.", status))

    async def answer(self, asked: Asked, fault: Fault | None) -> Reply:
        """Give an object or a part of it, or S3's refusal."""
        try:
            found = await self._find(asked, fault)
            reply = self._serve(asked, found, fault)
        except SignatureError as refusal:
            return self._refused(asked, refusal)
        return replace(reply, headers={**self._ids(), **reply.headers})

    async def _find(self, asked: Asked, fault: Fault | None) -> StoredObject:
        """The object that is asked for, or S3's refusal."""
        if fault is not None and fault.kind == "expired_link":
            raise SignatureError("AccessDenied", "Request has expired")
        self._check(asked)
        found = self._objects.find(asked.path)
        if found is None:
            raise SignatureError("NoSuchKey", "The specified key does not exist.", 404)
        if not found.etag:
            await self._prepare(found)
        return found

    def _check(self, asked: Asked) -> None:
        """Refuse what S3 refuses before it looks for the object."""
        method, headers = asked.raw.method, asked.raw.headers
        if method not in ("GET", "HEAD"):
            message = "The specified method is not allowed against this resource."
            raise SignatureError("MethodNotAllowed", message, 405)
        if "Authorization" in headers:
            message = "Only one auth mechanism allowed"
            raise SignatureError("InvalidArgument", message, 400)
        self._signer.check(method, asked.path, asked.query, headers, now=self._epoch.now())

    async def _prepare(self, found: StoredObject) -> None:
        """Digest an object; a large one in a thread."""
        if found.content.size <= _INLINE_UP_TO:
            found.prepare()
        else:
            await finish(asyncio.to_thread(found.prepare))

    def _serve(self, asked: Asked, found: StoredObject, fault: Fault | None) -> Reply:
        """The object, a part of it, or what the conditions of the request come to."""
        headers, size = asked.raw.headers, found.content.size
        judged = judge(headers, found.etag, found.modified)
        if judged == "precondition_failed":
            message = "At least one of the pre-conditions you specified did not hold"
            raise SignatureError("PreconditionFailed", message, 412)
        if judged == "not_modified":
            return Reply(304, found.headers())
        try:
            wanted = part(headers, found.etag, found.modified, size)
        except UnsatisfiableError:
            return self._unsatisfiable(asked, size)
        if wanted is None or (fault is not None and fault.kind == "ignore_range"):
            return Reply(200, {**found.headers(), **found.told()}, found.content)
        if fault is not None and fault.kind == "wrong_offset":
            start = min(max(0, wanted.start + fault.shift), wanted.stop - 1)
            wanted = Part(start, wanted.stop)
        told = {"Content-Range": f"bytes {wanted.start}-{wanted.stop - 1}/{size}"}
        return Reply(206, {**found.headers(), **told}, found.content, wanted.start, wanted.stop)

    def _unsatisfiable(self, asked: Asked, size: int) -> Reply:
        refusal = SignatureError("InvalidRange", "The requested range is not satisfiable", 416)
        reply = self._refused(asked, refusal)
        return replace(reply, headers={**reply.headers, "Content-Range": f"bytes */{size}"})

    def _refused(self, asked: Asked, refusal: SignatureError) -> Reply:
        ids = self._ids()
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{refusal.code}</Code><Message>{escape(refusal.message)}</Message>"
            f"<Resource>{escape(asked.path)}</Resource>"
            f"<RequestId>{ids['x-amz-request-id']}</RequestId></Error>"
        )
        headers = {"Content-Type": "application/xml", **ids}
        return Reply(refusal.status, headers, Held(body.encode()))

    def _ids(self) -> dict[str, str]:
        return {"Server": "AmazonS3", "x-amz-request-id": self._new_id()[:16].upper()}
