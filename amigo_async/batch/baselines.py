"""Baselines of a batch: past runs to compare with, read beside its work and no error of it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final

import anyio
from msgspec.structs import replace

from amigo_async.batch.options import BatchSettings
from amigo_async.batch.outcomes import BatchItem
from amigo_async.errors import AmigoError, DecodeError
from amigo_async.escaping import log_line
from amigo_async.events import BaselineMissing, Emit, RunCompared
from amigo_async.models import Run
from amigo_async.protocol.endpoints import LIST
from amigo_async.resources.runs import RunCalls
from amigo_async.threads import in_thread
from amigo_async.verdicts.comparison import Comparison, are_comparable, compare

_PAGE: Final = LIST.page_size or 50

# Runs that are read of each set beyond those asked for, as some may not be usable.
SPARE: Final = 5

NO_BASELINE: Final = "no baseline: the set has no completed run from before this one"

# The verdicts of completed runs that were not cut short.
_COMPARED: Final = frozenset({"passed", "failed", "undecided", "errored"})


class Baselines:
    """The baselines of a batch, as far as they were asked for, and what came of comparing.

    Args:
        settings: The options of the batch.
        calls: Lists runs.
        batch_id: Id of the batch, for the events.
        emit: Emits events.

    Attributes:
        comparisons: The comparisons made so far, by set id.
        reasons: Why a completed run was not compared, by set id.
        read: Set once nothing more will be compared.
    """

    def __init__(
        self, settings: BatchSettings, *, calls: RunCalls, batch_id: str, emit: Emit
    ) -> None:
        self.comparisons: dict[str, Comparison] = {}
        self.reasons: dict[str, str] = {}
        self.read = asyncio.Event()
        self._baseline = settings.baseline
        self._timeout = settings.explain_timeout
        self._calls = calls
        self._batch_id = batch_id
        self._emit = emit
        self._past: dict[str, Sequence[Run]] = {}
        self._failures: dict[str, str] = {}
        self._flaws: dict[str, tuple[str, ...]] = {}  # of runs that were named and are no baseline
        self._unread = "the baseline was not read in time"

    async def read_all(self, items: Collection[BatchItem], concluded: asyncio.Event) -> None:
        """Read the baselines while the runs go on, and compare runs that ended before.

        Args:
            items: The sets of the batch.
            concluded: Set once every set has its outcome.
        """
        try:
            if self._baseline is not None:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._read, items, done := asyncio.Event())
                    await concluded.wait()
                    with anyio.move_on_after(self._timeout):
                        await done.wait()
                    group.cancel_scope.cancel()
                for item in items:
                    await self.compare(item, late=True)
                self._report()
        finally:
            self.read.set()

    async def compare(self, item: BatchItem, *, late: bool = False) -> None:
        """Compare a completed run, if its baseline has been read.

        Args:
            item: The set.
            late: Whether its baseline will not be read any more.
        """
        set_id, run = item.set_id, item.run
        if self._baseline is None or run is None or item.verdict not in _COMPARED:
            return
        if set_id in self.comparisons or set_id in self.reasons:
            return
        past = self._past.get(set_id)
        if past is None:
            if late:
                self.reasons[set_id] = self._failures.get(set_id, self._unread)
            return
        try:
            await self._compare(set_id, run, past)
        except Exception as error:  # noqa: BLE001  # the outcome is as without a baseline
            self.reasons[set_id] = log_line(f"the runs could not be compared: {error!r:.200}")

    async def _compare(self, set_id: str, run: Run, past: Sequence[Run]) -> None:
        # By the service's own times alone: a run of someone else may have ended meanwhile.
        named = self._most is None
        earlier = [
            one for one in past if one.id != run.id and (named or one.created_at <= run.created_at)
        ]
        found = await in_thread(compare_with_last, earlier, run, self._most)
        if found is None:
            self.reasons[set_id] = self._failures.get(set_id, NO_BASELINE)
            return
        flaws = self._flaws.get(set_id, ())
        found = self.comparisons[set_id] = replace(found, reasons=(*found.reasons, *flaws))
        self._emit(
            RunCompared(
                set_id,
                run.id,
                found.verdict,
                tuple(found.baseline_run_ids),
                tuple(test.unit_test_id for test in found.regressed),
                self._batch_id,
            )
        )

    @property
    def _most(self) -> int | None:
        """Number of runs to compare with; None for all that were named."""
        if isinstance(self._baseline, Mapping):
            return None
        return self._baseline if isinstance(self._baseline, int) else 1

    async def _read(self, items: Collection[BatchItem], done: asyncio.Event) -> None:
        try:
            if isinstance(self._baseline, Mapping):
                await self._read_named([item.set_id for item in items], self._baseline)
            else:
                await self._read_last({item.set_id: item for item in items})
        except Exception as error:  # noqa: BLE001  # the batch is as without baselines
            self._unread = log_line(f"the baseline could not be read: {error!r:.200}")
        finally:
            done.set()

    async def _read_last(self, items: Mapping[str, BatchItem]) -> None:
        """Read the last runs of all sets, several sets with one request."""
        size = (self._most or 1) + SPARE
        for group in _chunks(list(items), max(_PAGE // size, 1)):
            more = group
            if len(group) > 1:
                with self._failing(group):
                    more = await self._read_group({i: items[i] for i in group}, size)
            for set_id in more:
                if set_id not in self._failures:
                    with self._failing([set_id]):
                        runs = await self._calls.history(set_id, max(size, _PAGE))
                        self._past[set_id] = _usable(runs, items[set_id])

    async def _read_group(self, items: Mapping[str, BatchItem], size: int) -> list[str]:
        """Read one page of runs of several sets; return the sets that need a page of their own."""
        try:
            page = await self._calls.page(
                simulation_unit_test_set_id=list(items),
                is_completed=True,
                sort_by="-created_at",
                limit=min(size * len(items), _PAGE),
            )
        except DecodeError as error:
            if not error.lasting:
                raise
            return list(items)  # so much does not fit into one response
        runs = page.simulation_unit_test_set_runs
        for set_id, item in items.items():
            of_set = [run for run in runs if run.simulation_unit_test_set_id == set_id]
            self._past[set_id] = _usable(of_set, item)
        # Sets that ran often push the others off the page.
        short = [i for i in items if len(self._past[i]) < (self._most or 1)]
        return short if page.has_more else []

    async def _read_named(
        self, set_ids: Iterable[str], baseline: Mapping[str, Sequence[str]]
    ) -> None:
        """Read runs by their ids."""
        unnamed = [set_id for set_id in set_ids if set_id not in baseline]
        self._past.update(dict.fromkeys(unnamed, ()))
        self._failures.update(dict.fromkeys(unnamed, "no baseline was named for this set"))
        ids = list(dict.fromkeys(i for run_ids in baseline.values() for i in run_ids))
        found: dict[str, Run] = {}
        with self._failing(list(baseline)):
            for chunk in _chunks(ids, _PAGE):
                page = await self._calls.page(id=chunk, limit=len(chunk))
                found |= {run.id: run for run in page.simulation_unit_test_set_runs}
            for set_id, run_ids in baseline.items():
                flaws = {i: _flaw(found.get(i), set_id) for i in dict.fromkeys(run_ids)}
                self._past[set_id] = [found[i] for i, flaw in flaws.items() if flaw is None]
                wrong = [f"run {i} {flaw}" for i, flaw in flaws.items() if flaw is not None]
                self._flaws[set_id] = tuple(map(log_line, wrong))
                if wrong:
                    self._failures[set_id] = log_line(f"no baseline: {'; '.join(wrong)}")

    @contextmanager
    def _failing(self, set_ids: Iterable[str]) -> Iterator[None]:
        """Keep an error of the service as the reason of these sets."""
        try:
            yield
        except AmigoError as error:
            reason = log_line(f"the baseline could not be read: {error}")
            self._failures.update(dict.fromkeys(set_ids, reason))

    def _report(self) -> None:
        """Emit each reason once."""
        of: dict[str, list[str]] = {}
        for set_id, reason in self.reasons.items():
            of.setdefault(reason, []).append(set_id)
        for reason, set_ids in of.items():
            self._emit(BaselineMissing(tuple(set_ids), reason, self._batch_id))


def _usable(runs: Iterable[Run], item: BatchItem) -> list[Run]:
    """Return the runs that ran every repeat and are not of this batch."""
    own = {item.run_id, *item.before.earlier}
    return [run for run in runs if run.id not in own and not run.was_cut_short]


def _flaw(run: Run | None, set_id: str) -> str | None:
    """Return why a run that was named is no baseline of a set; None if it is one."""
    if run is None:
        return "was not found"
    if run.simulation_unit_test_set_id != set_id:
        return f"is of set {run.simulation_unit_test_set_id}"
    if not run.is_completed:
        return "has not ended"
    return "was cut short" if run.was_cut_short else None


def _chunks(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    for at in range(0, len(ids), size):
        yield list(ids[at : at + size])


def compare_with_last(past: Sequence[Run], run: Run, most: int | None) -> Comparison | None:
    """Compare a run with the last ones that are comparable.

    Args:
        past: Completed runs that were not cut short, newest first.
        run: The run.
        most: Number of runs to compare with; None for all, comparable or not.

    Returns:
        The comparison; one that says why if no run is comparable, and None if there is no run.
    """
    chosen = list(past)
    if most is not None:
        comparable = (one for one in past if are_comparable(one, run))
        # If none is comparable, the comparison with the last one says why.
        chosen = list(islice(comparable, most)) or chosen[:1]
    return compare(chosen, run) if chosen else None
