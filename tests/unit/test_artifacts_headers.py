"""What headers and URLs of a store say: objects, checksums, file names, redirects."""

from __future__ import annotations

import base64
import hashlib

import pytest

from amigo_async.protocol.ranges import (
    Checksum,
    ObjectInfo,
    conditions,
    difference,
    is_chunked,
    read_length,
    read_object,
)
from amigo_async.protocol.urls import (
    UnsafeLinkError,
    check_link,
    redirect_target,
    safe_name,
    safe_segment,
)

MD5 = hashlib.md5(b"x", usedforsecurity=False).hexdigest()
SHA256 = hashlib.sha256(b"x")
SHA256_HEADER = base64.b64encode(SHA256.digest()).decode()
S3 = {"x-amz-request-id": "1"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({**S3, "etag": f'"{MD5}"'}, Checksum("md5", MD5)),
        ({**S3, "etag": f'"{MD5.upper()}"'}, Checksum("md5", MD5)),
        ({**S3, "etag": f'"{MD5}-3"'}, None),
        ({**S3, "etag": f'W/"{MD5}"'}, None),
        ({**S3, "etag": MD5}, None),
        ({"etag": f'"{MD5}"'}, None),  # not S3: who knows what these 32 digits are
        ({**S3, "etag": f'"{MD5}"', "x-amz-server-side-encryption": "aws:kms"}, None),
        (
            {**S3, "etag": f'"{MD5}"', "x-amz-server-side-encryption": "AES256"},
            Checksum("md5", MD5),
        ),
        (
            {"etag": f'"{MD5}"', "x-amz-server-side-encryption-customer-algorithm": "AES256"},
            None,
        ),
        ({"x-amz-checksum-sha256": SHA256_HEADER}, Checksum("sha256", SHA256.hexdigest())),
        (
            {**S3, "etag": f'"{MD5}"', "x-amz-checksum-sha256": SHA256_HEADER},
            Checksum("sha256", SHA256.hexdigest()),
        ),
        ({"x-amz-checksum-crc32": "AAAAAQ=="}, Checksum("crc32", "00000001")),
        ({"x-amz-checksum-crc32": "AAAAAQ==-2"}, None),
        ({"x-amz-checksum-crc32": "AAAAAQ==", "x-amz-checksum-type": "COMPOSITE"}, None),
        (
            {"x-amz-checksum-crc32": "AAAAAQ==", "x-amz-checksum-type": "FULL_OBJECT"},
            Checksum("crc32", "00000001"),
        ),
        ({"x-amz-checksum-crc32": "AAAA"}, None),  # base64, but not of four bytes
        ({"x-amz-checksum-crc32c": "AAAAAQ=="}, None),  # not one the standard library has
        ({}, None),
    ],
)
def test_checksum_of_a_whole_object(headers: dict[str, str], expected: Checksum | None) -> None:
    assert read_object(headers, partial=False).checksum == expected


def test_part_has_etag_but_no_checksum() -> None:
    headers = {"content-range": "bytes 0-4/10", "x-amz-checksum-sha256": SHA256_HEADER}
    assert read_object(headers, partial=True).checksum is None
    everything = {**headers, "content-range": "bytes 0-9/10"}
    assert read_object(everything, partial=True).checksum is not None
    with_md5 = read_object({**headers, "etag": f'"{MD5}"'}, partial=True)
    assert with_md5.checksum == Checksum("md5", MD5)
    assert with_md5.size == 10


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ({"content-length": "12"}, 12),
        ({"content-length": " 0 "}, 0),
        ({"content-length": "-1"}, None),
        ({"content-length": "1, 1"}, None),
        ({"content-length": "\u0661"}, None),
        ({"content-length": "12", "transfer-encoding": "Chunked"}, None),
        ({}, None),
    ],
)
def test_the_length_of_a_body(headers: dict[str, str], length: int | None) -> None:
    assert read_length(headers) == length
    assert is_chunked(headers) == ("transfer-encoding" in headers)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (ObjectInfo(etag='"a"', last_modified="D"), {"If-Match": '"a"'}),
        (ObjectInfo(etag='W/"a"', last_modified="D"), {"If-Unmodified-Since": "D"}),
        (ObjectInfo(last_modified="D"), {"If-Unmodified-Since": "D"}),
        (ObjectInfo(etag='W/"a"'), {}),
        (ObjectInfo(), {}),
    ],
)
def test_conditions_name_the_object(info: ObjectInfo, expected: dict[str, str]) -> None:
    assert conditions(info) == expected
    assert info.recognizable == (info.etag is not None or info.last_modified is not None)


OLD = ObjectInfo(10, '"a"', "D1")
WEAK = ObjectInfo(10, 'W/"a"', "D1")


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (OLD, OLD, True),
        (OLD, ObjectInfo(11, '"a"', "D1"), False),
        (OLD, ObjectInfo(None, '"a"', "D1"), True),
        (OLD, ObjectInfo(10, '"b"', "D1"), False),
        (OLD, ObjectInfo(10, '"a"', "D2"), True),  # a strong ETag settles it
        (OLD, ObjectInfo(10), True),  # it said yes to If-Match
        (WEAK, WEAK, True),
        (WEAK, ObjectInfo(10, 'W/"a"', "D2"), False),
        (WEAK, ObjectInfo(10, 'W/"b"', "D1"), False),
        (ObjectInfo(10, None, "D1"), ObjectInfo(10, None, "D2"), False),
        (ObjectInfo(10), ObjectInfo(10), True),
    ],
)
def test_a_changed_object_is_noticed(old: ObjectInfo, new: ObjectInfo, same: bool) -> None:
    assert (difference(old, new) is None) == same


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/bucket/org/run/results.zip", "results.zip"),
        ("/results.json.gz", "results.json.gz"),
        ("/a/my%20run%C3%A9.zip", "my runé.zip"),
        ("/a/%2e%2e", "artifacts-r1"),
        ("/a/..", "artifacts-r1"),
        ("/a/", "artifacts-r1"),
        ("", "artifacts-r1"),
        ("/a/x%2F..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("/a/x%5C..%5Cevil.zip", "evil.zip"),
        ("/a/.bashrc", "bashrc"),
        ("/a/CON", "_CON"),
        ("/a/con.zip", "_con.zip"),
        ("/a/Lpt9.txt", "_Lpt9.txt"),
        ("/a/com%C2%B9.txt", "_com¹.txt"),
        ("/a/aux%20.txt", "_aux .txt"),
        ("/a/console.zip", "console.zip"),
        ("/a/x%00y%0a.zip", "x_y_.zip"),
        ("/a/%E2%80%AEgpj.exe", "_gpj.exe"),
        ("/a/a%3Ab%7Cc%3F.zip", "a_b_c_.zip"),
        ("/a/-rf", "_-rf"),
        ("/a/~root", "_~root"),
        ("/a/x.zip.%20.", "x.zip"),
        ("/a/x.part", "x.part_"),
        ("/a/x.PART.JSONL", "x.PART.JSONL_"),
        ("/a/%FF.zip", "\ufffd.zip"),
        ("/a/e%CC%81.zip", "é.zip"),
    ],
)
def test_a_file_name_from_a_key(path: str, expected: str) -> None:
    url = f"https://store.example{path}?X-Amz-Signature=../../evil"
    assert safe_name(url, "artifacts-r1") == expected


def test_long_name_keeps_its_suffix() -> None:
    name = safe_name(f"https://s/{'é' * 300}.zip", "x")
    assert name.endswith("é.zip")
    assert len(name.encode()) <= 200
    assert len(safe_name(f"https://s/{'x' * 300}", "x")) == 200
    assert len(safe_name(f"https://s/a.{'x' * 300}", "x")) == 200


def test_a_fallback_is_made_safe_too() -> None:
    assert safe_name("https://s/", "a/b") == "a_b"
    assert safe_name("https://s/", "..") == "artifacts"


@pytest.mark.parametrize(
    ("run_id", "expected"),
    [
        ("5f1e0c1d7ab3482694d8e7f6", "5f1e0c1d7ab3482694d8e7f6"),
        ("6618791275130b73714e8d9h", "6618791275130b73714e8d9h"),
        ("../../evil", "_.._evil"),
        ("a/b", "a_b"),
        ("..", "_"),
        ("con", "_con"),
        ("", "_"),
    ],
)
def test_id_as_a_folder_name(run_id: str, expected: str) -> None:
    assert safe_segment(run_id) == expected


@pytest.mark.parametrize(
    ("url", "allow_http", "ok"),
    [
        ("https://s.example/k?q", False, True),
        ("http://s.example/k?q", False, False),
        ("http://s.example/k?q", True, True),
        ("https://s.example/k?q", True, True),
        ("ftp://s.example/k", True, False),
        ("file:///etc/passwd", True, False),
        ("https:///k", True, False),
        ("https://u:p@s.example/k", True, False),
        ("https://s.example:port/k", True, False),
        ("https://[::1/k", True, False),
        ("", True, False),
    ],
)
def test_which_urls_may_be_asked(url: str, allow_http: bool, ok: bool) -> None:
    if ok:
        check_link(url, allow_http=allow_http)
        return
    with pytest.raises(UnsafeLinkError) as caught:
        check_link(url, allow_http=allow_http)
    assert "s.example" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "location", "expected"),
    [
        ("https://a.example/k?secret", "https://b.example/l?new", "https://b.example/l?new"),
        ("https://a.example/k?secret", "/other", "https://a.example/other"),
        ("https://a.example/b/k?secret", "x%2Fy", "https://a.example/b/x%2Fy"),
        ("https://a.example/k?secret", "https://b.example/l", "https://b.example/l"),
        ("http://a.example/k?secret", "http://b.example/l", "http://b.example/l"),
        ("http://a.example/k?secret", "https://b.example/l", "https://b.example/l"),
        ("https://a.example/k?secret", "http://a.example/k", None),
        ("https://a.example/k?secret", "HTTP://a.example/k", None),
        ("https://a.example/k?secret", "ftp://a.example/k", None),
        ("https://a.example/k?secret", "https://[::1/k", None),
    ],
)
def test_where_a_redirect_may_lead(url: str, location: str, expected: str | None) -> None:
    if expected is not None:
        target = redirect_target(url, location, allow_http=True)
        assert target == expected
        return
    with pytest.raises(UnsafeLinkError) as caught:
        redirect_target(url, location, allow_http=True)
    assert "secret" not in str(caught.value)


def test_redirect_shown_without_query() -> None:
    target = redirect_target("https://a/k", "https://b.example/l?token=t0ken", allow_http=False)
    assert "t0ken" not in repr(target)
