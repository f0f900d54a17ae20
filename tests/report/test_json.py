from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amigo_async import BatchResult
from amigo_async.errors import AmigoError, APIError, NotFoundError
from amigo_async.models import NumericalMetricSuccessCriterion, UnknownSuccessCriterion
from amigo_async.report import RecordedError, from_json, to_json
from tests.support.report_samples import batch, outcome, run


def without_errors(result: BatchResult) -> list[Any]:
    return [msgspec.structs.replace(o, error=None) for o in result.outcomes]


def test_a_batch_comes_back_as_it_was() -> None:
    result = batch()
    read = from_json(to_json(result))
    assert isinstance(read, BatchResult)
    assert without_errors(read) == without_errors(result)
    assert (read.passed, read.counts) == (result.passed, result.counts)
    assert isinstance(read.outcomes, tuple)
    assert to_json(read) == to_json(result)


def test_the_verdict_comes_first() -> None:
    document = json.loads(to_json(batch()))
    assert list(document)[:3] == ["passed", "counts", "outcomes"]
    assert document["passed"] is False
    assert document["counts"]["passed"] == 54


def test_error_keeps_type_and_message() -> None:
    error = NotFoundError(method="GET", path="/v1/o", status=404)
    text = to_json(BatchResult([outcome(verdict="not_started", error=error)]))
    assert json.loads(text)["outcomes"][0]["error"] == {
        "type": "NotFoundError",
        "message": "GET /v1/o answered 404",
    }
    (read,) = from_json(text.encode()).outcomes
    assert isinstance(read.error, RecordedError)
    assert isinstance(read.error, AmigoError)
    assert not isinstance(read.error, APIError)
    assert (read.error.type, read.error.message) == ("NotFoundError", "GET /v1/o answered 404")
    assert str(read.error) == read.error.message


def test_a_path_is_a_string() -> None:
    artifacts = Path("results") / "r" / "a.zip"
    text = to_json(BatchResult([outcome(verdict="passed", artifacts=artifacts)]))
    assert json.loads(text)["outcomes"][0]["artifacts"] == str(artifacts)
    assert from_json(text).outcomes[0].artifacts == artifacts


def test_secret_in_a_foreign_error() -> None:
    error = OSError("cannot read https://store.test/a.zip?X-Amz-Signature=abcdef")
    text = to_json(BatchResult([outcome(verdict="errored", error=error)]))
    assert "abcdef" not in text
    assert "store.test/a.zip" in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"outcomes": [{"unit_test_set_id": "s", "verdict": "perhaps"}]}',
        '{"outcomes": [{"unit_test_set_id": "s", "verdict": "passed", "error": {"type": 1}}]}',
        '{"outcomes": [{"unit_test_set_id": "s", "verdict": "passed", "artifacts": 1}]}',
    ],
)
def test_what_is_no_batch_is_refused(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        from_json(text)


def test_a_later_version_may_add_fields() -> None:
    text = to_json(batch(2)).replace('"passed":', '"new": {"deep": 1}, "passed":', 1)
    assert from_json(text) == batch(2)


def test_unencodable_is_refused() -> None:
    strange: Any = 1j
    with pytest.raises(NotImplementedError, match="complex cannot be encoded as JSON"):
        to_json(BatchResult([outcome(verdict="passed", artifacts=strange)]))


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="\x00"), min_size=1))
def test_any_text_makes_the_round_trip(error: str, name: str) -> None:
    one = outcome(
        run(("ut", {"m": "+"}, [error.encode(errors="replace").decode()])),
        error=OSError(error),
        artifacts=Path(name),
    )
    text = to_json(BatchResult([one]))
    assert to_json(from_json(text)) == text


def test_number_outside_json() -> None:
    criterion = NumericalMetricSuccessCriterion(">=", float("nan"))
    of = run(("ut", {"m": "+"}, [None]))
    spec = of.unit_test_run_specs[0]
    metric = msgspec.structs.replace(spec.metrics_to_evaluate[0], success_criterion=criterion)
    spec = msgspec.structs.replace(spec, metrics_to_evaluate=(metric,))
    text = to_json(BatchResult([outcome(msgspec.structs.replace(of, unit_test_run_specs=[spec]))]))
    read = from_json(text).outcomes[0].run
    assert read is not None
    shown = read.unit_test_run_specs[0].metrics_to_evaluate[0].success_criterion
    assert shown == UnknownSuccessCriterion({"type": "numerical", "verb": ">=", "threshold": None})


def test_secret_in_a_repeats_error() -> None:
    of = run(("ut", {"m": "+"}, ["GET https://h/k?X-Amz-Signature=abcdef"]), run_id="https://r?id")
    text = to_json(BatchResult([outcome(of)]))
    assert "abcdef" not in text
    (read,) = from_json(text).outcomes
    assert read.run is not None
    assert read.run_id == read.run.id == "https://r?id"
