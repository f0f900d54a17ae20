"""A process among several of one organization: runs its sets, and says what came of them.

Reads JSON from stdin: ``sets`` and, as wished, ``redis`` (a URL), ``token_key``, ``settings`` of
the client and ``sharing`` of Redis. It writes ``ready``, waits for a line, and writes JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from amigo_async import AmigoClient
from amigo_async.events import Event


async def run(told: dict[str, Any]) -> dict[str, Any]:
    events: Counter[str] = Counter()

    def hear(event: Event) -> None:
        events[type(event).__name__] += 1

    shared = None
    if told.get("redis"):
        from amigo_async.redis import RedisSharing  # noqa: PLC0415  # only where it is used

        shared = RedisSharing(told["redis"], **told.get("sharing", {}))
    settings = told.get("settings", {})
    async with AmigoClient(shared=shared, on_event=hear, **settings) as client:
        result = await client.run_many(told["sets"])
    errors = [str(outcome.error) for outcome in result.outcomes if outcome.error]
    return {
        "verdicts": dict(result.counts),
        "events": dict(events),
        "errors": errors,
        "redis": "redis" in sys.modules,
    }


def main() -> None:
    told = json.loads(sys.stdin.readline())
    print("ready", flush=True)  # noqa: T201  # what it is for
    sys.stdin.readline()
    print(json.dumps(asyncio.run(run(told))), flush=True)  # noqa: T201  # what it is for


if __name__ == "__main__":
    main()
