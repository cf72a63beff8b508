"""When a token ends, from the forms in which token servers say it."""

from datetime import UTC, datetime

from adapters.errors import UpstreamAuthError


def unix_seconds(text: object, *, source: str) -> float:
    """Read an RFC 3339 time; without an offset it is UTC. Raises UpstreamAuthError."""
    try:
        time = datetime.fromisoformat(str(text))
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        pass  # raised below, so that what was parsed is no part of the error
    raise UpstreamAuthError(f"{source}: the answer does not say when it expires")
