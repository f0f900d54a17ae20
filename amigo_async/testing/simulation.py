"""Simulated unit test sets and runs: their plans, and their state at any time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar, get_args

from amigo_async.checks import check_choice, check_count, check_number, check_text, check_type
from amigo_async.errors import ArgumentError
from amigo_async.testing.catalog import SETS, titled

Outcome = Literal["passed", "failed", "errored"]
Form = Literal["zip", "json.gz"]
ETag = Literal["md5", "multipart", "auto"]
Checksum = Literal["sha256", "crc32"]

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")

_ERRORS: Final = (
    "LLM provider timed out after 3 attempts",
    "Conversation exceeded max_interactions",
    "Tool 'lookup_account' raised: <ConnectionError>",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactPlan:
    """The artifact of a run.

    Attributes:
        name: File name, the last part of its key in the store.
        size: Size in bytes of random content; None for the results of the run instead.
        form: Format of the results.
        etag: ``"md5"``, ``"multipart"`` (not a digest of the content), or ``"auto"`` for an MD5
            up to 8 MiB.
        checksum: The ``x-amz-checksum-*`` header that the store sends; None for none.
        content_type: Its ``Content-Type``; None for that of the format.
        content_encoding: Its ``Content-Encoding``; None for none.

    Raises:
        ArgumentError: If a setting is invalid; the message names it.
    """

    name: str = "artifacts.zip"
    size: int | None = None
    form: Form = "zip"
    etag: ETag = "auto"
    checksum: Checksum | None = None
    content_type: str | None = None
    content_encoding: str | None = None

    def __post_init__(self) -> None:
        check_text("name", self.name)
        if self.size is not None:
            check_count("size", self.size)
        check_choice("form", self.form, get_args(Form))
        check_choice("etag", self.etag, get_args(ETag))
        if self.checksum is not None:
            check_choice("checksum", self.checksum, get_args(Checksum))
        for name in ("content_type", "content_encoding"):
            if (value := getattr(self, name)) is not None:
                check_text(name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPlan:
    """What the runs of a unit test set do.

    For example, the runs of ``SetPlan(seconds=(5, 10), outcome="failed")`` take 5 to 10 seconds
    and fail a metric.

    Attributes:
        seconds: Duration of a run in seconds; two numbers for a random duration between them.
        outcome: How a run ends.
        pass_rate: Probability that a repeat passes, as of an agent that answers differently each
            time; several for the unit tests in their order. A repeat that does not pass fails one
            metric. None for what `outcome` says. Chance follows from the `seed` of the sandbox.
        agent_version: Version of the agent that the runs report.
        unit_tests: Number of unit tests in the set.
        repeats: Number of repeats of each unit test.
        metrics: Number of metrics of each unit test.
        trouble_at: Share of the run (0 to 1) after which the first failed metric or error is
            visible; the run continues.
        artifacts_after: Seconds from the end of a run until its artifacts are available; None
            for never.
        cancel_after: Seconds until a cancel takes effect; None for a cancel without effect.
        artifacts_when_cancelled: Whether cancelled runs get artifacts too.
        artifact: The artifact of a run.
        cancelled_at: Seconds from the start of a run until someone else cancels it; None for
            never.
        unlisted: Time spans, in seconds from the start of a run, in which lists omit it, even if
            it is requested by id: ``[(0, 3)]`` for lists that lag, ``[(10, 20)]`` for a run that
            disappears for a while.
        pool: Take the unit tests from a pool of this size that sets share; None for unit tests
            that no other set has.

    Raises:
        ArgumentError: If a setting is invalid, or two contradict each other; the message names
            them.
    """

    seconds: float | tuple[float, float] = 2.0
    outcome: Outcome = "passed"
    pass_rate: float | Iterable[float] | None = None
    agent_version: int = 12
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
    pool: int | None = None

    def __post_init__(self) -> None:
        check_choice("outcome", self.outcome, get_args(Outcome))
        self._check_times()
        check_count("unit_tests", self.unit_tests, least=1)
        check_count("repeats", self.repeats, least=1)
        check_count("metrics", self.metrics)
        check_count("agent_version", self.agent_version)
        check_type("artifact", self.artifact, ArtifactPlan)
        check_type("artifacts_when_cancelled", self.artifacts_when_cancelled, bool)
        if self.metrics == 0 and (self.outcome == "failed" or self.pass_rate is not None):
            raise ArgumentError("a run without metrics cannot fail them: give metrics from 1")
        if self.pool is not None:
            check_count("pool", self.pool)
            if self.pool < self.unit_tests:
                raise ArgumentError(
                    f"pool must have at least the {self.unit_tests} unit tests of a set, "
                    f"not {self.pool}"
                )
        self._check_rates()

    def _check_times(self) -> None:
        if isinstance(self.seconds, tuple) and len(self.seconds) != 2:
            raise ArgumentError(f"seconds must be one number or two, not {self.seconds!r:.80}")
        for value in self.bounds:
            check_number("seconds", value)
        low, high = self.bounds
        if low > high:
            raise ArgumentError(f"seconds must have the smaller number first, not {self.seconds}")
        check_number("trouble_at", self.trouble_at, to=1.0)
        for name in ("artifacts_after", "cancel_after", "cancelled_at"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value)
        check_type("unlisted", self.unlisted, Iterable)
        object.__setattr__(self, "unlisted", tuple(self.unlisted))  # hashable, reusable
        for span in self.unlisted:
            pair = isinstance(span, tuple | list) and len(span) == 2
            if not pair or not 0 <= span[0] <= span[1]:
                raise ArgumentError(
                    "unlisted must have spans like (0, 3), which do not end before they begin, "
                    f"not {span!r:.80}"
                )

    def _check_rates(self) -> None:
        if isinstance(self.pass_rate, Iterable):
            object.__setattr__(self, "pass_rate", tuple(self.pass_rate))
        if self.pass_rate is not None:
            check_type("pass_rate", self.pass_rate, int | float | tuple)
        if self.rates is None:
            return
        for rate in self.rates:
            check_number("pass_rate", rate, to=1.0)
        if len(self.rates) != self.unit_tests:
            raise ArgumentError(
                f"pass_rate must be one number, or one for each of {self.unit_tests} unit tests"
            )
        if self.outcome != "passed":
            raise ArgumentError("pass_rate and outcome exclude each other: give one of them")

    @property
    def rates(self) -> tuple[float, ...] | None:
        """The probability that a repeat passes, for each unit test; None where `outcome` says."""
        if isinstance(self.pass_rate, int | float):
            return (self.pass_rate,) * self.unit_tests
        return None if self.pass_rate is None else tuple(self.pass_rate)

    @property
    def bounds(self) -> tuple[float, float]:
        """The minimum and maximum duration of a run."""
        return self.seconds if isinstance(self.seconds, tuple) else (self.seconds, self.seconds)

    @property
    def steps(self) -> int:
        """Number of repeats of all unit tests; step s is a repeat of unit test s % unit_tests."""
        return self.unit_tests * self.repeats


@dataclass(frozen=True, slots=True)
class RunScript:
    """What will happen in one run, decided when it starts.

    Attributes:
        seconds: Its duration.
        errors: Error messages by step.
        failed: Indices of the failed metrics by step.
    """

    seconds: float
    errors: dict[int, str]
    failed: dict[int, frozenset[int]]


def draw_script(plan: SetPlan, run_id: str) -> RunScript:
    """Draw what will happen in a run; the same for the same id.

    The first step after `SetPlan.trouble_at` always fails, each later one with probability 1/4.
    """
    dice = random.Random(run_id)  # noqa: S311  # repeatable on purpose
    seconds = dice.uniform(*plan.bounds)
    first = min(int(plan.trouble_at * plan.steps), plan.steps - 1)
    troubled = [s for s in range(first, plan.steps) if s == first or dice.random() < 0.25]
    errors: dict[int, str] = {}
    failed: dict[int, frozenset[int]] = {}
    if plan.outcome == "errored":
        errors = {step: dice.choice(_ERRORS) for step in troubled}
    elif (rates := plan.rates) is not None:
        failed = {
            step: frozenset({dice.randrange(plan.metrics)})
            for step in range(plan.steps)
            if dice.random() >= rates[step % plan.unit_tests]
        }
    elif plan.outcome == "failed":
        failed = {step: frozenset({dice.randrange(plan.metrics)}) for step in troubled}
    return RunScript(seconds, errors, failed)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The actual state of a run, regardless of what the API has responded.

    Attributes:
        id: Its id.
        organization_id: Its organization.
        unit_test_set_id: Its set.
        creator: The organization and the user who started it.
        created_at: When it was started, as the API reports it.
        cancelled: Whether a cancel was accepted.
        is_completed: Whether it has ended.
        failed_metrics: Whether a metric has failed.
        errored: Whether a repeat had an error.
        artifacts_generated: Whether its artifacts are available.
        done: Number of repeats that have ended.
        total: Number of repeats in all.
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
class SimulatedSet:
    """A unit test set, and the plan of its next runs.

    Attributes:
        number: How many sets were added before it.
        tags: Its tags; a tag without value has None.
    """

    id: str
    organization_id: str
    plan: SetPlan
    number: int
    name: str
    description: str | None
    tags: Mapping[str, str | None]


@dataclass(slots=True, eq=False)
class SimulatedRun:
    """A run of the sandbox; its state follows from these attributes and the time."""

    id: str
    set: SimulatedSet
    creator: tuple[str, str]
    created_at: datetime
    started: float
    script: RunScript
    cancelled: float | None = None

    @property
    def plan(self) -> SetPlan:
        """The plan of its set."""
        return self.set.plan

    @property
    def duration(self) -> float:
        """Its duration in seconds, with the effect of a cancel."""
        if self.cancelled is None or self.plan.cancel_after is None:
            return self.script.seconds
        return min(self.script.seconds, self.cancelled - self.started + self.plan.cancel_after)

    @property
    def artifacts_after(self) -> float | None:
        """Seconds from its start until its artifacts are available; None for never."""
        duration, delay = self.duration, self.plan.artifacts_after
        cut_short = duration < self.script.seconds
        if delay is None or (cut_short and not self.plan.artifacts_when_cancelled):
            return None
        return duration + delay

    def is_completed(self, now: float) -> bool:
        """Return whether it has ended."""
        return now - self.started >= self.duration

    def is_listed(self, now: float) -> bool:
        """Return whether lists include it."""
        elapsed = now - self.started
        return not any(start <= elapsed < stop for start, stop in self.plan.unlisted)

    def has_artifacts(self, now: float) -> bool:
        """Return whether its artifacts are available."""
        after = self.artifacts_after
        return after is not None and now - self.started >= after

    def cancel(self, now: float) -> None:
        """Cancel it; only the first cancel counts."""
        self.cancelled = now if self.cancelled is None else min(self.cancelled, now)

    def info(self, now: float) -> RunInfo:
        """Return its state."""
        # Not negative, if the clock was set back.
        lived = max(0.0, min(now - self.started, self.duration))
        total = self.plan.steps
        done = total if lived >= self.script.seconds else int(total * lived / self.script.seconds)
        return RunInfo(
            id=self.id,
            organization_id=self.set.organization_id,
            unit_test_set_id=self.set.id,
            creator=self.creator,
            created_at=self.created_at,
            cancelled=self.cancelled is not None and self.cancelled <= now,
            is_completed=self.is_completed(now),
            failed_metrics=any(step < done for step in self.script.failed),
            errored=any(step < done for step in self.script.errors),
            artifacts_generated=self.has_artifacts(now),
            done=done,
            total=total,
        )


class Simulation:
    """All unit test sets and runs of a sandbox.

    Args:
        seed: Seed of the ids; None for one from Python's global generator.
        created_at_skew: Seconds by which ``created_at`` is ahead of the service's clock.
    """

    def __init__(self, seed: int | None, created_at_skew: float) -> None:
        self.sets: dict[str, SimulatedSet] = {}
        self.runs: dict[str, SimulatedRun] = {}
        # Repeatable on purpose, with `random.seed` too.
        self._dice = random.Random(random.getrandbits(64) if seed is None else seed)  # noqa: S311
        self._created_at_skew = created_at_skew
        self._by_organization: dict[str, list[SimulatedRun]] = {}
        self._latest: dict[tuple[tuple[str, str], str], SimulatedRun] = {}
        self._newest: dict[str, str] = {}
        self.deleted: set[str] = set()

    def sets_of(self, organization_id: str) -> list[SimulatedSet]:
        """Return the sets of an organization, in the order in which they were added."""
        return [one for one in self.sets.values() if one.organization_id == organization_id]

    def new_id(self) -> str:
        """Return a new id."""
        return self._dice.randbytes(12).hex()

    def add_set(
        self,
        organization_id: str,
        plan: SetPlan,
        set_id: str | None,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> str:
        """Add or replace a set; return its id."""
        set_id = set_id or self.new_id()
        replaced = self.sets.get(set_id)
        number = len(self.sets) if replaced is None else replaced.number
        usual_name, usual_description = titled(SETS, number)
        self.sets[set_id] = SimulatedSet(
            *(set_id, organization_id, plan, number),
            name=usual_name if name is None else name,
            description=usual_description if description is None else description,
            tags={} if tags is None else dict(tags),
        )
        return set_id

    def find_set(self, organization_id: str, set_id: str) -> SimulatedSet | None:
        """Return a set of an organization; None if there is none."""
        found = self.sets.get(set_id)
        return found if found is not None and found.organization_id == organization_id else None

    def find_run(self, organization_id: str, run_id: str) -> SimulatedRun | None:
        """Return a run of an organization; None if there is none."""
        found = self.runs.get(run_id)
        if found is None or found.set.organization_id != organization_id:
            return None
        return found

    def listed(self, organization_id: str, ids: Iterable[str], now: float) -> list[SimulatedRun]:
        """Return the listed runs of an organization, oldest first; only those of `ids`, if any."""
        runs = self._by_organization.get(organization_id, [])
        if ids:
            found = [self.find_run(organization_id, run_id) for run_id in ids]
            runs = sorted((run for run in found if run is not None), key=lambda run: run.started)
        return [run for run in runs if run.is_listed(now)]

    def last_run_id(self, set_id: str) -> str | None:
        """Return the id of the newest run of a set; None if there is none."""
        return self._newest.get(set_id)

    def is_busy(self, creator: tuple[str, str], set_id: str, now: float) -> bool:
        """Return whether a user has an unfinished run of a set."""
        latest = self._latest.get((creator, set_id))
        return latest is not None and not latest.is_completed(now)

    def start(
        self, unit_test_set: SimulatedSet, creator: tuple[str, str], now: float
    ) -> SimulatedRun:
        """Start a run, without any checks."""
        run_id, plan = self.new_id(), unit_test_set.plan
        created_at = to_datetime(now + self._created_at_skew)
        run = SimulatedRun(
            run_id, unit_test_set, creator, created_at, now, draw_script(plan, run_id)
        )
        if plan.cancelled_at is not None:
            run.cancelled = now + plan.cancelled_at
        self.runs[run_id] = run
        self._by_organization.setdefault(unit_test_set.organization_id, []).append(run)
        self._latest[creator, unit_test_set.id] = run
        self._newest[unit_test_set.id] = run_id
        return run


def object_ids(seed: str, count: int) -> list[str]:
    """Return `count` ids of 24 hexadecimal digits; the same for the same `seed`."""
    text = random.Random(seed).randbytes(12 * count).hex()  # noqa: S311  # repeatable on purpose
    return [text[at : at + 24] for at in range(0, len(text), 24)]


def to_datetime(seconds: float) -> datetime:
    """Convert to an aware datetime in whole milliseconds (rounded down), as the service does."""
    return datetime.fromtimestamp(int(seconds * 1000) / 1000, UTC)


def rfc3339(moment: datetime) -> str:
    """Format a time as the API does, with milliseconds and ``Z``."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def remember(cache: dict[KeyT, ValueT], key: KeyT, value: ValueT, most: int) -> ValueT:
    """Add `value` to a cache of at most `most` entries, evicting the oldest; return `value`."""
    cache.pop(key, None)
    while len(cache) >= most:
        cache.pop(next(iter(cache)), None)
    cache[key] = value
    return value
