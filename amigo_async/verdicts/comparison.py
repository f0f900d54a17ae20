"""Comparisons of runs: whether an agent has become worse or better, beyond chance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from amigo_async.errors import ArgumentError
from amigo_async.models import LLMConfig, Run, UnitTestRunResult, UnitTestRunSpec, VersionInfo
from amigo_async.verdicts import statistics
from amigo_async.verdicts.gate import cut_short
from amigo_async.verdicts.statistics import Interval, Stratum
from amigo_async.verdicts.tally import Counts, MetricTally, UnitTestTally, paired, tally

ComparisonVerdict: TypeAlias = Literal[
    "regressed", "improved", "no_change_seen", "too_few", "not_comparable"
]

# From how many runs on a baseline can be said to vary from run to run.
_RUNS_THAT_VARY: Final = 3


class RateCounts(Struct, frozen=True, kw_only=True):
    """The repeats of one side of a comparison.

    Attributes:
        passed: Number of repeats that passed: all their metrics, or the one in question.
        failed: Number of repeats that were evaluated and did not pass.
        missing: Number of repeats with an error or without a result; they are in no rate.
    """

    passed: int = 0
    failed: int = 0
    missing: int = 0

    @property
    def evaluated(self) -> int:
        """Number of repeats that passed or failed."""
        return self.passed + self.failed

    @property
    def rate(self) -> float | None:
        """Share of the evaluated repeats that passed; None if none was evaluated."""
        return self.passed / self.evaluated if self.evaluated else None

    @property
    def interval(self) -> Interval | None:
        """The 95% interval of the rate (Wilson); None if no repeat was evaluated."""
        return statistics.wilson(self.passed, self.evaluated) if self.evaluated else None

    def pass_hat_k(self, k: int) -> float | None:
        """Estimate the probability that `k` repeats all pass; None for fewer repeats than `k`."""
        return statistics.pass_hat_k(self.passed, self.evaluated, k)

    def pass_at_k(self, k: int) -> float | None:
        """Estimate the probability that any of `k` repeats passes; None for fewer than `k`."""
        return statistics.pass_at_k(self.passed, self.evaluated, k)


class MetricComparison(Struct, frozen=True, kw_only=True):
    """One metric of a unit test in both runs.

    Attributes:
        metric_id: Id of the metric.
        name: Its name; its id if the name is not known.
        baseline: Its repeats in the baseline.
        candidate: Its repeats in the candidate.
        difference: 95% interval of the rate of the candidate minus that of the baseline
            (Newcombe); None if either has no repeats.
        p_value: p-value of "worse" (Fisher, one-sided), of this metric alone: it is not adjusted
            for their number, as it shows where a unit test got worse, not whether.
        p_improved: The same of "better".
    """

    metric_id: str
    name: str
    baseline: RateCounts
    candidate: RateCounts
    difference: Interval | None
    p_value: float
    p_improved: float


class UnitTestComparison(Struct, frozen=True, kw_only=True):
    """One unit test in both runs.

    Attributes:
        unit_test_id: Id of the unit test.
        place: Which one it is among those of the set with the same id, from 0.
        baseline: Its repeats in the baseline.
        candidate: Its repeats in the candidate.
        difference: 95% interval of the rate of the candidate minus that of the baseline
            (Newcombe); None if either has no repeats or they are not comparable.
        p_value: p-value of "worse", adjusted for the number of unit tests; 1 if not comparable.
        p_improved: The same of "better".
        verdict: ``"regressed"``, ``"improved"``, ``"no_change_seen"``, ``"too_few"`` (so few
            repeats cannot show a regression of this unit test alone) or ``"not_comparable"``.
        reasons: Why it is not comparable, as if it is known to fail, or why a run of the baseline
            is left out of it.
        metrics: Its metrics; empty if not comparable.
    """

    unit_test_id: str
    place: int = 0
    baseline: RateCounts
    candidate: RateCounts
    difference: Interval | None = None
    p_value: float = 1.0
    p_improved: float = 1.0
    verdict: ComparisonVerdict
    reasons: tuple[str, ...] = ()
    metrics: tuple[MetricComparison, ...] = ()


class Change(Struct, frozen=True, kw_only=True):
    """Something that is not the same in baseline and candidate.

    Attributes:
        what: What changed: ``"agent"``, ``"state machine"``, ``"scenario"``, ``"persona"``,
            ``"max_interactions"``, ``"model (...)"`` or ``"parameters (...)"`` with the role of
            the model in brackets.
        before: Its version or value in the baseline; several, if runs of the baseline differ.
        after: Its version or value in the candidate.
        unit_test_id: The unit test of which it changed; None if it changed in all of them.
    """

    what: str
    before: str
    after: str
    unit_test_id: str | None = None


class Comparison(Struct, frozen=True, kw_only=True):
    """Whether the runs of a set have become worse or better, beyond chance.

    Attributes:
        unit_test_set_id: Id of the set.
        baseline_run_ids: Ids of the runs of the baseline.
        candidate_run_ids: Ids of the runs that are compared with it.
        verdict: ``"regressed"`` (worse, in the whole set or in a unit test; also if others are
            better), ``"improved"``, ``"no_change_seen"``, ``"too_few"`` (not even a fall of every
            unit test from all repeats to none would show in so few) or ``"not_comparable"`` (no
            unit test is the same in both and not known to fail, or all results are hidden).
        p_value: p-value of "worse"; ``"regressed"`` means that it is at most `alpha`.
        p_improved: p-value of "better".
        alpha: Probability at which the same agent is called worse; that of ``"improved"`` too.
        baseline: The comparable repeats of the baseline, all unit tests together.
        candidate: The comparable repeats of the candidate, all unit tests together.
        smallest_drop: The smallest drop of the pass rate, the same in every unit test, that would
            have been called ``"regressed"`` four times in five, as a share from 0 to 1; None if
            no drop would have been. Of this set alone: among many it must be larger, which is what
            reports of a batch say.
        more_repeats: How many more repeats of each unit test of the candidate would show the
            difference seen in the whole set, if all rates stay; 0 if the verdict is
            ``"regressed"`` or ``"improved"`` already, None if no number up to 10,000 would.
        unit_tests: The unit tests of both, in the order of the candidate.
        added: Ids of the unit tests that only the candidate has.
        missing: Ids of the unit tests that only the baseline has: they have not passed.
        changes: What changed between the runs.
        reasons: Which runs or unit tests could not be compared as a whole, and why.
        baselines_differ: Whether three or more runs of the baseline differ among themselves beyond
            chance. Then rates change from run to run for reasons of their own, and a regression is
            called more often than `alpha` says.
        errors_grew: Whether the share of repeats with an error or without a result grew beyond
            chance, in the unit tests that are comparable. They are in no rate.
    """

    unit_test_set_id: str
    baseline_run_ids: tuple[str, ...]
    candidate_run_ids: tuple[str, ...]
    verdict: ComparisonVerdict
    p_value: float
    p_improved: float
    alpha: float
    baseline: RateCounts
    candidate: RateCounts
    smallest_drop: float | None = None
    more_repeats: int | None = None
    unit_tests: tuple[UnitTestComparison, ...] = ()
    added: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    reasons: tuple[str, ...] = ()
    baselines_differ: bool = False
    errors_grew: bool = False

    @property
    def regressed(self) -> tuple[UnitTestComparison, ...]:
        """The unit tests that got worse beyond chance, each by itself; the least likely first."""
        named = [one for one in self.unit_tests if one.verdict == "regressed"]
        return tuple(sorted(named, key=lambda one: one.p_value))

    @property
    def improved(self) -> tuple[UnitTestComparison, ...]:
        """The unit tests that got better beyond chance, each by itself; the least likely first."""
        named = [one for one in self.unit_tests if one.verdict == "improved"]
        return tuple(sorted(named, key=lambda one: one.p_improved))

    @property
    def not_comparable(self) -> tuple[UnitTestComparison, ...]:
        """The unit tests that were left out, with the reasons."""
        return tuple(one for one in self.unit_tests if one.verdict == "not_comparable")


class BatchComparison(Struct, frozen=True, kw_only=True):
    """The verdict on many sets at once, corrected for their number.

    Attributes:
        verdict: As of a `Comparison`; ``"regressed"`` if any set is, after the correction of Holm.
            Without it, sixty sets of an unchanged agent are red nine times in ten.
        alpha: Probability at which any set of an unchanged agent is called worse.
        p_values: Corrected p-value of "worse" of each set that can be compared, by set id.
        p_improved: The same of "better".
    """

    verdict: ComparisonVerdict
    alpha: float
    p_values: dict[str, float] = {}
    p_improved: dict[str, float] = {}

    @property
    def regressed(self) -> tuple[str, ...]:
        """Ids of the sets that got worse, after the correction; the least likely first."""
        return _at_most(self.p_values, self.alpha)

    @property
    def improved(self) -> tuple[str, ...]:
        """Ids of the sets that got better, after the correction; the least likely first."""
        return _at_most(self.p_improved, self.alpha)


def compare(
    baseline: Run | Sequence[Run],
    candidate: Run | Sequence[Run],
    *,
    alpha: float = 0.05,
    known_failing: Collection[str] = (),
) -> Comparison:
    """Compare runs of a set: is the candidate worse or better than the baseline, beyond chance?

    Agents answer differently each time, so that fewer passes in one run than in another prove
    little. This says ``"regressed"`` if a fall at least as large, in the whole set or in a single
    unit test, would have a probability of at most `alpha` for an agent that has not changed; the
    number of unit tests is accounted for. Unit tests are compared with themselves alone, and only
    where metric versions, success criteria, scenario, persona and `max_interactions` are the same;
    what a missing permission hides counts as the same.

    Example::

        before = await client.run_many([set_id])
        after = await client.run_many([set_id])
        comparison = compare(before.outcomes[0].run, after.outcomes[0].run)
        print(comparison.verdict, comparison.p_value)
        for test in comparison.regressed:
            print(test.unit_test_id, test.baseline.rate, test.candidate.rate)

    Args:
        baseline: The run to compare with, or several, whose repeats are taken together: with five
            times as many, a fall from 90% to 50% in ten repeats is seen in 76% of cases instead of
            47%. Choose them by when they ran, never by their results.
        candidate: The run in question, or several.
        alpha: Probability of calling an unchanged agent worse, between 0 and 1.
        known_failing: Ids of unit tests that are known to fail; they are left out and decide
            nothing.

    Returns:
        The verdict, with what it rests on. No requests are made.

    Raises:
        ArgumentError: If a run is not completed or was cut short, if the runs are of different
            sets, if a run is given twice, if there is none, or if an option is invalid.
    """
    if isinstance(known_failing, str):
        raise ArgumentError("known_failing must be a list of ids, not a single string")
    if not 0 < alpha < 1:
        raise ArgumentError(f"alpha must be between 0 and 1 (0.05 for 5%), not {alpha!r}")
    before = [baseline] if isinstance(baseline, Run) else list(baseline)
    after = [candidate] if isinstance(candidate, Run) else list(candidate)
    _check(before, after)
    old, new = _by_unit_test(before), _by_unit_test(after)
    pairs = _pairs(old, new, known_failing)
    comparable = [pair for pair in pairs if pair.is_comparable]
    strata = [pair.stratum for pair in comparable]
    worse = statistics.evidence(strata)
    better = statistics.evidence([one.mirrored for one in strata])
    least = statistics.least_adjusted(strata)
    each = zip(worse.adjusted, better.adjusted, least, strict=True)
    alone = dict(zip((pair.key for pair in comparable), each, strict=True))
    # All repeats passed before and none does now: if not even this were beyond chance.
    extreme = statistics.evidence([_extreme(one) for one in strata])
    verdict: ComparisonVerdict = "not_comparable"
    if comparable:
        verdict = _verdict(worse.p_value, better.p_value, extreme.p_value, alpha)
    decided = verdict in ("regressed", "improved")
    seen = bool(old and new)  # unit tests of a run that is hidden are not missing
    return Comparison(
        unit_test_set_id=after[0].simulation_unit_test_set_id,
        baseline_run_ids=tuple(run.id for run in before),
        candidate_run_ids=tuple(run.id for run in after),
        verdict=verdict,
        p_value=worse.p_value,
        p_improved=better.p_value,
        alpha=alpha,
        baseline=_summed(pair.baseline for pair in comparable),
        candidate=_summed(pair.candidate for pair in comparable),
        smallest_drop=statistics.smallest_drop(strata, alpha),
        more_repeats=0 if decided else statistics.repeats_to_tell(strata, alpha),
        unit_tests=tuple(_compared(pair, alone.get(pair.key), alpha) for pair in pairs),
        added=tuple(key[0] for key in new if key not in old) if seen else (),
        missing=tuple(key[0] for key in old if key not in new) if seen else (),
        changes=tuple(_changes(pairs)),
        reasons=tuple(_hidden(before, after)),
        baselines_differ=_vary(comparable, alpha),
        errors_grew=_errors_grew(comparable, alpha),
    )


def compare_sets(comparisons: Iterable[Comparison]) -> BatchComparison:
    """Compare many sets at once, with a correction for their number.

    Args:
        comparisons: The comparison of each set, all with the same `alpha`. Those that are not
            comparable and those with too few repeats cannot say ``"regressed"``, and do not count.

    Returns:
        The verdict on all of them together.

    Raises:
        ArgumentError: If there is none, if they differ in `alpha`, or if a set is given twice.
    """
    every = list(comparisons)
    alphas = {one.alpha for one in every}
    if len(alphas) != 1:
        given = f"with {sorted(alphas)}" if alphas else "none"
        raise ArgumentError(f"comparisons: give at least one, all with the same alpha; got {given}")
    if len({one.unit_test_set_id for one in every}) < len(every):
        raise ArgumentError("comparisons: give each set once")
    counted = [one for one in every if one.verdict not in ("too_few", "not_comparable")]
    ids = [one.unit_test_set_id for one in counted]
    result = BatchComparison(
        verdict="no_change_seen",
        alpha=alphas.pop(),
        p_values=dict(zip(ids, statistics.holm([o.p_value for o in counted]), strict=True)),
        p_improved=dict(zip(ids, statistics.holm([o.p_improved for o in counted]), strict=True)),
    )
    verdict: ComparisonVerdict = "no_change_seen"
    if result.regressed:
        verdict = "regressed"
    elif result.improved:
        verdict = "improved"
    elif not counted:
        few = any(one.verdict == "too_few" for one in every)
        verdict = "too_few" if few else "not_comparable"
    return msgspec.structs.replace(result, verdict=verdict)


def seen_among(comparison: Comparison, sets: int) -> tuple[float | None, int | None]:
    """Return what one of many sets could have shown: the smallest drop, and how many more repeats.

    They are larger than those of the set alone, as the correction of Holm asks of the smallest
    p-value of all sets that it is at most `alpha` divided by their number.

    Args:
        comparison: The comparison of a set whose verdict is open.
        sets: Number of sets that are compared.

    Returns:
        What `Comparison` calls `smallest_drop` and `more_repeats`, for this set among the others.
    """
    if sets <= 1:
        return comparison.smallest_drop, comparison.more_repeats
    strata = tuple(
        _stratum(one.baseline, one.candidate)
        for one in comparison.unit_tests
        if one.verdict != "not_comparable"
    )
    alpha = comparison.alpha / sets
    return statistics.smallest_drop(strata, alpha), statistics.repeats_to_tell(strata, alpha)


def _at_most(p_values: Mapping[str, float], alpha: float) -> tuple[str, ...]:
    found = [key for key, p_value in p_values.items() if statistics.at_most(p_value, alpha)]
    return tuple(sorted(found, key=p_values.__getitem__))


def _verdict(
    p_value: float, p_improved: float, least: float, alpha: float
) -> Literal["regressed", "improved", "no_change_seen", "too_few"]:
    """Return the verdict; `least` is the smallest p-value that so many repeats could give."""
    if statistics.at_most(p_value, alpha):
        return "regressed"
    if statistics.at_most(p_improved, alpha):
        return "improved"
    return "no_change_seen" if statistics.at_most(least, alpha) else "too_few"


def _extreme(stratum: Stratum) -> Stratum:
    _, evaluated, _, baseline_evaluated = stratum
    return Stratum(0, evaluated, baseline_evaluated, baseline_evaluated)


# --- what is compared ---


def _check(baseline: Sequence[Run], candidate: Sequence[Run]) -> None:
    """Refuse runs that cannot be compared whatever their results are."""
    for name, runs in (("baseline", baseline), ("candidate", candidate)):
        if not runs:
            raise ArgumentError(f"{name}: give at least one run")
        for run in runs:
            if not run.is_completed:
                raise ArgumentError(f"{name}: run {run.id} is not completed; wait for it")
            if run.was_cut_short:
                raise ArgumentError(f"{name}: run {run.id} cannot be compared: {cut_short(run)}")
    every = [*baseline, *candidate]
    sets = list(dict.fromkeys(run.simulation_unit_test_set_id for run in every))
    if len(sets) > 1:
        raise ArgumentError(f"compare runs of one set; these are of {', '.join(sets)}")
    twice = [run_id for run_id, count in Counter(run.id for run in every).items() if count > 1]
    if twice:
        raise ArgumentError(f"give each run once; given twice: {', '.join(twice)}")


def _hidden(baseline: Sequence[Run], candidate: Sequence[Run]) -> Iterator[str]:
    """Explain which runs show nothing of their unit tests."""
    for run in (*baseline, *candidate):
        if not run.unit_test_run_specs and not any(run.unit_test_run_results):
            # A run whose results could not be decoded looks the same.
            yield (
                f"the results of run {run.id} are not visible: a permission is missing, or they "
                "cannot be decoded"
            )


def are_comparable(baseline: Run, candidate: Run, known_failing: Collection[str] = ()) -> bool:
    """Return whether any unit test of two completed runs can be compared."""
    old, new = _by_unit_test([baseline]), _by_unit_test([candidate])
    return any(pair.is_comparable for pair in _pairs(old, new, known_failing))


def changes_between(before: Run, after: Run) -> tuple[Change, ...]:
    """Return what changed between two runs of a set, even if they cannot be compared."""
    return tuple(_changes(_pairs(_by_unit_test([before]), _by_unit_test([after]))))


class _UnitTest(NamedTuple):
    """A unit test of one run."""

    run_id: str
    spec: UnitTestRunSpec | None
    result: UnitTestRunResult | None
    tally: UnitTestTally
    counts: Counts


# A unit test that stands twice in a set is told apart by its place among its equals.
_Key: TypeAlias = tuple[str, int]


def _by_unit_test(runs: Iterable[Run]) -> dict[_Key, list[_UnitTest]]:
    found: defaultdict[_Key, list[_UnitTest]] = defaultdict(list)
    for run in runs:
        places: Counter[str] = Counter()
        for (spec, result), one in zip(paired(run), tally(run), strict=True):
            place = places[one.unit_test_id]
            places[one.unit_test_id] += 1
            found[one.unit_test_id, place].append(_UnitTest(run.id, spec, result, one, one.counts))
    return dict(found)


class _Pair:
    """A unit test in baseline and candidate, and whether it may be compared.

    Args:
        key: Its id and place.
        old: The unit test in the runs of the baseline that have it.
        new: The unit test in the runs of the candidate that have it.
        known_failing: Whether it is known to fail.
    """

    def __init__(
        self, key: _Key, old: list[_UnitTest], new: list[_UnitTest], *, known_failing: bool
    ) -> None:
        self.key = key
        self.old = old
        self.new = new
        own = ["it is known to fail"] if known_failing else []
        own += [reason for one in new for reason in _unlike(new[0], one)]
        own += [reason for one in new for reason in _unseen(one)]
        # Runs of the baseline in which it was another test, or is hidden, are left out of it.
        left_out = {
            one.run_id: [
                *_unseen(one),
                *(reason for with_ in new for reason in _unlike(one, with_)),
            ]
            for one in old
        }
        self.kept = [one for one in old if not left_out[one.run_id] and not own]
        reasons = [*own, *(reason for some in left_out.values() for reason in some)]
        self.reasons = tuple(dict.fromkeys(reasons))
        self.baseline = _summed(one.counts for one in self.kept or old)
        self.candidate = _summed(one.counts for one in new)

    @property
    def is_comparable(self) -> bool:
        return bool(self.kept)

    @property
    def stratum(self) -> Stratum:
        return _stratum(self.baseline, self.candidate)


def _pairs(
    old: Mapping[_Key, list[_UnitTest]],
    new: Mapping[_Key, list[_UnitTest]],
    known_failing: Collection[str] = (),
) -> list[_Pair]:
    return [
        _Pair(key, old[key], new[key], known_failing=key[0] in known_failing)
        for key in new
        if key in old
    ]


def _stratum(baseline: RateCounts, candidate: RateCounts) -> Stratum:
    return Stratum(candidate.passed, candidate.evaluated, baseline.passed, baseline.evaluated)


def _summed(counts: Iterable[Counts | RateCounts]) -> RateCounts:
    passed = failed = missing = 0
    for one in counts:
        passed += one.passed
        failed += one.failed
        missing += one.missing
    return RateCounts(passed=passed, failed=failed, missing=missing)


def _unseen(one: _UnitTest) -> Iterator[str]:
    if not one.tally.metrics:
        yield f"the results of its metrics in run {one.run_id} are hidden or missing"


def _unlike(old: _UnitTest, new: _UnitTest) -> Iterator[str]:
    """Explain in what a unit test is another one, as far as it can be seen."""
    if old.spec is not None and new.spec is not None:
        for what, before, after in (
            ("scenario", old.spec.scenario_version_info, new.spec.scenario_version_info),
            ("persona", old.spec.persona_version_info, new.spec.persona_version_info),
            ("max_interactions", old.spec.max_interactions, new.spec.max_interactions),
        ):
            if before != after and before is not None and after is not None:
                yield "the {} changed: {} -> {}".format(what, *_values([before], [after]))
    earlier, later = ({m.metric_id: m for m in one.tally.metrics} for one in (old, new))
    versions, newer = _metric_versions(old), _metric_versions(new)
    if not earlier or not later:
        return
    for metric_id in earlier | later:
        if metric_id not in later:
            yield f"metric {earlier[metric_id].name} is no longer evaluated"
        elif metric_id not in earlier:
            yield f"metric {later[metric_id].name} was not evaluated before"
        else:
            yield from _metric_unlike(
                *(earlier[metric_id], later[metric_id]),
                *(versions.get(metric_id), newer.get(metric_id)),
            )


def _metric_unlike(
    old: MetricTally, new: MetricTally, before: int | None, after: int | None
) -> Iterator[str]:
    if before != after and before is not None and after is not None:
        yield f"metric {new.name} changed: version {before} -> {after}"
    was, now = ((m.metric.success_criterion if m.metric else None) for m in (old, new))
    if was != now and was is not None and now is not None:
        yield f"the success criterion of metric {new.name} changed"


def _metric_versions(one: _UnitTest) -> dict[str, int]:
    results = one.result.metric_evaluation_results if one.result is not None else ()
    return {metric.metric_id: metric.metric_version for metric in results}


# --- what is said of it ---


def _compared(
    pair: _Pair, alone: tuple[float, float, float] | None, alpha: float
) -> UnitTestComparison:
    test_id, place = pair.key
    if alone is None:
        return UnitTestComparison(
            unit_test_id=test_id,
            place=place,
            baseline=pair.baseline,
            candidate=pair.candidate,
            verdict="not_comparable",
            reasons=pair.reasons,
        )
    p_value, p_improved, least = alone
    return UnitTestComparison(
        unit_test_id=test_id,
        place=place,
        baseline=pair.baseline,
        candidate=pair.candidate,
        difference=statistics.newcombe(pair.stratum),
        p_value=p_value,
        p_improved=p_improved,
        verdict=_verdict(p_value, p_improved, least, alpha),
        reasons=pair.reasons,
        metrics=tuple(_metrics(pair)),
    )


def _metrics(pair: _Pair) -> Iterator[MetricComparison]:
    counts: defaultdict[str, tuple[list[Counts], list[Counts]]] = defaultdict(lambda: ([], []))
    names: dict[str, str] = {}
    for side, runs in enumerate((pair.kept, pair.new)):
        for one in runs:
            for metric in one.tally.metrics:
                counts[metric.metric_id][side].append(metric.counts)
                names[metric.metric_id] = metric.name
    for metric_id, sides in counts.items():
        baseline, candidate = map(_summed, sides)
        stratum = _stratum(baseline, candidate)
        yield MetricComparison(
            metric_id=metric_id,
            name=names[metric_id],
            baseline=baseline,
            candidate=candidate,
            difference=statistics.newcombe(stratum),
            p_value=statistics.fisher(stratum),
            p_improved=statistics.fisher(stratum.mirrored),
        )


def _errors_grew(pairs: Iterable[_Pair], alpha: float) -> bool:
    """Return whether the share of repeats without a result grew beyond chance."""
    strata = [
        Stratum(
            pair.candidate.evaluated,
            pair.candidate.evaluated + pair.candidate.missing,
            pair.baseline.evaluated,
            pair.baseline.evaluated + pair.baseline.missing,
        )
        for pair in pairs
    ]
    return statistics.at_most(statistics.fisher_whole(strata), alpha)


def _vary(pairs: Sequence[_Pair], alpha: float) -> bool:
    """Return whether a run of the baseline differs from the others beyond chance.

    Each against all others, in both directions, corrected for their number.
    """
    runs = list(dict.fromkeys(one.run_id for pair in pairs for one in pair.kept))
    if len(runs) < _RUNS_THAT_VARY:
        return False
    for run_id in runs:
        strata = [
            _stratum(
                _summed(one.counts for one in pair.kept if one.run_id != run_id),
                _summed(one.counts for one in pair.kept if one.run_id == run_id),
            )
            for pair in pairs
        ]
        for side in (strata, [one.mirrored for one in strata]):
            if statistics.at_most(2 * len(runs) * statistics.fisher_whole(side), alpha):
                return True
    return False


# --- what changed ---


def _changes(pairs: Sequence[_Pair]) -> Iterator[Change]:
    """Yield what changed: once for the runs as a whole where it changed in all unit tests alike."""
    found: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        before = _properties(one.spec for one in pair.old)
        after = _properties(one.spec for one in pair.new)
        for what, values in after.items():
            if what in before and set(before[what]) != set(values):
                shown = _values(before[what], values)
                found[what, *shown].append(pair.key[0])
    for (what, was, now), tests in found.items():
        if len(tests) == len(pairs):
            yield Change(what=what, before=was, after=now)
        else:
            for test_id in dict.fromkeys(tests):
                yield Change(what=what, before=was, after=now, unit_test_id=test_id)


_Value: TypeAlias = VersionInfo | str | int


def _properties(specs: Iterable[UnitTestRunSpec | None]) -> dict[str, list[_Value]]:
    """Return what is known of how a unit test was run; several values where runs differ."""
    found: defaultdict[str, list[_Value]] = defaultdict(list)
    for spec in specs:
        if spec is None:
            continue
        known: dict[str, _Value | None] = {
            "agent": spec.agent_version_info,
            "state machine": spec.service_hierarchical_state_machine_version_info,
            "scenario": spec.scenario_version_info,
            "persona": spec.persona_version_info,
            "max_interactions": spec.max_interactions,
        }
        for role, model in spec.llm_model_preferences.items():
            known[f"model ({role})"] = model.llm_name
            known[f"parameters ({role})"] = _parameters(model)
        for what, value in known.items():
            if value is not None and value not in found[what]:
                found[what].append(value)
    return {what: values for what, values in found.items() if values}


def _parameters(model: LLMConfig) -> str:
    return msgspec.json.encode(model.params or {}, order="sorted").decode()


def _values(before: Sequence[_Value], after: Sequence[_Value]) -> tuple[str, str]:
    """Describe values: versions by their numbers alone where all are of the same thing."""
    same = len({one.id for one in (*before, *after) if isinstance(one, VersionInfo)}) == 1

    def shown(value: _Value) -> str:
        if isinstance(value, VersionInfo):
            return str(value.version) if same else f"{value.id} version {value.version}"
        return str(value)

    was, now = (", ".join(dict.fromkeys(map(shown, values))) for values in (before, after))
    return was, now
