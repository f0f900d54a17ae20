"""The unit test sets and runs of the sandbox, and what is true of them at an instant."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from amigo_async.testing.accounts import Permission, User
from amigo_async.testing.documents import object_ids, results, specs
from amigo_async.testing.epoch import instant, iso
from amigo_async.testing.plans import Ending, Fate, SetPlan, State, ending, fate, state

_CACHED = 2_000


@dataclass(slots=True)
class UnitTestSet:
    """A unit test set and what its next runs will do."""

    id: str
    organization_id: str
    plan: SetPlan


@dataclass(slots=True, eq=False)
class Run:
    """A run as the sandbox keeps it; all else follows from these and the time."""

    id: str
    organization_id: str
    set_id: str
    creator: tuple[str, str]
    started: float
    plan: SetPlan
    fate: Fate
    cancelled: float | None = None
    created_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.created_at = instant(self.started)

    def state(self, now: float) -> State:
        """What is true of it `now`."""
        return state(self.plan, self.fate, now - self.started, self.ending())

    def ending(self) -> Ending:
        """When it ends, in seconds from its start."""
        cancelled = None if self.cancelled is None else self.cancelled - self.started
        return ending(self.plan, self.fate, cancelled)

    def cancel(self, now: float) -> None:
        """Take note of a cancel; the first one counts."""
        if self.cancelled is None:
            self.cancelled = now

    def document(self, current: State, *, tests: bool, full: bool) -> dict[str, Any]:
        """It in the form of the API.

        Args:
            current: What is true of it.
            tests: Whether the reader may get unit test sets.
            full: Whether the reader may get unit tests.
        """
        organization_id, user_id = self.creator
        outcome = (
            results(self.id, self.set_id, self.plan, self.fate, current.done, full=full)
            if tests
            else []
        )
        return {
            "org_id": self.organization_id,
            "id": self.id,
            "is_completed": current.is_completed,
            "simulation_unit_test_set_id": self.set_id,
            "failed_metrics": current.failed_metrics,
            "errored": current.errored,
            "artifacts_generated": current.artifacts_generated,
            "unit_test_run_specs": specs(self.set_id, self.plan, full=full) if tests else [],
            "unit_test_run_results": outcome,
            "created_at": iso(self.started),
            "creator": {"org_id": organization_id, "user_id": user_id},
        }


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The truth about a run, whatever the API may have answered.

    Attributes:
        id: The run.
        organization_id: Its organization.
        unit_test_set_id: Its set.
        creator: The organization and the user who started it.
        created_at: When it was started.
        cancelled: Whether a cancel was accepted.
        is_completed: Whether it is over.
        failed_metrics: Whether a metric has failed.
        errored: Whether a repeat has erred.
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


class World:
    """All sets and runs.

    Args:
        seed: What ids are made from.
    """

    def __init__(self, seed: int | None) -> None:
        self.dice = random.Random(seed)  # noqa: S311  # repeatable on purpose
        self.sets: dict[str, UnitTestSet] = {}
        self.runs: dict[str, Run] = {}
        self._of: dict[str, list[Run]] = {}
        self._latest: dict[tuple[tuple[str, str], str], Run] = {}
        self._encoded: dict[tuple[str, bool, bool], tuple[State, msgspec.Raw]] = {}

    def new_id(self) -> str:
        """An id that is not taken."""
        return object_ids(str(self.dice.getrandbits(64)), 1)[0]

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
        return found if found is not None and found.organization_id == organization_id else None

    def unfinished(self, creator: tuple[str, str], set_id: str, now: float) -> Run | None:
        """The run of a user and set that is not over."""
        latest = self._latest.get((creator, set_id))
        return None if latest is None or latest.state(now).is_completed else latest

    def start(self, unit_test_set: UnitTestSet, creator: tuple[str, str], now: float) -> Run:
        """Start a run; whether it may start is for the caller to check."""
        run_id, plan = self.new_id(), unit_test_set.plan
        run = Run(
            run_id,
            unit_test_set.organization_id,
            unit_test_set.id,
            creator,
            now,
            plan,
            fate(plan, run_id),
        )
        self.runs[run_id] = run
        self._of.setdefault(run.organization_id, []).append(run)
        self._latest[creator, run.set_id] = run
        return run

    def of(self, organization_id: str, ids: Iterable[str]) -> list[Run]:
        """The runs of an organization in the order in which they started, or those of `ids`."""
        wanted = [self.find_run(organization_id, run_id) for run_id in ids]
        if wanted:
            found = [run for run in wanted if run is not None]
            return sorted(found, key=lambda run: run.started)
        return self._of.get(organization_id, [])

    def encoded(self, run: Run, user: User, now: float) -> msgspec.Raw:
        """A run as JSON, as `user` may see it."""
        tests, full = user.may(Permission.GET_SET), user.may(Permission.GET_TEST)
        key, current = (run.id, tests, full), run.state(now)
        cached = self._encoded.get(key)
        if cached is not None and cached[0] == current:
            return cached[1]
        raw = msgspec.Raw(msgspec.json.encode(run.document(current, tests=tests, full=full)))
        self._encoded.pop(key, None)
        while len(self._encoded) >= _CACHED:
            del self._encoded[next(iter(self._encoded))]
        self._encoded[key] = current, raw
        return raw

    def info(self, run: Run, now: float) -> RunInfo:
        """The truth about a run."""
        current = run.state(now)
        return RunInfo(
            id=run.id,
            organization_id=run.organization_id,
            unit_test_set_id=run.set_id,
            creator=run.creator,
            created_at=run.created_at,
            cancelled=run.cancelled is not None,
            is_completed=current.is_completed,
            failed_metrics=current.failed_metrics,
            errored=current.errored,
            artifacts_generated=current.artifacts_generated,
            done=current.done,
            total=current.total,
        )
