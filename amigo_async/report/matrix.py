"""The unit tests of a set by metric."""

from __future__ import annotations

from msgspec import Struct

from amigo_async.report.view import Case, SetView, UnitTest


class Column(Struct, frozen=True):
    """A metric of the set.

    Attributes:
        metric_id: The metric; None for the repeats as a whole, where no metric is shown.
        name: What it is called.
        expected: What it has to be; None where the unit tests differ, or it is not known.
    """

    metric_id: str | None
    name: str
    expected: str | None


class Line(Struct, frozen=True):
    """A unit test, with its case in each column; None where it does not have the metric."""

    test: UnitTest
    cells: tuple[tuple[Column, Case | None], ...]


class Matrix(Struct, frozen=True):
    """The unit tests of a set by metric."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


def matrix(each: SetView) -> Matrix:
    """The matrix of a set; without lines where no unit test is shown."""
    by_metric: dict[str | None, list[Case]] = {}
    for test in each.tests:
        for case in test.cases:
            by_metric.setdefault(case.metric_id, []).append(case)
    columns = tuple(_column(metric_id, cases) for metric_id, cases in by_metric.items())
    return Matrix(columns, tuple(_line(test, columns) for test in each.tests))


def _column(metric_id: str | None, cases: list[Case]) -> Column:
    expected = {case.expected for case in cases}
    return Column(metric_id, cases[0].label, expected.pop() if len(expected) == 1 else None)


def _line(test: UnitTest, columns: tuple[Column, ...]) -> Line:
    cases = {case.metric_id: case for case in test.cases}
    return Line(test, tuple((column, cases.get(column.metric_id)) for column in columns))
