"""Runs code in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import amigo_async

ROOT = Path(amigo_async.__file__).parents[1]


def in_a_process(code: str, *options: str, cwd: Path = ROOT) -> str:
    """What `code` writes, in a process that must end well and without a complaint.

    Args:
        code: The program.
        options: Options of the interpreter.
        cwd: Where it runs.
    """
    ended = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return ended.stdout


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
