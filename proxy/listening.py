"""Opens the listeners of one process, and closes them again, the last one first."""

from aiohttp import web

from proxy.config.address import parse_address
from proxy.edge import EdgeServer, Handler

OPS_BODY_BYTES_MAX = 2**20
OPS_CONNECTIONS_MAX = 256
_BACKLOG = 1024
_CLOSE_S = 1.0


class Listeners:
    """Those that are open."""

    def __init__(self) -> None:
        self._runners: list[web.ServerRunner] = []

    async def open(self, address: str, server: EdgeServer, *, reuse_port: bool = False) -> str:
        """Listen on host:port; return the base URL, with the port that a 0 became. Raises OSError (port in use)."""
        host, port = parse_address(address)
        runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_S)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, host, port, backlog=_BACKLOG, reuse_port=reuse_port or None).start()
        name = runner.addresses[0]
        return f"http://{written(name[0], name[1])}"

    async def close(self) -> None:
        """Take no more connections, and end those that are open."""
        while self._runners:
            await self._runners.pop().cleanup()


def ops_server(handle: Handler, *, header_s: float) -> EdgeServer:
    """Return the server of an ops listener."""
    return EdgeServer(
        handle, max_body_bytes=OPS_BODY_BYTES_MAX, header_s=header_s, max_connections=OPS_CONNECTIONS_MAX
    )  # fmt: skip


def written(host: str, port: int) -> str:
    """Return host:port as a URL has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
