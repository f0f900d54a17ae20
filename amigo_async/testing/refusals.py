"""What the API says no with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class RefusalError(Exception):
    """A request is answered with an error.

    Args:
        status: The HTTP status.
        detail: What stands under ``detail`` in the body.
        headers: Headers to add; None for none.
    """

    def __init__(
        self,
        status: int,
        detail: str | list[dict[str, Any]],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def invalid(kind: str, loc: tuple[str | int, ...], msg: str, value: Any = None) -> dict[str, Any]:
    """One entry of the list under ``detail`` that FastAPI answers a 422 with."""
    return {"type": kind, "loc": list(loc), "msg": msg, "input": value}
