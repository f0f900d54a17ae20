"""The table of faults: each kind, at each endpoint, under each call, and what has to come of it.

``python -m tests.fault_matrix`` writes it to ``tests/FAULTS.md`` anew.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from amigo_async.testing.server import Route
from tests.fault_headers import HEADERS
from tests.fault_kinds import PLAIN, Kind

KINDS: Final = (*PLAIN, *HEADERS)

DOCUMENT: Final = Path(__file__).with_name("FAULTS.md")
HEALED: Final = "healed"

Call: TypeAlias = Literal[
    "create",
    "create attach",
    "create wait",
    "create restart",
    "list",
    "iterate",
    "get",
    "wait_for_completion",
    "as_completed",
    "cancel",
    "cancel_and_wait",
    "artifacts",
    "stream",
    "download",
    "run_many",
    "run_many cancel_rest",
]

# The endpoints that each call asks.
ASKED: Final[dict[Call, tuple[Route, ...]]] = {
    "create": ("sign_in", "create"),
    "create attach": ("sign_in", "create", "list"),
    "create wait": ("sign_in", "create", "list"),
    "create restart": ("sign_in", "create", "list", "cancel"),
    "list": ("sign_in", "list"),
    "iterate": ("sign_in", "list"),
    "get": ("sign_in", "list"),
    "wait_for_completion": ("sign_in", "list"),
    "as_completed": ("sign_in", "list"),
    "cancel": ("sign_in", "cancel"),
    "cancel_and_wait": ("sign_in", "cancel", "list"),
    "artifacts": ("sign_in", "artifacts"),
    "stream": ("sign_in", "artifacts", "store"),
    "download": ("sign_in", "artifacts", "store"),
    "run_many": ("sign_in", "create", "list", "artifacts", "store"),
    "run_many cancel_rest": ("cancel",),
}
# They bear what may pass for minutes instead of a few attempts, also where one request would not.
PATIENT: Final = frozenset({"wait_for_completion", "as_completed", "cancel_and_wait", "run_many"})
# The same where it is not the list that fails.
BORNE: Final = frozenset(
    {("run_many", "artifacts"), ("wait_for_completion", "sign_in"), ("as_completed", "sign_in")}
)


@dataclass(frozen=True)
class Cell:
    """One cell of the table.

    Attributes:
        kind: What happens.
        target: To which endpoint.
        call: Under which call.
        lasting: Whether it happens to every request from then on, or to one.
        outcome: What has to come of it: ``healed``, the name of an error, or a verdict of
            `run_many` and an error.
    """

    kind: Kind
    target: Route
    call: Call
    lasting: bool
    outcome: str

    def __str__(self) -> str:
        often = "for good" if self.lasting else "once"
        return f"{self.call}: {self.kind.name} at {self.target}, {often}"


def cells(*kinds: Kind) -> Iterator[Cell]:
    """Those of some kinds; all of them without any."""
    for kind in kinds or KINDS:
        for call, targets in ASKED.items():
            for target in targets:
                if _can_be(kind, call, target):
                    for lasting in _spans(kind, target):
                        outcome = expected(kind, call, target, lasting=lasting)
                        yield Cell(kind, target, call, lasting, outcome)


def _can_be(kind: Kind, call: Call, target: Route) -> bool:
    if (kind.store if target == "store" else kind.api) is None:
        return False
    if kind.kept:  # the first connection of all is never an idle one
        return target != "sign_in"
    # The clock is that of the whole service: once for each call, at the endpoint it is about.
    return not kind.skew or target == ASKED[call][-1]


def _spans(kind: Kind, target: Route) -> tuple[bool, ...]:
    """Whether it happens once, for good, or each in turn; what is harmless each time is so once."""
    if kind.kept:
        return (False,)
    harmless = (kind.store if target == "store" else kind.api) == "harmless"
    return (True,) if harmless else (False, True)


def expected(kind: Kind, call: Call, target: Route, *, lasting: bool) -> str:
    """What has to come of a fault."""
    if target == "store":
        return _of_store(kind, call, lasting=lasting)
    rules = {"create": _of_create, "cancel": _of_cancel, "list": _of_list}
    outcome = rules.get(target, _of_request)(kind, call, target, lasting=lasting)
    if outcome == HEALED or not call.startswith("run_many"):
        return outcome
    verdicts = {"sign_in": "not_started", "create": "not_started", "artifacts": "passed"}
    late = outcome == "WaitTimeoutError"
    return f"{'timed_out' if late else verdicts.get(target, 'errored')}, {outcome}"


def _of_request(kind: Kind, call: Call, target: Route, *, lasting: bool) -> str:
    """One request that may be sent again."""
    if kind.api == "harmless":
        return HEALED
    passes = kind.api in ("passes", "budget") or (kind.api == "token" and target != "sign_in")
    if target == "artifacts" and kind.status == 400:
        return "ArtifactsNotReadyError"
    if (call, target) in BORNE:
        passes = passes or (bears(kind) and (target, kind.status) != ("artifacts", 429))
    if target == "sign_in" and kind.status == 409 and call.startswith("create "):
        passes = True  # it looks like the conflict that the call has to deal with
    return HEALED if passes and not lasting else kind.error


def bears(kind: Kind) -> bool:
    """Whether a call that is patient takes it for something that passes."""
    return kind.api in ("passes", "budget") or (
        kind.error in ("RateLimitError", "ServerError", "ServiceUnavailableError", "DecodeError")
        and not kind.name.startswith("larger")
    )


def _of_list(kind: Kind, call: Call, target: Route, *, lasting: bool) -> str:
    """A look: at a run in the way it may fail, a patient one may fail for a while."""
    if kind.api == "harmless":
        return HEALED
    if call.startswith("create "):
        return "ConflictError" if lasting else HEALED
    if call not in PATIENT:
        return _of_request(kind, call, target, lasting=lasting)
    # One look is not believed, unless it says that the caller may not look.
    of_caller = kind.error in ("AuthenticationError", "ForbiddenError", "TransportError")
    passes = bears(kind) or kind.api == "token" or not of_caller
    return HEALED if passes and not lasting else kind.error


def _of_cancel(kind: Kind, call: Call, target: Route, *, lasting: bool) -> str:
    if kind.name in ("empty", "half of it", "JSON of another shape", "JSON null"):
        return HEALED  # it has no body, and a success in JSON is one
    if kind.error == "DecodeError" and kind.work == "done" and kind.api == "passes":
        return HEALED  # it is not in progress when it is asked again, whatever the body is
    if call == "create restart" and kind.status in (404, 409):
        return HEALED  # it is taken to be over by itself, and waited for
    if call == "cancel_and_wait" and kind.status == 409:
        return HEALED  # the same
    late = (
        kind.error == "RequestTimeoutError"
        or (kind.api == "budget" and lasting)
        or kind.status == 409  # the run goes on
    )
    if call == "run_many cancel_rest" and late:
        return "WaitTimeoutError"  # a batch gives its runs half a minute to be cancelled
    return _of_request(kind, call, target, lasting=lasting)


def _of_create(kind: Kind, call: Call, target: Route, *, lasting: bool) -> str:
    if kind.api in ("harmless", "token", "budget"):
        return _of_request(kind, call, target, lasting=lasting)
    if kind.status == 409:
        attached = call == "create attach"
        again = not lasting and call in ("create wait", "create restart")
        return HEALED if attached or again else kind.error
    lost = kind.error == "DecodeError" or (bears(kind) and kind.error != "RateLimitError")
    if not lost:
        return kind.error
    if not lasting:
        return HEALED
    if kind.work == "unsent":
        return kind.error
    # A run in the way keeps the work from being done, but its 409 is read whatever the body is.
    found = kind.work == "done" and (call in ("create", "run_many") or kind.error == "DecodeError")
    return HEALED if found else "AmbiguousStartError"


def _of_store(kind: Kind, call: Call, *, lasting: bool) -> str:
    if call == "stream" and kind.store == "checksum":  # which is that of a download
        return HEALED if kind.name.startswith("ETag") else "as given"
    outcome = {
        "harmless": HEALED,
        "again": "ArtifactTruncatedError" if kind.resumed else "ArtifactError",
        "link": "ArtifactError",
        "late": "ArtifactError",
        "unmatched": "ArtifactChangedError",
        "never": "ArtifactError",
        "changed": "ArtifactChangedError",
        "checksum": "ArtifactError",
        "unseen": "as given",
    }[kind.store or ""]
    if kind.store in ("again", "link", "late", "unmatched") and not lasting:
        return HEALED
    return f"passed, {outcome}" if call == "run_many" and outcome[0] == "A" else outcome


# Groups of kinds that differ in more than a number or the value of a header.
WIDE: Final = frozenset({"Connection", "Protocol", "Body"})


# Cells that were wrong once.
MENDED: Final = frozenset(
    {
        "run_many cancel_rest: reset after the work at cancel, once",
        "cancel_and_wait: closed in the head at cancel, once",
        "cancel: 504 after the work at cancel, once",
        "cancel: page of an interceptor at cancel, once",
        "run_many cancel_rest: page of an interceptor at cancel, for good",
        "download: content type of garbage at store, for good",
        "run_many: content type of garbage at store, for good",
        "cancel_and_wait: 409 at sign_in, once",
        "as_completed: 400 at sign_in, once",
        "list: Content-Length: too small at sign_in, for good",
        "list: Content-Length: too small at list, for good",
        "download: Content-Length: too small at store, for good",
        "list: redirect to 8,000 characters at list, once",
    }
)


def chosen() -> frozenset[Cell]:
    """A cross-section that a test run has time for: all of them take some minutes.

    Each kind happens somewhere, those of the connection and the body at each endpoint, and each
    meaning of a fault is met at each endpoint under each call, once and for good.
    """
    seen: set[object] = set()
    taken = [cell for cell in cells() if str(cell) in MENDED]
    # In no order: else the first call would be all that most kinds are met under.
    for cell in sorted(cells(), key=_shuffled):
        kind, store = cell.kind, cell.target == "store"
        marks = {
            (kind, cell.target if kind.group in WIDE else ""),
            (kind.store if store else kind.error, cell.target),
            (kind.store if store else kind.api, cell.target, cell.call, cell.lasting),
        }
        if marks - seen:
            seen |= marks
            taken.append(cell)
    return frozenset(taken)


def _shuffled(cell: Cell) -> int:
    return zlib.crc32(str(cell).encode())


def document() -> str:
    """The table, for people."""
    every = list(cells())
    healed = sum(cell.outcome == HEALED for cell in every)
    lines = [
        "# What comes of every fault",
        "",
        "Each kind of fault, at each endpoint and at the store, under each call. Generated from",
        "`tests/fault_matrix.py` with `python -m tests.fault_matrix`; `tests/test_fault_matrix.py`",
        "plays it over real sockets: a cross-section in each run, all of it with",
        "`AMIGO_FAULTS=all`.",
        "",
        f"{len(KINDS)} kinds of fault, {len(ASKED)} calls, {len(every)} cells: {healed} healed,",
        f"{len(every) - healed} an error that is named. In every cell nothing is lost, nothing",
        "is started twice and nothing is left behind; every error is one of the package's.",
        "",
        "Kinds of which the same comes are in one row.",
        "In a cell: what comes of it if it happens once, then, if that is another, for good.",
        "*healed*: the call gives what it gives without the fault. *as given*: the bytes of the",
        "store are taken, for nothing tells that they are wrong. A pair is a verdict of `run_many`",
        "and the error beside it.",
        "",
    ]
    for target in ROUTES:
        lines += _table(target, [cell for cell in every if cell.target == target])
    counts = Counter(cell.outcome for cell in every).most_common()
    lines += ["## Counts", "", "| outcome | cells |", "|---|---|"]
    lines += [f"| {outcome} | {count} |" for outcome, count in counts]
    return "\n".join([*lines, ""])


ROUTES: Final[tuple[Route, ...]] = ("sign_in", "create", "list", "cancel", "artifacts", "store")


def _table(target: Route, some: list[Cell]) -> list[str]:
    """The part of one endpoint: rows are kinds, columns are calls."""
    calls = [call for call in ASKED if target in ASKED[call]]
    found: dict[tuple[Kind, Call], list[str]] = {}
    for cell in some:
        outcomes = found.setdefault((cell.kind, cell.call), [])
        if cell.outcome not in outcomes:
            outcomes.append(cell.outcome)
    name = "the artifact store" if target == "store" else f"`{target}`"
    lines = [f"## At {name}: {len(some)} cells", ""]
    lines += [f"| fault | {' | '.join(calls)} |", "|---" * (len(calls) + 1) + "|"]
    alike: dict[str, list[str]] = {}
    for kind in dict.fromkeys(cell.kind for cell in some):
        row = [" then ".join(found.get((kind, call), ["-"])) for call in calls]
        alike.setdefault(" | ".join(row), []).append(kind.name)
    return [*lines, *(f"| {'; '.join(names)} | {row} |" for row, names in alike.items()), ""]


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
