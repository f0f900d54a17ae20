"""What a test needs and not every environment has."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import NoReturn

import pytest


def needs(program: str, package: str) -> str:
    """The path of `program`; without it the test is skipped, or fails where ``CI`` is set.

    Where ``TEST_WITHOUT_PROGRAMS`` is set it is always skipped: what it shows does not depend on
    the version of Python, so that once is enough.

    Args:
        program: Its name on the path.
        package: What to install to have it.
    """
    if os.environ.get("TEST_WITHOUT_PROGRAMS"):
        pytest.skip(f"{program} is left out")
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if path is None:
        _miss(f"{program} is not on the path: install {package}")
    return path


def needs_module(module: str, package: str) -> None:
    """The same for a module of Python.

    Args:
        module: Its name.
        package: What to install to have it.
    """
    if importlib.util.find_spec(module) is None:
        _miss(f"{module} cannot be imported: install {package}")


def _miss(reason: str) -> NoReturn:
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"{reason}; in CI nothing is skipped")
    pytest.skip(reason)
