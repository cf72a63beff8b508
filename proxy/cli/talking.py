"""Asks a running proxy on this machine over its ops listener. Short time limits: who does not answer is not there."""

import asyncio
import http.client
import json
from dataclasses import dataclass
from typing import Any

from proxy.config.address import parse_address
from proxy.config.model import Config

ASK_S = 2.0
ANSWER_BYTES_MAX = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the ops listener."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON, None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


async def ask_ops(
    config: Config, method: str, path: str, body: object = None, *, timeout_s: float = ASK_S
) -> Reply | None:
    """Return the answer of the proxy that this configuration starts, None if nobody answers there."""
    return await asyncio.to_thread(_ask, config, method, path, body, timeout_s)


def local_address(listen: str) -> tuple[str, int]:
    """Return where a listener can be reached from this machine: loopback, where it listens on every address."""
    place = parse_address(listen)
    host = place.host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host), place.port


def _ask(config: Config, method: str, path: str, body: object, timeout_s: float) -> Reply | None:
    host, port = local_address(config.ops.listen)
    if not port:
        return None
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    headers = {"content-type": "application/json"} if body is not None else {}
    if path.startswith("/admin/") and config.ops.admin_token:
        headers["authorization"] = f"Bearer {config.ops.admin_token.reveal()}"
    try:
        connection.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers)
        response = connection.getresponse()
        return Reply(response.status, response.read(ANSWER_BYTES_MAX))
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
