"""Keep tokens in the user's cache folder, so that commands in a row sign in once.

The token is stored as plain text in a file that only the user can read, as the commands of GitHub
and Databricks do. It is valid for an hour or so; the key that obtains it is never stored.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from time import monotonic, time
from typing import Final

import msgspec
from platformdirs import user_cache_path

from amigo_async.auth import StoredToken
from amigo_async.cli.notices import NOTABLE
from amigo_async.cli.reasons import clock
from amigo_async.cli.streams import note
from amigo_async.events import Emit
from amigo_async.files import LockedError, close_locked, open_locked, open_regular
from amigo_async.ratelimit import Limiters
from amigo_async.report.wording import duration
from amigo_async.threads import in_thread

# Seconds after which a command no longer waits for the sign-in of another, which may be suspended.
_CLAIM: Final = 10.0

_LARGEST: Final = 65_536

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_FILE: Final = re.compile(r"[0-9a-f]{64}\.json|[0-9a-f]{64}\.lock|\.[0-9a-f]{64}\.[0-9a-f]{8}")


class _Content(msgspec.Struct, frozen=True):
    """What a file has; `name` says whose token it is, and `renew_at` is local time."""

    name: str
    token: str
    renew_at: float

    def __repr__(self) -> str:
        return "<token>"


class TokenCache:
    """Shares tokens, but no rate limits, among the commands of one user.

    Implements `SharingBackend` and, as it has no connection, `SharingConnection`.

    Args:
        folder: Where the files are; None for the user's cache folder.
        fresh: Whether to sign in even if a valid token is stored.
    """

    def __init__(self, folder: Path | None = None, *, fresh: bool = False) -> None:
        self._folder = folder or user_cache_path("amigo-async", appauthor=False) / "tokens"
        self._fresh = fresh

    def connect(self, _emit: Emit) -> TokenCache:
        """Return the cache itself."""
        return self

    def limiters(self, limiters: Limiters, _name: str, _lease: float) -> Limiters:
        """Return `limiters`: budgets are not stored."""
        return limiters

    def tokens(self, name: str) -> TokenFile:
        """Return the storage for the token of `name`."""
        return TokenFile(self._folder, name, fresh=self._fresh)

    async def aclose(self) -> None:
        """Do nothing: there is no connection."""

    def clear(self) -> int:
        """Delete all tokens, and return how many there were. Blocks.

        Raises:
            OSError: If the folder cannot be read, or a file cannot be deleted.
        """
        try:
            paths = [path for path in self._folder.iterdir() if _FILE.fullmatch(path.name)]
        except FileNotFoundError:
            return 0
        for path in paths:
            path.unlink(missing_ok=True)
        return sum(path.suffix == ".json" for path in paths)


class TokenFile:
    """Stores the token of one user in a file; implements `TokenStore`.

    A cache is never worth an error: whatever keeps the file from being read or written, the
    command signs in instead.

    Args:
        folder: Where the file is.
        name: Whose token it is: the base URL, organization, key id and user.
        fresh: Whether to ignore the token that is stored before the first `save`.
    """

    def __init__(self, folder: Path, name: str, *, fresh: bool = False) -> None:
        digest = sha256(name.encode()).hexdigest()
        self._name = name
        self._folder = folder
        self._path = folder / f"{digest}.json"
        self._lock_path = folder / f"{digest}.lock"
        self._draft = folder / f".{digest}.{token_hex(4)}"
        self._lock: int | None = None
        self._refused_at: float | None = None
        self._noted = False
        self._fresh = fresh

    async def load(self) -> StoredToken | None:
        """The stored token; None if there is none that can be used."""
        return None if self._fresh else await in_thread(self._read)

    async def save(self, stored: StoredToken, life: float) -> None:
        """Store a token for `life` seconds."""
        # Local time, as another process compares it with its local clock until the service has
        # told it the time. A token that lives longer in the file than at the service costs a 401.
        content = _Content(self._name, str(stored.token), time() + life)
        await in_thread(self._write, msgspec.json.encode(content))
        self._fresh = False

    async def drop(self, token: str) -> None:
        """Delete `token` if it is still the stored one."""
        await in_thread(self._delete, token)

    async def claim(self) -> bool:
        """Whether this process may sign in: no other is at it, or the other takes too long."""
        if await in_thread(self._claim):
            return True
        now = monotonic()
        if self._refused_at is None:
            self._refused_at = now
        waited = now - self._refused_at
        if waited >= NOTABLE and not self._noted:
            self._noted = True
            left = _CLAIM - waited
            note(
                "sign in: waiting for another amigo-async that is signing in, until at most "
                f"{clock(left)} (in {duration(left)})"
            )
        return waited >= _CLAIM

    async def release(self) -> None:
        """Let other processes sign in."""
        await in_thread(self._release)

    def _read(self) -> StoredToken | None:
        try:
            descriptor = open_regular(self._path, os.O_RDONLY)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                # Another user's file may hold another user's token.
                private = not stat.S_IMODE(status.st_mode) & 0o077
                if status.st_uid != os.geteuid() or not private:
                    return None
                content = msgspec.json.decode(file.read(_LARGEST), type=_Content)
        except (OSError, ValueError, RecursionError):  # msgspec's errors are ValueErrors
            return None
        if content.name != self._name or not _TOKEN.fullmatch(content.token):
            return None
        return StoredToken(content.token, content.renew_at)

    def _write(self, data: bytes) -> None:
        with suppress(OSError):
            self._make_folder()
            try:
                # A new file each time: the old one may be readable by others, or not be ours.
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                with os.fdopen(open_regular(self._draft, flags, 0o600), "wb") as file:
                    file.write(data)
                self._draft.replace(self._path)
            finally:
                self._draft.unlink(missing_ok=True)

    def _delete(self, token: str) -> None:
        stored = self._read()
        if stored is not None and stored.token == token:
            with suppress(OSError):
                self._path.unlink()

    def _claim(self) -> bool:
        try:
            self._make_folder()
            self._lock = open_locked(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        except LockedError:
            return False
        except OSError:
            pass  # nobody can be asked
        return True

    def _release(self) -> None:
        if self._lock is not None:
            close_locked(self._lock)
            self._lock = None

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
