"""Programs that a test needs and pip does not bring."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(program: str, package: str) -> str:
    """The path of `program`; without it the test is skipped, or fails where ``CI`` is set.

    Args:
        program: Its name on the path.
        package: What to install to have it.
    """
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if path is not None:
        return path
    reason = f"{program} is not on the path: install {package}"
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"{reason}; in CI nothing is skipped")
    pytest.skip(reason)
