"""Blocks of code in documentation, and what runs them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from markdown_it import MarkdownIt

from amigo_async.testing import Sandbox, SetPlan

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES: Final = sorted((ROOT / "amigo_async" / "guides").glob("*.md"))
AT_ONCE: Final = SetPlan(seconds=0.0, artifacts_after=0.0)

# Uses what a block defines.
Driver: TypeAlias = Callable[[dict[str, Any], Sandbox], Awaitable[None]]


class Block(NamedTuple):
    language: str
    text: str
    line: int
    file: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def functions(self) -> list[str]:
        """The functions it defines."""
        return re.findall(r"^(?:async )?def (\w+)\(", self.text, re.MULTILINE)

    @property
    def is_test(self) -> bool:
        """Whether it is a test of its own."""
        return any(name.startswith("test_") for name in self.functions)

    @property
    def is_conftest(self) -> bool:
        """Whether it is a `conftest.py`."""
        return "anyio_backend" in self.functions

    def run(self) -> dict[str, Any]:
        """The names that it defines."""
        names: dict[str, Any] = {"__name__": "readme"}
        assert self.run_with(names) is None
        return names

    def run_with(self, names: dict[str, Any]) -> Coroutine[Any, Any, None] | None:
        """Run it with these names; what it gives is to be awaited if it awaits at its top level."""
        text = "\n" * self.line + self.text
        compiled = compile(text, self.file, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running: Coroutine[Any, Any, None] | None = eval(compiled, names)
        return running


BLOCKS: Final = [
    Block(token.info, token.content, (token.map or [0])[0] + 1, path.name)
    for path in (ROOT / "README.md", *GUIDES)
    for token in MarkdownIt().parse(path.read_text(encoding="utf-8"))
    if token.type == "fence"
]

# What defines these needs a framework, or a cluster: `tests/interop` runs it.
FOREIGN: Final = ("lifespan", "replica", "fleet", "run_sets", "sets_activity")


def of(language: str, file: str | None = None) -> list[Block]:
    """The blocks in a language, of the README and the guides or of one file."""
    return [b for b in BLOCKS if b.language == language and file in (None, b.file)]


def check_project(
    folder: Path, blocks: Sequence[Block], *, ini: str = "", options: str = ""
) -> None:
    """Make a tester's project of the blocks, as they stand, and check that its tests pass.

    Args:
        folder: An empty folder for the project.
        blocks: Tests of the README; its `conftest.py` is added.
        ini: Settings of pytest.
        options: Options of pytest, between blanks.
    """
    (conftest,) = [block for block in of("python") if block.is_conftest]
    (folder / "conftest.py").write_text(conftest.text)
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}")
    for number, block in enumerate(blocks):
        (folder / f"test_mine_{number}.py").write_text(block.text)
    # By name, whether or not the package is installed here with its entry point.
    plugin = "-p no:amigo_async -p amigo_async.pytest_plugin -p no:cacheprovider --strict-markers"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *f"{plugin} {options}".split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    tests = [name for block in blocks for name in block.functions if name.startswith("test_")]
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{len(tests)} passed" in ended.stdout


async def drive(name: str, drivers: Mapping[str, Driver], sandbox: Sandbox) -> None:
    """Run the block that defines `name`, and use it."""
    (block,) = [block for block in of("python") if name in block.functions]
    await drivers[name](block.run(), sandbox)
