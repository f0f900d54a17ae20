"""The arithmetic of a budget: what each thing that is told of it leaves room for."""

from __future__ import annotations

import math

import pytest

from amigo_async.protocol.headers import LONGEST_WAIT
from amigo_async.ratelimit import Budget, RateLimitInfo
from amigo_async.ratelimit.fair_share import FairShareBudget
from amigo_async.ratelimit.window import PROBE_TIMEOUT, WINDOW


def known(limit: int = 20, *, remaining: int = 19, turns_at: float = 60.0) -> Budget:
    """A budget whose first call, at 0, was answered with this."""
    budget = Budget(limit)
    budget.answered(0.0, budget.take(0.0), RateLimitInfo(limit, remaining, turns_at, turns_at))
    return budget


def spend(budget: Budget, count: int, now: float = 0.0, told: RateLimitInfo | None = None) -> None:
    for call in [budget.take(now) for _ in range(count)]:
        budget.answered(now, call, told)


def test_one_call_probes_the_unknown() -> None:
    budget = Budget(20)
    assert budget.available(0.0) == 1
    budget.take(0.0)
    assert budget.available(0.0) == 0
    assert budget.opens_at(0.0) == PROBE_TIMEOUT


def test_the_rest_follow_a_slow_probe() -> None:
    budget = Budget(20)
    budget.take(0.0)
    assert budget.available(PROBE_TIMEOUT) == 19


def test_no_answers_no_hot_probing() -> None:
    budget = Budget(20)
    budget.take(0.0)
    for _ in range(19):
        budget.take(PROBE_TIMEOUT)
    assert budget.available(10.0) == 0
    assert budget.opens_at(10.0) > 10.0


def test_what_is_told_leads() -> None:
    assert known(remaining=7).available(1.0) == 7
    assert known(limit=100, remaining=99).limit == 100


def test_calls_in_flight_are_not_given_twice() -> None:
    budget = known(remaining=19)
    calls = [budget.take(1.0) for _ in range(19)]
    assert budget.available(1.0) == 0
    budget.answered(1.0, calls[0], RateLimitInfo(20, 18, 60.0, 60.0))
    assert budget.available(1.0) == 0  # 18 are left, and 18 are on their way


def test_unordered_answers_give_no_room() -> None:
    budget = known(remaining=19)
    first = budget.take(1.0)
    budget.answered(1.0, budget.take(1.0), RateLimitInfo(20, 17, 60.0, 60.0))
    budget.answered(1.0, first, RateLimitInfo(20, 18, 60.0, 60.0))
    assert budget.available(1.0) == 17


def test_lower_remaining_is_believed() -> None:
    budget = known(remaining=19)
    budget.answered(1.0, budget.take(1.0), RateLimitInfo(20, 4, 60.0, 60.0))
    assert budget.available(1.0) == 4


def test_a_turn_is_entered_by_one_call() -> None:
    budget = known(remaining=0)
    assert budget.available(59.9) == 0
    assert budget.opens_at(59.9) == 60.0
    assert budget.available(60.0) == 1


def test_answer_of_a_past_window() -> None:
    budget = known(remaining=0)
    assert budget.available(60.0) == 1
    budget.answered(60.5, budget.take(60.0), RateLimitInfo(20, 5, 60.0, 60.0))
    assert budget.remaining is None
    assert budget.available(60.5) == 1  # the next one goes ahead


def test_late_answer_sends_no_second_probe() -> None:
    budget = known(remaining=5)
    late = budget.take(59.0)
    assert budget.available(60.0) == 1
    budget.take(60.0)
    budget.answered(60.1, late, RateLimitInfo(20, 4, 60.0, 60.0))
    assert budget.available(60.1) == 0


def test_older_window_does_not_replace() -> None:
    budget = known(remaining=3, turns_at=120.0)
    budget.answered(1.0, budget.take(1.0), RateLimitInfo(20, 15, 60.0, 60.0))
    assert budget.available(1.0) == 3


def test_newer_window_replaces() -> None:
    budget = known(remaining=0)
    budget.answered(1.0, budget.take(1.0), RateLimitInfo(20, 12, 61.0, 61.0))
    assert budget.available(1.0) == 12


@pytest.mark.parametrize(("first", "then"), [(60.0, 59.2), (59.2, 60.0)])
def test_better_known_turn_is_taken(first: float, then: float) -> None:
    budget = FairShareBudget(20)
    budget.answered(0.0, budget.take(0.0), RateLimitInfo(20, 19, 60.0, first))
    budget.answered(1.0, budget.take(1.0), RateLimitInfo(20, 18, 60.0, then))
    assert budget.resets_at == 59.2


def test_longest_window_is_the_measure() -> None:
    """Whoever comes late into a window sees but its end; the next ones are as long as the first."""
    budget = FairShareBudget(20)
    budget.answered(0.0, budget.take(0.0), RateLimitInfo(20, 19, 60.0, 60.0))
    budget.answered(110.0, budget.take(110.0), RateLimitInfo(20, 0, 120.0, 120.0))
    assert budget.earliest(110.0, 0) == 120.0
    assert budget.earliest(110.0, 20) == 180.0
    assert budget.earliest(110.0, 45) == 240.0


def test_later_refusal_opens_nothing() -> None:
    budget = FairShareBudget(20)
    budget.answered(0.0, budget.take(0.0), RateLimitInfo(20, 19, 60.0, 60.0))
    first, second, third = (budget.take(1.0) for _ in range(3))
    budget.refused(1.0, first, 30.0)
    budget.refused(1.5, second, 5.0)
    budget.refused(1.6, third, None)
    assert budget.opens_at(2.0) == 31.0
    assert budget.available(30.9) == 0
    assert budget.available(31.0) == 1


def test_lost_call_without_headers() -> None:
    budget = FairShareBudget(20)
    spend(budget, 1)
    for call in [budget.take(1.0) for _ in range(5)]:
        budget.lost(2.0, call)
    assert budget.available(2.0) == 14
    assert budget.available(61.9) == 15
    assert budget.available(62.0) == 20


def test_lost_calls_in_the_unknown() -> None:
    budget = FairShareBudget(3)
    for now in (0.0, 10.0, 20.0):
        budget.lost(now, budget.take(now))
    assert budget.available(20.0) == 0
    assert budget.opens_at(20.0) == WINDOW
    assert budget.earliest(20.0, 0) == WINDOW
    assert budget.available(WINDOW) == 1
    budget.answered(WINDOW, budget.take(WINDOW), None)  # and those before it are still counted
    assert budget.available(WINDOW) == 0
    assert budget.opens_at(WINDOW) == 10.0 + WINDOW


def test_when_losses_are_forgotten() -> None:
    for told in (True, False):
        budget = FairShareBudget(2)
        budget.lost(0.0, budget.take(0.0))
        if told:
            budget.answered(1.0, budget.take(1.0), RateLimitInfo(2, 1, 60.0, 60.0))
            assert budget.available(1.0) == 1
        else:
            budget.refused(1.0, budget.take(1.0), 5.0)
            budget.lost(6.0, budget.take(6.0))
            assert budget.available(6.0) == 1


@pytest.mark.parametrize("pause", [LONGEST_WAIT, LONGEST_WAIT + 1.0, 86_400.0])
def test_pause_is_judged_unrounded(pause: float) -> None:
    budget = FairShareBudget(20)
    budget.refused(0.0, budget.take(0.0), pause)
    if pause <= LONGEST_WAIT:
        assert budget.denied_for(0.0) is None
        assert budget.opens_at(0.0) == pause
        return
    assert budget.denied_for(0.0) == pause
    assert budget.available(WINDOW - 0.1) == 0
    assert budget.available(WINDOW) == 1  # one asks again
    call = budget.take(WINDOW)
    assert (budget.denied_for(WINDOW) is None) == (pause - WINDOW <= LONGEST_WAIT)
    budget.answered(WINDOW + 0.1, call, None)
    assert budget.denied_for(WINDOW + 0.1) is None


def test_how_long_knowledge_matters() -> None:
    budget = FairShareBudget(20)
    assert budget.matters_until() < 0.0
    budget.lost(1.0, budget.take(1.0))
    assert budget.matters_until() == 61.0
    budget.answered(2.0, budget.take(2.0), RateLimitInfo(20, 19, 40.0, 40.0))
    assert budget.matters_until() == 40.0
    budget.refused(3.0, budget.take(3.0), 600.0)
    assert budget.matters_until() >= 603.0
    blind = FairShareBudget(20)
    spend(blind, 2, now=5.0)
    in_flight = [blind.take(6.0) for _ in range(3)]
    assert blind.matters_until() == 65.0
    blind.lose_all(7.0)
    assert (blind.in_flight, blind.matters_until()) == (0, 67.0)
    assert blind.available(7.0) == 20 - 2 - len(in_flight)


def test_a_lost_call_counts_as_spent() -> None:
    budget = known(remaining=5)
    budget.lost(1.0, budget.take(1.0))
    assert budget.available(1.0) == 4


def test_a_call_that_was_not_sent_does_not() -> None:
    budget = known(remaining=5)
    budget.unsent(budget.take(1.0))
    assert budget.available(1.0) == 5


@pytest.mark.parametrize("settle", ["lost", "returned"])
def test_lost_probe_is_replaced(settle: str) -> None:
    budget = Budget(20)
    ahead = budget.take(0.0)
    if settle == "lost":
        budget.lost(0.1, ahead)
    else:
        budget.unsent(ahead)
    assert budget.available(0.1) == 1


def test_without_headers_the_last_minute_is_counted() -> None:
    budget = Budget(20)
    spend(budget, 1)
    spend(budget, 19, now=10.0)
    assert budget.available(10.0) == 0
    assert budget.opens_at(10.0) == WINDOW
    assert budget.available(60.0) == 1
    assert budget.available(70.0) == 20


def test_answer_without_headers_counts() -> None:
    budget = known(remaining=5)
    spend(budget, 1, now=1.0)
    assert budget.available(1.0) == 4


def test_headers_that_appear_later_lead() -> None:
    budget = Budget(20)
    spend(budget, 5)
    spend(budget, 1, now=1.0, told=RateLimitInfo(50, 44, 60.0, 60.0))
    assert budget.available(1.0) == 44


def test_refusal_closes_then_one_probes() -> None:
    budget = known(remaining=5)
    budget.refused(1.0, budget.take(1.0), 30.0)
    assert budget.available(30.9) == 0
    assert budget.opens_at(2.0) == 31.0
    assert budget.available(31.0) == 1


def test_answers_from_before_a_refusal() -> None:
    budget = known(remaining=5)
    before = budget.take(1.0)
    budget.refused(1.0, budget.take(1.0), 30.0)
    budget.answered(1.1, before, RateLimitInfo(20, 3, 60.0, 60.0))
    assert budget.available(31.0) == 1


def test_unsaid_refusals_back_off() -> None:
    budget = Budget(20)
    now, pauses = 0.0, []
    for _ in range(9):
        budget.refused(now, budget.take(now), None)
        pauses.append(budget.opens_at(now) - now)
        now = budget.opens_at(now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_retry_after_0_is_no_hot_loop() -> None:
    budget = Budget(20)
    budget.refused(0.0, budget.take(0.0), 0.0)
    assert budget.opens_at(0.0) == 1.0


def test_refusals_of_one_burst_count_as_one() -> None:
    budget = known(remaining=5)
    for call in [budget.take(1.0) for _ in range(5)]:
        budget.refused(1.0, call, None)
    assert budget.opens_at(1.0) == 2.0


def test_refusal_teaches_the_limit() -> None:
    budget = Budget(20)
    spend(budget, 10)
    budget.refused(1.0, budget.take(1.0), None)
    assert budget.limit == 10
    assert budget.opens_at(1.0) == WINDOW  # when the first of the ten is a minute old
    now = 60.0
    assert budget.available(now) == 1
    spend(budget, 1, now=now)
    assert budget.available(now) == 9
    limits = []
    for _ in range(6):
        now += 60.0
        budget.available(now)
        limits.append(budget.limit)
    assert limits == [12, 15, 18, 20, 20, 20]


@pytest.mark.parametrize(
    ("ahead", "earliest"), [(0, 1.0), (4, 1.0), (5, 60.0), (24, 60.0), (25, 120.0), (45, 180.0)]
)
def test_earliest_time_of_a_call(ahead: int, earliest: float) -> None:
    assert known(remaining=5).earliest(1.0, ahead) == earliest


@pytest.mark.parametrize(
    ("ahead", "earliest"), [(0, 60.0), (1, 70.0), (19, 70.0), (20, 120.0), (21, 130.0)]
)
def test_earliest_time_without_headers(ahead: int, earliest: float) -> None:
    budget = Budget(20)
    spend(budget, 1)
    spend(budget, 19, now=10.0)
    assert budget.earliest(11.0, ahead) == earliest


def test_earliest_time_is_never_late() -> None:
    assert Budget(20).earliest(5.0, 500) == 5.0
    closed = known(remaining=0)
    closed.refused(1.0, closed.take(1.0), 10.0)
    assert closed.earliest(2.0, 0) == 11.0
    assert closed.earliest(2.0, 20) == 71.0
    in_flight = Budget(2)
    spend(in_flight, 1)
    in_flight.take(1.0)
    assert in_flight.earliest(1.0, 1) <= 61.0


def test_nothing_is_ever_infinite() -> None:
    budget = Budget(1)
    spend(budget, 1)
    budget.available(61.0)
    budget.take(61.0)
    assert math.isfinite(budget.opens_at(61.0))
