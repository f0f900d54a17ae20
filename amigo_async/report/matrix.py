"""The unit tests of a set by metric."""

from __future__ import annotations

from typing import Final

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
    """Unit tests of a set by metric."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


# A table with more cells for each case than this is mostly empty.
_SPARSE: Final = 4


def matrices(each: SetView) -> tuple[Matrix, ...]:
    """The unit tests of a set by metric; none where no unit test is shown.

    One matrix, unless it would be mostly empty because the unit tests have few metrics in common:
    then one for all the unit tests with the same metrics.
    """
    cases = [case for test in each.tests for case in test.cases]
    metrics = {case.metric_id for case in cases}
    if len(metrics) * len(each.tests) <= _SPARSE * len(cases):
        groups = [each.tests] if each.tests else []
    else:
        alike: dict[tuple[str | None, ...], list[UnitTest]] = {}
        for test in each.tests:
            alike.setdefault(tuple(case.metric_id for case in test.cases), []).append(test)
        groups = [tuple(tests) for tests in alike.values()]
    return tuple(map(_matrix, groups))


def _matrix(tests: tuple[UnitTest, ...]) -> Matrix:
    by_metric: dict[str | None, list[Case]] = {}
    for test in tests:
        for case in test.cases:
            by_metric.setdefault(case.metric_id, []).append(case)
    columns = tuple(_column(metric_id, cases) for metric_id, cases in by_metric.items())
    return Matrix(columns, tuple(_line(test, columns) for test in tests))


def _column(metric_id: str | None, cases: list[Case]) -> Column:
    expected = {case.expected for case in cases}
    return Column(metric_id, cases[0].label, expected.pop() if len(expected) == 1 else None)


def _line(test: UnitTest, columns: tuple[Column, ...]) -> Line:
    cases = {case.metric_id: case for case in test.cases}
    return Line(test, tuple((column, cases.get(column.metric_id)) for column in columns))
