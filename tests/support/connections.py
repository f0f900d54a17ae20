"""Which connections of a session are in use, as its connector gives them out."""

from __future__ import annotations

from typing import Any

import aiohttp


class Counting(aiohttp.TCPConnector):
    """Knows which of its connections are held."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._given_out: list[aiohttp.connector.Connection] = []

    async def connect(self, req: Any, traces: Any, timeout: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        self._given_out.append(connection)
        return connection

    def held(self) -> bool:
        """Whether a connection is in use."""
        self._given_out = [each for each in self._given_out if not each.closed]
        return bool(self._given_out)
