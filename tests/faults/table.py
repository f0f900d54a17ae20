"""The tables of FAULTS.md, and the cells that they give: a fault at an endpoint under a call."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.kinds import FINE, KINDS, VARIED, Kind
from tests.faults.wire import Route

SAME: Final = "the same as without the fault"
AS_GIVEN: Final = "as given"
NO_END: Final = "no end"

# The endpoints that each call asks.
ASKED: Final[dict[str, tuple[Route, ...]]] = {
    "create": ("sign_in", "create"),
    "create(attach)": ("sign_in", "create", "list"),
    "create(wait)": ("sign_in", "create", "list"),
    "create(restart)": ("sign_in", "create", "list", "cancel"),
    "list": ("sign_in", "list"),
    "iterate": ("sign_in", "list"),
    "history": ("sign_in", "list"),
    "get": ("sign_in", "list"),
    "wait_for_completion": ("sign_in", "list"),
    "as_completed": ("sign_in", "list"),
    "cancel": ("sign_in", "cancel"),
    "cancel_and_wait": ("sign_in", "cancel", "list"),
    "artifacts": ("sign_in", "artifacts"),
    "stream": ("sign_in", "artifacts", "store"),
    "download": ("sign_in", "artifacts", "store"),
    "run_many": ("sign_in", "create", "list", "artifacts", "store"),
    "run_many(cancel_rest)": ("cancel",),
}
_WAITS: Final = frozenset({"wait_for_completion", "as_completed", "cancel_and_wait", "run_many"})


@dataclass(frozen=True)
class Cell:
    """A fault at an endpoint under a call.

    Attributes:
        kind: What happens.
        route: To requests of which endpoint.
        call: Under which call.
        lasting: Whether it happens to every request from then on, or to one.
        place: Where on the page it stands what comes of it.
        words: What stands there.
        outcome: What has to come of it: `SAME`, `AS_GIVEN`, or the name of an error, after the
            verdict of `run_many`.
    """

    kind: Kind
    route: Route
    call: str
    lasting: bool
    place: tuple[str, str]
    words: str
    outcome: str

    def __str__(self) -> str:
        often = "lasting" if self.lasting else "once"
        return f"{self.call}: {self.kind.name} at {self.route}, {often}"


def _tables() -> Iterator[list[dict[str, str]]]:
    """The tables of the page: of each row its parts by the head of their column."""
    text = Path(__file__).with_name("FAULTS.md").read_text(encoding="utf-8")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = (
            [part.strip() for part in line.strip("|").split("|")] for line in table.splitlines()
        )
        yield [dict(zip(head, row, strict=True)) for row in rows]


def _by_label(table: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    return {row["Fault"].split("**")[1]: row for row in table}


_API_TABLE, EXCEPTIONS, _STORE_TABLE = _tables()
API: Final = _by_label(_API_TABLE)
STORE: Final = _by_label(_STORE_TABLE)
VERDICT: Final = "Verdict"


def _column(kind: Kind, call: str, route: Route) -> str:
    if route == "create":
        return "Create, run started" if kind.handled else "Create, no run started"
    if route == "list":
        return "Wait" if call in _WAITS else "List"
    if route == "store":
        return next(head for head in STORE[FINE] if f"`{call}`" in head)
    return {"sign_in": "Sign-in", "cancel": "Cancel", "artifacts": "Artifact link"}[route]


def _says(exception: dict[str, str], label: str, call: str, column: str) -> bool:
    """Whether an exception is about a fault: by its label, as any, or as any lost answer."""
    groups = {"any": label != FINE}
    groups["any lost answer"] = "AmbiguousStartError" in API[label]["Create, no run started"]
    return (
        f"`{call}`" in exception["Calls"]
        and column.startswith(exception["Column"])
        and any(groups.get(fault, fault == label) for fault in exception["Fault"].split("; "))
    )


def cells(*kinds: Kind) -> Iterator[Cell]:
    """Those of some kinds; all of them without any."""
    for kind in kinds or KINDS:
        for call, routes in ASKED.items():
            for route in routes:
                if _can_be(kind, call, route):
                    yield from _cells(kind, call, route)


def _can_be(kind: Kind, call: str, route: Route) -> bool:
    if (kind.store if route == "store" else kind.api) is None:
        return False
    if kind.kept_alive:  # the first connection of all is never an idle one
        return route != "sign_in"
    # The clock is that of the whole service: once for each call, at the endpoint it is about.
    return not kind.skew or route == ASKED[call][-1]


def _cells(kind: Kind, call: str, route: Route) -> Iterator[Cell]:
    table, label = (STORE, kind.store) if route == "store" else (API, kind.api)
    assert label is not None
    column = _column(kind, call, route)
    place, words = (label, column), table[label][column]
    for number, exception in enumerate(EXCEPTIONS):
        if table is API and _says(exception, label, call, column):
            place, words = (f"exception {number}", exception["Column"]), exception["Instead"]
            break
    named = re.search(r"`(\w+)`", words)
    error = named[1] if named else table[label]["Error"].strip("`")
    if call.startswith("run_many"):
        verdict = "timed_out" if error == "WaitTimeoutError" else table[VERDICT][column]
        error = f"{verdict}, {error}"
    verb = "raised" if named and named[0] == words else words.split(",")[0]
    once, lasting = {
        "no effect": (SAME, SAME),
        "recovered": (SAME, SAME),
        "as given": (AS_GIVEN, AS_GIVEN),
        **dict.fromkeys(("retried", "new token", "waited out", "asked again"), (SAME, error)),
        "raised": (error, error),
        "waits on": (SAME, NO_END),
    }[verb]
    if not kind.kept_alive:
        yield Cell(kind, route, call, True, place, words, lasting)
    if words != "no effect":
        yield Cell(kind, route, call, False, place, words, once)


# Cells that were wrong once.
_MENDED: Final = frozenset(
    {
        "run_many(cancel_rest): reset after at cancel, once",
        "cancel_and_wait: close head at cancel, once",
        "cancel: 504, handled at cancel, once",
        "cancel: page of an interceptor at cancel, once",
        "run_many(cancel_rest): page of an interceptor at cancel, lasting",
        "download: content type of garbage at store, lasting",
        "run_many: content type of garbage at store, lasting",
        "cancel_and_wait: 409 at sign_in, once",
        "as_completed: 400 at sign_in, once",
        "list: Content-Length: too small at sign_in, lasting",
        "list: Content-Length: too small at list, lasting",
        "download: Content-Length: too small at store, lasting",
        "list: redirect to 8,000 characters at list, once",
    }
)


def chosen() -> frozenset[Cell]:
    """A cross-section that a test run has time for: all of them take some minutes.

    Each kind happens somewhere, the varied ones at the API and at the store. Each place on the page
    is played once and lasting, and something happens under each call at each endpoint.
    """
    seen: set[object] = set()
    taken = [cell for cell in cells() if str(cell) in _MENDED]
    assert len(taken) == len(_MENDED)
    for cell in sorted(cells(), key=_order):
        marks = {
            (cell.kind, cell.route == "store" if cell.kind in VARIED else ""),
            (cell.place, cell.lasting),
            (cell.route, cell.call, cell.lasting),
        }
        if marks - seen:
            seen |= marks
            taken.append(cell)
    return frozenset(taken)


def _order(cell: Cell) -> tuple[bool, int]:
    """What takes long comes last, the rest by chance: else most kinds would meet the first call."""
    return cell.lasting and cell.call == "run_many", zlib.crc32(str(cell).encode())
