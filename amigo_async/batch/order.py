"""In which order sets are started: longest first, as far as it is known how long their runs take.

An organization may start twenty runs a minute, so the runs of the last window decide when a batch
is over. With the longest runs in the first windows, the last ones are short.

The API tells when a run was created, but not when it ended. So a length is known only of a run that
somebody watched to its end: this process, or that of an earlier result or journal.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from amigo_async.batch.journal import BEGINNING
from amigo_async.errors import ArgumentError
from amigo_async.verdicts.gate import AT_THE_END

# --- what is known ---

# How many lengths the process remembers, the latest ones.
_MOST_SEEN: Final = 10_000

# How much earlier a batch may have begun than `began_at`, which is the latest time that it can have
# been on the server: a `Date` has whole seconds.
_CLOCK_ERROR: Final = timedelta(seconds=2)


class SeenLengths:
    """How long the latest runs of sets took that this process has watched."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}

    def add(self, owner: str, set_id: str, seconds: float) -> None:
        """Remember how long a run took.

        Args:
            owner: The service and organization of the set.
            set_id: The set.
            seconds: From its creation until it was seen completed.
        """
        if seconds <= 0:  # the clocks of the service disagree
            return
        self._seconds.pop((owner, set_id), None)
        self._seconds[owner, set_id] = seconds
        if len(self._seconds) > _MOST_SEEN:
            del self._seconds[next(iter(self._seconds))]

    def of(self, owner: str, set_ids: Iterable[str]) -> dict[str, float]:
        """Return the lengths of those sets of which one is known."""
        found = {set_id: self._seconds.get((owner, set_id)) for set_id in set_ids}
        return {set_id: seconds for set_id, seconds in found.items() if seconds is not None}


# Of all clients of the process.
SEEN_LENGTHS: Final = SeenLengths()


class KnownLengths(NamedTuple):
    """What an earlier result tells of sets, by set id.

    Attributes:
        lengths: How long runs took in seconds; the median of several.
        sizes: How much a run simulates: its repeats times the interactions that each may have.
    """

    lengths: dict[str, float]
    sizes: dict[str, float]


class _Spec(Protocol):
    @property
    def run_count(self) -> int: ...
    @property
    def max_interactions(self) -> int: ...


class _Sized(Protocol):
    @property
    def unit_test_run_specs(self) -> Iterable[_Spec]: ...


def size_of(run: _Sized) -> float:
    """Return how much a run simulates; 0 if its specs are hidden by a missing permission."""
    return float(sum(spec.run_count * spec.max_interactions for spec in run.unit_test_run_specs))


class _RecordedSpec(Struct, frozen=True):
    run_count: int
    max_interactions: int


class _RecordedRun(Struct, frozen=True):
    created_at: datetime
    unit_test_run_specs: list[_RecordedSpec] = []


class _RecordedOutcome(Struct, frozen=True):
    unit_test_set_id: str
    verdict: str
    run: _RecordedRun | None = None
    finished_at: datetime | None = None


class _RecordedResult(Struct, frozen=True):
    outcomes: list[_RecordedOutcome]
    began_at: datetime | None = None


class _RecordedLine(Struct, frozen=True):
    what: str
    unit_test_set_id: str = ""
    verdict: str = ""
    run: _RecordedRun | None = None
    at: datetime | None = None
    watched: bool = True


def known_from(source: Any) -> KnownLengths:
    """Return what an earlier result or journal tells. Blocks if it is a file.

    Args:
        source: A `BatchResult`, or the path of one that was saved as JSON, or of a journal.

    Raises:
        ArgumentError: If the file cannot be read, or is neither.
    """
    if not isinstance(source, str | os.PathLike):
        return _known(_of_outcomes(source.outcomes, source.began_at))
    path = Path(source)
    try:
        content = path.read_bytes()
        if content.startswith(BEGINNING):
            return _known(_of_lines(content))
        result = msgspec.json.decode(content, type=_RecordedResult)
    except OSError as error:
        raise ArgumentError(f"lengths_from {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise ArgumentError(
            f"lengths_from {path} is neither the JSON of a result nor a journal"
        ) from error
    return _known(_of_outcomes(result.outcomes, result.began_at))


class _Observed(NamedTuple):
    set_id: str
    size: float
    seconds: float | None


def _known(observed: Iterable[_Observed]) -> KnownLengths:
    lengths: dict[str, list[float]] = {}
    sizes: dict[str, float] = {}
    for one in observed:
        if one.seconds is not None:
            lengths.setdefault(one.set_id, []).append(one.seconds)
        if one.size:
            sizes[one.set_id] = one.size
    return KnownLengths(
        {set_id: statistics.median(some) for set_id, some in lengths.items()}, sizes
    )


def _of_outcomes(outcomes: Iterable[Any], began_at: datetime | None) -> Iterator[_Observed]:
    for outcome in outcomes:
        if outcome.run is not None:
            # One that was there before may have ended long before anybody looked.
            watched = began_at is None or outcome.run.created_at >= began_at - _CLOCK_ERROR
            ended_at = outcome.finished_at if outcome.verdict in AT_THE_END and watched else None
            yield _observed(outcome.unit_test_set_id, outcome.run, ended_at)


def _of_lines(content: bytes) -> Iterator[_Observed]:
    decoder = msgspec.json.Decoder(_RecordedLine)
    for text in content[: content.rfind(b"\n") + 1].splitlines():
        line = decoder.decode(text)
        if line.what == "finished" and line.run is not None:
            ended_at = line.at if line.verdict in AT_THE_END and line.watched else None
            yield _observed(line.unit_test_set_id, line.run, ended_at)


def _observed(set_id: str, run: Any, ended_at: datetime | None) -> _Observed:
    seconds = None if ended_at is None else (ended_at - run.created_at).total_seconds()
    return _Observed(set_id, size_of(run), seconds if seconds and seconds > 0 else None)


# --- the order ---


Basis: TypeAlias = Literal["lengths", "size", "none"]


class LengthEstimate(Struct, frozen=True):
    """How long a run of a set is expected to take.

    Attributes:
        seconds: The expected length; only comparable with those of other sets of the same batch if
            no length of any set is known.
        basis: How sure that is: ``"lengths"`` (from earlier runs of this set), ``"size"`` (from
            what it simulates, which is roughly proportional) or ``"none"`` (that of a typical set,
            as nothing is known of this one).
    """

    seconds: float
    basis: Basis


def estimate_lengths(
    set_ids: Iterable[str], lengths: Mapping[str, float], *sizes: Mapping[str, float]
) -> dict[str, LengthEstimate]:
    """Estimate how long a run of each set takes.

    Args:
        set_ids: The sets.
        lengths: Seconds that earlier runs of sets took, by set id, as far as known.
        *sizes: How much a run of a set simulates, by set id, as far as known, in any unit; of
            several sources, each with a unit of its own, the first that knows a set counts.

    Returns:
        An estimate for each set; empty if nothing is known of any of them.
    """
    ids = list(dict.fromkeys(set_ids))
    known = {i: LengthEstimate(lengths[i], "lengths") for i in ids if i in lengths}
    for source in sizes:
        of_these = {i: source[i] for i in ids if source.get(i, 0.0) > 0}
        scale = _scale({i: one.seconds for i, one in known.items()}, of_these)
        more = {i: LengthEstimate(size * scale, "size") for i, size in of_these.items()}
        known = more | known
    if not known:
        return {}
    typical = statistics.median(estimate.seconds for estimate in known.values())
    return {i: known.get(i) or LengthEstimate(typical, "none") for i in ids}


def _scale(seconds: Mapping[str, float], sizes: Mapping[str, float]) -> float:
    """How many seconds a unit of size takes; 1 if nothing is known of that."""
    both = [seconds[i] / size for i, size in sizes.items() if i in seconds]
    if both:
        return statistics.median(both)
    if not seconds or not sizes:
        return 1.0
    # No set of which both are known: take them to be alike as a whole.
    return statistics.median(seconds.values()) / statistics.median(sizes.values())


def longest_first(set_ids: Sequence[str], estimates: Mapping[str, LengthEstimate]) -> list[str]:
    """Sort sets by estimated length, the longest first; equal ones stay in the order given.

    Args:
        set_ids: The sets.
        estimates: What `estimate_lengths` returned for them; empty to keep the order given.
    """
    if not estimates:
        return list(set_ids)
    return sorted(set_ids, key=lambda set_id: -estimates[set_id].seconds)
