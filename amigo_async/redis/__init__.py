"""Share rate limits and tokens between processes through Redis; needs the extra ``redis``.

::

    shared = RedisSharing("redis://cache.internal:6379/0")
    async with AmigoClient(shared=shared) as client: ...

Every process of an organization that does so takes its calls from one budget, so that nothing is
refused. The budget is that of the headers: Redis keeps the newest that any process has received.
Its records are JSON under ``amigo_async:2:...``, and expire by themselves.

While Redis is unavailable, a client relies on the rate-limit headers, as if nothing were shared. At
the first failure it emits a `SharingLost` event, does not contact Redis for `cooldown` seconds, and
then tries again with one command. No call to the API fails because of Redis.
"""

from amigo_async.errors import missing_extra

try:
    from amigo_async.redis.sharing import RedisSharing
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("redis", "cryptography"):
        raise
    raise missing_extra("amigo_async.redis", "redis") from None

__all__ = ["RedisSharing"]
