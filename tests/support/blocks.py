"""Blocks of code in documentation, and what runs them."""

from __future__ import annotations

import ast
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from markdown_it import MarkdownIt

from amigo_async.testing import Sandbox, SetPlan

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
AT_ONCE: Final = SetPlan(seconds=0.0, artifacts_after=0.0)

# Uses what a block defines.
Driver: TypeAlias = Callable[[dict[str, Any], Sandbox], Awaitable[None]]


class Block(NamedTuple):
    language: str
    text: str
    line: int
    file: str = "README.md"

    def __str__(self) -> str:
        return f"line {self.line}"

    @property
    def functions(self) -> list[str]:
        """The functions it defines."""
        return re.findall(r"^(?:async )?def (\w+)\(", self.text, re.MULTILINE)

    @property
    def is_test(self) -> bool:
        """Whether it is a test of its own."""
        return any(name.startswith("test_") for name in self.functions)

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
    Block(token.info, token.content, (token.map or [0])[0] + 1)
    for token in MarkdownIt().parse(README)
    if token.type == "fence"
]

# What defines these needs a framework, or a cluster: `tests/interop` runs it.
FOREIGN: Final = ("lifespan", "replica", "fleet", "run_sets", "sets_activity")


def of(language: str) -> list[Block]:
    """The blocks of the README in a language."""
    return [block for block in BLOCKS if block.language == language]


async def drive(name: str, drivers: Mapping[str, Driver], sandbox: Sandbox) -> None:
    """Run the block that defines `name`, and use it."""
    (block,) = [block for block in of("python") if name in block.functions]
    await drivers[name](block.run(), sandbox)
