"""Whatever a server, a store, a disk or a user gives: only our errors come out, in bounds."""

from __future__ import annotations

import asyncio
import copy
import gzip
import io
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amigo_async import AmigoClient, BearerAuth, report
from amigo_async.artifacts.record import ResumeRecord
from amigo_async.batch.journal import Finished, JournalHeader, open_journal
from amigo_async.cli import listing
from amigo_async.cli.summary import console_of
from amigo_async.decoding import decode_run_page, decode_sign_in
from amigo_async.errors import (
    APIError,
    ArgumentError,
    ArtifactError,
    DecodeError,
    JournalError,
    NotFoundError,
    ServiceUnavailableError,
    TransportError,
    ValidationError,
)
from amigo_async.models import LLMConfig
from amigo_async.names import Names
from amigo_async.protocol import ranges, requests, responses
from amigo_async.protocol import ranges as objects
from amigo_async.protocol import urls as links
from amigo_async.protocol import urls as names
from amigo_async.verdicts.tally import tally
from tests.unit.artifacts.test_http import Server
from tests.unit.fake_runs import run_id, some_run
from tests.unit.fuzz import targets

pytestmark = pytest.mark.anyio

KIB, MIB = 1024, 1024 * 1024
# Each example of these makes reports, or a loop of its own.
SLOW = {"page": 15, "written_report": 15, "told": 25, "link": 25, "sign_in": 25, "created": 25}


def given_to(name: str) -> st.SearchStrategy[bytes]:
    """What is usual with parts of it replaced or cut off, and anything at all."""
    seeds = st.sampled_from(targets.SEEDS.get(name, [b"\xff"]))
    return st.one_of(
        st.builds(targets.spliced, seeds, st.binary(max_size=6)),
        st.builds(lambda orders: b"\xff" + orders, st.binary(min_size=2, max_size=6)),
        st.builds(lambda seed, at: seed[:at] + seed[at + 1 :], seeds, st.integers(0, 80)),
        st.binary(max_size=60),
    )


@pytest.mark.parametrize("name", targets.TARGETS)
def test_only_our_errors_come_out(name: str) -> None:
    target = targets.TARGETS[name]
    for seed in (b"", b"\xff", *targets.SEEDS.get(name, [])):
        target(seed)

    @settings(max_examples=SLOW.get(name, settings().max_examples))
    @given(given_to(name))
    def try_out(data: bytes) -> None:
        target(data)

    try_out()


# What was found, and what comes of it now.


@contextmanager
def peak(most: float) -> Iterator[None]:
    """Fail where more than `most` bytes were allocated at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= most
    finally:
        tracemalloc.stop()


def head(status: int, length: int | None, *more: str) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return "\r\n".join([f"HTTP/1.1 {status} X", size, *more, "", ""]).encode()


def chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def answer(body: bytes, status: int = 200, *more: str) -> bytes:
    return head(status, len(body), *more) + body


def page_body(*runs: Any, padding: int = 0) -> bytes:
    page = {"has_more": False, "continuation_token": None, "filter_values": None}
    told = msgspec.json.encode({"simulation_unit_test_set_runs": runs, **page})
    return told[:-1] + b" " * padding + b"}"


@asynccontextmanager
async def client_of(server: Server, **more: Any) -> AsyncIterator[AmigoClient]:
    defaults: dict[str, Any] = {"max_attempts": 3, "max_response_bytes": MIB}
    async with (
        server.running(),
        AmigoClient(
            auth=BearerAuth("t0ken", user_id="user-1"),
            organization_id="acme",
            base_url=f"http://127.0.0.1:{server.port}",
            **(defaults | more),
        ) as client,
    ):
        yield client


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "deflate": zlib.compress,
    "gzip": gzip.compress,
    "GZip": gzip.compress,
}
BIG = page_body(padding=2 * MIB)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(answer(BIG), id="as it is"),
        pytest.param(head(200, None) + chunked(BIG), id="chunked"),
        pytest.param(head(200, None) + chunked(BIG)[:-7], id="without end"),
        *(
            pytest.param(answer(pack(BIG), 200, f"Content-Encoding: {name}"), id=name)
            for name, pack in PACKED.items()
        ),
    ],
)
async def test_body_beyond_the_limit(sent: bytes) -> None:
    server = Server(sent)
    async with client_of(server) as client:
        with pytest.raises(DecodeError, match=r"1048576 bytes; .*max_response_bytes") as caught:
            await client.runs.list()
        assert caught.value.lasting
        assert len(caught.value.body) <= 16_384
        assert len(server.heads) == 1, "it was asked for again"
        if b"Content-Encoding" not in sent:  # one that has come to its end is used again
            while not server.closed:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("order", [1, -1])
async def test_false_length_does_not_lift_limit(
    order: int,
) -> None:
    fields = ["Content-Length: 5", "Transfer-Encoding: chunked"][::order]
    both = "\r\n".join(["HTTP/1.1 200 X", *fields, "", ""]).encode()
    server = Server(both + chunked(BIG))
    async with client_of(server, max_attempts=1) as client:
        with peak(4 * MIB), pytest.raises((TransportError, DecodeError)):
            await client.runs.list()


HEADS = {
    "no status": b"nonsense\r\n\r\n",
    "no digits": b"HTTP/1.1 abc OK\r\n\r\n",
    "a status beyond": b"HTTP/1.1 99999 OK\r\n\r\n",
    "no line end": b"HTTP/1.1 200 " + b"O" * 100_000,
    "a long header": head(200, 2, "X: " + "y" * 100_000) + b"{}",
    "headers without end": head(200, 2, *(f"X-{n}: y" for n in range(50_000))) + b"{}",
    "a length beyond": head(200, 10**30) + b"{}",
    "a length of many digits": head(200, int("9" * 4000)) + b"{}",
    "a chunk beyond": head(200, None) + b"F" * 40 + b"\r\n{}",
    "a trailer without end": head(200, None) + b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 50_000,
    "an encoding of another kind": answer(b"{}", 200, "Content-Encoding: br, \xff, gzip"),
    "a charset that is none": answer(b"{}", 200, "Content-Type: text/\xff; charset=utf-\xff"),
}


@pytest.mark.parametrize("sent", HEADS.values(), ids=HEADS)
async def test_broken_http(sent: bytes) -> None:
    async with client_of(Server(sent + Server.CLOSE), max_attempts=1) as client:
        with peak(32 * MIB), pytest.raises((TransportError, DecodeError)):
            await client.runs.list()


@pytest.mark.parametrize("pack", [None, *PACKED])
async def test_body_up_to_the_limit(pack: str | None) -> None:
    body = page_body(padding=300 * KIB)
    sent = answer(PACKED[pack](body), 200, f"Content-Encoding: {pack}") if pack else answer(body)
    server = Server(sent, sent)
    async with client_of(server, max_response_bytes=len(body)) as client:
        assert (await client.runs.list()).simulation_unit_test_set_runs == []
        await client.runs.list()
        assert server.closed == 0, "the connection was not used again"
    assert "accept-encoding: gzip\r\n" in server.heads[0].lower()


async def test_bomb_is_bounded() -> None:
    bomb = gzip.compress(b" " * (64 * MIB), 9)
    server = Server(answer(bomb, 200, "Content-Encoding: gzip"))
    async with client_of(server) as client:
        with peak(6 * MIB), pytest.raises(DecodeError):
            await client.runs.list()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"no gzip at all", "cannot be decompressed"),
        (gzip.compress(page_body())[:-9], "is incomplete"),
        (gzip.compress(page_body()) + b"more", "goes on after the end of the compressed data"),
    ],
    ids=["none", "cut", "more"],
)
async def test_broken_gzip_is_tried_again(body: bytes, said: str) -> None:
    broken = answer(body, 200, "Content-Encoding: gzip")
    server = Server(broken + Server.CLOSE, broken + Server.CLOSE)
    async with client_of(server, max_attempts=2) as client:
        with pytest.raises(DecodeError, match=said):
            await client.runs.list()
    assert len(server.heads) == 2


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (answer(b"x" * (3 * MIB), 503), ServiceUnavailableError),
        (head(404, None) + chunked(b"x" * (3 * MIB)), NotFoundError),
        (answer(b"no gzip", 404, "Content-Encoding: gzip"), NotFoundError),
        (answer(gzip.compress(b" " * (8 * MIB)), 404, "Content-Encoding: gzip"), NotFoundError),
    ],
    ids=["long", "chunked", "not packed", "bomb"],
)
async def test_error_body_is_cut(sent: bytes, kind: type[APIError]) -> None:
    server = Server(sent)
    async with client_of(server, max_attempts=1) as client:
        with pytest.raises(kind) as caught:
            await client.runs.list()
    assert len(caught.value.body) <= 16_384


async def test_start_with_too_large_an_answer() -> None:
    started = some_run(run_id(1), creator={"org_id": "acme", "user_id": "user-1"})
    started = msgspec.structs.replace(started, created_at=datetime(9000, 1, 1, tzinfo=UTC))
    server = Server(answer(b" " * (2 * MIB), 201), answer(page_body(started)))
    async with client_of(server) as client:
        created = await client.runs.create(run_id(0xABC))
    assert created.simulation_unit_test_set_run_id == run_id(1)
    assert [line.split()[0] for line in server.heads] == ["POST", "GET"]


TOKENS = ["a\r\nX-Evil: 1", "a\0", "", " ", "t\u00f6ken"]


@pytest.mark.parametrize("token", TOKENS)
def test_unsendable_token(token: str) -> None:
    body = json.dumps({"id_token": token, "expires_at": "2026-01-02T03:04:05Z"}).encode()
    with pytest.raises(msgspec.ValidationError, match="cannot be sent") as caught:
        decode_sign_in(body)
    assert "Evil" not in str(caught.value)


HOSTS = ["a..b", "." * 3, "a" * 64, "\u00e4\u202e", "a\x01", "a\\b", "h h", "[::1"]


@pytest.mark.parametrize("host", HOSTS)
def test_impossible_host(host: str) -> None:
    with pytest.raises(links.UnsafeLinkError, match="cannot be read"):
        links.check_link(f"https://{host}/a.zip", allow_http=False)


@pytest.mark.parametrize("url", ["http://[::1", "https://a..b/x.zip", "https://h\\@x/"])
async def test_download_from_no_url(url: str, tmp_path: Path) -> None:
    link = {"presigned_url": url, "url_expires_at": "9999-01-01T00:00:00Z"}
    async with client_of(Server(answer(json.dumps(link).encode()))) as client:
        with pytest.raises(ArtifactError, match="URL"):
            await client.artifacts.download(run_id(1), tmp_path)
    assert list(tmp_path.iterdir()) == []


NAMES = [
    *("..", "../../etc/passwd", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00b", "\0"),
    *("..\\..\\x", "C:\\x", "C:x", "CON", "con.txt", "NUL .zip", "COM\u00b9", "a.", "a ", "...a"),
    *("\u202egpj.exe", "a\u2066b", "a\u200fb", "\r\nx", "x" * 5000, "\U0001f600" * 300, "-rf", "~"),
    *("e\u0301" * 200, "a.part", "a.part.jsonl", "%ff%fe", "\ud800", "?", "a?b", "\uff0f", "a:b"),
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leaves_its_folder(name: str) -> None:
    targets.inside(names.safe_name(f"https://h/b/{name}", "fallback"))
    targets.inside(names.safe_name("https://h/", name))
    assert requests.check_id("run_id", run_id(1))
    with pytest.raises(ArgumentError):
        requests.check_id("run_id", name)


HEAD = {"run_id": run_id(1), "boot_id": "b", "info": {"size": 9, "etag": '"e"'}}


@pytest.mark.parametrize(
    "info",
    [
        {"checksum": {"algorithm": "sha999", "value": ""}},
        {"checksum": {"algorithm": "shake_128", "value": ""}},
        {"checksum": {"algorithm": "\0", "value": ""}},
        {"etag": '"\r\nX-Evil: 1"'},
        {"etag": None, "last_modified": "\0"},
    ],
)
def test_impossible_record_is_dropped(info: dict[str, Any], tmp_path: Path) -> None:
    told = {**HEAD, "info": {**HEAD["info"], **info}}  # type: ignore[dict-item]
    assert load(tmp_path, json.dumps(told).encode() + b"\n[0,5]\n") is None
    assert load(tmp_path, json.dumps(HEAD).encode() + b"\n[0,5]\n") is not None


@pytest.mark.parametrize("line", [b'"\xff"', b"[" * 5000, b'["a",1]', b"[5,1]", b"[0,1e99]"])
def test_record_used_up_to_a_bad_line(line: bytes, tmp_path: Path) -> None:
    whole = json.dumps(HEAD).encode() + b"\n[3,5]\n[0,3]\n" + line + b"\n[7,9]\n"
    received = load(tmp_path, whole)
    assert received is not None
    assert received.spans == [(0, 5)]
    assert load(tmp_path, line + b"\n[0,5]\n") is None
    nested = whole.replace(b'"b"', b'"b","x":' + b"[" * 5000 + b"]" * 5000)
    # Some Pythons bear that depth, in a field that nobody reads.
    assert load(tmp_path, nested) in (None, received)


def load(folder: Path, content: bytes) -> Any:
    record = ResumeRecord(folder / "a.part.jsonl", run_id(1))
    record._boot_id = "b"
    record.path.write_bytes(content)
    return record.load(9)


def test_many_ranges_are_joined_quickly() -> None:
    apart = [(at, at + 1) for at in range(0, 200_000, 2)]
    assert ranges.join_spans(reversed(apart)) == apart
    assert ranges.join_spans([*apart, (0, 200_000), (5, 5)]) == [(0, 200_000)]


@pytest.mark.parametrize("content", [b"one line", b'{"outcomes": []}', b"a\nb", b"\0" * 99])
async def test_foreign_file_is_no_journal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="line 1 is not a line of a journal"):
        async with open_journal(path, JournalHeader("https://h", "o")):
            pass
    assert path.read_bytes() == content


@pytest.mark.parametrize("text", [b'{"outcomes":["\xff"]}', b"[" * 99_999, '"\ud800"', b"", b"{}"])
def test_unreadable_report(text: str | bytes) -> None:
    deep = b'{"outcomes":[],"x":' + b"[" * 99_999 + b"]" * 99_999 + b"}"
    for each in (text, deep):
        with pytest.raises(msgspec.DecodeError):
            report.from_json(each)


@pytest.mark.parametrize("year", [1, 9999])
def test_edge_years_are_listed(year: int) -> None:
    zone = "+23:59" if year == 1 else "-23:59"
    edge = "-01-01T00:00:00" if year == 1 else "-12-31T23:59:59"
    run = some_run(run_id(1), created_at=datetime.fromisoformat(f"{year:04}{edge}{zone}"))

    table = listing._table([listing._Row.of(run)], Names(), console_of(io.StringIO()))
    assert table.row_count == 1


def hostile_page(seed: dict[str, Any]) -> bytes:
    return page_body({**targets.RUN, **seed})


@pytest.mark.parametrize("count", [10**9, 2**63, 10**30, -5])
def test_huge_run_count(count: int) -> None:
    spec = {**targets.SPEC, "run_count": count}
    body = hostile_page({"unit_test_run_specs": [spec]})
    (run,) = decode_run_page(body).simulation_unit_test_set_runs
    with peak(8 * MIB):
        tests = tally(run)
    assert tests[0].counts.missing > 0, "what was not seen must not pass"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_too_deep_criterion() -> None:
    spec = copy.deepcopy(targets.SPEC)
    spec["metrics_to_evaluate"][0]["success_criterion"] = {"type": "new", "of": nested(150)}
    page = decode_run_page(hostile_page({"unit_test_run_specs": [spec]}))
    (run,) = page.simulation_unit_test_set_runs
    assert run.unit_test_run_specs == []
    assert "too deeply" in page.unreadable[run.id]


async def test_too_deep_for_the_journal(tmp_path: Path) -> None:
    deep = LLMConfig("m", {"x": nested(50_000)})  # more than any Python bears
    (run,) = decode_run_page(hostile_page({})).simulation_unit_test_set_runs
    (spec,) = run.unit_test_run_specs
    spec = msgspec.structs.replace(spec, llm_model_preferences={"a": deep})
    run = msgspec.structs.replace(run, unit_test_run_specs=[spec])
    path = tmp_path / "batch.jsonl"
    async with open_journal(path, JournalHeader("https://h", "o")) as journal:
        before = path.read_bytes()
        with pytest.raises(JournalError, match="too deeply"):
            await journal.write(Finished(run_id(2), "passed", run, run.created_at))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"simulation_unit_test_set_runs":[' + b"[]," * 70_000 + b"[]]}",
        b'{"simulation_unit_test_set_runs":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"simulation_unit_test_set_runs":[],"has_more":' + b"9" * 200_000 + b"}",
        b'"' + b"\\u0041" * 40_000 + b'"',
        b"{" + b",".join(b'"k%d":0' % n for n in range(20_000)) + b"}",
    ],
    ids=["lists", "objects", "depth", "digits", "escapes", "keys"],
)
def test_memory_in_proportion_to_a_body(body: bytes) -> None:
    response = responses.Response(400, {}, body)
    with peak(30 * len(body) + 512 * KIB):
        assert targets.decoded(b"", decode_run_page, b"\0" + body) is None
    with peak(30 * len(body) + 512 * KIB):
        assert len(str(responses.api_error(requests.sign_in("acme"), response))) < 1000


@pytest.mark.parametrize("token", ["9223372036854775808", "9" * 4000, "0", "-1", "null"])
async def test_bad_cursor_ends_the_iteration(token: str) -> None:
    body = page_body(some_run(run_id(1))).replace(b'"has_more":false', b'"has_more":true')
    body = body.replace(b'_token":null', b'_token":' + token.encode())
    async with client_of(Server(answer(body))) as client:
        with pytest.raises(DecodeError, match="continuation_token is") as caught:
            [run async for run in client.runs.iterate()]
    assert len(str(caught.value)) < 300


def test_too_long_number() -> None:
    for number in (10**5000, -(10**5000), 2**63):
        with pytest.raises(ArgumentError, match="continuation_token must be"):
            requests.list_runs("acme", continuation_token=number)


def test_secret_in_a_header_name() -> None:
    response = responses.Response(400, {"X-hunter2hunter2": "a"}, b"")
    error = responses.api_error(requests.sign_in("acme"), response, ("hunter2hunter2",))
    assert "hunter2" not in str(error.headers)


def test_unsendable_etag() -> None:
    info = objects.read_object({"etag": '"\udcff"', "last-modified": "a\0"}, partial=False)
    assert (info.etag, info.last_modified) == (None, None)


def test_endless_titles() -> None:
    body = b"<title>" * 2000 + b"Bad Gateway</title>"
    error = responses.api_error(requests.sign_in("acme"), responses.Response(502, {}, body))
    assert error.detail == "Bad Gateway"


def test_endless_field_errors() -> None:
    body = json.dumps({"detail": [{"loc": [n], "msg": "m"} for n in range(50_000)]}).encode()
    error = responses.api_error(requests.sign_in("acme"), responses.Response(422, {}, body))
    assert isinstance(error, ValidationError)
    assert len(error.field_errors) == 100
