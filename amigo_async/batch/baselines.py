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
from amigo_async.verdicts.gate import AT_THE_END

_PAGE: Final = LIST.page_size

# Runs that are read of each set beyond those asked for, as some may not be usable.
SPARE: Final = 5

NO_BASELINE: Final = "no baseline: the set has no completed run from before this one"


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
        # Why runs are no baseline: of each set, by run id.
        self._flaws: dict[str, dict[str, str]] = {}
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
        if self._baseline is None or run is None or item.verdict not in AT_THE_END:
            return
        if set_id in self.comparisons or set_id in self.reasons:
            return
        past = self._past.get(set_id)
        if past is None:
            if late:
                self.reasons[set_id] = self._failures.get(set_id, self._unread)
            return
        try:
            await self._compare(item, run, past)
        except Exception as error:  # noqa: BLE001  # the outcome is as without a baseline
            self.reasons[set_id] = log_line(f"the runs could not be compared: {error!r:.200}")

    async def _compare(self, item: BatchItem, run: Run, past: Sequence[Run]) -> None:
        set_id = item.set_id
        # By the service's own times alone: a run of someone else may have ended meanwhile.
        named = self._most is None
        earlier = [
            one for one in past if one.id != run.id and (named or one.created_at <= run.created_at)
        ]
        known = item.known_failing
        found = await in_thread(compare_with_last, earlier, run, self._most, known)
        flaws = self._flaws_of(set_id, run.id)
        if found is None:
            reason = f"no baseline: {'; '.join(flaws)}" if flaws else NO_BASELINE
            self.reasons[set_id] = self._failures.get(set_id, reason)
            return
        if named:
            found = replace(found, reasons=(*found.reasons, *flaws))
        self.comparisons[set_id] = found
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

    def _flaws_of(self, set_id: str, run_id: str) -> list[str]:
        """Say why runs are no baseline of a run: those that were named, or else the last one."""
        flaws = dict(self._flaws.get(set_id, {}))
        if isinstance(self._baseline, Mapping) and run_id in self._baseline.get(set_id, ()):
            flaws[run_id] = "is the run itself"
        said = [log_line(f"run {i} {flaw}") for i, flaw in flaws.items()]
        if self._most is None or len(said) < 2:
            return said
        return [said[0], f"and {len(said) - 1} more runs are not usable"]

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
        most = self._most or 1
        for group in _chunks(list(items), max(_PAGE // (most + SPARE), 1)):
            more = group
            if len(group) > 1:
                with self._failing(group):
                    more = await self._read_group({i: items[i] for i in group}, most)
            for set_id in more:
                if set_id not in self._failures:
                    with self._failing([set_id]):
                        await self._read_set(items[set_id], most)

    async def _read_set(self, item: BatchItem, most: int) -> None:
        """Read the last runs of one set; a whole page only if too few of the first are usable."""
        size = most + SPARE
        for limit in (size, _PAGE) if size < _PAGE else (size,):
            unreadable: dict[str, str] = {}
            runs = await self._calls.history(item.set_id, limit, unreadable)
            past, flaws = _usable(runs, unreadable, item)
            if len(past) >= most or len(runs) < limit:
                break
        self._past[item.set_id], self._flaws[item.set_id] = past, flaws

    async def _read_group(self, items: Mapping[str, BatchItem], most: int) -> list[str]:
        """Read one page of runs of several sets; return the sets that need a page of their own."""
        try:
            page = await self._calls.page(
                simulation_unit_test_set_id=list(items),
                is_completed=True,
                sort_by="-created_at",
                limit=min((most + SPARE) * len(items), _PAGE),
            )
        except DecodeError as error:
            if not error.lasting:
                raise
            return list(items)  # so much does not fit into one response
        runs = page.simulation_unit_test_set_runs
        # Sets that ran often push the others off the page, and a record that cannot be decoded at
        # all may be of any set.
        partial = page.has_more or not page.unreadable.keys() <= {run.id for run in runs}
        short = []
        for set_id, item in items.items():
            of_set = {run.id: run for run in runs if run.simulation_unit_test_set_id == set_id}
            unreadable = {i: flaw for i, flaw in page.unreadable.items() if i in of_set}
            past, flaws = _usable(of_set.values(), unreadable, item)
            if partial and len(past) < most:
                short.append(set_id)  # its run may end before its own page is read
            else:
                self._past[set_id], self._flaws[set_id] = past, flaws
        return short

    async def _read_named(
        self, set_ids: Iterable[str], baseline: Mapping[str, Sequence[str]]
    ) -> None:
        """Read runs by their ids."""
        unnamed = [set_id for set_id in set_ids if set_id not in baseline]
        self._past.update(dict.fromkeys(unnamed, ()))
        self._failures.update(dict.fromkeys(unnamed, "no baseline was named for this set"))
        ids = list(dict.fromkeys(i for run_ids in baseline.values() for i in run_ids))
        found: dict[str, Run] = {}
        unreadable: dict[str, str] = {}
        read: set[str] = set()
        for chunk in _chunks(ids, _PAGE):
            sets = [i for i, run_ids in baseline.items() if not set(run_ids).isdisjoint(chunk)]
            with self._failing(sets):
                page = await self._calls.page(id=chunk, limit=len(chunk))
                found |= {run.id: run for run in page.simulation_unit_test_set_runs}
                unreadable |= page.unreadable
                read.update(chunk)
            for set_id in sets:
                if read.issuperset(baseline[set_id]):
                    self._past[set_id], self._flaws[set_id] = _split(
                        baseline[set_id], found, unreadable, set_id
                    )

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


def _usable(
    runs: Iterable[Run], unreadable: Mapping[str, str], item: BatchItem
) -> tuple[list[Run], dict[str, str]]:
    """Split runs that are not of this batch into baselines and the flaws of the others, by id.

    Args:
        runs: Runs of the set, newest first.
        unreadable: What of these and of further runs of the set cannot be decoded, by id.
        item: The set.
    """
    own = {item.run_id, *item.before.earlier}
    every = {run.id: run for run in runs}
    ids = [i for i in dict.fromkeys((*every, *unreadable)) if i not in own]
    return _split(ids, every, unreadable, item.set_id)


def _split(
    ids: Iterable[str], runs: Mapping[str, Run], unreadable: Mapping[str, str], set_id: str
) -> tuple[list[Run], dict[str, str]]:
    """Split runs into those that are baselines of a set, and why the others are none, by id."""
    past: list[Run] = []
    flaws: dict[str, str] = {}
    for run_id in dict.fromkeys(ids):
        run = runs.get(run_id)
        if run_id in unreadable:
            flaws[run_id] = f"cannot be decoded: {unreadable[run_id]}"
        elif run is None:
            flaws[run_id] = "was not found"
        elif run.simulation_unit_test_set_id != set_id:
            flaws[run_id] = f"is of set {run.simulation_unit_test_set_id}"
        elif not run.is_completed:
            flaws[run_id] = "has not ended"
        elif run.was_cut_short:
            flaws[run_id] = "was cut short"
        else:
            past.append(run)
    return past, flaws


def _chunks(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    for at in range(0, len(ids), size):
        yield list(ids[at : at + size])


def compare_with_last(
    past: Sequence[Run], run: Run, most: int | None, known_failing: Collection[str]
) -> Comparison | None:
    """Compare a run with the last ones that are comparable.

    Args:
        past: Completed runs that were not cut short, newest first.
        run: The run.
        most: Number of runs to compare with; None for all, comparable or not.
        known_failing: Ids of unit tests that are known to fail.

    Returns:
        The comparison; one that says why if no run is comparable, and None if there is no run.
    """
    chosen = list(past)
    if most is not None:
        comparable = (one for one in past if are_comparable(one, run, known_failing))
        # If none is comparable, the comparison with the last one says why.
        chosen = list(islice(comparable, most)) or chosen[:1]
    return compare(chosen, run, known_failing=known_failing) if chosen else None
