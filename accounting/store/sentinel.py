"""Asks Sentinel who the primary is. Slow and rare, so the well-kept client library does it."""

from collections.abc import Sequence
from dataclasses import replace

from accounting.store.errors import StoreUnavailableError
from accounting.store.resp import Address
from accounting.store.url import StoreUrl


async def locate_primary(url: StoreUrl) -> Sequence[Address]:
    """Return the primary's address. Raises StoreUnavailableError if no Sentinel knows it."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError

    for place in url.addresses:
        client = Redis(
            host=place.host,
            port=place.port,
            socket_timeout=1.0,
            socket_connect_timeout=1.0,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            found = await client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service)  # type: ignore[no-untyped-call]
        except (RedisError, OSError):
            continue
        finally:
            await client.aclose()
        if found:
            host, port = (part.decode() if isinstance(part, bytes) else part for part in found)
            return (replace(place, host=host, port=int(port)),)
    msg = f"no Sentinel of store.url knows a primary named {url.service!r}"
    raise StoreUnavailableError(msg)
