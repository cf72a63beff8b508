"""Opens the listeners of one process, and closes them again, the last one first."""

from proxy.config.address import parse_address
from proxy.edge import EdgeServer, Handler

OPS_BODY_BYTES_MAX = 2**20
OPS_BODY_S = 30.0
OPS_CONNECTIONS_MAX = 256
_BACKLOG = 1024
_CLOSE_S = 1.0


class Listeners:
    """Those that are open."""

    def __init__(self) -> None:
        self._servers: list[EdgeServer] = []

    async def open(self, address: str, server: EdgeServer, *, reuse_port: bool = False) -> str:
        """Listen on host:port; return the base URL, with the port that a 0 became. Raises OSError (port in use)."""
        host, port = parse_address(address)
        self._servers.append(server)
        return f"http://{written(*await server.listen(host, port, backlog=_BACKLOG, reuse_port=reuse_port or None))}"

    async def close(self) -> None:
        """Take no more connections, and end those that are open."""
        while self._servers:
            await self._servers.pop().close(_CLOSE_S)


def ops_server(handle: Handler, *, header_s: float) -> EdgeServer:
    """Return the server of an ops listener."""
    return EdgeServer(
        handle, max_body_bytes=OPS_BODY_BYTES_MAX, header_s=header_s, max_connections=OPS_CONNECTIONS_MAX, body_s=OPS_BODY_S
    )  # fmt: skip


def written(host: str, port: int) -> str:
    """Return host:port as a URL has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
