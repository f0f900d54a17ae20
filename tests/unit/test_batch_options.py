"""The options of a batch: their defaults, and names that are none."""

from __future__ import annotations

from typing import cast

import pytest
from msgspec.structs import asdict

from amigo_async.batch import BatchOptions, BatchSettings


def test_defaults() -> None:
    assert asdict(BatchSettings.from_options({})) == {
        "artifacts_dir": None,
        "timeout": None,
        "poll_interval": None,
        "on_conflict": "raise",
        "on_failure": "continue",
        "on_exit": "leave",
        "journal": None,
        "on_event": None,
        "gate": None,
        "known_failing": (),
        "describe": False,
        "explain": False,
        "explain_timeout": 30.0,
        "baseline": None,
        "order": "auto",
        "lengths_from": None,
    }


def test_every_option_has_a_default() -> None:
    assert list(BatchOptions.__annotations__) == list(BatchSettings.__struct_fields__)


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("on_failures", "on_failure"), ("artifacts", "artifacts_dir"), ("x", "on_exit")],
)
def test_unknown_option_names_the_nearest(given: str, nearest: str) -> None:
    options = cast("BatchOptions", {"timeout": 60, given: 1})
    with pytest.raises(TypeError, match=f"'{given}': did you mean '{nearest}'"):
        BatchSettings.from_options(options)
