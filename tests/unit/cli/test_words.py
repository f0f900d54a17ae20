from __future__ import annotations

import time
from typing import Any

import click
import msgspec
import pytest

from amigo_async.cli import reasons as words
from amigo_async.cli.command import parse_share
from amigo_async.cli.exit_codes import ExitCode, exit_code_of_batch, exit_code_of_error
from amigo_async.cli.reasons import amount_done, explain, reasons
from amigo_async.errors import (
    AmigoError,
    ArgumentError,
    ArtifactError,
    ArtifactsNotReadyError,
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    DeadlineError,
    NotFoundError,
    TransportError,
    WaitTimeoutError,
)
from amigo_async.models import EvaluationResult, SimulationEvaluationSource
from amigo_async.names import Explanations, Names
from amigo_async.verdicts.gate import shortened
from tests.unit.cli.cli_samples import outcome, run, some_id


@pytest.mark.parametrize(
    ("duration", "said"), [(0, "0:00"), (12.9, "0:12"), (3599, "59:59"), (3723, "1:02:03")]
)
def test_durations_on_a_stopwatch(duration: float, said: str) -> None:
    assert words.stopwatch(duration) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1434, "1.4 KiB"),
        (20 << 20, "20 MiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5120 GiB"),
    ],
)
def test_sizes(number: int, said: str) -> None:
    assert words.size(number) == said


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (1774745940, "03:01:00"),  # 2026-03-29, the clocks go from 2 to 3
        (1792889940, "02:01:00"),  # 2026-10-25, the clocks go from 3 to 2
        (1780000000, "22:28:40"),
    ],
)
def test_time_of_day_across_summer_time(
    now: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: float(now))
    try:
        assert words.clock(120) == said
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("texts", "said"), [(["a"], ["a"]), (["a", "b", "c"], ["a", "b", "and 1 more"])]
)
def test_long_lists_are_shortened(texts: list[str], said: list[str]) -> None:
    assert shortened(texts, 2) == said


def test_reasons_name_metric_and_repeats() -> None:
    failing = run(failed=1, errors=(None, "the\nmodel timed out", None))
    assert reasons(outcome("failed", run=failing)) == [
        "test-1 / is polite: expected yes; 1 of 3 repeats passed, 1 failed, 1 errored",
        "test-1: the model timed out, in repeat 2 of 3",
    ]


def test_reasons_without_specs() -> None:
    bare = msgspec.structs.replace(run(failed=2), unit_test_run_specs=[])
    assert reasons(outcome("failed", run=bare)) == [
        "test-1 / metric-1: 0 of 2 repeats passed, 2 failed"
    ]


def test_reasons_with_names_and_justifications() -> None:
    failing = run(failed=2, errors=(None,) * 3)
    names = Names({some_id(1): "Refund policy"}, {"test-1": "Angry caller"})
    evaluation = EvaluationResult(
        id="e1",
        org_id="org",
        metric_id="metric-1",
        metric_version=1,
        result=False,
        justification="It  was\n::error:: rude.",
        source=SimulationEvaluationSource("r", "test-1", 1, []),
    )
    [line] = reasons(outcome("failed", run=failing), names, Explanations({"e1": evaluation}))
    assert line == (
        "Refund policy / Angry caller / is polite: expected yes, saw no in repeat 2: "
        '"It was : :error:: rude."; 1 of 3 repeats passed, 2 failed'
    )


def test_unit_tests_that_failed_alike_are_one_line() -> None:
    failing = run(failed=1)
    [spec], [result] = failing.unit_test_run_specs, failing.unit_test_run_results
    assert result is not None
    numbered = [f"test-{n}" for n in range(1, 7)]
    alike = msgspec.structs.replace(
        failing,
        unit_test_run_specs=[msgspec.structs.replace(spec, unit_test_id=i) for i in numbered],
        unit_test_run_results=[msgspec.structs.replace(result, unit_test_id=i) for i in numbered],
    )
    [line] = reasons(outcome("failed", run=alike))
    assert line.startswith("test-1 / is polite: expected yes; ")
    assert line.endswith(" (and 5 other unit tests: test-2, test-3, test-4 and 2 more)")


def test_long_names_and_errors_are_cut() -> None:
    erring = run(errors=("e" * 5_000, None))
    [line] = reasons(outcome("errored", run=erring, name="n" * 5_000))
    assert len(line) < 1_000
    assert len(words.set_name(outcome(name="n" * 5_000))) < 200


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("passed", []),
        ("failed", ["a metric failed, but the visible results do not show which"]),
        ("errored", ["the run had an error, but the visible results do not show which"]),
        ("timed_out", ["the batch ended before the run did; the run continues"]),
        ("cancelled", ["the run was cancelled"]),
        ("not_started", ["no run was started: another set failed, or the time was up"]),
    ],
)
def test_reasons_of_hidden_results(verdict: str, said: list[str]) -> None:
    hidden = run(hidden=True, failed_metrics=verdict == "failed", errored=verdict == "errored")
    assert reasons(outcome(verdict, run=hidden)) == said


def test_a_reason_that_is_an_error() -> None:
    error = ArtifactError("the disk is full", run_id="r")
    assert reasons(outcome("passed", error=error)) == ["artifact of run r: the disk is full"]


def test_amount_done() -> None:
    assert amount_done(None) == "-"
    assert amount_done(run(hidden=True)) == "-"
    assert amount_done(run(errors=(None, None, None))) == "3/3"


_REQUEST: dict[str, Any] = {"method": "GET", "path": "/p"}


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ConflictError(status=409, existing_run_id="abc", **_REQUEST), "--on-conflict attach"),
        (ConflictError(status=409, existing_run_id="abc", **_REQUEST), "(run abc)"),
        (ArtifactsNotReadyError(status=400, **_REQUEST), "amigo-async wait RUN_ID --artifacts"),
        (NotFoundError(status=404, **_REQUEST), "; or is this the id of a set?"),
        (NotFoundError.of_run("r"), "; check AMIGO_BASE_URL, or is this the id of a set?"),
        (NotFoundError(status=404, method="POST", path="/run/"), "is this the id of a run?"),
        (
            NotFoundError(status=404, method="POST", path="/user/signin_with_api_key"),
            "; amigo-async auth check looks for it in the other regions",
        ),
        (ConfigurationError("base_url has no host"), "AMIGO_BASE_URL has no host"),
        (ConfigurationError("the key is for user_id"), "the key is for AMIGO_USER_ID"),
        (ArgumentError("creator must be ..."), "--creator must be ..."),
        (ArgumentError("no set is called 'user_id'"), "no set is called 'user_id'"),
        (
            AuthenticationError(
                status=401,
                detail="user_id is unknown",
                remedy="check api_key, api_key_id and user_id (AMIGO_API_KEY, AMIGO_API_KEY_ID, "
                "AMIGO_USER_ID)",
                request_id="7",
                **_REQUEST,
            ),
            "user_id is unknown; check AMIGO_API_KEY, AMIGO_API_KEY_ID and AMIGO_USER_ID [request",
        ),
        (TransportError("refused", **_REQUEST), "check the network and AMIGO_BASE_URL"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_error_line_with_remedy(error: Exception, remedy: str) -> None:
    said = explain(error)
    assert remedy in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("tag must be 'key:value'", "--tag must be 'key:value'"),
        ("id must be 24 characters", "--id must be 24 characters"),
        ("confidence must be from 0.5", "--confidence must be from 0.5"),
        ("gate: no set could pass", "--confidence: no set could pass"),
        ("lengths_from a.json is neither", "--lengths-from a.json is neither"),
        ("identity must be known", "identity must be known"),
        ("no set has the tag a:b", "no set has the tag a:b"),
    ],
)
def test_arguments_are_called_what_the_command_calls_them(message: str, said: str) -> None:
    assert explain(ArgumentError(message)) == said


def test_an_unreachable_service_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hush-hush@proxy.test:3128")
    said = explain(TransportError("refused", **_REQUEST))
    assert "; check the network, the proxy proxy.test:3128 (HTTPS_PROXY) and AMIGO_BASE_" in said
    assert "hush-hush" not in said


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigurationError("x"), 2),
        (ArgumentError("x"), 2),
        (AmigoError("x"), 3),
        (OSError("x"), 3),
        (WaitTimeoutError(["r"], timeout=1), 4),
        (DeadlineError(endpoint="list", retry_after=1), 4),
    ],
)
def test_the_exit_status_of_an_error(error: Exception, status: int) -> None:
    assert exit_code_of_error(error) == status


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ("", ExitCode.PASSED),
        ("passed passed", ExitCode.PASSED),
        ("passed failed errored timed_out", ExitCode.FAILED),
        ("passed errored timed_out", ExitCode.ERRORED),
        ("passed cancelled", ExitCode.ERRORED),
        ("passed timed_out", ExitCode.TIMED_OUT),
        ("passed not_started", ExitCode.TIMED_OUT),
        ("passed undecided", ExitCode.UNDECIDED),
        ("undecided timed_out", ExitCode.TIMED_OUT),
        ("undecided errored", ExitCode.ERRORED),
        ("undecided failed", ExitCode.FAILED),
    ],
)
def test_the_exit_status_of_a_batch(verdicts: str, status: ExitCode) -> None:
    assert exit_code_of_batch(map(outcome, verdicts.split())) == status


def test_exit_status_of_an_errored_set() -> None:
    conflict = ConflictError(status=409, **_REQUEST)
    assert exit_code_of_batch([outcome("not_started", error=conflict)]) == 3
    late = DeadlineError(endpoint="create", retry_after=9)
    assert exit_code_of_batch([outcome("not_started", error=late)]) == 4
    unsaved = ArtifactError("no space", run_id=some_id(1))
    assert exit_code_of_batch([outcome("passed", error=unsaved)]) == 3
    assert exit_code_of_batch([outcome("failed", error=unsaved)]) == 1
    assert exit_code_of_batch([outcome("undecided", error=unsaved)]) == 3


def test_late_artifacts_are_missed() -> None:
    assert exit_code_of_batch([outcome("passed")], artifacts=True) == 4
    assert exit_code_of_batch([outcome("passed", artifacts="x")], artifacts=True) == 0
    assert exit_code_of_batch([outcome("undecided")], artifacts=True) == 4
    assert exit_code_of_batch([outcome("undecided", artifacts="x")], artifacts=True) == 5


@pytest.mark.parametrize(
    ("text", "number"),
    [("90%", 0.9), ("0.9", 0.9), (" 99.9 % ", 0.999), ("1", 1.0), ("100%", 1.0), ("0", 0.0)],
)
def test_a_share(text: str, number: float) -> None:
    assert parse_share(text) == number


@pytest.mark.parametrize("text", ["90", "101%", "-1%", "x", "", "%", "nan", "inf%", "9%0"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"90% or 0\.9"):
        parse_share(text)
