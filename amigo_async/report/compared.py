"""What came of comparing a batch with its baselines, for all reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from amigo_async.batch.outcomes import BatchResult, RunOutcome
from amigo_async.names import Names
from amigo_async.report.wording import (
    COMPARISON_WORDS,
    MOST_OF_A_NAME,
    ComparisonWords,
    comparison_in_words,
    few,
    metrics_that_changed,
    p_in_words,
    plural,
    share,
    short_text,
    shown_name,
)
from amigo_async.verdicts.comparison import BatchComparison, Comparison, UnitTestComparison
from amigo_async.verdicts.statistics import at_most

# Characters of a reason.
MOST_OF_A_REASON: Final = 300

# The verdict of a set within its batch: what looks worse in one of many sets may be chance.
SetStatus: TypeAlias = Literal[
    "regressed",
    "worse",
    "improved",
    "better",
    "no_change_seen",
    "too_few",
    "not_comparable",
]

# In the order in which sets are shown.
STATUS_WORDS: Final[dict[SetStatus, str]] = {
    "regressed": COMPARISON_WORDS["regressed"],
    "worse": "worse, within chance",
    "improved": COMPARISON_WORDS["improved"],
    "better": "better, within chance",
    "no_change_seen": COMPARISON_WORDS["no_change_seen"],
    "too_few": COMPARISON_WORDS["too_few"],
    "not_comparable": COMPARISON_WORDS["not_comparable"],
}


# What is worth showing of a set in a large batch.
_CHANGED: Final = frozenset({"regressed", "worse", "improved", "better"})
_MOST_UNCHANGED: Final = 5


class ComparedTest(Struct, frozen=True):
    """A unit test that changed.

    Attributes:
        id: Its id.
        name: Its name; None if unknown.
        verdict: ``"regressed"`` or ``"improved"``.
        before: How many of its repeats passed in the baseline, such as ``10/10``.
        after: How many passed now.
        metrics: The metrics behind it.
    """

    id: str
    name: str | None
    verdict: str
    before: str
    after: str
    metrics: str


class ComparedSet(Struct, frozen=True):
    """A set that was compared.

    Attributes:
        number: Its position in the batch, from 1.
        outcome: Its outcome.
        name: Its name; None if unknown.
        status: The verdict on it, corrected for the number of sets.
        words: The comparison in words.
        tests: The unit tests behind the verdict.
    """

    number: int
    outcome: RunOutcome
    name: str | None
    status: SetStatus
    words: ComparisonWords
    tests: tuple[ComparedTest, ...]

    @property
    def label(self) -> str:
        """The name of the set, or its id."""
        return self.name or self.outcome.unit_test_set_id


class Uncompared(Struct, frozen=True):
    """Sets that were to be compared and could not be, for one reason.

    Attributes:
        labels: Names or ids of the sets.
        set_ids: Their ids.
        reason: The reason.
    """

    labels: tuple[str, ...]
    set_ids: tuple[str, ...]
    reason: str

    @property
    def words(self) -> str:
        """The sets and the reason: ``Not compared: Refund policy: no baseline: ...``."""
        return f"Not compared: {few(self.labels)}: {self.reason}."


class ComparedBatch(Struct, frozen=True):
    """What came of comparing a batch.

    Attributes:
        status: The verdict on the batch; ``"no_baseline"`` if no set was compared.
        sentence: The numbers of sets by verdict.
        sets: The sets, those that regressed first, then others that changed, then the rest.
        uncompared: The sets that could not be compared, by reason.
    """

    status: SetStatus | Literal["no_baseline"]
    sentence: str
    sets: tuple[ComparedSet, ...]
    uncompared: tuple[Uncompared, ...]

    @property
    def shown(self) -> tuple[ComparedSet, ...]:
        """The sets worth showing one by one: all if they are few, else those that changed."""
        if len(self.sets) <= _MOST_UNCHANGED:
            return self.sets
        return tuple(one for one in self.sets if one.tests or one.status in _CHANGED)

    @property
    def rest(self) -> str | None:
        """Which other sets have too few repeats, and how many are not shown; None if none is."""
        shown = {one.number for one in self.shown}
        left = [one for one in self.sets if one.number not in shown]
        too_few = [one.label for one in left if one.status == "too_few"]
        words = [f"too few repeats to tell: {few(too_few)}"] * bool(too_few)
        others = len(left) - len(too_few)
        words += [f"{plural(others, 'other set')} without a change beyond chance"] * bool(others)
        return f"And {'; '.join(words)}." if words else None

    @property
    def undecided(self) -> str | None:
        """Why there is neither a regression nor none, in a sentence; None if that is known."""
        if self.status == "no_baseline":
            return "There is no baseline to compare with."
        if self.status == "too_few":
            return "There are too few repeats to tell whether anything regressed."
        if self.status == "not_comparable":
            return "Nothing is comparable with the baseline."
        return None


def compared_batch(result: BatchResult) -> ComparedBatch | None:
    """Describe the comparisons of a batch; None if none was asked for."""
    batch = result.comparison
    numbered = {o.unit_test_set_id: (n, o) for n, o in enumerate(result.outcomes, 1)}
    sets = [
        _set(number, outcome, outcome.comparison, batch, result.names)
        for number, outcome in numbered.values()
        if outcome.comparison is not None and batch is not None
    ]
    uncompared = _uncompared((o for _, o in numbered.values()), result.names)
    if not sets and not uncompared:
        return None
    order = list(STATUS_WORDS)
    sets.sort(key=lambda one: (order.index(one.status), not one.words.changes))
    return ComparedBatch(
        status="no_baseline" if batch is None else batch.verdict,
        sentence=_sentence(sets, sum(len(one.labels) for one in uncompared)),
        sets=tuple(sets),
        uncompared=uncompared,
    )


def _set(
    number: int,
    outcome: RunOutcome,
    comparison: Comparison,
    batch: BatchComparison,
    names: Names,
) -> ComparedSet:
    set_id = outcome.unit_test_set_id
    status: SetStatus = comparison.verdict
    if outcome.name and set_id not in names.unit_test_sets:
        names = Names({**names.unit_test_sets, set_id: outcome.name}, names.unit_tests)
    corrected = batch.p_values if status == "regressed" else batch.p_improved
    if status in ("regressed", "improved") and not at_most(corrected[set_id], batch.alpha):
        status = "worse" if status == "regressed" else "better"
    # One that has too few repeats would be one more.
    compared = len(batch.p_values.keys() | {set_id})
    words = comparison_in_words(comparison, names, STATUS_WORDS[status], sets=compared)
    if status in ("worse", "better"):
        sets = plural(len(corrected), "set")
        chance = f"Among {sets} this may be chance (corrected {p_in_words(corrected[set_id])})."
        words = words._replace(caveats=(chance, *words.caveats))
    changed = (*comparison.regressed, *comparison.improved)
    return ComparedSet(
        number=number,
        outcome=outcome,
        name=shown_name(names.unit_test_sets.get(set_id)),
        status=status,
        words=words,
        tests=tuple(_test(one, names, comparison.alpha) for one in changed),
    )


def _test(one: UnitTestComparison, names: Names, alpha: float) -> ComparedTest:
    return ComparedTest(
        id=one.unit_test_id,
        name=shown_name(names.unit_tests.get(one.unit_test_id)),
        verdict=one.verdict,
        before=share(one.baseline),
        after=share(one.candidate),
        metrics=metrics_that_changed(one, alpha),
    )


def _uncompared(outcomes: Iterable[RunOutcome], names: Names) -> tuple[Uncompared, ...]:
    of: dict[str, list[RunOutcome]] = {}
    for outcome in outcomes:
        if outcome.uncompared is not None:
            of.setdefault(outcome.uncompared, []).append(outcome)
    return tuple(
        Uncompared(
            tuple(
                shown_name(o.name)
                or short_text(names.unit_test_set(o.unit_test_set_id), MOST_OF_A_NAME)
                for o in some
            ),
            tuple(o.unit_test_set_id for o in some),
            short_text(reason, MOST_OF_A_REASON),
        )
        for reason, some in of.items()
    )


def _sentence(sets: Iterable[ComparedSet], uncompared: int) -> str:
    counted = Counter(STATUS_WORDS[one.status] for one in sets)
    counted["not compared"] += uncompared
    found = [(words, count) for words, count in counted.items() if count]
    if sum(counted.values()) == 1:
        return f"{found[0][0].capitalize()}."
    parts = [f"{words} in {plural(count, 'set')}" for words, count in found]
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}."
