"""The stores of the cases: real programs on loopback, and the sandbox's."""

from __future__ import annotations

from tests.support.needs import needs_modules

needs_modules("botocore")

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import botocore.config  # type: ignore[import-untyped] # it has no types
import botocore.session  # type: ignore[import-untyped] # it has no types

from amigo_async.testing import ArtifactPlan, Sandbox, SetPlan
from tests.support.needs import needs
from tests.support.processes import free_port
from tests.support.store_cases import CONDITIONS, DATA, EMPTY, EXACT, KEY, SIGNED, TOTAL


@contextmanager
def running(*command: str, port: int) -> Iterator[None]:
    """A program, from when it listens on `port` until it is stopped."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            while not _listens(port):
                if process.poll() is not None:
                    assert process.stderr is not None
                    raise RuntimeError(f"{command[0]} ended: {process.stderr.read().decode()}")
                time.sleep(0.02)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.communicate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


NGINX_CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 256; }}
http {{
  log_format asked '$status $body_bytes_sent $http_range';
  access_log {folder}/access.log asked;
  client_body_temp_path {folder}/tmp;
  proxy_temp_path {folder}/tmp;
  fastcgi_temp_path {folder}/tmp;
  scgi_temp_path {folder}/tmp;
  uwsgi_temp_path {folder}/tmp;
  types {{ application/zip zip; }}
  map $arg_rate $rate {{ "" 0; default $arg_rate; }}
  map $arg_after $after {{ "" 0; default $arg_after; }}
  server {{
    listen 127.0.0.1:{port};
    root {folder}/files;
    limit_rate $rate;
    limit_rate_after $after;
  }}
}}
"""


class Nginx:
    """nginx over a folder. ``?rate=`` limits bytes a second, ``?after=`` from so many on."""

    features = frozenset({CONDITIONS, TOTAL, EXACT})

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()

    @classmethod
    @contextmanager
    def serving(cls, folder: Path) -> Iterator[Nginx]:
        program = needs("nginx", "nginx-light, with apt-get install")
        served = cls(folder)
        served.put(KEY, DATA)
        served.put(EMPTY, b"")
        user = "user root;" if os.geteuid() == 0 else ""
        config = NGINX_CONFIG.format(folder=folder, port=served.port, user=user)
        served.path("../nginx.conf").write_text(config)
        command = (program, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf")
        with running(*command, port=served.port):
            yield served

    def path(self, key: str) -> Path:
        return self.folder / "files" / key

    def put(self, key: str, data: bytes) -> Path:
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def asked(self) -> list[tuple[int, int, str]]:
        """Of each request that has ended: the status, the bytes of the body, the range."""
        lines = (self.folder / "access.log").read_text().splitlines()
        parts = [line.split(" ", 2) for line in lines]
        return [(int(status), int(sent), asked) for status, sent, asked in parts]

    def url(self, key: str = KEY, *, expires_in: int = 3600) -> str:
        quoted = key.replace(" ", "%20").replace("+", "%2B").replace("é", "%C3%A9")
        return f"http://127.0.0.1:{self.port}/{quoted}?X-Amz-Expires={expires_in}"


class S3rver:
    """s3rver, an S3 server from npm, with version 2 signatures: those it verifies in full."""

    features = frozenset({SIGNED})

    def __init__(self) -> None:
        self.port = free_port()
        self._signer = self._client("s3")

    @classmethod
    @contextmanager
    def serving(cls, folder: Path) -> Iterator[S3rver]:
        program = needs("s3rver", "s3rver@3.7.1, with npm install -g")
        served = cls()
        arguments = ["-d", str(folder), "-a", "127.0.0.1", "-p", str(served.port), "-s"]
        command = (program, *arguments, "--configure-bucket", "artifacts")
        with running(*command, port=served.port):
            for key, data in ((KEY, DATA), (EMPTY, b"")):
                served.put(key, data)
            yield served

    def put(self, key: str, data: bytes) -> None:
        client = self._client("s3v4")
        client.put_object(Bucket="artifacts", Key=key, Body=data)
        client.close()

    def url(self, key: str = KEY, *, expires_in: int = 3600) -> str:
        parameters = {"Bucket": "artifacts", "Key": key}
        url: str = self._signer.generate_presigned_url(
            "get_object", Params=parameters, ExpiresIn=expires_in
        )
        return url

    def _client(self, version: str) -> Any:
        return botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id="S3RVER",
            aws_secret_access_key="S3RVER",
            config=botocore.config.Config(
                signature_version=version,
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
            ),
        )


class SandboxStore:
    """The store of the sandbox, in a thread of its own."""

    features = frozenset({SIGNED, CONDITIONS, TOTAL, EXACT})

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._runs = {key: self._run(key, data) for key, data in ((KEY, DATA), (EMPTY, b""))}
        # Never has artifacts: nothing is where its link leads.
        self._none = sandbox.start_run(sandbox.add_set(SetPlan(artifacts_after=None)))

    @classmethod
    @contextmanager
    def serving(cls, folder: Path) -> Iterator[SandboxStore]:
        with Sandbox().in_thread() as sandbox:
            yield cls(sandbox)

    def _run(self, key: str, data: bytes) -> str:
        """A run whose artifact is the object."""
        artifact = ArtifactPlan(name=key.rsplit("/", 1)[1], content_type="application/zip")
        plan = SetPlan(seconds=0, artifacts_after=0, artifact=artifact)
        run_id = self._sandbox.start_run(self._sandbox.add_set(plan))
        self._sandbox.change_artifact(run_id, data)
        return run_id

    def url(self, key: str = KEY, *, expires_in: int = 3600) -> str:
        return self._sandbox.presign(self._runs.get(key, self._none), lifetime=expires_in)


Store: TypeAlias = Nginx | S3rver | SandboxStore
STORES: dict[str, type[Store]] = {"nginx": Nginx, "s3rver": S3rver, "sandbox": SandboxStore}
