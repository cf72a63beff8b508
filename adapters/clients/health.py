"""Whether a client's provider can be reached and takes its credentials. Costs nothing: no model is asked."""

from datetime import UTC, datetime

from adapters.base import JSON, UpstreamRequest
from adapters.clients.options import Access
from adapters.credentials.base import Credentials
from adapters.transport.base import Timeouts

_LISTS_MODELS = ("openai", "xai", "fake")  # GET /models is free there
_TIMES = Timeouts(connect=3, tls=5, first_token=5, idle=5, total=10)
_REFUSED = (401, 403)


async def client_health(access: Access, credentials: Credentials) -> JSON:
    """Return `{"status": "healthy" | "unhealthy", "error"?, "timestamp"}`; never raises."""
    error = None
    try:
        base = access.endpoint.base_url.rstrip("/")
        url = f"{base}/models" if access.endpoint.kind in _LISTS_MODELS else f"{base}/"
        request = UpstreamRequest(method="GET", url=url, headers=(("accept-encoding", "identity"),))
        response = await access.transport.send(await credentials.apply(request), _TIMES)
        response.close()
        if response.status in _REFUSED and access.endpoint.kind in _LISTS_MODELS:
            error = "the provider refuses the credentials"
        elif response.status >= 500:  # noqa: PLR2004 - HTTP's server errors
            error = f"the provider answers with status {response.status}"
    except Exception as problem:  # noqa: BLE001 - a health check tells, it never raises
        error = type(problem).__name__
    told = {"status": "healthy"} if error is None else {"status": "unhealthy", "error": error}
    return {**told, "timestamp": datetime.now(UTC).isoformat()}
