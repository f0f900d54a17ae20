"""The search for the region of an organization, with sandboxes in place of Amigo's regions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amigo_async.cli import account, main
from amigo_async.testing import Sandbox


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sandbox, Sandbox, Sandbox]]:
    with (
        Sandbox().in_thread() as first,
        Sandbox().in_thread() as second,
        Sandbox(organization_id="ours").in_thread() as third,
    ):
        urls = tuple(each.base_url for each in (first, second, third))
        monkeypatch.setattr(account, "REGIONS", urls)
        for name, value in first.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AMIGO_ORGANIZATION_ID", "ours")
        yield first, second, third


def test_the_region_is_found(
    regions: tuple[Sandbox, Sandbox, Sandbox], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = regions
    third.add_api_key(first.api_key_id, first.api_key)
    assert main(["auth", "check"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    told = f"Trying the same key in Amigo's other regions: {second.base_url}, {third.base_url}"
    assert err.splitlines()[1:] == [
        told,
        f"The organization is at {third.base_url}: set AMIGO_BASE_URL={third.base_url}",
    ]
    assert [each.count("sign_in") for each in regions] == [1, 1, 1]


def test_a_region_that_refuses_the_key(
    regions: tuple[Sandbox, Sandbox, Sandbox], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["auth", "check"]) == 3
    err = capsys.readouterr().err
    where = regions[2].base_url
    assert err.endswith(f"The organization is at {where}, but it does not accept the key.\n")


def test_no_region_has_it(
    regions: tuple[Sandbox, Sandbox, Sandbox],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AMIGO_ORGANIZATION_ID", "nowhere")
    assert main(["auth", "check"]) == 3
    err = capsys.readouterr().err
    assert err.endswith("None of them has the organization: check AMIGO_ORGANIZATION_ID.\n")
