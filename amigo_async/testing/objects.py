"""The objects of the artifact store: what runs leave behind."""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass, field
from urllib.parse import quote

from amigo_async.testing.contents import Content, Held, Noise, blocks, packed
from amigo_async.testing.epoch import Epoch, http_date
from amigo_async.testing.plans import ArtifactPlan
from amigo_async.testing.world import Run

BUCKET = "artifact-bucket"
_KEPT = 256
_MD5_UP_TO = 8 * 1024 * 1024
_TYPES = {"zip": "application/zip", "json.gz": "application/gzip"}


@dataclass(slots=True)
class StoredObject:
    """One object: its bytes and what the store says of them.

    Attributes:
        content: The bytes.
        plan: What it is to be like.
        modified: When it was last changed, in whole seconds since the epoch.
        etag: The ETag, quoted; empty before `prepare`.
        checksum: The checksum in base64; empty before `prepare` and where there is none.
    """

    content: Content
    plan: ArtifactPlan
    modified: int
    etag: str = ""
    checksum: str = ""

    def prepare(self) -> None:
        """Work out the ETag and the checksum; takes as long as reading it all, if it must."""
        kind = self.plan.etag
        if kind == "auto":
            kind = "md5" if self.content.size <= _MD5_UP_TO else "multipart"
        if self.plan.checksum is not None:
            self.checksum = base64.b64encode(_digest(self.content, self.plan.checksum)).decode()
        if kind == "md5":
            self.etag = f'"{_digest(self.content, "md5").hex()}"'
        else:
            # Whoever takes it for the MD5 of the content is to find that it is none.
            start = self.content.read(0, min(1024, self.content.size))
            self.etag = f'"{hashlib.md5(start, usedforsecurity=False).hexdigest()}-3"'

    def headers(self) -> dict[str, str]:
        """What every answer about it says."""
        default = "binary/octet-stream" if self.plan.size is not None else _TYPES[self.plan.form]
        headers = {
            "ETag": self.etag,
            "Last-Modified": http_date(self.modified),
            "Accept-Ranges": "bytes",
            "Content-Type": self.plan.content_type or default,
        }
        if self.plan.content_encoding is not None:
            headers["Content-Encoding"] = self.plan.content_encoding
        return headers

    def told(self) -> dict[str, str]:
        """What an answer with the whole of it says besides."""
        if not self.checksum:
            return {}
        return {f"x-amz-checksum-{self.plan.checksum}": self.checksum}


def _digest(content: Content, kind: str) -> bytes:
    if kind == "crc32":
        crc = 0
        for block in blocks(content):
            crc = zlib.crc32(block, crc)
        return crc.to_bytes(4, "big")
    digest = hashlib.new(kind, usedforsecurity=False)
    for block in blocks(content):
        digest.update(block)
    return digest.digest()


@dataclass(frozen=True, slots=True)
class _Change:
    """What was made of an artifact after it was there; without `data`, other bytes as many."""

    version: int
    at: float
    data: bytes | None


@dataclass(slots=True)
class Objects:
    """The artifacts of runs, made when they are first asked for.

    Attributes:
        epoch: The clock.
    """

    epoch: Epoch
    _made: dict[str, StoredObject] = field(default_factory=dict)
    _runs: dict[str, Run] = field(default_factory=dict)
    _changes: dict[str, _Change] = field(default_factory=dict)

    def path(self, run: Run) -> str:
        """The path of a run's artifact, encoded."""
        organization_id, name = run.organization_id, run.plan.artifact.name
        path = f"/{BUCKET}/{_encoded(organization_id)}/{run.id}/{_encoded(name)}"
        self._runs[path] = run
        return path

    def find(self, path: str) -> StoredObject | None:
        """The object at a path, if there is one now."""
        run = self._runs.get(path)
        if run is None or not run.state(self.epoch.now()).artifacts_generated:
            return None
        return self.of(run)

    def of(self, run: Run) -> StoredObject:
        """The artifact of a run; before it is there, what it would be as things are."""
        made = self._made.get(run.id)
        if made is None:
            made = self._make(run)
            if run.state(self.epoch.now()).artifacts_generated:
                while len(self._made) >= _KEPT:
                    del self._made[next(iter(self._made))]
                self._made[run.id] = made
        return made

    def change(self, run: Run, data: bytes | None) -> None:
        """Put other bytes in the place of a run's artifact; None for as many as it had first."""
        before = self._changes.get(run.id)
        version = 1 if before is None else before.version + 1
        self._changes[run.id] = _Change(version, self.epoch.now(), data)
        self._made.pop(run.id, None)

    def _make(self, run: Run) -> StoredObject:
        plan, change = run.plan.artifact, self._changes.get(run.id)
        if change is None:
            at = run.started + (run.ending().artifacts or 0.0)
            return StoredObject(_original(run), plan, int(at))
        content: Content
        if change.data is not None:
            content = Held(change.data)
        else:
            content = Noise(f"{run.id} version {change.version}", _original(run).size)
        return StoredObject(content, plan, int(change.at))


def _original(run: Run) -> Content:
    """The artifact as it first was."""
    plan = run.plan.artifact
    if plan.size is not None:
        return Noise(run.id, plan.size)
    document = run.document(run.state(float("inf")), tests=True, full=True)
    return Held(packed(plan.form, document))


def _encoded(part: str) -> str:
    return quote(part, safe="-_.~")
