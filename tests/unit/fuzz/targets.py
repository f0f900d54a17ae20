"""What comes from outside, as functions of bytes, out of which only errors of ours may come.

Each target takes any bytes, makes of them what a server, a store, a disk or a user might give,
and hands it to the code that reads it. `python -m tests.unit.fuzz` drives them for as long as
wished, `test_hostile_input` for a moment.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import math
import os
import pickle
import re
import tempfile
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
import msgspec
from multidict import CIMultiDict
from yarl import URL

from amigo_async import report
from amigo_async.artifacts.plan import Body, Reading, judge, next_request
from amigo_async.artifacts.record import ResumeRecord, ResumeState
from amigo_async.auth import BearerAuth
from amigo_async.batch.journal import (
    Described,
    Explained,
    Finished,
    JournalHeader,
    Saved,
    Started,
    StartIntended,
    parse,
)
from amigo_async.batch.outcomes import BatchResult, RunOutcome
from amigo_async.cli import command, listing
from amigo_async.cli.reasons import amount_done, explain, gate_reasons, reasons
from amigo_async.cli.summary import console_of
from amigo_async.config import Configuration, configure
from amigo_async.decoding import (
    decode_artifacts_link,
    decode_created_run,
    decode_run_page,
    decode_sign_in,
)
from amigo_async.errors import ConfigurationError, DecodeError, JournalError
from amigo_async.events import Events
from amigo_async.models import (
    ArtifactsLink,
    CreatedRun,
    EvaluationResult,
    RunPage,
    SignIn,
    SimulationEvaluationSource,
)
from amigo_async.names import Names, unit_test_ids
from amigo_async.protocol import ranges, requests, responses
from amigo_async.protocol import ranges as objects
from amigo_async.protocol import urls as links
from amigo_async.protocol import urls as names
from amigo_async.protocol.headers import read_date, read_rate_limit, read_retry_after
from amigo_async.redact import MASK, redact
from amigo_async.resources.runs import RunCalls, Runs
from amigo_async.server_clock import ServerClock
from amigo_async.transport import Sender, Session
from amigo_async.transport.body import _BodyBuffer
from amigo_async.transport.session import _Call, _pause, _rate_limit
from amigo_async.transport.store import _path, _secrets
from amigo_async.verdicts.gate import Gate, passing_again, verdict_of
from tests.support import report_samples
from tests.unit.service import run

Target = Callable[[bytes], None]

RUN_ID: Final = "0123456789abcdef01234567"
AT: Final = "2026-01-02T03:04:05Z"
# One run with a criterion of each kind, and all else that a page has.
_SAMPLE: Final = report_samples.run(
    ("t-1", dict.fromkeys(report_samples.METRICS, "+-"), [None, "it broke"]),
    set_id=RUN_ID,
    run_id=RUN_ID,
)
RUN: Final[dict[str, Any]] = msgspec.to_builtins(_SAMPLE)
SPEC: Final[dict[str, Any]] = RUN["unit_test_run_specs"][0]
SPEC["llm_model_preferences"] = {"a": {"llm_name": "m", "params": {"t": 0.5}}}
SPEC["persona_version_info"] = None
RUN["unit_test_run_results"].append(None)
_PAGE: Final = {
    "simulation_unit_test_set_runs": [RUN],
    "has_more": True,
    "continuation_token": 50,
    "filter_values": {
        "creators": [RUN["creator"]],
        "simulation_unit_test_set_ids": [RUN_ID],
        "tags": ["t"],
    },
}
_LINK: Final = {
    "presigned_url": "https://s3.example/b/r.zip?X-Amz-Signature=0123456789abcdef0123",
    "url_expires_at": AT,
}
_OPENED: Final = JournalHeader("https://api.example", "acme")
_NOW: Final = datetime.fromisoformat(AT)
_EVALUATION: Final = EvaluationResult(
    *(RUN_ID, "acme", RUN_ID, 1, 2.0, "it did"),
    SimulationEvaluationSource(RUN_ID, RUN_ID, 0, ["m"]),
)
_JOURNAL: Final = b"\n".join(
    map(
        msgspec.json.encode,
        (
            _OPENED,
            StartIntended(RUN_ID, _NOW),
            Started(RUN_ID, RUN_ID, _NOW),
            Finished(RUN_ID, "failed", _SAMPLE, _NOW),
            Saved(RUN_ID, "/a.zip", _NOW),
            Described(Names({RUN_ID: "a"}, {}, {RUN_ID: "b"})),
            Explained(RUN_ID, RUN_ID, [_EVALUATION]),
        ),
    )
)
_RECORD: Final = (
    b'{"run_id":"%s","boot_id":"b","info":{"size":100,"etag":"\\"e\\"","last_modified":"x",'
    b'"content_type":"text/plain","checksum":{"algorithm":"sha256","value":"00"}}}\n'
    b"[0,10]\n[20,30]\n[10,20]\n" % RUN_ID.encode()
)

# Put in the place of any part of a document.
PIECES: Final = (
    *(b"null", b"true", b"false", b"0", b"-1", b"1.5", b'""', b"[]", b"{}", b"", b",", b'"'),
    *(b"1e999", b"-1e999", b"1e-999", b"NaN", b"Infinity", b"-0", b"01", b"1e5"),
    *(b"%d" % n for n in (2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30)),
    *(b"9" * 400, b"9" * 5000, b"9" * 100_000),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b'"\\u0000"', b"\xff\xfe"),
    *(b'"\\r\\nX-Evil: 1"', b'"\\u202e\\u2066"', b'"\\u001b[2J"', b'"%s"' % (b"a" * 70_000)),
    *(b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59-23:59"', b'"0000-01-01T00:00:00Z"'),
    *(b'"9999-12-31T23:59:59.999999"', b'"10000-01-01T00:00:00Z"', b'"2026-02-30T00:00:00Z"'),
    *(b'"../../etc/passwd"', b'"/etc/passwd"', b'"http://[::1"', b'"https://u:p@h/"', b'"http:"'),
    *(b'"https://h:99999/x"', b'"https://\xc3\xa4\xe2\x80\xae/.."', b'"https://h/%00%2e%2e%2f"'),
    *(b"[" * 60, b"[" * 5000 + b"]" * 5000, b'{"a":' * 5000 + b"1" + b"}" * 5000),
    *(b'{"type":"boolean"}', b'{"type":"numerical","verb":1}', b'{"type":[]}', b'{"type":"?"}'),
    *(b'{"id":1,"id":2}', b'[["e",true]]', b'["a",1]', b"[null]", b'"\\"', b'"sha999"', b'"md5"'),
)
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[\[\]{}]')


def spliced(document: bytes, orders: bytes) -> bytes:
    """`document` with parts of it replaced by `PIECES`: each two bytes say which, and by what."""
    tokens = list(_TOKEN.finditer(document)) or list(re.finditer(b"^", document))
    chosen = {
        tokens[where % len(tokens)]: PIECES[what % len(PIECES)]
        for where, what in zip(orders[:8:2], orders[1:8:2], strict=False)
    }
    for token in sorted(chosen, key=lambda match: match.start(), reverse=True):
        document = document[: token.start()] + chosen[token] + document[token.end() :]
    return document


def _document(seed: Any, data: bytes) -> bytes:
    """Any bytes, or `seed` with parts replaced: the first byte says which."""
    if data[:1] < b"\x40":
        return data[1:]
    text = seed if isinstance(seed, bytes) else json.dumps(seed).encode()
    return spliced(text, data[1:])


def _lines(data: bytes) -> list[str]:
    return data.decode("latin-1").split("\n")


def _headers(data: bytes) -> CIMultiDict[str]:
    """As aiohttp gives them: what is not UTF-8 comes as surrogates."""
    pairs = (line.partition(b":")[::2] for line in data.split(b"\n"))
    return CIMultiDict(
        (name.decode("utf-8", "surrogateescape"), value.strip().decode("utf-8", "surrogateescape"))
        for name, value in pairs
    )


def _session() -> Session:
    def never() -> aiohttp.ClientSession:
        raise AssertionError("nothing is sent")

    config = Configuration(BearerAuth("t0ken-of-nobody"), "acme", "https://api.example", {})
    return Session(
        sender=Sender(http=never, config=config, request_timeout=1.0, max_response_bytes=1),
        check=lambda: None,
        config=config,
        request_timeout=1.0,
        max_attempts=1,
        events=Events(None),
    )


def decoded(seed: Any, decode: Callable[[bytes], Any], data: bytes) -> Any:
    """What the session makes of a success with this body; None where it is refused."""
    response = responses.Response(200, {}, _document(seed, data))
    request = requests.list_runs("acme")
    try:
        return _session()._outcome(_Call(request, decode), response)
    except DecodeError as error:
        str(error)
        return None


def sign_in(data: bytes) -> None:
    """The answer of a sign in, as far as the header that its token goes into."""
    found = decoded({"id_token": "t", "expires_at": AT}, decode_sign_in, data)
    if found is not None:
        assert isinstance(found, SignIn)
        found.expires_at.timestamp()
        _sendable(f"Bearer {found.id_token}")


def created(data: bytes) -> None:
    """The answer of a create."""
    found = decoded({"simulation_unit_test_set_run_id": RUN_ID}, decode_created_run, data)
    assert found is None or isinstance(found, CreatedRun)


def link(data: bytes) -> None:
    """The link to an artifact, as far as the request for it."""
    found = decoded(_LINK, decode_artifacts_link, data)
    if found is not None:
        assert isinstance(found, ArtifactsLink)
        repr(found)
        _askable(found.presigned_url)
        inside(names.safe_name(found.presigned_url, "fallback"))


def page(data: bytes) -> None:
    """A page of runs, as far as all that is told of them."""
    found = decoded(_PAGE, decode_run_page, data)
    if found is None:
        return
    assert isinstance(found, RunPage)
    for each in found.simulation_unit_test_set_runs:
        _ = (each.passed, each.progress, each.metrics_that_failed, each.runs_that_errored)
        gate = Gate(min_pass_rate=0.5)
        verdict = verdict_of(each, gate, cancelled=False) if each.is_completed else "timed_out"
        line = Finished(each.simulation_unit_test_set_id, verdict, each, each.created_at)
        progress, _ = parse([msgspec.json.encode(line) + b"\n"], _OPENED, Path("j"))
        (record,) = progress.values()
        assert record.finished == line, "the journal says something else"
        told = RunOutcome(unit_test_set_id=each.id, run_id=each.id, verdict=verdict, run=each)
        _told(told, gate)
        sure, known = Gate(min_pass_rate=0.9, confidence=0.95), tuple(unit_test_ids(each)[:1])
        if each.is_completed:
            verdict = verdict_of(each, sure, cancelled=False, known_failing=known)
        again = passing_again(each, known)
        fields = {"verdict": verdict, "known_failing": known, "passing_again": again}
        _told(msgspec.structs.replace(told, **fields), sure)
    cursor(found)


def _told(outcome: RunOutcome, gate: Gate) -> None:
    """All that is said about an outcome."""
    result = BatchResult((outcome,))
    assert report.from_json(report.to_json(result)) == result
    report.junit(result, gate=gate)
    report.markdown(result, gate=gate)
    report.html(result, gate=gate)
    reasons(outcome)
    if outcome.run is None:
        return
    amount_done(outcome.run)
    if outcome.run.is_completed:
        gate_reasons(outcome, gate)
    set_id = outcome.run.simulation_unit_test_set_id
    known = Names({set_id: set_id}, notes=(set_id,))
    listing._table([listing._Row.of(outcome.run)], known, console_of(io.StringIO()))


def cursor(found: RunPage) -> None:
    """Go on from a page, as far as a few more that are the same."""
    asked = 0

    class Pages:
        organization = "acme"

        async def call(self, *_: object) -> RunPage:
            nonlocal asked
            asked += 1
            if asked > 4:
                return msgspec.structs.replace(found, has_more=False)
            return found

    async def iterated() -> None:
        with suppress(DecodeError):
            async for _ in Runs(RunCalls(Pages()), None).iterate(limit=3):  # type: ignore[arg-type]
                pass

    run(iterated)
    if found.continuation_token is not None and 0 <= found.continuation_token < 2**63:
        requests.list_runs("acme", continuation_token=found.continuation_token)


def refusal(data: bytes) -> None:
    """A response that is no success."""
    head, _, body = data[2:].partition(b"\n\n")
    status = 100 + int.from_bytes(data[:2]) % 900
    response = responses.Response(status, _headers(head), body)
    secret = "t0ken-of-nobody"
    error = responses.api_error(requests.artifacts_link("acme", RUN_ID), response, (secret,))
    unread = responses.decode_error(
        requests.artifacts_link("acme", RUN_ID), response, ValueError(secret), (secret,)
    )
    for each in (error, unread):
        shown = "".join(traceback.format_exception(each)) + repr(vars(each))
        assert secret not in shown + pickle.dumps(each).decode("latin-1")
        assert str(each).isprintable()
        assert len(str(each)) < 2000
    explain(error)


def told(data: bytes) -> None:
    """The headers that say when, and what the session makes of them."""
    headers = _headers(data)
    read_rate_limit(headers)
    assert read_retry_after(headers) is None or read_retry_after(headers) >= 0  # type: ignore[operator]
    clock, response = ServerClock(), responses.Response(429, headers, b"")

    async def heed() -> None:
        now = asyncio.get_running_loop().time()
        date = read_date(headers)
        if date is not None:
            clock.observe(date, now, now)
        clock.utcnow()
        pause = _pause(response, _rate_limit(response, clock))
        assert pause is None or 0 <= pause < math.inf

    run(heed)


def stored(data: bytes) -> None:
    """What the store says of an object: the headers of two answers, one after the other."""
    first, _, second = data[2:].partition(b"\n\n")
    reading = Reading(stop=None if data[:1] < b"\x80" else 1)
    for status, head in ((data[1:2], first), (data[1:2], second)):
        headers = {name.lower(): value for name, value in _headers(head).items()}
        code = (200, 206, 416, 412, 404, 403, 500, 429)[(status or b"\0")[0] % 8]
        verdict = judge(reading, code, headers)
        objects.read_object(headers, partial=True)
        if isinstance(verdict, Body):
            assert verdict.skip >= 0
            assert verdict.end is None or verdict.end >= 0
            _ = verdict.info.strong_etag, verdict.info.recognizable
            reading = Reading(info=verdict.info, offset=reading.offset + 1)
            for value in next_request(reading).values():
                _sendable(value)


def redirect(data: bytes) -> None:
    """A URL of a store, and where it redirects to."""
    url, location, *_ = [*_lines(data), ""]
    text = data.decode("utf-8", "replace").partition("\n")[0]
    for start in (text, url, "https://store.example/a/b?c=d"):
        _askable(start)
        with suppress(links.UnsafeLinkError):
            target = links.redirect_target(start, location, allow_http=len(data) % 2 == 0)
            assert not (start.startswith("https:") and target.startswith("http:"))
            _askable(target)


def file_name(data: bytes) -> None:
    """The name of a file, from a URL and from what stands in for it."""
    text, fallback, *_ = [*data.decode("utf-8", "surrogateescape").split("\n"), ""]
    for url in (text, f"https://h/{text}", f"https://h/b/{text}?q=/../x"):
        with suppress(links.UnsafeLinkError):
            links.check_link(url, allow_http=True)
            inside(names.safe_name(url, fallback))


def inside(name: str) -> None:
    """Show that `name` is a plain name in its folder, on every system."""
    folder = Path("/the/folder")
    path = folder / name
    assert path.parent == folder, name
    assert os.path.normpath(path) == str(path), name
    assert path.name == name, name
    assert len(name.encode()) <= 200, name
    assert name.strip(" .") == name, name
    assert not set(name) & set('<>:"/\\|?*'), name
    assert all(char.isprintable() or char == " " for char in name if ord(char) < 256), name
    assert not any(char in name for char in "\u202e\u2066\u200f\u061c"), name


def journal(data: bytes) -> None:
    """The lines of a journal."""
    with suppress(JournalError):
        parse(_document(_JOURNAL, data).splitlines(), _OPENED, Path("j.jsonl"))


def sidecar(data: bytes) -> None:
    """The record beside a partial file, as far as the request that goes on from it."""
    with tempfile.TemporaryDirectory(dir=_FAST) as folder:
        path = Path(folder, "a.part.jsonl")
        record = ResumeRecord(path, RUN_ID)
        record._boot_id = "b"
        path.write_bytes(_document(_RECORD, data))
        found = record.load(100)
        if found is not None:
            _resumed(found)


def _resumed(found: ResumeState) -> None:
    from amigo_async.artifacts.partfile import Digest  # noqa: PLC0415

    if found.info.checksum is not None:
        _ = Digest(found.info.checksum.algorithm).checksum
    end = found.info.size
    assert end is None or end >= 0
    ranges.missing_spans(found.spans, 100)
    for value in next_request(Reading(info=found.info, offset=1)).values():
        _sendable(value)


def settings(data: bytes) -> None:
    """Arguments of a client."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    base, organization, key, header, value, *_ = [*lines, "", "", "", "", ""]
    with suppress(ConfigurationError):
        config = configure(
            api_key=key or "k",
            api_key_id="i",
            user_id="u",
            organization_id=organization or "o",
            base_url=base or "https://h",
            auth=None,
            mongo_cluster_name=value or None,
            headers={header: value} if header else None,
        )
        request = requests.create_run(requests.organization_segment(config.organization_id), RUN_ID)
        url = URL(config.base_url + request.path, encoded=True)
        assert url.raw_host
        url.raw_host.encode("idna")
        for sent in config.headers.values():
            _sendable(sent)


class _File(io.BytesIO):
    name = "ids.txt"


def arguments(data: bytes) -> None:
    """Arguments of the command."""
    text = data.decode("utf-8", "surrogateescape")
    with suppress(click.BadParameter):
        assert 0 < command.parse_duration(text) < math.inf
    with suppress(click.BadParameter):
        command.parse_instant(text)
    with suppress(click.UsageError):
        command.read_run_ids((), _File(data))
    with suppress(click.UsageError, click.FileError):  # "-" is stdin, which pytest forbids to read
        command.read_run_ids(text.split("\n"), None)
    with suppress(click.UsageError):
        assert all(map(str.strip, command.read_selectors((), _File(data))))


def written_report(data: bytes) -> None:
    """A report in JSON, read back."""
    outcome = {"unit_test_set_id": "s", "run_id": "r", "verdict": "failed", "run": RUN}
    more = {"error": {"type": "E", "message": "m"}, "artifacts": "/a", "attached": False}
    at = {"started_at": AT, "finished_at": None, "saved_at": None}
    seed = {"outcomes": [outcome | more | at], "began_at": AT}
    document = _document(seed, data)
    try:
        found = report.from_json(document)
    except msgspec.DecodeError:
        return
    for each in found.outcomes:
        explain(each.error) if each.error else None
    report.junit(found)
    report.markdown(found)
    report.html(found)


def redaction(data: bytes) -> None:
    """Any text, with a secret in it."""
    before, secret, after, *_ = [*data.decode("utf-8", "surrogateescape").split("\n"), "", ""]
    shown = redact(f"{before}{secret}{after}", (secret,))
    assert len(secret) < 8 or secret in MASK or secret not in shown


def body(data: bytes) -> None:
    """Pieces of a packed body."""
    buffer = _BodyBuffer(1000, compressed=True)
    with suppress(responses.BodyError):
        for at in range(1, len(data), 50):
            buffer.add(data[at : at + 50])
        buffer.finish()
    assert sum(map(len, buffer.pieces)) <= 1001


def _sendable(value: str) -> None:
    """Show that aiohttp would send a header; what it refuses has to be refused before."""
    assert not set(value) & set("\r\n\0"), "a header cannot have that"
    value.encode("utf-8")


def _askable(url: str) -> None:
    """Show that a link that is not refused makes a request, and a path that can be told."""
    try:
        links.check_link(url, allow_http=True)
    except links.UnsafeLinkError:
        return
    asked = URL(str(url), encoded=True)
    assert asked.raw_host
    asked.raw_host.encode("ascii").decode().encode("idna")
    assert not set(asked.raw_path_qs) & {chr(code) for code in (*range(0x21), 0x7F)}
    _path(url)
    _secrets(url)


def _public() -> Iterator[Target]:
    yield from (sign_in, created, link, page, refusal, told, stored, redirect, file_name)
    yield from (journal, sidecar, settings, arguments, written_report, redaction, body)


_FAST: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
TARGETS: Final[dict[str, Target]] = {target.__name__: target for target in _public()}

# Where fuzzing begins: what is usual, and a document with nothing replaced.
SEEDS: Final[dict[str, list[bytes]]] = {
    "refusal": [
        b"\x01\x90X-Request-Id: r\n\n" + b'{"detail":[{"loc":["query","limit"],"msg":"too many"}]}',
        b"\x01\x91Retry-After: 3\nLocation: https://u:p@h/?a=b\n\n<title>t0ken-of-nobody</title>",
    ],
    "told": [
        b"\n".join(
            [
                b"X-RateLimit-Limit: 50",
                b"X-RateLimit-Remaining: 3",
                b"X-RateLimit-Reset: 1767323045.5",
                b"Date: Fri, 02 Jan 2026 03:04:05 GMT",
                b"Retry-After: Fri, 02 Jan 2026 03:05:05 GMT",
            ]
        )
    ],
    "stored": [
        b"\x00\x00Content-Length: 100\nTransfer-Encoding: chunked\nETag: a\n\nContent-Length: 7",
        b"\n".join(
            [
                b'\xff\x01ETag: "0123456789abcdef0123456789abcdef"',
                b"x-amz-id-2: a",
                b"Content-Range: bytes 0-0/100",
                b"Last-Modified: Fri, 02 Jan 2026 03:04:05 GMT",
                b"x-amz-checksum-sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
                b"",
                b"Content-Range: bytes 1-99/100",
                b'ETag: W/"a"',
            ]
        ),
    ],
    "redirect": [b"https://h/a?X-Amz-Signature=0123456789abcdef0123\n//other/../b?c=d#e"],
    "file_name": [b"a/b%2Fc%00.tar.gz\nartifacts", b"..%5c..%5cCON .txt\n", b"%E2%80%AEgpj.exe."],
    "settings": [b"https://api.example:8443/x\nacme\nkey\nX-Mine\nvalue"],
    "arguments": [
        b"1.5h",
        b"9" * 400 + b"d",
        b"2026-05-04T12:30:00+02:00",
        b"0123456789abcdef01234567 # one\n",
    ],
    "redaction": [
        b"Bearer abcdefghijklmnopqrstu https://u:p@h/?a=\nhunter2hunter2\neyJhbGciOi.eyJ.x"
    ],
    "body": [zlib.compress(b"a" * 5000), gzip.compress(b"hello, hello") + b"more"],
}
