from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amigo_async.errors import ArgumentError
from amigo_async.models import Evaluation, Run
from amigo_async.verdicts.gate import (
    Errored,
    Gate,
    Judgement,
    PassRate,
    Per,
    fails_already,
    passing_again,
    reason_of,
    verdict_of,
)
from amigo_async.verdicts.tally import tally
from tests.support.report_samples import hidden_run, result, run, spec

BOOM = "the agent gave no answer"

Test = tuple[str, Mapping[str, str], Sequence[str | None]]


def sound(repeats: int) -> list[str | None]:
    return [None] * repeats


ONE_BAD: Test = ("ut1", {"m1": "++++-", "m2": "+++++"}, sound(5))
TWO_BAD: Test = ("ut1", {"m1": "-++++", "m2": "++++-"}, sound(5))
FINE: Test = ("ut2", {"m1": "+++++"}, sound(5))
HALF: Test = ("ut3", {"m1": "+-"}, sound(2))
ERRED: Test = ("ut4", {"m1": "++++"}, [None, None, BOOM, None, None])
ALL_ERRED: Test = ("ut5", {"m1": ""}, [BOOM, BOOM])


@pytest.mark.parametrize(
    ("tests", "gate", "verdict"),
    [
        ([FINE], {}, "passed"),
        ([ONE_BAD], {}, "failed"),
        ([ONE_BAD], {"min_pass_rate": 0.8}, "passed"),
        ([ONE_BAD], {"min_pass_rate": 0.81}, "failed"),
        ([TWO_BAD], {"min_pass_rate": 0.8}, "failed"),
        ([TWO_BAD], {"min_pass_rate": 0.6}, "passed"),
        ([TWO_BAD], {"min_pass_rate": 0.8, "per": "metric"}, "passed"),
        ([TWO_BAD], {"min_pass_rate": 0.8, "per": "run"}, "failed"),
        ([FINE, HALF], {"min_pass_rate": 0.8}, "failed"),
        ([FINE, HALF], {"min_pass_rate": 0.8, "per": "metric"}, "failed"),
        ([FINE, HALF], {"min_pass_rate": 0.8, "per": "run"}, "passed"),
        ([ERRED], {"min_pass_rate": 0.5}, "errored"),
        ([ERRED], {"min_pass_rate": 0.8, "errored": "fail"}, "passed"),
        ([ERRED], {"min_pass_rate": 0.9, "errored": "fail"}, "failed"),
        ([ERRED], {"min_pass_rate": 1.0, "errored": "ignore"}, "passed"),
        ([ERRED], {"min_pass_rate": 0.9, "errored": "fail", "per": "metric"}, "failed"),
        ([ALL_ERRED], {"min_pass_rate": 0.0, "errored": "ignore"}, "errored"),
        ([ALL_ERRED], {"min_pass_rate": 0.0, "errored": "fail"}, "passed"),
        ([ALL_ERRED, FINE], {"errored": "ignore", "per": "run"}, "passed"),
        ([ERRED, HALF], {"min_pass_rate": 0.9}, "errored"),
        ([ERRED, HALF], {"min_pass_rate": 0.9, "errored": "ignore"}, "failed"),
        ([FINE, ("ut6", {}, sound(3))], {"per": "metric"}, "passed"),
        ([FINE, ("ut6", {}, [None, BOOM])], {"per": "metric"}, "errored"),
        ([("ut7", {"m1": ""}, [])], {"min_pass_rate": 0.0}, "errored"),
    ],
)
def test_the_verdict_follows_the_rate(
    tests: list[Test], gate: dict[str, Any], verdict: str
) -> None:
    judgement = Gate(**gate).judge(run(*tests))
    assert judgement.verdict == verdict
    assert not judgement.fell_back


def test_judgement_names_low_rates() -> None:
    judgement = Gate(min_pass_rate=0.9, per="metric", errored="fail").judge(run(ONE_BAD, ERRED))
    assert judgement == Judgement(
        verdict="failed",
        reasons=(
            "unit test ut1, metric m1: 4 of 5 repeats passed (80%); at least 90% must",
            ("unit test ut4, metric m1: 4 of 5 repeats passed (80%, 1 errored); at least 90% must"),
        ),
        rates=(
            _rate("ut1", "m1", 4, 1, 0, 0.8, "failed"),
            _rate("ut1", "m2", 5, 0, 0, 1.0, "passed"),
            _rate("ut4", "m1", 4, 0, 1, 0.8, "failed"),
        ),
    )


def _rate(test: str, metric: str, *rest: Any) -> PassRate:
    names = ("passed", "failed", "errored", "rate", "verdict")
    return PassRate(unit_test_id=test, metric_id=metric, **dict(zip(names, rest, strict=True)))


def test_pass_says_by_how_much() -> None:
    assert Gate(min_pass_rate=0.75).judge(run(ONE_BAD, FINE)).reasons == (
        "every unit test reached 75%; the lowest pass rate was 80%",
    )
    assert Gate(min_pass_rate=0.75, per="run").judge(run(ONE_BAD, FINE)).reasons == (
        "the run reached 75%; the lowest pass rate was 90%",
    )


def test_reasons_of_errors_count_the_repeats() -> None:
    assert Gate().judge(run(ERRED)).reasons == (
        "unit test ut4: 1 of 5 repeats have an error or no result",
    )
    nothing = run(("ut7", {"m1": ""}, []))
    assert Gate().judge(nothing).reasons == ("unit test ut7: no repeat counts",)


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [
        ({}, "passed"),
        ({"failed_metrics": True}, "failed"),
        ({"errored": True}, "errored"),
        ({"failed_metrics": True, "errored": True}, "errored"),
    ],
)
def test_hidden_results_fall_back(flags: dict[str, Any], verdict: str) -> None:
    judgement = Gate(min_pass_rate=0.1, errored="ignore").judge(hidden_run(**flags))
    assert (judgement.verdict, judgement.fell_back, judgement.rates) == (verdict, True, ())
    assert "hidden by a missing permission" in judgement.reasons[0]
    assert "by the flags of the run" in judgement.reasons[0]


def test_metrics_alone_can_be_hidden() -> None:
    judgement = Gate(min_pass_rate=0.1).judge(run(("ut", {}, sound(3)), failed_metrics=True))
    assert (judgement.verdict, judgement.fell_back) == ("failed", True)


@pytest.mark.parametrize(
    ("tests", "flags", "verdict"),
    [
        ([FINE], {"failed_metrics": True}, "failed"),
        ([FINE], {"errored": True}, "errored"),
        ([ONE_BAD, ("ut6", {}, sound(3))], {}, "failed"),
    ],
)
def test_flag_without_result_is_believed(
    tests: list[Test], flags: dict[str, Any], verdict: str
) -> None:
    judgement = Gate(min_pass_rate=0.1).judge(run(*tests, **flags))
    assert (judgement.verdict, judgement.fell_back) == (verdict, True)


def test_missing_metric_counts_as_errored() -> None:
    partly = run(
        unit_test_run_specs=[spec("ut1", 5, ["m1", "m2"])],
        unit_test_run_results=[result("ut1", {"m1": "+++++", "m2": "+++"}, sound(5))],
    )
    judgement = Gate(errored="fail", min_pass_rate=0.6).judge(partly)
    assert [(r.passed, r.errored, r.verdict) for r in judgement.rates] == [(3, 2, "passed")]
    assert Gate().judge(partly).verdict == "errored"


@pytest.mark.parametrize("errored", ["error", "fail", "ignore"])
@pytest.mark.parametrize("flags", [{}, {"failed_metrics": True}, {"errored": True}])
def test_cut_short_is_cancelled(errored: Errored, flags: dict[str, Any]) -> None:
    short = run(
        unit_test_run_specs=[spec("ut1", 5, ["m1"]), spec("ut2", 2, ["m1"])],
        unit_test_run_results=[result("ut1", {"m1": "+++"}, sound(3)), None],
        **flags,
    )
    judgement = Gate(errored=errored, min_pass_rate=0.0, per="run").judge(short)
    assert (judgement.verdict, judgement.fell_back) == ("cancelled", False)
    assert judgement.reasons == ("the run was cut short: 4 repeats never ran",)
    assert [(r.passed, r.errored) for r in judgement.rates] == [(3, 4)]
    assert verdict_of(short, None, cancelled=False) == "cancelled"
    assert not short.passed


@pytest.mark.parametrize(
    ("specs", "results", "missing"),
    [
        ([], [], 0),  # hidden
        ([spec("ut1", 2, ["m1"])], [], 2),
        ([spec("ut1", 2, ["m1"])], [None], 2),
        ([spec("ut1", 2, ["m1"])], [result("ut1", {"m1": "++"}, sound(2))], 0),
        ([spec("ut1", 2, ["m1"])], [result("ut1", {"m1": "+"}, sound(2))], 1),
        ([spec("ut1", 2, ["m1"])], [result("ut1", {}, sound(2))], 2),
        ([spec("ut1", 2, ["m1"])], [result("ut1", {"m1": "+"}, [BOOM, None])], 0),
        ([spec("ut1", 2, ["m1"])], [result("ut1", {"m1": ""}, [BOOM, BOOM])], 0),
        ([spec("ut1", 3, ["m1"])], [result("ut1", {"m1": "++"}, sound(2))], 1),
        ([spec("ut1", 2, ["m1", "m2"])], [result("ut1", {"m1": "+", "m2": "++"}, sound(2))], 0),
        ([spec("ut1", 2, [])], [result("ut1", {}, sound(2))], 0),  # the metrics are hidden
        ([spec("ut1", 2, [])], [result("ut1", {}, sound(1))], 1),
        ([spec("ut1", 2, [])], [result("ut1", {"m1": "+"}, sound(2))], 1),
        (  # more of one make up for nothing of another
            [spec("ut1", 1, ["m1"]), spec("ut2", 1, ["m1"])],
            [result("ut1", {"m1": "++"}, sound(2)), None],
            1,
        ),
        (  # a unit test twice, the results of one of them missing
            [spec("ut1", 2, ["m1"]), spec("ut1", 2, ["m1"])],
            [None, result("ut1", {"m1": "++"}, sound(2))],
            2,
        ),
    ],
)
def test_which_repeats_have_run(specs: list[Any], results: list[Any], missing: int) -> None:
    of = run(unit_test_run_specs=specs, unit_test_run_results=results)
    assert of.repeats_missing == missing
    assert of.was_cut_short == (missing > 0)
    assert of.passed == (missing == 0)
    going = run(unit_test_run_specs=specs, unit_test_run_results=results, is_completed=False)
    assert not going.was_cut_short


def test_a_run_that_goes_on_is_not_judged() -> None:
    with pytest.raises(ArgumentError, match="run run is not completed"):
        Gate().judge(run(FINE, is_completed=False))


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"min_pass_rate": 90}, "0.9 for 90%"),
        ({"min_pass_rate": -0.1}, "not -0.1"),
        ({"min_pass_rate": float("nan")}, "not nan"),
        ({"per": "set"}, "per must be one of"),
        ({"errored": "pass"}, "errored must be one of"),
        ({"min_pass_rate": 0.9, "confidence": 95}, "0.95 for 95%"),
        ({"min_pass_rate": 0.9, "confidence": 1.0}, "less than 1"),
        ({"min_pass_rate": 0.9, "confidence": 0.4}, "from 0.5"),
        ({"confidence": 0.95}, "min_pass_rate must be less than 1 with a confidence"),
    ],
)
def test_invalid_arguments(gate: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        Gate(**gate)


def test_a_judgement_survives_json() -> None:
    judgement = Gate(min_pass_rate=0.9).judge(run(ONE_BAD, FINE))
    assert msgspec.json.decode(msgspec.json.encode(judgement), type=Judgement) == judgement


# --- where evaluations belong ---------------------------------------------------------------


def _signs(errors: Sequence[str | None], signs: str) -> str:
    (test,) = tally(run(("ut", {"m": signs}, errors)))
    shown = {True: "+", False: "-", None: "."}
    return "".join(shown[None if e is None else e.passed] for e in test.metrics[0].evaluations)


@pytest.mark.parametrize(
    ("errors", "signs", "placed"),
    [
        ([None, None, None], "+-+", "+-+"),
        ([None, BOOM, None], "+-", "+.-"),
        ([None, BOOM, None], "+-+", "+.+"),
        ([BOOM, BOOM, None, None], "++-", "..-+"),
        ([None, None, None], "+", "+.."),
        ([None], "+-", "+-"),
        ([], "", ""),
    ],
)
def test_evaluations_by_repeat(errors: list[str | None], signs: str, placed: str) -> None:
    assert _signs(errors, signs) == placed


def test_results_find_specs_by_id() -> None:
    mixed = run(
        unit_test_run_specs=[spec("a", 1, ["m"]), spec("b", 2, ["m"])],
        unit_test_run_results=[
            result("b", {"m": "+-"}, sound(2)),
            result("new", {"m": "+"}, sound(1)),
        ],
    )
    assert [(t.unit_test_id, t.done, t.counts) for t in tally(mixed)] == [
        ("a", 0, (0, 0, 1)),
        ("b", 2, (1, 1, 0)),
        ("new", 1, (1, 0, 0)),
    ]


def test_duplicate_test_keeps_results() -> None:
    twice = run(("ut", {"m": "+"}, sound(1)), ("ut", {"m": "-"}, sound(1)))
    assert [t.counts for t in tally(twice)] == [(1, 0, 0), (0, 1, 0)]


# --- for every run --------------------------------------------------------------------------


@st.composite
def runs(draw: st.DrawFn) -> Run:
    tests: list[Test] = []
    for number in range(draw(st.integers(1, 4))):
        errors = draw(st.lists(st.sampled_from([None, None, None, BOOM]), min_size=1, max_size=6))
        count = errors.count(None)
        signs = st.text("+-", min_size=count, max_size=count)
        metrics = {f"m{m}": draw(signs) for m in range(draw(st.integers(1, 3)))}
        tests.append((f"ut{number}", metrics, errors))
    return run(*tests)


pers = st.sampled_from(["run", "unit_test", "metric"])
shares = st.floats(0, 1)
RANK = {"passed": 0, "failed": 1, "errored": 1}


@given(runs(), pers)
def test_strictest_gate_equals_flags(one: Run, per: Per) -> None:
    judgement = Gate(per=per).judge(one)
    assert judgement.verdict == verdict_of(one, None, cancelled=False)


@given(runs(), pers, st.sampled_from(["error", "fail", "ignore"]), shares, shares)
def test_lower_rate_keeps_a_pass(one: Run, per: Per, errored: Errored, a: float, b: float) -> None:
    strict = Gate(min_pass_rate=max(a, b), per=per, errored=errored).judge(one)
    lax = Gate(min_pass_rate=min(a, b), per=per, errored=errored).judge(one)
    assert RANK[lax.verdict] <= RANK[strict.verdict]


@given(runs(), shares)
def test_each_test_implies_the_run(one: Run, share: float) -> None:
    each = Gate(min_pass_rate=share, errored="fail").judge(one)
    whole = Gate(min_pass_rate=share, per="run", errored="fail").judge(one)
    metric = Gate(min_pass_rate=share, per="metric", errored="fail").judge(one)
    if each.verdict == "passed":
        # The mean of shares that reach a bound reaches it, but for the rounding of one division.
        assert whole.verdict == "passed" or whole.rates[0].rate == pytest.approx(share)
        assert metric.verdict == "passed"


@given(runs(), pers, st.sampled_from(["error", "fail", "ignore"]), shares)
def test_rates_account_for_repeats(one: Run, per: Per, errored: Errored, share: float) -> None:
    judgement = Gate(min_pass_rate=share, per=per, errored=errored).judge(one)
    repeats = {s.unit_test_id: s.run_count for s in one.unit_test_run_specs}
    for rate in judgement.rates:
        asked = repeats[rate.unit_test_id] if rate.unit_test_id else sum(repeats.values())
        assert rate.passed + rate.failed + rate.errored == asked
        if rate.verdict == "passed":
            assert rate.rate is not None
            assert rate.rate >= share
    assert judgement.reasons
    assert (judgement.verdict == "passed") == all(r.verdict == "passed" for r in judgement.rates)


@given(runs(), st.randoms())
def test_order_of_tests_is_irrelevant(one: Run, dice: Any) -> None:
    order = list(range(len(one.unit_test_run_specs)))
    dice.shuffle(order)
    turned = msgspec.structs.replace(
        one,
        unit_test_run_specs=[one.unit_test_run_specs[i] for i in order],
        unit_test_run_results=[one.unit_test_run_results[i] for i in order],
    )
    gate = Gate(min_pass_rate=0.5, per="metric", errored="fail")
    assert gate.judge(turned).verdict == gate.judge(one).verdict
    assert set(gate.judge(turned).rates) == set(gate.judge(one).rates)


def test_evaluations_keep_their_ids() -> None:
    (test,) = tally(run(("ut", {"m": "+-"}, [None, BOOM, None])))
    assert test.metrics[0].evaluations == (
        Evaluation("e-m-0", True),
        None,
        Evaluation("e-m-1", False),
    )


# --- with a confidence ----------------------------------------------------------------------


def repeats(test_id: str, passed: int, failed: int, errored: int = 0) -> Test:
    """A unit test with one metric, by the number of its repeats."""
    errors: list[str | None] = [*sound(passed + failed), *[BOOM] * errored]
    return test_id, {"m1": "+" * passed + "-" * failed}, errors


SURE = Gate(min_pass_rate=0.9, confidence=0.95)


@pytest.mark.parametrize(
    ("tests", "gate", "verdict"),
    [
        ([repeats("a", 28, 0)], {}, "undecided"),
        ([repeats("a", 29, 0)], {}, "passed"),
        ([repeats("a", 44, 1)], {}, "undecided"),
        ([repeats("a", 45, 1)], {}, "passed"),
        ([repeats("a", 5, 0)], {}, "undecided"),
        ([repeats("a", 4, 1)], {}, "undecided"),
        ([repeats("a", 3, 2)], {}, "undecided"),  # p = .081
        ([repeats("a", 2, 3)], {}, "failed"),  # p = .0086
        ([repeats("a", 3, 2)], {"confidence": 0.9}, "failed"),
        ([repeats("a", 29, 0)], {"confidence": 0.99}, "undecided"),
        # "passed" is not corrected: all must pass.
        ([repeats(f"t{n}", 29, 0) for n in range(20)], {}, "passed"),
        ([repeats("a", 29, 0), repeats("b", 28, 0)], {}, "undecided"),
        ([repeats("a", 29, 0), repeats("b", 2, 3)], {}, "failed"),
        # "failed" is: .0086 is more than .05 / 6, less than .05 / 5.
        ([repeats("a", 2, 3), *[repeats(f"t{n}", 29, 0) for n in range(4)]], {}, "failed"),
        ([repeats("a", 2, 3), *[repeats(f"t{n}", 29, 0) for n in range(5)]], {}, "undecided"),
        # After the smallest p-value, the next is compared with .05 / 5.
        (
            [repeats("a", 0, 5), repeats("b", 2, 3), *[repeats(f"t{n}", 29, 0) for n in range(4)]],
            {},
            "failed",
        ),
        ([repeats("a", 2, 3), repeats("b", 28, 0)], {}, "failed"),  # before undecided
        ([repeats("a", 2, 3, 1), repeats("b", 2, 3)], {}, "errored"),  # before failed
        ([repeats("a", 29, 0, 1)], {}, "errored"),
        ([repeats("a", 29, 0, 1)], {"errored": "ignore"}, "passed"),
        ([repeats("a", 29, 0, 1)], {"errored": "fail"}, "undecided"),
        ([repeats("a", 0, 0, 3)], {"errored": "ignore"}, "errored"),
        ([repeats("a", 0, 0, 5)], {"errored": "fail"}, "failed"),
        ([repeats("a", 15, 0), repeats("b", 14, 0)], {"per": "run"}, "passed"),
        ([repeats("a", 14, 0), repeats("b", 14, 0)], {"per": "run"}, "undecided"),
        (
            [("a", {"m1": "+" * 29, "m2": "+" * 28 + "-"}, sound(29))],
            {"per": "metric"},
            "undecided",
        ),
        ([("a", {"m1": "+" * 29, "m2": "+" * 29}, sound(29))], {"per": "metric"}, "passed"),
        ([repeats("a", 0, 1)], {"min_pass_rate": 0.0}, "passed"),
    ],
)
def test_confidence_separates_chance(tests: list[Test], gate: dict[str, Any], verdict: str) -> None:
    judgement = Gate(**{"min_pass_rate": 0.9, "confidence": 0.95, **gate}).judge(run(*tests))
    assert judgement.verdict == verdict
    assert judgement.reasons


def test_holm_names_more_than_the_worst_unit() -> None:
    """With the worst test rejected, one fewer is left to correct for."""
    others = [repeats(f"t{n}", 29, 0) for n in range(4)]
    judged = SURE.judge(run(repeats("a", 0, 5), repeats("b", 2, 3), *others))
    assert [r.verdict for r in judged.rates] == ["failed", "failed", *["passed"] * 4]
    assert [reason[:11] for reason in judged.reasons] == ["unit test a", "unit test b"]
    alone = SURE.judge(run(repeats("b", 2, 3), *others, repeats("t9", 29, 0)))
    assert [r.verdict for r in alone.rates] == ["undecided", *["passed"] * 5]


def test_rates_have_limits_and_what_would_decide() -> None:
    judged = SURE.judge(run(repeats("a", 5, 0), repeats("b", 30, 0), repeats("c", 0, 9)))
    fewer, enough, failed = judged.rates
    assert fewer.low == pytest.approx(0.05 ** (1 / 5))
    assert fewer.high == 1.0
    assert (fewer.more_repeats, enough.more_repeats, failed.more_repeats) == (24, None, None)
    assert failed.low == 0.0
    assert failed.high == pytest.approx(1 - 0.05 ** (1 / 9))
    assert judged.reasons == (
        (
            "unit test c: 0 of 9 repeats passed (0%, with 95% confidence at most 28.3%); "
            "at least 90% must"
        ),
        (
            "unit test a: 5 of 5 repeats passed (100%, with 95% confidence at least 54.9%); "
            "24 more repeats at this rate would show at least 90%"
        ),
    )
    assert all(r.low is r.high is r.more_repeats is None for r in Gate().judge(run(FINE)).rates)


def test_undecided_says_why() -> None:
    low = SURE.judge(run(repeats("a", 3, 2))).reasons[0]
    assert low.startswith("unit test a: 3 of 5 repeats passed (60%, with 95% confidence 18.9% to ")
    assert low.endswith("more repeats at this rate would show less than 90%")
    among_ten = SURE.judge(run(repeats("a", 3, 2), *[repeats(f"t{n}", 29, 0) for n in range(9)]))
    more = SURE.judge(run(repeats("a", 3, 2))).rates[0].more_repeats
    assert (among_ten.rates[0].more_repeats or 0) > (more or 0) > 0
    close = SURE.judge(run(repeats("a", 9, 1)))
    assert close.reasons[0].endswith(
        "too close to 90% for any reasonable number of repeats to tell"
    )
    assert close.rates[0].more_repeats is None
    among = SURE.judge(run(repeats("a", 2, 3), *[repeats(f"t{n}", 29, 0) for n in range(5)]))
    assert "among 6 compared rates, chance explains one like this" in among.reasons[0]


def test_sure_pass_says_how_sure() -> None:
    [reason] = SURE.judge(run(repeats("a", 30, 0), repeats("b", 60, 1))).reasons
    assert reason == (
        "every unit test reached 90% with 95% confidence; "
        "the lowest pass rate was 98.36%, the lowest lower limit 90.4%"
    )


def test_a_limit_is_never_rounded_across_the_threshold() -> None:
    reason = Gate(min_pass_rate=0.902, confidence=0.95).judge(run(repeats("a", 29, 0))).reasons[0]
    assert "at least 90.1%" in reason  # .90185


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [({}, "undecided"), ({"failed_metrics": True}, "undecided"), ({"errored": True}, "errored")],
)
def test_flags_say_nothing_of_rates(flags: dict[str, Any], verdict: str) -> None:
    judgement = SURE.judge(hidden_run(**flags))
    assert (judgement.verdict, judgement.fell_back) == (verdict, True)


def test_cut_short_is_cancelled_however_sure() -> None:
    short = run(
        unit_test_run_specs=[spec("a", 40, ["m1"])],
        unit_test_run_results=[result("a", {"m1": "+" * 39}, sound(39))],
    )
    assert SURE.judge(short).verdict == "cancelled"


def test_the_fewest_repeats_that_could_pass() -> None:
    assert SURE.fewest_repeats == 29
    assert Gate(min_pass_rate=0.9).fewest_repeats == 1
    assert Gate(min_pass_rate=0.5, confidence=0.5).fewest_repeats == 1
    assert Gate(min_pass_rate=0.0, confidence=0.99).fewest_repeats == 1
    assert SURE.can_pass([29, 40])
    assert not SURE.can_pass([28, 400])
    assert msgspec.structs.replace(SURE, per="run").can_pass([14, 15])
    assert not msgspec.structs.replace(SURE, per="run").can_pass([14, 14])
    assert SURE.can_pass([])  # every unit test is known to fail


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=5),
    st.sampled_from([0.5, 0.8, 0.9, 0.99]),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
    pers,
)
def test_a_sure_verdict_is_that_of_the_rates(
    counts: list[tuple[int, int]], rate: float, confidence: float, per: Per
) -> None:
    """Being sure never turns a pass into a failure, or the other way round."""
    tests = [repeats(f"t{n}", p, f) for n, (p, f) in enumerate(counts) if p + f]
    if not tests:
        return
    one = run(*tests)
    sure = Gate(min_pass_rate=rate, confidence=confidence, per=per).judge(one)
    plain = Gate(min_pass_rate=rate, per=per).judge(one)
    assert sure.verdict in (plain.verdict, "undecided")
    for told in sure.rates:
        assert told.low is not None
        assert told.high is not None
        assert told.rate is not None
        assert told.low <= told.rate <= told.high
        if told.verdict == "passed":
            assert told.low >= rate
        if told.verdict == "failed":
            assert told.high < rate


@pytest.mark.parametrize("units", [1, 20])
@pytest.mark.parametrize("repeats_each", [3, 5, 10, 29, 46, 61])
@pytest.mark.parametrize(("rate", "confidence"), [(0.9, 0.95), (0.5, 0.9), (0.8, 0.99)])
def test_a_claim_is_wrong_no_more_often_than_said(
    units: int, repeats_each: int, rate: float, confidence: float
) -> None:
    """Exactly, over all results of one unit test at a true rate equal to the threshold."""
    gate = Gate(min_pass_rate=rate, confidence=confidence)
    others = [repeats(f"t{n}", 100, 0) for n in range(units - 1)]
    chance: dict[str, float] = {"failed": 0.0, "passed": 0.0, "undecided": 0.0}
    for passed in range(repeats_each + 1):
        mine = gate.judge(run(repeats("a", passed, repeats_each - passed), *others)).rates[0]
        ways = math.comb(repeats_each, passed)
        chance[mine.verdict] += ways * rate**passed * (1 - rate) ** (repeats_each - passed)
    assert sum(chance.values()) == pytest.approx(1)
    assert 1 - (1 - chance["failed"]) ** units <= 1 - confidence  # any of them
    assert chance["passed"] <= 1 - confidence + 1e-12


# --- known to fail ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tests", "known", "gate", "verdict"),
    [
        ([ONE_BAD, FINE], ["ut1"], None, "passed"),
        ([ONE_BAD, FINE], ["ut2"], None, "failed"),
        ([ONE_BAD, HALF], ["ut1"], None, "failed"),
        ([ONE_BAD, ERRED], ["ut1"], None, "errored"),
        ([ERRED, FINE], ["ut4"], None, "passed"),
        ([ONE_BAD], ["ut1"], None, "passed"),  # none decides
        ([ONE_BAD, FINE], ["ut1"], Gate(), "passed"),
        ([ONE_BAD, FINE], ["ut1"], Gate(per="run"), "passed"),
        ([ONE_BAD, FINE], ["ut1"], Gate(per="metric"), "passed"),
        ([ONE_BAD, FINE], ["ut2"], Gate(per="run", min_pass_rate=0.9), "failed"),
        ([ONE_BAD], ["ut1"], Gate(per="run"), "passed"),
        ([repeats("a", 0, 9), repeats("b", 29, 0)], ["a"], SURE, "passed"),
        ([repeats("a", 0, 9), repeats("b", 5, 0)], ["a"], SURE, "undecided"),
        # Not one of the rates that "failed" is corrected for.
        (
            [repeats("a", 2, 3), *[repeats(f"t{n}", 29, 0) for n in range(5)]],
            ["t0"],
            SURE,
            "failed",
        ),
        ([repeats("a", 0, 9)], ["a"], SURE, "passed"),
        # A failure that only a flag shows is explained by none of those that decide.
        ([ONE_BAD, ("ut6", {}, sound(3))], ["ut1"], None, "failed"),
        ([FINE, ("ut6", {}, sound(3))], ["ut6"], None, "passed"),
        ([ONE_BAD, FINE, ("ut6", {}, sound(3))], ["ut1", "ut6"], None, "passed"),
    ],
)
def test_known_failures_do_not_decide(
    tests: list[Test], known: list[str], gate: Gate | None, verdict: str
) -> None:
    assert verdict_of(run(*tests), gate, cancelled=False, known_failing=known) == verdict


def test_known_failures_have_rates() -> None:
    judged = Gate(min_pass_rate=0.9).judge(run(ONE_BAD, FINE), known_failing={"ut1"})
    assert [(r.unit_test_id, r.verdict, r.known_failing) for r in judged.rates] == [
        ("ut1", "failed", True),
        ("ut2", "passed", False),
    ]
    assert judged.reasons == ("every unit test reached 90%; the lowest pass rate was 100%",)
    none = Gate().judge(run(ONE_BAD), known_failing={"ut1"})
    assert none.reasons == ("every unit test is known to fail, so that none decides",)
    assert len(none.rates) == 1


def test_hidden_results_let_the_flags_decide() -> None:
    hidden = hidden_run(failed_metrics=True)
    assert verdict_of(hidden, None, cancelled=False, known_failing=["ut1"]) == "failed"
    told = reason_of(run(ONE_BAD, ("ut6", {}, sound(3))), None, ["ut1"])
    assert told is not None
    assert "by the flags of the run, a metric failed" in told


@pytest.mark.parametrize("known", [(), ("ut1",)])
@pytest.mark.parametrize("gate", [None, SURE])
def test_reason_of_a_cancelled_run(gate: Gate | None, known: tuple[str, ...]) -> None:
    """Neither the flags nor the results have decided."""
    told = "the run was cancelled here, and which of its repeats ran is hidden"
    assert reason_of(hidden_run(), gate, known, cancelled=True) == told
    assert reason_of(run(repeats("ut1", 5, 0)), gate, known, cancelled=True) is None


def test_reason_of_what_is_undecided() -> None:
    many = run(*[repeats(f"t{n}", 5, 0) for n in range(5)])
    told = reason_of(many, SURE)
    assert told is not None
    assert told.count("24 more repeats") == 3
    assert told.endswith("; and 2 more")
    assert reason_of(many, Gate()) is None
    assert reason_of(run(repeats("a", 29, 0)), SURE) is None


def test_what_passes_again() -> None:
    again = passing_again
    assert again(run(ONE_BAD, FINE), ["ut1", "ut2"]) == ("ut2",)
    assert again(run(FINE), []) == ()
    assert again(run(ERRED), ["ut4"]) == ()
    assert again(run(("ut6", {}, sound(3))), ["ut6"]) == ()  # its metrics are hidden
    twice = run(("ut", {"m": "+"}, sound(1)), ("ut", {"m": "-"}, sound(1)))
    assert again(twice, ["ut"]) == ()
    turned = run(("ut", {"m": "-"}, sound(1)), ("ut", {"m": "+"}, sound(1)))
    assert again(turned, ["ut"]) == ()


def test_failures_in_progress() -> None:
    going = run(ONE_BAD, FINE, is_completed=False)
    assert fails_already(going, [])
    assert not fails_already(going, ["ut1"])
    assert fails_already(run(ERRED, is_completed=False), ["ut1"])
    assert not fails_already(run(ERRED, is_completed=False), ["ut4"])
