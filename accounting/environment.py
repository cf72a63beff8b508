"""What the library's handlers take from the environment where the code names nothing: the store, and two thresholds.

The proxy never asks here: its settings are its configuration's. A variable that is set but empty is not set.
"""

import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from accounting.repository import TokenUsageRepository

PERFORMANCE_LOG_THRESHOLD_MS = 1000.0
TOKEN_ESTIMATION_RATIO = 4.0


def variables() -> Mapping[str, str]:
    """Return the process's environment."""
    return os.environ  # noqa: TID251 - `RedisTokenCallbackHandler("alice")` names no store: services set it by variables


def store_url(environ: Mapping[str, str]) -> str:
    """Return REDIS_URL, else what REDIS_HOST, REDIS_PORT, REDIS_PASSWORD and REDIS_DB say, else a server on this host."""
    if environ.get("REDIS_URL"):
        return environ["REDIS_URL"]
    password = environ.get("REDIS_PASSWORD", "")
    user = f":{quote(password, safe='')}@" if password else ""
    host = environ.get("REDIS_HOST") or "127.0.0.1"
    place = f"[{host}]" if ":" in host and not host.startswith("[") else host
    port = (environ.get("REDIS_PORT") or "6379").rpartition(":")[2]  # Kubernetes sets tcp://10.0.0.1:6379
    return f"redis://{user}{place}:{port}/{environ.get('REDIS_DB') or '0'}"


def number(environ: Mapping[str, str], name: str, default: float) -> float:
    """Return a positive number. Raises ValueError, naming the variable."""
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} wants a positive number") from None
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} wants a positive number")
    return value


@cache
def default_repository() -> "TokenUsageRepository":
    """Return the one repository that handlers without their own share, so that a thousand of them need one connection."""
    from accounting.repository import TokenUsageRepository

    return TokenUsageRepository(store_url(variables()))
