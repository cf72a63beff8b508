"""The data listener's rules on top of our server: a head that two servers could read differently is never served.

Whatever is refused before routing is told in OpenAI's shape, with a constant: what was sent may hold a key.
"""

from proxy.serving.refusing import refused
from proxy.serving.request import Request
from proxy.serving.response import Response
from proxy.serving.server import Handler, Server
from proxy.wellformed import fault, foreign

__all__ = ["EdgeServer", "Handler"]


class EdgeServer(Server):
    """`open_to_all`: no key is asked for, so pages of other sites must be kept out."""

    def __init__(
        self,
        handler: Handler,
        *,
        max_body_bytes: int,
        header_s: float,
        max_connections: int,
        stall_s: float = 60.0,
        body_s: float = float("inf"),
        open_to_all: bool = False,
    ) -> None:
        super().__init__(
            handler, max_body_bytes=max_body_bytes, header_s=header_s, max_connections=max_connections, stall_s=stall_s, body_s=body_s
        )  # fmt: skip
        self._open_to_all = open_to_all

    def judge(self, request: Request) -> Response | None:
        by_name, again = request.headers.by_name, request.headers.again
        wrong = fault(request.method, request.target, request.version, by_name, again)
        if wrong is None and self._open_to_all and foreign(by_name, again):
            wrong = 403, "Without keys, only programs of this machine are answered; set auth: {mode: keys}."
        return None if wrong is None else refused(*wrong)
