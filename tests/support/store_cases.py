"""What every store has in common: one table of requests and answers, and stores to ask.

The stores are real programs on loopback: nginx, an S3 server that checks signatures and expiry
with URLs presigned by botocore, and the store of the sandbox. Each serves the same object, and
knows features that not all of them have; a case says which it needs.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

DATA = random.Random(7).randbytes(300_000)
SIZE = len(DATA)
KEY = "org/run 1/out+put é.zip"
NAME = "out+put é.zip"
EMPTY = "org/run 1/empty.zip"
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
PAST = "Thu, 01 Jan 2015 00:00:00 GMT"

# Features that not every store has.
SIGNED = "signed"  # URLs carry a signature and expire
CONDITIONS = "conditions"  # If-Match and If-Unmodified-Since are obeyed
TOTAL = "total"  # a 416 tells the size
EXACT = "exact"  # a range of one byte has one byte


class Served(Protocol):
    """A store that is running."""

    features: frozenset[str]

    def url(self, key: str = KEY, *, expires_in: int = 3600) -> str:
        """A URL of an object, good for so many seconds."""
        ...


@dataclass(frozen=True)
class Case:
    """One request and its answer.

    Attributes:
        name: What it shows.
        headers: The headers of the request; ``{etag}`` stands for the object's.
        status: The status of the answer.
        span: The bytes in the body; None for the body of an error.
        content_range: The ``Content-Range`` of the answer.
        code: The code in the body of the error, as S3 has it.
        key: The object.
        expires_in: How long the URL is good for, in seconds.
        spoilt: What in the URL is replaced by what.
        needs: Features the store must have.
    """

    name: str
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    span: tuple[int, int] | None = None
    content_range: str | None = None
    code: str | None = None
    key: str = KEY
    expires_in: int = 3600
    spoilt: tuple[str, str] | None = None
    needs: frozenset[str] = frozenset()


def part(name: str, text: str, start: int, stop: int, *needs: str) -> Case:
    return Case(
        name,
        {"Range": f"bytes={text}"},
        206,
        (start, stop),
        f"bytes {start}-{stop - 1}/{SIZE}",
        needs=frozenset(needs),
    )


CASES = [
    Case("the whole", span=(0, SIZE)),
    part("the first bytes", "0-9", 0, 10),
    part("the first byte", "0-0", 0, 1, EXACT),
    part("the last byte", f"{SIZE - 1}-", SIZE - 1, SIZE),
    part("a range in the middle", "1000-200999", 1000, 201_000),
    part("from somewhere to the end", "123456-", 123_456, SIZE),
    part("more than there is", f"299990-{SIZE + 1000}", 299_990, SIZE),
    Case("behind the end", {"Range": f"bytes={SIZE}-"}, 416),
    Case(
        "behind the end, with the size",
        {"Range": f"bytes={SIZE}-"},
        416,
        content_range=f"bytes */{SIZE}",
        needs=frozenset({TOTAL}),
    ),
    Case("the same object", {"If-Match": "{etag}"}, span=(0, SIZE)),
    Case(
        "a range of the same object",
        {"If-Match": "{etag}", "Range": "bytes=5-9"},
        206,
        (5, 10),
        f"bytes 5-9/{SIZE}",
    ),
    Case("another object", {"If-Match": '"other"'}, 412, needs=frozenset({CONDITIONS})),
    Case(
        "a range of another object",
        {"If-Match": '"other"', "Range": "bytes=5-9"},
        412,
        needs=frozenset({CONDITIONS}),
    ),
    Case(
        "another object, by its date",
        {"If-Unmodified-Since": PAST},
        412,
        needs=frozenset({CONDITIONS}),
    ),
    Case("an empty object", span=(0, 0), key=EMPTY),
    Case("nothing there", status=404, key="org/run 1/none.zip"),
    Case(
        "nothing there, in the words of S3",
        status=404,
        code="NoSuchKey",
        key="org/run 1/none.zip",
        needs=frozenset({SIGNED}),
    ),
    Case(
        "an expired URL",
        status=403,
        code="AccessDenied",
        expires_in=-10,
        needs=frozenset({SIGNED}),
    ),
    Case(
        "a wrong signature",
        status=403,
        code="SignatureDoesNotMatch",
        spoilt=(r"Signature=(?:%..|\w)", "Signature=."),
        needs=frozenset({SIGNED}),
    ),
    Case(
        "the URL of another object",
        status=403,
        code="SignatureDoesNotMatch",
        spoilt=("out%2Bput", "put%2Bout"),
        needs=frozenset({SIGNED}),
    ),
    Case(
        "a second authorization",
        {"Authorization": "Bearer token"},
        400,
        code="InvalidArgument",
        needs=frozenset({SIGNED}),
    ),
]


def spoil(case: Case, url: str) -> str:
    """`url` as the case wants it."""
    if case.spoilt is None:
        return url
    spoilt = re.sub(*case.spoilt, url)
    assert spoilt != url
    return spoilt
