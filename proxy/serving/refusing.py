"""What is said where no handler is asked: constants, since whatever was sent may hold a key."""

from proxy.errors import ClientError
from proxy.serving.heads import SERVER
from proxy.serving.request import malformed
from proxy.serving.response import Response

_FULL_BODY = ClientError(503, "Too many connections.", type="server_error", code="overloaded").body()
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    + b"server: %s\r\n" % SERVER.encode()
    + b"content-length: %d\r\n\r\n" % len(_FULL_BODY)
    + _FULL_BODY
)
MALFORMED = malformed().body()
INTERNAL = ClientError(500, "Bursar failed to handle this request.", type="server_error", code="internal_error").body()


def refused(status: int, message: str) -> Response:
    """Return the answer to a head that must not be served; the connection ends with it."""
    return Response(
        status=status, body=ClientError(status, message).body(), content_type="application/json", close=True
    )


def broken(status: int, body: bytes) -> Response:
    """Return the answer to what could not be read, or failed in us."""
    return Response(status=status, body=body, content_type="application/json", headers={"connection": "close"})
