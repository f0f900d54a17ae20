"""A Redis server of a test's own, which can be killed, stopped and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.needs import needs

PASSWORD = "a-password/that+is.secret"


class RedisServer:
    """Serves on a free port of the loopback interface for as long as its context is open.

    Args:
        folder: Where it may write.
        password: What it asks for; None for nothing.
    """

    def __init__(self, folder: Path, *, password: str | None = None) -> None:
        self._program = needs("redis-server", "redis-server")
        self._folder = folder
        self._password = password
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "dir": self._folder}
        if self._password is not None:
            options["requirepass"] = self._password
        command = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen(
            [self._program, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        while not self._listens():
            assert self._process.poll() is None
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once, as a crash would; what it had is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        """Let it answer no more, with its connections open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        return False
