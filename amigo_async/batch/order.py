"""In which order sets are started: longest first, as far as lengths are known. Pure, no I/O.

An organization may start twenty runs a minute, so the runs of the last window decide when a batch
is over. With the longest runs in the first windows, the last ones are short.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

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
