from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from amigo_async import BatchComparison, Comparison, Names, RateCounts, compare, compare_sets
from amigo_async.errors import ArgumentError
from amigo_async.models import LLMConfig, NumericalMetricSuccessCriterion, Run, VersionInfo
from amigo_async.report.wording import comparison_in_words, p_in_words
from amigo_async.verdicts.statistics import Stratum, fisher, newcombe
from tests.support.report_samples import hidden_run, run

BOOM = "the agent gave no answer"


def repeats(passed: int, of: int) -> str:
    return "+" * passed + "-" * (of - passed)


def sampled(run_id: str, *tests: tuple[str, str], **flags: Any) -> Run:
    """A run of unit tests with one metric; a repeat is ``+``, ``-`` or ``!`` for an error."""
    return run(
        *[
            (
                test_id,
                {"m": signs.replace("!", "")},
                [BOOM if sign == "!" else None for sign in signs],
            )
            for test_id, signs in tests
        ],
        run_id=run_id,
        **flags,
    )


def pair(*tests: tuple[int, int, int, int]) -> Comparison:
    """The comparison of unit tests given as passed and repeats, before and after."""
    before = [(f"t{n}", repeats(c, m)) for n, (c, m, _, _) in enumerate(tests)]
    after = [(f"t{n}", repeats(a, k)) for n, (_, _, a, k) in enumerate(tests)]
    return compare(sampled("before", *before), sampled("after", *after))


def respecified(one: Run, *tests: int, **fields: Any) -> Run:
    """A run of which the specs of some unit tests, or of all, are otherwise."""
    specs = [
        replace(spec, **fields) if not tests or n in tests else spec
        for n, spec in enumerate(one.unit_test_run_specs)
    ]
    return replace(one, unit_test_run_specs=specs)


def two(**fields: Any) -> tuple[Run, Run]:
    """Two runs of two unit tests; the specs of the second test are otherwise in the later run."""
    tests = (("t0", repeats(10, 10)), ("t1", repeats(10, 10)))
    return sampled("before", *tests), respecified(sampled("after", *tests), 1, **fields)


@pytest.mark.parametrize(
    ("tests", "verdict", "regressed", "improved"),
    [
        # One unit test: the exact test of Fisher decides, without a factor of 2.
        ([(5, 5, 1, 5)], "regressed", ["t0"], []),
        ([(5, 5, 2, 5)], "no_change_seen", [], []),
        ([(10, 10, 7, 10)], "no_change_seen", [], []),
        ([(10, 10, 6, 10)], "regressed", ["t0"], []),
        ([(9, 9, 1, 3)], "regressed", ["t0"], []),
        ([(9, 9, 2, 3)], "no_change_seen", [], []),
        ([(1, 5, 5, 5)], "improved", [], ["t0"]),
        # Unit tests in which nothing varies do not count as further ones.
        ([(5, 5, 1, 5), *[(5, 5, 5, 5)] * 19], "regressed", ["t0"], []),
        ([(5, 5, 1, 5), *[(0, 5, 0, 5)] * 19], "regressed", ["t0"], []),
        # With others that vary, it is one of many, and asked twice.
        ([(5, 5, 1, 5), (7, 10, 7, 10)], "no_change_seen", [], []),
        ([(10, 10, 3, 10), *[(9, 10, 9, 10)] * 5], "regressed", ["t0"], []),
        # Twenty small drops, none of which says anything alone.
        ([(5, 5, 4, 5)] * 20, "regressed", [], []),
        ([(4, 5, 5, 5)] * 20, "improved", [], []),
        # Both at once.
        ([(20, 20, 5, 20), (5, 20, 20, 20)], "regressed", ["t0"], ["t1"]),
        # Never: two against two.
        ([(2, 2, 0, 2)], "too_few", [], []),
        ([(2, 2, 0, 2)] * 3, "regressed", [], []),
        ([(0, 5, 0, 5)], "no_change_seen", [], []),
        ([(5, 5, 0, 0)], "too_few", [], []),
        ([(0, 0, 0, 0)], "too_few", [], []),
    ],
)
def test_the_rule(
    tests: list[tuple[int, int, int, int]],
    verdict: str,
    regressed: list[str],
    improved: list[str],
) -> None:
    found = pair(*tests)
    assert found.verdict == verdict
    assert [one.unit_test_id for one in found.regressed] == regressed
    assert [one.unit_test_id for one in found.improved] == improved
    assert (found.p_value <= 0.05) == (verdict == "regressed")


def test_unit_test_and_metrics() -> None:
    before = run(("t", {"m1": "+" * 10, "m2": "+" * 10}, [None] * 10), run_id="before")
    after = run(("t", {"m1": "--++++++++", "m2": "+++-++++++"}, [None] * 10), run_id="after")
    found = compare(before, after)
    [test] = found.unit_tests
    # A repeat that fails one of its metrics has failed, whatever the others say.
    assert test.candidate == RateCounts(passed=7, failed=3)
    assert test.baseline == RateCounts(passed=10)
    assert test.difference == newcombe(Stratum(7, 10, 10, 10))
    assert test.p_value == fisher(Stratum(7, 10, 10, 10)) == found.p_value
    assert (test.p_improved, test.verdict) == (1.0, "no_change_seen")
    first, second = test.metrics
    assert (first.metric_id, second.metric_id) == ("m1", "m2")
    assert first.candidate == RateCounts(passed=8, failed=2)
    assert second.candidate == RateCounts(passed=9, failed=1)
    assert first.p_value == fisher(Stratum(8, 10, 10, 10))
    assert second.p_improved == 1.0
    assert second.difference == newcombe(Stratum(9, 10, 10, 10))


def test_rates() -> None:
    counts = RateCounts(passed=3, failed=1, missing=2)
    assert (counts.evaluated, counts.rate) == (4, 0.75)
    assert counts.interval == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert (counts.pass_hat_k(2), counts.pass_at_k(2)) == (0.5, 1.0)
    none = RateCounts(missing=2)
    assert (none.rate, none.interval, none.pass_hat_k(1), none.pass_at_k(1)) == (None,) * 4


def test_errors_are_in_no_rate() -> None:
    found = compare(
        sampled("before", ("t", repeats(10, 10))), sampled("after", ("t", "+++++!!!!!"))
    )
    assert found.candidate == RateCounts(passed=5, missing=5)
    assert (found.verdict, found.p_value) == ("no_change_seen", 1.0)
    assert found.errors_grew


def test_errors_of_what_is_left_out_are_left_out() -> None:
    """Those that are counted beside the sentence are those that it is about."""
    before = sampled("before", ("t", repeats(10, 10)), ("known", repeats(10, 10)))
    after = sampled("after", ("t", repeats(10, 10)), ("known", "!" * 10))
    assert compare(before, after).errors_grew
    found = compare(before, after, known_failing=["known"])
    assert not found.errors_grew
    assert not any("no rate" in line for line in comparison_in_words(found, Names()).caveats)


@pytest.mark.parametrize(
    ("before", "after", "grew"),
    [("+" * 10, "+" * 10, False), ("+" * 10, "+++++++!!!", False), ("+++++!!!!!", "+" * 10, False)],
)
def test_few_errors_are_chance(before: str, after: str, *, grew: bool) -> None:
    assert compare(sampled("b", ("t", before)), sampled("a", ("t", after))).errors_grew is grew


def test_unit_tests_that_are_missing_or_new() -> None:
    before = sampled("before", ("kept", "+++++"), ("gone", "+++++"), ("twice", "+"), ("twice", "+"))
    after = sampled("after", ("new", "-----"), ("twice", "+"), ("kept", "+++++"))
    found = compare(before, after)
    assert (found.missing, found.added) == (("gone", "twice"), ("new",))
    assert [one.unit_test_id for one in found.unit_tests] == ["twice", "kept"]
    assert found.candidate.failed == 0
    assert found.verdict == "no_change_seen"


def test_a_unit_test_that_stands_twice() -> None:
    """Neither hides the other: together 10 of 20, as before."""
    before = sampled("before", ("t", repeats(10, 10)), ("t", repeats(0, 10)))
    after = sampled("after", ("t", repeats(0, 10)), ("t", repeats(10, 10)))
    found = compare(before, after)
    assert [(o.place, o.verdict) for o in found.unit_tests] == [(0, "regressed"), (1, "improved")]
    assert found.verdict == "regressed"


def test_several_runs_are_taken_together() -> None:
    before = [sampled(f"b{n}", ("t", repeats(5, 5))) for n in range(2)]
    after = sampled("after", ("t", repeats(2, 5)))
    assert compare(before[0], after).verdict == "no_change_seen"
    found = compare(before, after)
    assert found.verdict == "regressed"
    assert found.baseline == RateCounts(passed=10)
    assert found.baseline_run_ids == ("b0", "b1")
    assert compare(before[0], [after, sampled("more", ("t", repeats(2, 5)))]).candidate == (
        RateCounts(passed=4, failed=6)
    )


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"scenario_version_info": VersionInfo("scenario", 2)}, "the scenario changed: 1 -> 2"),
        (
            {"persona_version_info": VersionInfo("other", 1)},
            "the persona changed: persona version 1 -> other version 1",
        ),
        ({"max_interactions": 21}, "the max_interactions changed: 20 -> 21"),
    ],
)
def test_what_is_not_comparable(fields: dict[str, Any], what: str) -> None:
    before, after = two(**fields)
    found = compare(before, after)
    assert [one.verdict for one in found.unit_tests] == ["no_change_seen", "not_comparable"]
    assert found.not_comparable[0].reasons == (what,)
    assert found.candidate.passed == 10
    assert [change.unit_test_id for change in found.changes] == ["t1"]
    assert found.verdict == "no_change_seen"


def with_metric(one: Run, **fields: Any) -> Run:
    """A run whose metrics had another version, or were asked for otherwise."""
    version = fields.pop("version", None)
    metrics = tuple(replace(m, **fields) for m in one.unit_test_run_specs[0].metrics_to_evaluate)
    results = [
        replace(
            result,
            metric_evaluation_results=tuple(
                replace(m, metric_version=version or m.metric_version)
                for m in result.metric_evaluation_results
            ),
        )
        for result in one.unit_test_run_results
        if result is not None
    ]
    return replace(respecified(one, metrics_to_evaluate=metrics), unit_test_run_results=results)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"version": 2}, "metric m changed: version 1 -> 2"),
        (
            {"success_criterion": NumericalMetricSuccessCriterion(">=", 0.8)},
            "the success criterion of metric m changed",
        ),
        ({"success_criterion_name": "renamed"}, None),
    ],
)
def test_metrics_are_to_be_the_same(fields: dict[str, Any], reason: str | None) -> None:
    before, after = (sampled(name, ("t", repeats(5, 5))) for name in ("before", "after"))
    found = compare(before, with_metric(after, **fields))
    assert found.unit_tests[0].reasons == (() if reason is None else (reason,))
    assert found.verdict == ("no_change_seen" if reason is None else "not_comparable")


def test_another_set_of_metrics() -> None:
    before = run(("t", {"m1": "+++", "m2": "+++"}, [None] * 3), run_id="before")
    after = run(("t", {"m1": "+++", "m3": "+++"}, [None] * 3), run_id="after")
    assert compare(before, after).unit_tests[0].reasons == (
        "metric m2 is no longer evaluated",
        "metric m3 was not evaluated before",
    )


@pytest.mark.parametrize("field", ["scenario_version_info", "persona_version_info"])
@pytest.mark.parametrize("later", [True, False])
def test_what_is_hidden_is_not_different(field: str, *, later: bool) -> None:
    before, after = two(**{field: None})
    found = compare(before, after) if later else compare(after, before)
    assert [one.verdict for one in found.unit_tests] == ["no_change_seen"] * 2
    assert found.changes == ()


def test_hidden_results_are_not_compared() -> None:
    before, after = sampled("before", ("t", "+++")), sampled("after", ("t", "+++"))
    shown = compare(hidden_run(run_id="before"), after)
    assert (shown.verdict, shown.added, shown.missing) == ("not_comparable", (), ())
    [reason] = shown.reasons
    assert reason == (
        "the results of run before are not visible: a permission is missing, or they cannot be "
        "decoded"
    )
    blind = run(("t", {}, [None] * 3), run_id="blind")
    for found in (compare(before, blind), compare(blind, after)):
        assert found.verdict == "not_comparable"
        assert found.unit_tests[0].reasons == (
            "the results of its metrics in run blind are hidden or missing",
        )


def test_a_run_of_the_baseline_is_left_out_where_it_was_another_test() -> None:
    old, before = two()
    old = respecified(old, 1, max_interactions=5)
    after = sampled("new", ("t0", repeats(9, 10)), ("t1", repeats(9, 10)))
    found = compare([old, before], after)
    assert [one.baseline.passed for one in found.unit_tests] == [20, 10]
    assert found.unit_tests[1].verdict == "no_change_seen"
    assert found.unit_tests[1].reasons == ("the max_interactions changed: 5 -> 20",)


def test_runs_of_the_candidate_must_be_alike() -> None:
    before, after = two(max_interactions=5)
    third = sampled("third", ("t0", repeats(9, 10)), ("t1", repeats(9, 10)))
    found = compare(third, [before, after])
    assert [one.verdict for one in found.unit_tests] == ["no_change_seen", "not_comparable"]


def test_runs_of_the_candidate_are_compared_though_the_baseline_is_hidden() -> None:
    before, later = two(scenario_version_info=VersionInfo("scenario", 2))
    blind = respecified(
        sampled("blind", ("t0", repeats(9, 10)), ("t1", repeats(9, 10))),
        scenario_version_info=None,
    )
    found = compare(blind, [before, later])
    assert [one.verdict for one in found.unit_tests] == ["no_change_seen", "not_comparable"]
    assert found.unit_tests[1].reasons == ("the scenario changed: 1 -> 2",)


def test_the_least_likely_comes_first() -> None:
    worse = pair((20, 20, 8, 20), (20, 20, 2, 20), (20, 20, 5, 20))
    assert [one.unit_test_id for one in worse.regressed] == ["t1", "t2", "t0"]
    better = pair((8, 20, 20, 20), (2, 20, 20, 20), (5, 20, 20, 20))
    assert [one.unit_test_id for one in better.improved] == ["t1", "t2", "t0"]


def test_the_same_versions_in_another_order_are_no_change() -> None:
    runs = [
        respecified(sampled(name, ("t", "+++")), agent_version_info=VersionInfo("agent", version))
        for name, version in (("b7", 7), ("b8", 8), ("c8", 8), ("c7", 7), ("c9", 9))
    ]
    assert compare(runs[:2], runs[2:4]).changes == ()
    [change] = compare(runs[:2], runs[4]).changes
    assert (change.before, change.after) == ("7, 8", "9")


def test_what_changed() -> None:
    before, after = two()
    before = respecified(
        before, llm_model_preferences={"agent": LLMConfig("large", {"temperature": 0.2})}
    )
    after = respecified(
        after,
        agent_version_info=VersionInfo("agent", 8),
        llm_model_preferences={"agent": LLMConfig("small", {"temperature": 0.4})},
    )
    after = respecified(
        after, 0, service_hierarchical_state_machine_version_info=VersionInfo("machine", 4)
    )
    changes = compare(before, after).changes
    assert [(c.what, c.before, c.after, c.unit_test_id) for c in changes] == [
        ("agent", "7", "8", None),
        ("state machine", "3", "4", "t0"),
        ("model (agent)", "large", "small", None),
        ("parameters (agent)", '{"temperature":0.2}', '{"temperature":0.4}', None),
    ]
    assert compare(*two()).changes == ()


@pytest.mark.parametrize(
    ("passed", "differ"),
    [
        ([18, 18, 18], False),
        ([20, 17, 19, 18, 20], False),
        ([20, 20, 8], True),
        ([8, 20, 20], True),
        ([0, 0, 12], True),
        ([20, 20, 14], True),
        # One run that is better than the others, or worse.
        ([5, 5, 5, 5, 14], True),
        ([15, 15, 15, 15, 6], True),
        # p = 0.02, but each of five runs might have been the one, in two directions.
        ([19, 19, 19, 19, 15], False),
        ([20, 8], False),
    ],
)
def test_baselines_that_differ(passed: Sequence[int], *, differ: bool) -> None:
    before = [sampled(f"b{n}", ("t", repeats(a, 20))) for n, a in enumerate(passed)]
    found = compare(before, sampled("after", ("t", repeats(18, 20))))
    assert found.baselines_differ is differ


def test_what_could_have_been_seen() -> None:
    found = pair((59, 60, 58, 60))
    assert found.verdict == "no_change_seen"
    assert found.smallest_drop == pytest.approx(0.1312, abs=1e-4)
    assert pair((3, 3, 3, 3)).smallest_drop is not None
    assert pair((2, 2, 2, 2)).smallest_drop is None
    assert pair((48, 50, 8, 10)).more_repeats == 15
    assert pair((10, 10, 2, 10)).more_repeats == 0
    assert pair((10, 10, 10, 10)).more_repeats is None
    # By an approximation this would be beyond chance, by the exact test it is not.
    close = pair((30, 40, 3, 8))
    assert (close.verdict, close.more_repeats) == ("no_change_seen", 2)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"is_completed": False}, "run after is not completed; wait for it"),
        ({"simulation_unit_test_set_id": "other"}, "compare runs of one set"),
        ({"id": "before"}, "give each run once; given twice: before"),
    ],
)
def test_runs_that_are_refused(flags: dict[str, Any], words: str) -> None:
    before, after = sampled("before", ("t", "+++")), sampled("after", ("t", "+++"))
    with pytest.raises(ArgumentError, match=words):
        compare(before, replace(after, **flags))
    with pytest.raises(ArgumentError, match=words):
        compare(replace(after, **flags), [before])


def test_a_run_that_was_cut_short_is_refused() -> None:
    before, after = sampled("before", ("t", "+++")), sampled("after", ("t", "+++"))
    after = respecified(after, run_count=5)
    with pytest.raises(ArgumentError, match=r"candidate: run after .* 2 repeats never ran"):
        compare(before, after)
    with pytest.raises(ArgumentError, match=r"baseline: run after .* 2 repeats never ran"):
        compare(after, before)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 5, float("nan")])
def test_alpha_is_a_probability(alpha: float) -> None:
    with pytest.raises(ArgumentError, match="alpha must be between 0 and 1"):
        compare(*two(), alpha=alpha)


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_at_least_one_run(side: str) -> None:
    one = sampled("one", ("t", "+++"))
    with pytest.raises(ArgumentError, match=f"{side}: give at least one run"):
        compare([] if side == "baseline" else one, [] if side == "candidate" else one)


def test_alpha_decides() -> None:
    before, after = sampled("b", ("t", repeats(5, 5))), sampled("a", ("t", repeats(1, 5)))
    assert compare(before, after, alpha=0.02).verdict == "no_change_seen"
    assert compare(before, after, alpha=0.001).verdict == "too_few"


def test_comparisons_are_saved() -> None:
    found = compare(*two(max_interactions=5))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found
    batch = compare_sets([found])
    assert msgspec.json.decode(msgspec.json.encode(batch), type=BatchComparison) == batch


# --- many sets ---


def of_set(set_id: str, found: Comparison) -> Comparison:
    return replace(found, unit_test_set_id=set_id)


WORSE = pair((10, 10, 4, 10))  # p = 0.0054
WEAK = pair((10, 10, 5, 10))  # p = 0.016
SAME = pair((10, 10, 10, 10))
FEW = pair((2, 2, 2, 2))
OTHER = compare(*(sampled(n, (n, "+++")) for n in ("before", "after")))


@pytest.mark.parametrize(
    ("sets", "verdict", "regressed"),
    [
        ([WORSE], "regressed", ["s0"]),
        ([WEAK, SAME, SAME], "regressed", ["s0"]),
        ([WEAK, SAME, SAME, SAME], "no_change_seen", []),
        ([SAME, WEAK, WORSE], "regressed", ["s2", "s1"]),
        # What cannot say "regressed" is not counted.
        ([WEAK, *[FEW] * 20, *[OTHER] * 20], "regressed", ["s0"]),
        ([FEW, OTHER], "too_few", []),
        ([OTHER], "not_comparable", []),
        ([FEW, SAME], "no_change_seen", []),
        ([pair((4, 10, 10, 10)), SAME], "improved", []),
        ([pair((4, 10, 10, 10)), WORSE], "regressed", ["s1"]),
    ],
)
def test_many_sets(sets: list[Comparison], verdict: str, regressed: list[str]) -> None:
    batch = compare_sets([of_set(f"s{n}", one) for n, one in enumerate(sets)])
    assert batch.verdict == verdict
    assert list(batch.regressed) == regressed
    assert (batch.improved != ()) == any(one.verdict == "improved" for one in sets)


def test_sets_that_are_refused() -> None:
    with pytest.raises(ArgumentError, match="at least one"):
        compare_sets([])
    with pytest.raises(ArgumentError, match="same alpha"):
        compare_sets([SAME, of_set("s", replace(SAME, alpha=0.1))])
    with pytest.raises(ArgumentError, match="each set once"):
        compare_sets([SAME, WORSE])


# --- in words ---

NAMES = Names({"set": "Refund policy"}, {"t0": "Angry caller wants money back"})


def test_a_regression_in_words() -> None:
    before = sampled("before", ("t0", repeats(10, 10)), ("t1", repeats(10, 10)))
    after = sampled("after", ("t0", repeats(4, 10)), ("t1", repeats(9, 10)))
    after = respecified(after, agent_version_info=VersionInfo("agent", 8), max_interactions=20)
    after = respecified(
        after, 1, service_hierarchical_state_machine_version_info=VersionInfo("machine", 4)
    )
    assert comparison_in_words(compare(before, after), NAMES).lines == [
        "Refund policy: regressed. 13 of 20 repeats passed, before 20 of 20 (p = 0.0054).",
        "  Angry caller wants money back   10/10 -> 4/10   m",
        "  agent 7 -> 8",
        "  state machine 3 -> 4 in t1",
    ]


def test_no_regression_in_words() -> None:
    assert comparison_in_words(pair((59, 60, 58, 60)), NAMES).lines == [
        "Refund policy: no regression seen (58 of 60 repeats passed, before 59 of 60).",
        "A drop of 14 points in every unit test would have been seen four times in five.",
    ]


def test_what_weakens_a_verdict_in_words() -> None:
    before = [
        sampled(f"b{n}", ("t0", repeats(a, 20)), ("gone", "+"), ("odd", "+"))
        for n, a in enumerate((20, 20, 8))
    ]
    after = sampled("after", ("t0", "+" * 10 + "!" * 10), ("new", "+"), ("odd", "+"))
    found = compare(before, respecified(after, 2, max_interactions=9))
    lines = comparison_in_words(found, NAMES).lines
    assert lines[0] == (
        "Refund policy: no regression seen (10 of 10 repeats passed, before 48 of 60)."
    )
    assert lines[-5:] == [
        "Missing, so not passed: 1 unit test: gone.",
        "Left out: odd: the max_interactions changed: 20 -> 9.",
        "New: 1 unit test: new.",
        (
            "More repeats than before have an error or no result (10 of 20, before 0 of 60); they "
            "are in no rate."
        ),
        (
            "The runs of the baseline differ among themselves beyond chance, so that a regression "
            "is seen more often than it is there."
        ),
    ]
    assert "  max_interactions 20 -> 9 in odd" in lines


@pytest.mark.parametrize(
    ("found", "head"),
    [
        (FEW, "Refund policy: too few repeats to tell (2 of 2 repeats passed, before 2 of 2)."),
        (OTHER, "Refund policy: not comparable."),
        (
            pair((4, 10, 10, 10)),
            "Refund policy: improved. 10 of 10 repeats passed, before 4 of 10 (p = 0.0054).",
        ),
    ],
)
def test_other_verdicts_in_words(found: Comparison, head: str) -> None:
    assert comparison_in_words(found, NAMES).head == head


def test_errors_in_words() -> None:
    before, after = sampled("before", ("t0", "++!+")), sampled("after", ("t0", "+++!"))
    assert comparison_in_words(compare(before, after), NAMES).lines[-1] == (
        "Repeats with an error or no result are in no rate: 1 of 4, before 1 of 4."
    )
    assert "no rate" not in str(comparison_in_words(pair((5, 5, 5, 5)), NAMES).lines)


def test_more_repeats_in_words() -> None:
    assert comparison_in_words(pair((48, 50, 8, 10)), NAMES).lines[-1] == (
        "If the rates stay, 15 more repeats of each unit test would tell."
    )


def test_nothing_is_worse_than_a_baseline_of_zero() -> None:
    """Repeating more often would show no drop either."""
    for tests in ((0, 9, 0, 9), (0, 2, 0, 2)):
        assert comparison_in_words(pair(tests), NAMES).caveats == (
            "No repeat of the baseline passed, so that nothing can get worse.",
        )
    assert "repeat more often" in str(comparison_in_words(pair((1, 9, 1, 9)), NAMES).caveats)


def test_known_failures_decide_nothing() -> None:
    """Neither the whole set nor themselves, and it is said that they are left out."""
    tests = (("t0", "+" * 20, "-" * 20), ("t1", "+++++", "++++-"))
    before = sampled("before", *[(name, old) for name, old, _ in tests])
    after = sampled("after", *[(name, new) for name, _, new in tests])
    assert compare(before, after).verdict == "regressed"
    found = compare(before, after, known_failing=["t0"])
    assert (found.verdict, found.regressed) == ("no_change_seen", ())
    assert (found.baseline.evaluated, found.candidate.passed) == (5, 4)
    [known] = found.not_comparable
    assert (known.unit_test_id, known.reasons) == ("t0", ("it is known to fail",))
    assert (known.baseline.passed, known.candidate.passed) == (20, 0)
    assert "Left out: t0: it is known to fail." in comparison_in_words(found, Names()).caveats
    assert compare(before, after, known_failing=["t0", "t1"]).verdict == "not_comparable"
    with pytest.raises(ArgumentError, match="known_failing must be a list of ids"):
        compare(before, after, known_failing="t0")


def test_text_of_the_service_is_cleaned() -> None:
    names = Names({"set": "two\nlines"}, {"t0": "x" * 500})
    lines = comparison_in_words(pair((5, 5, 1, 5)), names).lines
    assert lines[0].startswith("two lines: regressed")
    assert all(len(line) < 300 for line in lines)


@pytest.mark.parametrize(
    ("p_value", "words"),
    [(0.0313, "p = 0.031"), (1.0, "p = 1.0"), (0.0001, "p = 0.0001"), (9e-5, "p < 0.0001")],
)
def test_p_values_in_words(p_value: float, words: str) -> None:
    assert p_in_words(p_value) == words
