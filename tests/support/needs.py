"""What a test needs and not every environment has."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import NoReturn

import pytest


def needs(program: str, package: str) -> str:
    """The path of `program`; without it the test is skipped, or fails where all must be there.

    Args:
        program: Its name on the path.
        package: What to install to have it.
    """
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if path is None:
        _miss(f"{program} is not on the path: install {package}")
    return path


def needs_modules(*names: str) -> None:
    """Skip a whole file where one of these modules is missing, or fail where all must be there.

    Args:
        names: The modules, which the dependency group ``interop`` brings.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        _miss(f"{', '.join(missing)} cannot be imported: install the dependency group interop")


def _miss(reason: str) -> NoReturn:
    """Skip the test, or fail it where ``TEST_INTEROP`` is set, as in CI."""
    if os.environ.get("TEST_INTEROP"):
        pytest.fail(f"{reason}; with TEST_INTEROP nothing is skipped")
    pytest.skip(reason, allow_module_level=True)
