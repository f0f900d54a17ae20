"""The next request and the meaning of its answer, as tables over the pure functions."""

from __future__ import annotations

from typing import Any

import pytest

from amigo_async.artifacts.plan import (
    Body,
    Changed,
    Complete,
    Failed,
    Interpretation,
    LinkRefused,
    Missing,
    Rangeless,
    Reading,
    Retry,
    Unmatched,
    Unprovable,
    judge,
    next_request,
)
from amigo_async.protocol.ranges import Checksum, ObjectInfo

KNOWN = ObjectInfo(10, '"a"', "D1")
WEAK = ObjectInfo(10, 'W/"a"', "D1")
UNSIZED = ObjectInfo(None, '"a"', "D1")
UNSIZED_WEAK = ObjectInfo(None, 'W/"a"', "D1")


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (Reading(), {}),
        (Reading(stop=4), {"Range": "bytes=0-3"}),
        (Reading(KNOWN), {"If-Match": '"a"'}),
        (Reading(KNOWN, 3), {"Range": "bytes=3-", "If-Match": '"a"'}),
        (Reading(KNOWN, 3, 6), {"Range": "bytes=3-5", "If-Match": '"a"'}),
        (Reading(KNOWN, 3, 10), {"Range": "bytes=3-", "If-Match": '"a"'}),
        (Reading(KNOWN, 3, by_date=True), {"Range": "bytes=3-", "If-Unmodified-Since": "D1"}),
        (Reading(WEAK, 3), {"Range": "bytes=3-", "If-Unmodified-Since": "D1"}),
        (Reading(UNSIZED, 0, ended=True), {"Range": "bytes=0-", "If-Match": '"a"'}),
        (Reading(stop=4, unranged=True), {}),
        (Reading(KNOWN, 3, 6, unranged=True), {"If-Match": '"a"'}),
        (Reading(UNSIZED, 3, ended=True, unranged=True), {"If-Match": '"a"'}),
    ],
)
def test_next_request(reading: Reading, expected: dict[str, str]) -> None:
    assert next_request(reading) == expected


@pytest.mark.parametrize(
    ("reading", "done"),
    [
        (Reading(), False),
        (Reading(stop=0), False),  # nothing is known yet
        (Reading(KNOWN, 9), False),
        (Reading(KNOWN, 10), True),
        (Reading(KNOWN, 6, 6), True),
        (Reading(KNOWN, 10, 20), True),
        (Reading(UNSIZED, 10), False),
        (Reading(UNSIZED, 10, 10), True),
        (Reading(ObjectInfo(0)), True),
    ],
)
def test_reading_is_done(reading: Reading, done: bool) -> None:
    assert reading.done == done


def headers(**fields: Any) -> dict[str, str]:
    base = {"etag": '"a"', "last-modified": "D1"}
    changes = {name.replace("_", "-"): value for name, value in fields.items()}
    merged = {**base, **changes}
    return {name: str(value) for name, value in merged.items() if value is not None}


def body(
    info: ObjectInfo, skip: int, end: int | None, *, whole: bool, marked: bool = False
) -> Body:
    return Body(info=info, skip=skip, end=end, marked=marked, whole=whole)


REFUSED = "the store answered 416"
ANOTHER = "the store has another one now"
PART = headers(content_range="bytes 3-9/10")

CASES: list[tuple[str, Reading, int, dict[str, str], Interpretation]] = [
    ("the whole", Reading(), 200, headers(content_length=10), body(KNOWN, 0, 10, whole=True)),
    ("the whole, unmeasured", Reading(), 200, headers(), body(UNSIZED, 0, None, whole=True)),
    (
        "the whole, chunked",
        Reading(),
        200,
        headers(transfer_encoding="chunked"),
        body(UNSIZED, 0, None, whole=True, marked=True),
    ),
    (
        "the whole for a range",
        Reading(KNOWN, 3),
        200,
        headers(content_length=10),
        body(KNOWN, 3, 10, whole=True),
    ),
    (
        "the whole of another one, by ETag",
        Reading(KNOWN, 3),
        200,
        headers(content_length=10, etag='"b"'),
        Changed("its ETag changed"),
    ),
    (
        "the whole of another one, by size",
        Reading(KNOWN, 3),
        200,
        headers(content_length=11),
        Changed("its size went from 10 to 11 bytes"),
    ),
    (
        "the whole where the end was asked for",
        Reading(UNSIZED, 10, ended=True),
        200,
        headers(),
        Unprovable("the body has no length, and the store no ranges to ask for its end"),
    ),
    ("the rest", Reading(KNOWN, 3), 206, PART, body(KNOWN, 0, 10, whole=False)),
    (
        "less than the rest",
        Reading(KNOWN, 3),
        206,
        headers(content_range="bytes 3-4/10"),
        body(KNOWN, 0, 5, whole=False),
    ),
    (
        "all of it as a range",
        Reading(stop=99),
        206,
        headers(content_range="bytes 0-9/10"),
        body(KNOWN, 0, 10, whole=True),
    ),
    (
        "a range without a total",
        Reading(UNSIZED, 3),
        206,
        headers(content_range="bytes 3-4/*"),
        body(UNSIZED, 0, 5, whole=False),
    ),
    (
        "a range without the total that is known",
        Reading(KNOWN, 3),
        206,
        headers(content_range="bytes 3-4/*"),
        body(KNOWN, 0, 5, whole=False),
    ),
    (
        "a range of another date, and the same strong ETag",
        Reading(KNOWN, 3),
        206,
        headers(content_range="bytes 3-9/10", last_modified="D2"),
        body(KNOWN, 0, 10, whole=False),
    ),
    (
        "a range that tells the total",
        Reading(UNSIZED, 3),
        206,
        PART,
        body(KNOWN, 0, 10, whole=False),
    ),
    (
        "a range without an ETag",
        Reading(KNOWN, 3),
        206,
        headers(content_range="bytes 3-9/10", etag=None, last_modified=None),
        body(KNOWN, 0, 10, whole=False),
    ),
    (
        "a range too early",
        Reading(KNOWN, 3),
        206,
        headers(content_range="bytes 2-9/10"),
        Rangeless("asked for bytes from 3, the store answered from 2"),
    ),
    (
        "a range too late",
        Reading(KNOWN, 3),
        206,
        headers(content_range="bytes 4-9/10"),
        Rangeless("asked for bytes from 3, the store answered from 4"),
    ),
    (
        "a range that is not said",
        Reading(KNOWN, 3),
        206,
        headers(content_type="multipart/byteranges"),
        Rangeless("the store answered 206 without a range that can be read"),
    ),
    (
        "the whole where ranges were wrong",
        Reading(KNOWN, 3, 6, unranged=True),
        200,
        headers(content_length=10),
        body(KNOWN, 3, 10, whole=True),
    ),
    (
        "the whole as a range, where ranges were wrong",
        Reading(KNOWN, 3, unranged=True),
        206,
        headers(content_range="bytes 0-9/10"),
        body(KNOWN, 3, 10, whole=True),
    ),
    (
        "a range where ranges were wrong",
        Reading(KNOWN, 3, unranged=True),
        206,
        PART,
        Retry("asked for bytes from 0, the store answered from 3"),
    ),
    (
        "no range that is said, where ranges were wrong",
        Reading(KNOWN, 3, unranged=True),
        206,
        headers(),
        Retry("the store answered 206 without a range that can be read"),
    ),
    (
        "a range of another one, by ETag",
        Reading(KNOWN, 3),
        206,
        headers(content_range="bytes 3-9/10", etag='"b"'),
        Changed("its ETag changed"),
    ),
    (
        "a range of another one, by size",
        Reading(KNOWN, 3),
        206,
        headers(content_range="bytes 3-9/11"),
        Changed("its size went from 10 to 11 bytes"),
    ),
    (
        "a range of another one, by date",
        Reading(WEAK, 3),
        206,
        headers(content_range="bytes 3-9/10", etag=None, last_modified="D2"),
        Changed("it was modified"),
    ),
    (
        "a first range that contradicts itself",  # what s3rver answers for an empty object
        Reading(stop=4),
        206,
        headers(content_range="bytes 0-0/0"),
        Rangeless("the store answered 206 without a range that can be read"),
    ),
    (
        "a range unasked, that is not said",
        Reading(),
        206,
        headers(),
        Retry("the store answered 206 without a range that can be read"),
    ),
    ("no such range, at first", Reading(stop=4), 416, headers(), Rangeless(REFUSED)),
    ("no such range, unasked", Reading(), 416, headers(), Failed("the store answered 416")),
    (
        "nothing more, with the total",
        Reading(UNSIZED_WEAK, 10, ended=True),
        416,
        {"content-range": "bytes */10"},
        Complete(WEAK),
    ),
    (
        "nothing more, without a total, of the same object",
        Reading(UNSIZED, 10, ended=True),
        416,
        {},
        Complete(KNOWN),
    ),
    (
        "nothing more, without a total, of who knows what",
        Reading(UNSIZED_WEAK, 10, ended=True),
        416,
        {},
        Retry("the store has no byte 10, which there must be"),
    ),
    (
        "it shrank",
        Reading(UNSIZED, 10, ended=True),
        416,
        {"content-range": "bytes */8"},
        Changed("it has 8 bytes now, 10 were read"),
    ),
    (
        "it grew, and yet there is nothing",
        Reading(UNSIZED, 10, ended=True),
        416,
        {"content-range": "bytes */12"},
        Retry("the store has no byte 10, which there must be"),
    ),
    (
        "nothing where there must be something",
        Reading(KNOWN, 3),
        416,
        {"content-range": "bytes */10"},
        Retry("the store has no byte 3, which there must be"),
    ),
    (
        "another size",
        Reading(KNOWN, 3),
        416,
        {"content-range": "bytes */2"},
        Changed("its size went from 10 to 2 bytes"),
    ),
    ("another one, or the same with a weak ETag", Reading(KNOWN, 3), 412, {}, Unmatched()),
    (
        "another one, by the date",
        Reading(KNOWN, 3, by_date=True),
        412,
        {},
        Changed("the store has another one now"),
    ),
    (
        "another one than the one without a date",
        Reading(ObjectInfo(10, '"a"'), 3),
        412,
        {},
        Changed("the store has another one now"),
    ),
    ("another one than the weak one", Reading(WEAK, 3), 412, {}, Changed(ANOTHER)),
    (
        "the same, its ETag weakened",
        Reading(KNOWN, 3),
        206,
        headers(content_range="bytes 3-9/10", etag='W/"a"'),
        body(KNOWN, 0, 10, whole=False),
    ),
    (
        "the same, its ETag strong again",
        Reading(WEAK, 3),
        206,
        headers(content_range="bytes 3-9/10"),
        body(WEAK, 0, 10, whole=False),
    ),
    (
        "a weakened ETag, of another date",
        Reading(KNOWN, 3),
        206,
        headers(content_range="bytes 3-9/10", etag='W/"a"', last_modified="D2"),
        Changed("its ETag changed"),
    ),
    (
        "a weakened ETag, of no date",
        Reading(ObjectInfo(10, '"a"'), 3),
        206,
        headers(content_range="bytes 3-9/10", etag='W/"a"', last_modified=None),
        Changed("its ETag changed"),
    ),
    (
        "a weakened ETag, of an unknown size",
        Reading(UNSIZED, 3),
        206,
        headers(content_range="bytes 3-9/*", etag='W/"a"'),
        Changed("its ETag changed"),
    ),
    (
        "another weak ETag",
        Reading(KNOWN, 3),
        206,
        headers(content_range="bytes 3-9/10", etag='W/"b"'),
        Changed("its ETag changed"),
    ),
    (
        "no ETag any more where the date was to tell",
        Reading(KNOWN, 3, by_date=True),
        206,
        headers(content_range="bytes 3-9/10", etag=None),
        Changed("the ETag it had is gone"),
    ),
    (
        "nothing more, without a total, of the same date",
        Reading(UNSIZED, 10, ended=True, by_date=True),
        416,
        {},
        Retry("the store has no byte 10, which there must be"),
    ),
    (
        "more that is said of the same object: the first word counts",
        Reading(ObjectInfo(10, '"a"', "D1", "text/a", Checksum("crc32", "00000001"))),
        200,
        headers(
            content_length=10,
            content_type="text/b",
            x_amz_checksum_crc32="AAAAAg==",
        ),
        body(
            ObjectInfo(10, '"a"', "D1", "text/a", Checksum("crc32", "00000001")),
            0,
            10,
            whole=True,
        ),
    ),
    (
        "what was not said before",
        Reading(ObjectInfo(10)),
        200,
        headers(content_length=10, content_type="text/b", x_amz_checksum_crc32="AAAAAg=="),
        body(
            ObjectInfo(10, '"a"', "D1", "text/b", Checksum("crc32", "00000002")),
            0,
            10,
            whole=True,
        ),
    ),
    ("412 to no condition", Reading(), 412, {}, Failed("the store answered 412")),
    ("expired", Reading(), 403, {}, LinkRefused("the store answered 403")),
    ("not signed", Reading(), 401, {}, LinkRefused("the store answered 401")),
    ("credentials expired", Reading(KNOWN, 3), 400, {}, LinkRefused("the store answered 400")),
    ("not there, or not yet", Reading(), 404, {}, Missing("the store answered 404")),
    ("not there any more", Reading(KNOWN, 3), 404, {}, Missing("the store answered 404")),
    ("gone", Reading(), 410, {}, Failed("the store answered 410")),
    ("elsewhere", Reading(), 301, {}, Failed("the store answered 301")),
    ("not modified", Reading(), 304, {}, Failed("the store answered 304")),
    ("too many", Reading(), 429, {"retry-after": "7"}, Retry("the store answered 429", 7.0)),
    ("slow down", Reading(), 503, {"retry-after": "1.5"}, Retry("the store answered 503", 1.5)),
    ("broken", Reading(KNOWN, 3), 500, {}, Retry("the store answered 500")),
    ("timed out there", Reading(), 408, {}, Retry("the store answered 408")),
]


@pytest.mark.parametrize(
    ("reading", "status", "given", "verdict"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_meaning_of_an_answer(
    reading: Reading, status: int, given: dict[str, str], verdict: Interpretation
) -> None:
    assert judge(reading, status, given) == verdict
