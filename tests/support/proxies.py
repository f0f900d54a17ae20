"""Proxies for tests: HAProxy before a sandbox, and one that tunnels as it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from amigo_async.testing import Sandbox
from tests.support.needs import needs
from tests.support.processes import free_port
from tests.support.tls_servers import joined, listening

CONFIG = """
global
  stats socket ipv4@127.0.0.1:{admin}
  hard-stop-after 500ms
defaults
  mode http
  retries 0
  timeout connect 2s
  timeout client {client}
  timeout server {server}
  timeout queue {queue}
  timeout http-keep-alive {keep_alive}
backend requests
  stick-table type integer size 8 expire 1h store http_req_cnt
listen api
  bind 127.0.0.1:{api}
  http-request track-sc0 fe_id table requests
  http-request set-var(txn.number) sc_http_req_cnt(0)
  {rules}
  server one {upstream} maxconn {maxconn}
listen store
  bind 127.0.0.1:{store}
  http-request track-sc0 fe_id table requests
  http-request set-var(txn.number) sc_http_req_cnt(0)
  {rules}
  server one {upstream_store} maxconn {maxconn}
listen forward
  bind 127.0.0.1:{forward}
  http-request set-dst url_ip
  http-request set-dst-port url_port
  http-request set-uri %[pathq]
  server asked 0.0.0.0:0
"""


@dataclass(frozen=True)
class Settings:
    """What HAProxy is told: times as it writes them, and rules for every request.

    A rule finds the number of its request in ``var(txn.number)``; API and store have their own.
    """

    client: str = "5s"
    server: str = "5s"
    queue: str = "5s"
    keep_alive: str = "5s"
    maxconn: int = 100
    rules: tuple[str, ...] = ()


@dataclass
class HAProxy:
    """HAProxy before the API and the store of a sandbox, and as a proxy for plain http.

    Attributes:
        started: How many processes there have been.
        upstream_store: Where the store of the sandbox is.
    """

    program: str
    folder: Path
    started: int = 0
    upstream_store: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def before(
        cls, sandbox: Sandbox, folder: Path, settings: Settings | None = None
    ) -> AsyncIterator[HAProxy]:
        """Serve, and let the sandbox's links lead through it."""
        served = cls(needs("haproxy", "haproxy, with apt-get install"), folder)
        served.ports = {name: free_port() for name in ("api", "store", "forward", "admin")}
        settings = settings or Settings()
        served.upstream_store = sandbox.store_url
        text = CONFIG.format(
            upstream=urlsplit(sandbox.base_url).netloc,
            upstream_store=urlsplit(sandbox.store_url).netloc,
            **served.ports,
            **vars(settings) | {"rules": "\n  ".join(settings.rules)},
        )
        (folder / "haproxy.cfg").write_text(text)
        try:
            await served.start()
            sandbox.store_url = served.url("store")
            yield served
        finally:
            for process in served.processes:
                process.kill()
                process.wait()

    def url(self, name: str = "api") -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    async def start(self, *arguments: str) -> None:
        """Start a process, and see it listen."""
        self.started += 1
        with (self.folder / "haproxy.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: ASYNC220  # it does not block, and outlives a task
                [self.program, "-db", "-f", str(self.folder / "haproxy.cfg"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        while not await self._is_up(process.pid):
            if process.poll() is not None:
                raise RuntimeError((self.folder / "haproxy.log").read_text())
            await asyncio.sleep(0.01)

    async def reload(self) -> None:
        """Let a new process take over; the old one ends with its connections."""
        await self.start("-sf", str(self.processes[-1].pid))

    async def kill(self) -> None:
        """Be gone, in the middle of whatever is going on."""
        self.processes[-1].kill()

    async def statuses(self, name: str) -> dict[str, int]:
        """How many responses ``api`` or ``store`` has given, by ``"2xx"`` and so on."""
        rows = csv.DictReader((await self._ask("show stat")).lstrip("# ").splitlines())
        (row,) = (r for r in rows if (r["pxname"], r["svname"]) == (name, "FRONTEND"))
        return {kind: int(row[f"hrsp_{kind}"]) for kind in ("2xx", "4xx", "5xx")}

    async def _is_up(self, pid: int) -> bool:
        try:
            return f"Pid: {pid}\n" in await self._ask("show info")
        except OSError:
            return False

    async def _ask(self, command: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports["admin"])
        writer.write(f"{command}\n".encode())
        answer = await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return answer.decode()


@dataclass
class Tunnels:
    """A proxy that does nothing but CONNECT.

    Attributes:
        url: Where it is.
        asked: The first lines of what it was asked, with the headers.
        refusal: The status line with which it refuses; None to connect.
    """

    url: str = ""
    asked: list[str] = field(default_factory=list)
    refusal: str | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Tunnels]:
        async with listening(self._serve) as port:
            self.url = f"http://127.0.0.1:{port}"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        method, target, _ = head.split(" ", 2)
        if self.refusal is not None or method != "CONNECT":
            status = self.refusal or "405 Method Not Allowed"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await joined(reader, writer, int(target.partition(":")[2]))
