"""The options of a batch: their names, defaults and checks, each written once."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, get_args, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from amigo_async.checks import check_choice, check_count, check_seconds
from amigo_async.errors import ArgumentError
from amigo_async.events import Event
from amigo_async.files import check_path
from amigo_async.names import EXPLAIN_TIMEOUT, Names, select_unit_tests
from amigo_async.protocol.requests import check_id, check_run_id, is_id
from amigo_async.starting import OnConflict
from amigo_async.verdicts.gate import Gate

OnFailure: TypeAlias = Literal["continue", "stop", "cancel_rest"]
OnExit: TypeAlias = Literal["leave", "cancel"]
# Past runs to compare with: the last one, so many of the last, or run ids by set id.
Baseline: TypeAlias = Literal["last"] | int | Mapping[str, Sequence[str]]
Order: TypeAlias = Literal["auto", "given"]
OnEvent: TypeAlias = Callable[[Event], Awaitable[None] | None]


@runtime_checkable
class EarlierResult(Protocol):
    """What lengths are known from: a `BatchResult`."""

    @property
    def outcomes(self) -> Sequence[Any]:
        """The outcomes of its sets."""

    @property
    def began_at(self) -> datetime | None:
        """When it began; None if unknown."""


class BatchOptions(TypedDict, total=False):
    """Keyword arguments of `AmigoClient.run_many` and `AmigoClient.open_batch`.

    Use it to pass options through a function of your own and keep them type-checked::

        async def nightly(client: AmigoClient, **options: Unpack[BatchOptions]) -> BatchResult:
            return await client.run_many(NIGHTLY_SETS, **options)

    `AmigoClient.run_many` documents each option and its default.
    """

    artifacts_dir: str | PathLike[str] | None
    """Folder to download artifacts into; None downloads none."""
    timeout: float | None
    """Seconds for the whole batch; None for no limit."""
    poll_interval: float | None
    """Seconds between two polls; None uses the client's, or adapts."""
    on_conflict: OnConflict
    """What to do about an unfinished run of a set: "raise", "attach", "wait" or "restart"."""
    on_failure: OnFailure
    """What to do when a set fails: "continue", "stop" or "cancel_rest"."""
    on_exit: OnExit
    """What becomes of unfinished runs when the batch is left: "leave" or "cancel"."""
    journal: str | PathLike[str] | None
    """File that makes the batch resumable; None keeps no journal."""
    on_event: OnEvent | None
    """Function or coroutine function called with each event of the batch; None for none."""
    gate: Gate | None
    """What counts as passing; None uses the flags of each run."""
    known_failing: Collection[str]
    """Ids or names of unit tests that are known to fail, and decide nothing."""
    describe: bool
    """Whether to read the names of the sets, unit tests and metrics."""
    explain: bool
    """Whether to read why runs failed."""
    explain_timeout: float | None
    """Seconds that reading may take after the last outcome; None for no limit."""
    baseline: Baseline | None
    """Past runs to compare with: "last", a number, or run ids by set id; None compares nothing."""
    order: Order
    """Which sets to start first: "auto" (the longest, as far as known) or "given"."""
    lengths_from: EarlierResult | str | PathLike[str] | None
    """An earlier result, its JSON file or a journal, to know lengths from; None for none."""


class BatchSettings(Struct, frozen=True, kw_only=True):
    """The options of one batch, checked, with the defaults filled in."""

    artifacts_dir: str | PathLike[str] | None = None
    timeout: float | None = None
    poll_interval: float | None = None
    on_conflict: OnConflict = "raise"
    on_failure: OnFailure = "continue"
    on_exit: OnExit = "leave"
    journal: str | PathLike[str] | None = None
    on_event: OnEvent | None = None
    gate: Gate | None = None
    known_failing: Collection[str] = ()
    describe: bool = False
    explain: bool = False
    explain_timeout: float | None = EXPLAIN_TIMEOUT
    baseline: Baseline | None = None
    order: Order = "auto"
    lengths_from: EarlierResult | str | PathLike[str] | None = None

    @classmethod
    def from_options(cls, options: BatchOptions) -> BatchSettings:
        """Check `options` and fill in the defaults.

        Raises:
            TypeError: If an option is unknown; the message suggests the nearest one.
            ArgumentError: If a value is invalid; the message names the option and the remedy.
        """
        _check_names(options, cls.__struct_fields__)
        settings = cls(**options)
        for name in ("artifacts_dir", "journal"):
            if getattr(settings, name) is not None:
                check_path(name, getattr(settings, name))
        source = settings.lengths_from
        if source is not None and not isinstance(source, EarlierResult):
            check_path("lengths_from", source)
        check_seconds("timeout", settings.timeout)
        check_seconds("poll_interval", settings.poll_interval)
        check_seconds("explain_timeout", settings.explain_timeout)
        check_choice("on_conflict", settings.on_conflict, get_args(OnConflict))
        check_choice("on_failure", settings.on_failure, get_args(OnFailure))
        check_choice("on_exit", settings.on_exit, get_args(OnExit))
        check_choice("order", settings.order, get_args(Order))
        if settings.gate is not None and not isinstance(settings.gate, Gate):
            raise ArgumentError(f"gate must be a Gate or None, not {settings.gate!r:.80}")
        for name in ("describe", "explain"):
            if not isinstance(given := getattr(settings, name), bool):
                raise ArgumentError(f"{name} must be True or False, not {given!r:.80}")
        _check_baseline(settings.baseline)
        known = _check_known_failing(settings.known_failing, describe=settings.describe)
        return replace(settings, known_failing=known)

    @property
    def known_by_name(self) -> bool:
        """Whether `known_failing` has names, so that those of unit tests are needed to judge."""
        return not all(map(is_id, self.known_failing))

    def known_failing_of(self, ids: Collection[str], names: Names) -> Collection[str] | None:
        """Which of the unit tests are known to fail; None if their names are not all known yet."""
        if self.known_by_name and not names.unit_tests.keys() >= set(ids):
            return None
        return select_unit_tests(self.known_failing, ids, names)


def _check_names(options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Reject unknown options: nothing checks the keys of a TypedDict at run time."""
    for name in options:
        if name not in known:
            from difflib import get_close_matches  # noqa: PLC0415  # only for this message

            nearest = get_close_matches(name, known, n=1, cutoff=0.0)
            raise TypeError(
                f"unexpected keyword argument {name!r}: did you mean {nearest[0]!r}? "
                f"A batch takes {', '.join(known)}"
            )


def _check_baseline(baseline: Baseline | None) -> None:
    if baseline is None or baseline == "last":
        return
    if isinstance(baseline, Mapping):
        for set_id, run_ids in baseline.items():
            check_id("a set id in baseline", set_id)
            if isinstance(run_ids, str) or not isinstance(run_ids, Sequence) or not run_ids:
                raise ArgumentError(
                    f"baseline of set {set_id} must be a list of run ids, not {run_ids!r:.80}"
                )
            for run_id in run_ids:
                check_run_id(f"baseline of set {set_id}", run_id)
        return
    if not isinstance(baseline, int):
        raise ArgumentError(
            'baseline must be "last", a number of runs, run ids by set id, or None, '
            f"not {baseline!r:.80}"
        )
    check_count("baseline", baseline, least=1)


def check_baselines(settings: BatchSettings, set_ids: Collection[str]) -> None:
    """Check that baselines are given for sets of the batch only.

    Raises:
        ArgumentError: If a set has a baseline and is not run.
    """
    if isinstance(settings.baseline, Mapping):
        unknown = [set_id for set_id in settings.baseline if set_id not in set_ids]
        if unknown:
            raise ArgumentError(f"baseline names set {unknown[0]}, which is not in the batch")


def _check_known_failing(selectors: Iterable[str], *, describe: bool) -> tuple[str, ...]:
    """Return ids and names of unit tests as a tuple, if they can be told apart from others."""
    if isinstance(selectors, str):
        raise ArgumentError("known_failing must be a list of ids, not a single string")
    given = tuple(selectors)
    for one in given:
        if not isinstance(one, str) or not one.strip():
            raise ArgumentError(f"known_failing must be ids of unit tests, not {one!r:.80}")
    names = [one for one in given if not is_id(one)]
    if names and not describe:
        raise ArgumentError(
            f"known_failing has the name {names[0]!r:.80}, and names are not read: give the id of "
            "the unit test, or describe=True"
        )
    return given


def make_artifacts_dir(settings: BatchSettings) -> None:
    """Create the folder for artifacts if it is missing. Blocks.

    Raises:
        ArgumentError: If it cannot be created.
    """
    if settings.artifacts_dir is None:
        return
    folder = Path(settings.artifacts_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(
            f"artifacts_dir {folder} cannot be created: {error.strerror}"
        ) from error


def check_artifacts_dir(settings: BatchSettings) -> None:
    """Check that files can be created in the folder for artifacts. Blocks.

    Raises:
        ArgumentError: If they cannot.
    """
    folder = settings.artifacts_dir
    if folder is None:
        return
    try:
        # Create something: permission bits say little about mounts, quotas and root.
        with tempfile.TemporaryDirectory(prefix=".amigo-", dir=folder, ignore_cleanup_errors=True):
            pass
    except OSError as error:
        raise ArgumentError(
            f"artifacts_dir {folder} cannot be written to: {error.strerror}"
        ) from error


def check_sets(set_ids: Iterable[str]) -> tuple[str, ...]:
    """Return `set_ids` as a tuple of at least one valid id.

    Raises:
        ArgumentError: If an id is invalid, or there is none: an empty batch would pass, and hide
            that a list was empty.
    """
    if isinstance(set_ids, str):
        raise ArgumentError("unit_test_set_ids must be a list of ids, not a single string")
    ids = tuple(check_id("unit_test_set_ids", set_id) for set_id in set_ids)
    if not ids:
        raise ArgumentError("unit_test_set_ids is empty: give at least one set")
    return ids
