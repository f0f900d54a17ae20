"""Gathers everything that a program may show, and looks for secrets in it."""

from __future__ import annotations

import gc
import html
import json
import logging
import pickle
import re
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote, quote_plus

from rich.pretty import pretty_repr

TESTS = str(Path(__file__).parents[1])

# A part of a secret is a leak too: what shows values may cut them off.
_PIECE = 16


def forms(secret: str) -> dict[str, str]:
    """How a secret may be written, by the name of the form."""
    secret = str(secret)
    middle = (len(secret) - _PIECE) // 2
    found = {
        "plain": secret,
        "its start": secret[:_PIECE],
        "its middle": secret[middle : middle + _PIECE],
        "its end": secret[-_PIECE:],
        "JSON": json.dumps(secret)[1:-1],
        "JSON with slashes": json.dumps(secret)[1:-1].replace("/", r"\/"),
        "repr": repr(secret)[1:-1],
        "repr of bytes": repr(f"'{secret}\"".encode())[4:-2],
        "HTML": html.escape(secret),
        "query": quote_plus(secret),
        "URL": quote(secret, safe=""),
        "path": quote(secret),
        "URL in lower case": re.sub("%..", lambda m: m[0].lower(), quote(secret, safe="")),
        "hex": secret.encode().hex(),
    }
    for shift in range(3):
        # What is in front of a secret moves it against the groups of three bytes.
        for name, encode in {"base64": b64encode, "base64 of URLs": urlsafe_b64encode}.items():
            whole = encode(b"\0" * shift + secret.encode()).decode().rstrip("=")
            found[f"{name}, {shift}"] = whole[4 if shift else 0 : -2]
    return {name: form for name, form in found.items() if len(form) >= 8}


class Evidence:
    """Texts, each with where it was found."""

    def __init__(self) -> None:
        self.texts: dict[str, set[str]] = {}

    def add(self, where: str, *texts: str) -> None:
        """Keep some texts."""
        self.texts.setdefault(where, set()).update(texts)

    def leaks(self, secrets: Iterable[str]) -> list[str]:
        """Which secrets are to be seen where, each with what is around it."""
        searched = [forms(secret) for secret in set(secrets)]
        found = []
        for where, texts in sorted(self.texts.items()):
            whole = "\n".join(texts)
            for written in searched:
                for name, form in written.items():
                    at = whole.find(form)
                    if at >= 0:
                        around = whole[max(0, at - 300) : at + len(form)]
                        found.append(f"{where} ({name}): ...{around}")
                        break
        return found

    def values(self, where: str, *values: Any) -> None:
        """Keep what some values look like, whoever shows them."""
        for value in values:
            # Rich cuts long strings off, and shows what is in containers in a way of its own.
            pretty = pretty_repr(value, max_string=40)
            self.add(where, repr(value), str(value), f"{value!a}", pretty)

    def errors(self, where: str, *errors: BaseException) -> None:
        """Keep what errors say, and their tracebacks with local variables, down to their roots."""
        seen: set[int] = set()
        waiting: list[BaseException | None] = [*errors]
        while waiting:
            error = waiting.pop()
            if error is None or id(error) in seen:
                continue
            seen.add(id(error))
            waiting += [error.__cause__, error.__context__]
            waiting += error.exceptions if isinstance(error, BaseExceptionGroup) else []
            self.values(where, error, error.args, vars(error))
            self.add(where, pickled(error), *getattr(error, "__notes__", ()))
            self.frames(f"{where}: locals", error)

    def frames(self, where: str, error: BaseException) -> None:
        """Keep the local variables of a traceback, but for those of tests."""
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if not frame.f_code.co_filename.startswith(TESTS):
                self.add(where, *locals_of(frame))

    def records(self, where: str, records: Iterable[logging.LogRecord]) -> None:
        """Keep log records, with all that is attached to them."""
        for record in records:
            self.values(where, record.msg, record.args, vars(record), record.getMessage())
            if record.exc_info and record.exc_info[1]:
                self.errors(f"{where}: exc_info", record.exc_info[1])

    def files(self, where: str, folder: Path) -> None:
        """Keep the names and the contents of all files."""
        for path in folder.rglob("*"):
            self.add(f"{where}: names", str(path))
            if path.is_file():
                self.add(f"{where}: {path.name}", path.read_bytes().decode("latin-1"))

    def living(self, where: str) -> None:
        """Keep what every living object of the package looks like, but for the sandbox's."""
        for value in gc.get_objects():
            module = str(getattr(type(value), "__module__", ""))
            if module.startswith("amigo_async") and not module.startswith("amigo_async.testing"):
                self.add(f"{where}: {type(value).__name__}", repr(value))


def locals_of(frame: FrameType) -> Iterator[str]:
    """The local variables of a frame, as `traceback` and as Rich show them."""
    name = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
    shown = traceback.StackSummary.extract(
        iter([(frame, frame.f_lineno)]), capture_locals=True, lookup_lines=False
    )
    for variable, text in (shown[0].locals or {}).items():
        yield f"{name}: {variable} = {text}"
    for variable, value in frame.f_locals.items():
        yield f"{name}: {variable} = {pretty_repr(value, max_length=10, max_string=80)}"


def pickled(error: BaseException) -> str:
    """An error as another process gets it; empty where it cannot be sent."""
    try:
        return pickle.dumps(error).decode("latin-1")
    except Exception:  # noqa: BLE001  # foreign errors need not be fit for it
        return ""
