"""What a run will do: decided when it starts, a pure function of time from then on."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["passed", "failed", "errored"]

_TROUBLES = (
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
        checksum: Which ``x-amz-checksum-*`` the store tells; None for none.
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

    def __post_init__(self) -> None:
        low, high = self.bounds
        if not 0 <= low <= high or math.isinf(high):
            raise ValueError("seconds must be finite and not negative, the smaller one first")
        if min(self.unit_tests, self.repeats) < 1 or self.metrics < 0:
            raise ValueError("a run needs at least one unit test and one repeat")
        if self.metrics == 0 and self.outcome == "failed":
            raise ValueError("a run without metrics cannot fail them")

    @property
    def bounds(self) -> tuple[float, float]:
        """The shortest and the longest a run takes."""
        return self.seconds if isinstance(self.seconds, tuple) else (self.seconds, self.seconds)

    @property
    def steps(self) -> int:
        """Repeats of all unit tests together; step s is one of unit test s modulo their number."""
        return self.unit_tests * self.repeats


@dataclass(frozen=True, slots=True)
class Fate:
    """How long one run takes and what goes wrong in it.

    Attributes:
        seconds: How long it takes.
        errors: The error of each step that meets one.
        failed: The metrics that each step fails, by their number.
    """

    seconds: float
    errors: dict[int, str]
    failed: dict[int, frozenset[int]]


@dataclass(frozen=True, slots=True)
class State:
    """What is true of a run at an instant.

    Attributes:
        done: Steps that have ended.
        total: Steps in all.
        is_completed: Whether it is over.
        failed_metrics: Whether a metric has failed so far.
        errored: Whether a step has met an error so far.
        artifacts_generated: Whether its artifacts are there.
    """

    done: int
    total: int
    is_completed: bool
    failed_metrics: bool
    errored: bool
    artifacts_generated: bool


def fate(plan: SetPlan, run_id: str) -> Fate:
    """Draw what becomes of a run; the same for the same run.

    The first step in trouble is so for sure, each later one with a chance of one in four.
    """
    dice = random.Random(run_id)  # noqa: S311  # repeatable on purpose
    low, high = plan.bounds
    seconds = dice.uniform(low, high)
    first = min(int(plan.trouble_at * plan.steps), plan.steps - 1)
    troubled = [s for s in range(first, plan.steps) if s == first or dice.random() < 0.25]
    if plan.outcome == "errored":
        return Fate(seconds, {step: dice.choice(_TROUBLES) for step in troubled}, {})
    if plan.outcome == "failed":
        failed = {step: frozenset({dice.randrange(plan.metrics)}) for step in troubled}
        return Fate(seconds, {}, failed)
    return Fate(seconds, {}, {})


@dataclass(frozen=True, slots=True)
class Ending:
    """When a run ends, in seconds from its start.

    Attributes:
        completed: When it is over.
        artifacts: When its artifacts are there; None for never.
    """

    completed: float
    artifacts: float | None


def ending(plan: SetPlan, fate: Fate, cancelled: float | None) -> Ending:
    """When a run ends.

    Args:
        plan: What it does.
        fate: How long it takes.
        cancelled: Seconds from its start to its cancellation; None if it was not cancelled.
    """
    end = fate.seconds
    if cancelled is not None and plan.cancel_after is not None:
        end = min(end, cancelled + plan.cancel_after)
    cut_short = end < fate.seconds
    if plan.artifacts_after is None or (cut_short and not plan.artifacts_when_cancelled):
        return Ending(end, None)
    return Ending(end, end + plan.artifacts_after)


def state(plan: SetPlan, fate: Fate, elapsed: float, end: Ending) -> State:
    """What is true of a run.

    Args:
        plan: What it does.
        fate: How long it takes and what goes wrong.
        elapsed: Seconds since its start.
        end: When it ends.
    """
    # Before its start: whoever sets the clock back is not told of what is still to come.
    lived = max(0.0, min(elapsed, end.completed))
    done = plan.steps if fate.seconds <= lived else int(plan.steps * lived / fate.seconds)
    return State(
        done=done,
        total=plan.steps,
        is_completed=elapsed >= end.completed,
        failed_metrics=any(step < done for step in fate.failed),
        errored=any(step < done for step in fate.errors),
        artifacts_generated=end.artifacts is not None and elapsed >= end.artifacts,
    )
