from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amigo_async.errors import ArgumentError
from amigo_async.models import Evaluation, Run
from amigo_async.verdicts.gate import Errored, Gate, Judgement, PassRate, Per, verdict_of
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
