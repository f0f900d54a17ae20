"""Unit test sets and their runs: what they are planned to do, and what is true at an instant."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar

Outcome = Literal["passed", "failed", "errored"]

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")

_ERRORS: Final = (
    "LLM provider timed out after 3 attempts",
    "Conversation exceeded max_interactions",
    "Tool 'lookup_account' raised: <ConnectionError>",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactPlan:
    """What the artifact of a run is like.

    Attributes:
        name: The last part of its key.
        size: Bytes of seeded noise; None for a small real document.
        form: What the document is packed in.
        etag: ``"md5"``, ``"multipart"`` (no digest of the whole), or ``"auto"`` for an MD5 up to
            8 MiB.
        checksum: Which ``x-amz-checksum-*`` the store sends; None for none.
        content_type: Its ``Content-Type``; None for what fits the form.
        content_encoding: Its ``Content-Encoding``; None for none.
    """

    name: str = "artifacts.zip"
    size: int | None = None
    form: Literal["zip", "json.gz"] = "zip"
    etag: Literal["md5", "multipart", "auto"] = "auto"
    checksum: Literal["sha256", "crc32"] | None = None
    content_type: str | None = None
    content_encoding: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPlan:
    """How the runs of a unit test set go.

    Attributes:
        seconds: How long a run takes; two numbers for anything between them, drawn anew for
            each run.
        outcome: How a run ends.
        unit_tests: How many unit tests the set has.
        repeats: How often each of them is run.
        metrics: How many metrics each of them is evaluated by.
        trouble_at: The part of a run (0 to 1) after which the first failed metric or error is
            seen; the run goes on.
        artifacts_after: Seconds from the end of a run until its artifacts are there; None for
            never.
        cancel_after: Seconds until a cancel takes effect; None for a cancel that has none.
        artifacts_when_cancelled: Whether a cancelled run gets artifacts too.
        artifact: What the artifact is like.
        cancelled_at: Seconds from the start of a run until somebody else cancels it; None for
            never.
        unlisted: Spans, in seconds from the start of a run, in which lists leave it out, even
            when asked for its id: ``[(0, 3)]`` for lists that lag, ``[(10, 20)]`` for a run that
            vanishes for a while.
    """

    seconds: float | tuple[float, float] = 2.0
    outcome: Outcome = "passed"
    unit_tests: int = 3
    repeats: int = 3
    metrics: int = 3
    trouble_at: float = 0.5
    artifacts_after: float | None = 0.5
    cancel_after: float | None = 0.5
    artifacts_when_cancelled: bool = False
    artifact: ArtifactPlan = field(default_factory=ArtifactPlan)
    cancelled_at: float | None = None
    unlisted: Iterable[tuple[float, float]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "unlisted", tuple(self.unlisted))  # hashable, read many times
        low, high = self.bounds
        if not 0 <= low <= high or math.isinf(high):
            raise ValueError("seconds must be finite and not negative, the smaller one first")
        if min(self.unit_tests, self.repeats) < 1 or self.metrics < 0:
            raise ValueError("a run needs at least one unit test and one repeat")
        if self.metrics == 0 and self.outcome == "failed":
            raise ValueError("a run without metrics cannot fail them")
        if self.cancelled_at is not None and self.cancelled_at < 0:
            raise ValueError("cancelled_at must not be negative")
        if any(start > stop for start, stop in self.unlisted):
            raise ValueError("unlisted: a span must not end before it begins")

    @property
    def bounds(self) -> tuple[float, float]:
        """The shortest and the longest a run takes."""
        return self.seconds if isinstance(self.seconds, tuple) else (self.seconds, self.seconds)

    @property
    def steps(self) -> int:
        """Repeats of all unit tests; step s is a repeat of unit test s modulo their number."""
        return self.unit_tests * self.repeats


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one run, decided when it starts.

    Attributes:
        seconds: How long it takes.
        errors: The error of each step that has one.
        failed: The numbers of the metrics that each step fails.
    """

    seconds: float
    errors: dict[int, str]
    failed: dict[int, frozenset[int]]


def fate(plan: SetPlan, run_id: str) -> Fate:
    """Draw what becomes of a run; the same for the same id.

    The first step in trouble is certain, each later one has a chance of one in four.
    """
    dice = random.Random(run_id)  # noqa: S311  # repeatable on purpose
    seconds = dice.uniform(*plan.bounds)
    first = min(int(plan.trouble_at * plan.steps), plan.steps - 1)
    troubled = [s for s in range(first, plan.steps) if s == first or dice.random() < 0.25]
    errors: dict[int, str] = {}
    failed: dict[int, frozenset[int]] = {}
    if plan.outcome == "errored":
        errors = {step: dice.choice(_ERRORS) for step in troubled}
    elif plan.outcome == "failed":
        failed = {step: frozenset({dice.randrange(plan.metrics)}) for step in troubled}
    return Fate(seconds, errors, failed)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The truth about a run, whatever the API may have answered.

    Attributes:
        id: The run.
        organization_id: Its organization.
        unit_test_set_id: Its set.
        creator: The organization and the user who started it.
        created_at: When it was started, as the API says.
        cancelled: Whether a cancel was accepted.
        is_completed: Whether it is over.
        failed_metrics: Whether a metric has failed.
        errored: Whether a repeat had an error.
        artifacts_generated: Whether there are artifacts.
        done: Repeats that have ended.
        total: Repeats in all.
    """

    id: str
    organization_id: str
    unit_test_set_id: str
    creator: tuple[str, str]
    created_at: datetime
    cancelled: bool
    is_completed: bool
    failed_metrics: bool
    errored: bool
    artifacts_generated: bool
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class UnitTestSet:
    """A unit test set, and what its next runs will do."""

    id: str
    organization_id: str
    plan: SetPlan


@dataclass(slots=True, eq=False)
class Run:
    """A run as the sandbox keeps it; all else follows from these and the time."""

    id: str
    set: UnitTestSet
    creator: tuple[str, str]
    created_at: datetime
    started: float
    fate: Fate
    cancelled: float | None = None

    @property
    def plan(self) -> SetPlan:
        """What it does."""
        return self.set.plan

    @property
    def duration(self) -> float:
        """Seconds from its start to its end."""
        if self.cancelled is None or self.plan.cancel_after is None:
            return self.fate.seconds
        return min(self.fate.seconds, self.cancelled - self.started + self.plan.cancel_after)

    @property
    def artifacts_after(self) -> float | None:
        """Seconds from its start until its artifacts are there; None for never."""
        duration, delay = self.duration, self.plan.artifacts_after
        cut_short = duration < self.fate.seconds
        if delay is None or (cut_short and not self.plan.artifacts_when_cancelled):
            return None
        return duration + delay

    def is_completed(self, now: float) -> bool:
        """Whether it is over."""
        return now - self.started >= self.duration

    def is_listed(self, now: float) -> bool:
        """Whether lists show it."""
        elapsed = now - self.started
        return not any(start <= elapsed < stop for start, stop in self.plan.unlisted)

    def has_artifacts(self, now: float) -> bool:
        """Whether its artifacts are there."""
        after = self.artifacts_after
        return after is not None and now - self.started >= after

    def cancel(self, now: float) -> None:
        """Cancel it; the first cancel counts."""
        self.cancelled = now if self.cancelled is None else min(self.cancelled, now)

    def info(self, now: float) -> RunInfo:
        """What is true of it."""
        # Not before its start: a clock that is set back tells nothing of what is still to come.
        lived = max(0.0, min(now - self.started, self.duration))
        total = self.plan.steps
        done = total if lived >= self.fate.seconds else int(total * lived / self.fate.seconds)
        return RunInfo(
            id=self.id,
            organization_id=self.set.organization_id,
            unit_test_set_id=self.set.id,
            creator=self.creator,
            created_at=self.created_at,
            cancelled=self.cancelled is not None and self.cancelled <= now,
            is_completed=self.is_completed(now),
            failed_metrics=any(step < done for step in self.fate.failed),
            errored=any(step < done for step in self.fate.errors),
            artifacts_generated=self.has_artifacts(now),
            done=done,
            total=total,
        )


class Simulation:
    """All unit test sets and runs.

    Args:
        seed: What ids are made from; None for others each time.
        created_at_skew: Seconds by which ``created_at`` is ahead of the service's clock.
    """

    def __init__(self, seed: int | None, created_at_skew: float) -> None:
        self.sets: dict[str, UnitTestSet] = {}
        self.runs: dict[str, Run] = {}
        self._dice = random.Random(seed)  # noqa: S311  # repeatable on purpose
        self._created_at_skew = created_at_skew
        self._by_organization: dict[str, list[Run]] = {}
        self._latest: dict[tuple[tuple[str, str], str], Run] = {}

    def new_id(self) -> str:
        """An id that is not taken."""
        return self._dice.randbytes(12).hex()

    def add_set(self, organization_id: str, plan: SetPlan, set_id: str | None) -> str:
        """Add a set, or replace one; its id."""
        set_id = set_id or self.new_id()
        self.sets[set_id] = UnitTestSet(set_id, organization_id, plan)
        return set_id

    def find_set(self, organization_id: str, set_id: str) -> UnitTestSet | None:
        """A set of an organization."""
        found = self.sets.get(set_id)
        return found if found is not None and found.organization_id == organization_id else None

    def find_run(self, organization_id: str, run_id: str) -> Run | None:
        """A run of an organization."""
        found = self.runs.get(run_id)
        if found is None or found.set.organization_id != organization_id:
            return None
        return found

    def listed(self, organization_id: str, ids: Iterable[str], now: float) -> list[Run]:
        """The runs of an organization that lists show, oldest first; of `ids` alone if given."""
        runs = self._by_organization.get(organization_id, [])
        if ids:
            found = [self.find_run(organization_id, run_id) for run_id in ids]
            runs = sorted((run for run in found if run is not None), key=lambda run: run.started)
        return [run for run in runs if run.is_listed(now)]

    def is_busy(self, creator: tuple[str, str], set_id: str, now: float) -> bool:
        """Whether a user has an unfinished run of a set."""
        latest = self._latest.get((creator, set_id))
        return latest is not None and not latest.is_completed(now)

    def start(self, unit_test_set: UnitTestSet, creator: tuple[str, str], now: float) -> Run:
        """Start a run; whether it may start is for the caller to check."""
        run_id, plan = self.new_id(), unit_test_set.plan
        created_at = instant(now + self._created_at_skew)
        run = Run(run_id, unit_test_set, creator, created_at, now, fate(plan, run_id))
        if plan.cancelled_at is not None:
            run.cancelled = now + plan.cancelled_at
        self.runs[run_id] = run
        self._by_organization.setdefault(unit_test_set.organization_id, []).append(run)
        self._latest[creator, unit_test_set.id] = run
        return run


def instant(seconds: float) -> datetime:
    """An aware datetime of whole milliseconds (rounded down), as the service's database keeps."""
    return datetime.fromtimestamp(int(seconds * 1000) / 1000, UTC)


def rfc3339(moment: datetime) -> str:
    """`moment` in the form of the API's bodies: milliseconds and ``Z``."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def remember(cache: dict[KeyT, ValueT], key: KeyT, value: ValueT, most: int) -> ValueT:
    """Put `value` into a cache of at most `most` entries, in place of the oldest; gives `value`."""
    cache.pop(key, None)
    while len(cache) >= most:
        cache.pop(next(iter(cache)), None)
    cache[key] = value
    return value
