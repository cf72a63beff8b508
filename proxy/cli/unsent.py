"""The configured providers for commands that only look at them: routed to and priced, never called."""

from adapters.transport.base import Transport, UpstreamResponse
from proxy.building import build_upstreams
from proxy.config.model import Config
from proxy.upstreams import Upstreams


def looked_at(config: Config) -> Upstreams:
    """Return the configured providers without a way to reach them."""
    unsent = _Unsent()
    return build_upstreams(config, lambda _: unsent, lambda _endpoint, _provider: [])


class _Unsent(Transport):
    """Refuses to send."""

    async def send(self, request: object, timeouts: object) -> UpstreamResponse:
        raise AssertionError("this command sends nothing")

    async def close(self) -> None:
        """Do nothing."""
