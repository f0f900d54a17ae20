"""Names and reasons for a batch: read beside its work, kept in its journal, no error of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

import anyio
from msgspec.structs import replace

from amigo_async.batch.journal import Described, Explained, JournalEntry
from amigo_async.batch.options import BatchSettings
from amigo_async.batch.outcomes import BatchItem
from amigo_async.cancellation import finish
from amigo_async.errors import JournalError
from amigo_async.escaping import log_line
from amigo_async.events import DetailsMissing, Emit, NamesRead
from amigo_async.models import EvaluationResult, Run
from amigo_async.names import Directory, Explanations, Names, combined, evaluated, explain, without
from amigo_async.resources.evaluations import Evaluations
from amigo_async.transport.exceptions import debugging
from amigo_async.verdicts.gate import EXPLAINED

_log = logging.getLogger("amigo_async")


class Details:
    """The names and reasons of a batch, as far as they were asked for and are known.

    Args:
        settings: The options of the batch.
        directory: Looks up names.
        evaluations: Lists evaluations.
        batch_id: Id of the batch, for the events.
        emit: Emits events.
        write: Writes a line to the journal, if there is one.

    Attributes:
        names: The names read so far.
        explanations: The reasons read so far.
        read: Set once nothing more will be read.
    """

    def __init__(
        self,
        settings: BatchSettings,
        *,
        directory: Directory,
        evaluations: Evaluations,
        batch_id: str,
        emit: Emit,
        write: Callable[[JournalEntry], Awaitable[None]],
    ) -> None:
        self.names = Names()
        self.explanations = Explanations()
        self.read = asyncio.Event()
        self._settings = settings
        self._directory = directory
        self._evaluations = evaluations
        self._batch_id = batch_id
        self._emit = emit
        self._write = write
        self._unkept: dict[str, None] = {}

    async def read_all(
        self, items: Collection[BatchItem], before: Names, concluded: asyncio.Event
    ) -> None:
        """Read names while the runs go on; once all have ended, the rest and the reasons.

        Args:
            items: The sets of the batch.
            before: The names that the journal holds from earlier calls.
            concluded: Set once every set has its outcome.
        """
        try:
            if self._settings.describe:
                self._directory.learn(before)
                self._take(before)
            async with anyio.create_task_group() as group:
                if self._settings.describe:
                    set_ids = [item.set_id for item in items]
                    group.start_soon(self._directory.describe_sets, set_ids, self._take_and_keep)
                await concluded.wait()
                # What is still missing is read below, all kinds of names at once.
                group.cancel_scope.cancel()
            await self._read_rest(items)
        except Exception as error:  # noqa: BLE001  # the batch is as without names and reasons
            if debugging():
                _log.exception("names and reasons could not be read")
            note = log_line(f"names and reasons could not be read: {error!r:.200}")
            self.names = replace(self.names, notes=(note,))
            self._emit(DetailsMissing(note, self._batch_id))
        finally:
            self.read.set()

    async def _read_rest(self, items: Collection[BatchItem]) -> None:
        async with anyio.create_task_group() as group:
            if self._settings.describe:
                group.start_soon(self._describe, items)
            if self._settings.explain:
                group.start_soon(self._explain, items)
        unkept = tuple(self._unkept)
        if self._settings.describe:
            self.names = replace(self.names, notes=(*self.names.notes, *unkept))
        else:
            notes = (*self.explanations.notes, *unkept)
            self.explanations = replace(self.explanations, notes=notes)
        for note in dict.fromkeys((*self.names.notes, *self.explanations.notes)):
            self._emit(DetailsMissing(note, self._batch_id))

    async def _describe(self, items: Collection[BatchItem]) -> None:
        timeout = self._settings.explain_timeout
        runs = [item.run for item in items if item.run is not None]
        set_ids = [item.set_id for item in items]
        names = await self._directory.describe(runs, timeout=timeout, set_ids=set_ids)
        await self._take_and_keep(names)
        self.names = replace(self.names, notes=names.notes)

    async def _explain(self, items: Collection[BatchItem]) -> None:
        failed: list[tuple[BatchItem, Run, list[str]]] = [
            (item, item.run, list(evaluated(item.run, failed_only=True)))
            for item in items
            if item.run is not None and item.verdict in EXPLAINED
        ]
        known = {i: one for item in items for i, one in item.before.explained.items()}
        kept = set(known)

        async def take_and_keep(read: Mapping[str, EvaluationResult]) -> None:
            self.explanations = Explanations(dict(read))
            for item, run, ids in failed:
                new = [read[i] for i in ids if i in read and i not in kept]
                kept.update(one.id for one in new)
                if new:
                    await self._keep(Explained(item.set_id, run.id, new))

        explanations = await explain(
            self._evaluations,
            [run for _, run, _ in failed],
            failed_only=True,
            timeout=self._settings.explain_timeout,
            known=known,
            # A batch that is left meanwhile still writes all that it has read.
            on_read=lambda read: finish(take_and_keep(read)),
        )
        await finish(take_and_keep(explanations.evaluations))  # of a request that was cut off
        self.explanations = explanations

    async def _take_and_keep(self, names: Names) -> None:
        new = self._take(names)
        if new != Names():
            await self._keep(Described(new))

    def _take(self, names: Names) -> Names:
        """Take in names and emit those that are new; return them."""
        new = without(names, self.names)
        if new != Names():
            self.names = combined(self.names, new)
            self._emit(NamesRead(new.unit_test_sets, new.unit_tests, new.metrics, self._batch_id))
        return new

    async def _keep(self, line: JournalEntry) -> None:
        try:
            await self._write(line)
        except JournalError as error:
            self._unkept[str(error)] = None
