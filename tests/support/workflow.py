"""What GitHub does with a composite action, as far as its scripts are concerned."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.blocks import ROOT

ACTION: Final = ROOT / ".github" / "actions" / "run-sets" / "action.yml"
_EXPRESSION: Final = re.compile(r"\$\{\{ *([\w.-]+) *\}\}")


def action() -> dict[str, Any]:
    """The action that runs sets."""
    parsed: dict[str, Any] = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
    return parsed


def step(name: str) -> dict[str, Any]:
    """A step of the action."""
    (found,) = [step for step in action()["runs"]["steps"] if step.get("name") == name]
    return dict(found)


def run_step(
    name: str,
    *,
    inputs: Mapping[str, str] | None = None,
    context: Mapping[str, str] | None = None,
    environment: Mapping[str, str],
    folder: Path,
) -> subprocess.CompletedProcess[str]:
    """Run the script of a step as GitHub does.

    Args:
        name: The name of the step.
        inputs: Inputs of the action that are given; the others have their defaults.
        context: The values of other expressions.
        environment: Further variables.
        folder: The working folder, with a folder `temp` for temporary files.
    """
    known = {name: str(one["default"]) for name, one in action()["inputs"].items()}
    given = dict(inputs or {})
    assert given.keys() <= known.keys()
    values = {f"inputs.{name}": value for name, value in (known | given).items()}
    values |= dict(context or {})
    found = step(name)
    env = {k: _EXPRESSION.sub(lambda m: values[m[1]], v) for k, v in found["env"].items()}
    assert "${{" not in found["run"]  # what is given would be code
    temp = folder / "temp"
    temp.mkdir(exist_ok=True)
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("AMIGO_", "GITHUB_"))},
            **environment,
            **env,
            "RUNNER_TEMP": str(temp),
            "GITHUB_OUTPUT": str(folder / "output"),
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
