"""The store of the benchmark of downloads: nginx over a folder, one file large, many small.

There may be a long line before it, and an API that gives links to it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks import canned, line
from benchmarks.line import Line

# The folder is a bucket for those that speak S3: a GET of a public object is a plain GET.
BUCKET: Final = "bucket"
LARGE: Final = "large.zip"
SMALL_SIZE: Final = 20_000
MEBI: Final = 1024 * 1024

_BLOCK: Final = 8 * MEBI
_CONFIG: Final = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/tmp;
  proxy_temp_path {folder}/tmp;
  fastcgi_temp_path {folder}/tmp;
  scgi_temp_path {folder}/tmp;
  uwsgi_temp_path {folder}/tmp;
  server {{ listen 127.0.0.1:{port} backlog=1000; root {folder}/files; }}
}}
"""


def small(number: int) -> str:
    """What one of the small files is called."""
    return f"small-{number:04}.zip"


def fill(folder: Path, *, size: int, count: int, seed: int) -> Path:
    """Make the files, of bytes that cannot be compressed; the folder that has them."""
    files = folder / "files" / BUCKET
    files.mkdir(parents=True)
    dice = random.Random(seed)
    with (files / LARGE).open("wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(dice.randbytes(min(_BLOCK, size - start)))
    for number in range(count):
        (files / small(number)).write_bytes(dice.randbytes(SMALL_SIZE))
    os.sync()
    return files


def warm(folder: str, size: int) -> None:
    """Take the memory that a file of this size needs, and give it back.

    The host of a virtual machine may take back what was free for two seconds, and getting it again
    costs more than a download: whoever came after a pause paid for it.
    """
    block = bytes(MEBI)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(size * 5 // 4 // MEBI):
            file.write(block)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[int]:
    """The port on which nginx serves what is in `folder`, from a process of its own.

    Raises:
        FileNotFoundError: If there is no nginx.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise FileNotFoundError("nginx is not installed: apt-get install nginx-light")
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, user=user), encoding="utf-8")
    command = (program, "-e", f"{folder}/error.log", "-c", str(config))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            while not _listens(port):
                if process.poll() is not None:
                    raise RuntimeError(f"nginx ended with {process.returncode}")
                time.sleep(0.01)
            yield port
        finally:
            process.terminate()


def free_port() -> int:
    """A port on loopback that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


class Stage(Struct, frozen=True):
    """Where everything is.

    Attributes:
        files: What is served.
        stores: The store, by the delay of its line.
        apis: An API that gives the link to the large file there, likewise.
        ceiling: What the line lets through without a delay, in megabytes a second; None where
            there is no line.
    """

    files: Path
    stores: dict[float, str]
    apis: dict[float, str]
    ceiling: float | None


@contextlib.contextmanager
def everything(options: argparse.Namespace) -> Iterator[Stage]:
    """The store, as near and as far as asked for, and the APIs."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        size = int(options.size * MEBI)
        files = fill(folder, size=size, count=options.files, seed=options.seed)
        near = stack.enter_context(serving(folder))
        lengths = [delay / 1000 for delay in options.delays]
        ports = {
            delay: stack.enter_context(line.before(near, Line(delay, options.window * MEBI)))
            for delay in lengths
            if delay
        }
        ceiling = None
        if ports:
            with line.before(near, Line(0.0, None)) as port:
                ceiling = _ceiling(f"http://127.0.0.1:{port}", size)
        stores = {delay: f"http://127.0.0.1:{ports.get(delay, near)}" for delay in lengths}
        apis = {
            delay: stack.enter_context(canned.serving(_link(base)))
            for delay, base in stores.items()
        }
        yield Stage(files, stores, apis, ceiling)


def _link(base: str) -> bytes:
    """What the API answers, at whatever it is asked."""
    url = f"{base}/{BUCKET}/{LARGE}?X-Amz-Expires=3600"
    expires = datetime.now(UTC) + timedelta(hours=1)
    return msgspec.json.encode({"presigned_url": url, "url_expires_at": expires})


def _ceiling(base: str, size: int) -> float:
    url = f"{base}/{BUCKET}/{LARGE}"
    began = time.perf_counter()
    subprocess.run(["curl", "-q", "-s", "-S", "-f", "-o", os.devnull, url], check=True)
    return size / 1e6 / (time.perf_counter() - began)
