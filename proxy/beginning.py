"""What a call has when its answer has begun: the answer itself, and the attempt that it belongs to."""

import msgspec

from accounting.charge import Attempt
from adapters.base import Answer, Exchange, StreamTranslator
from adapters.transport.base import UpstreamResponse
from proxy.upstreams import Target


class Begun(msgspec.Struct, kw_only=True):
    """An answer that has begun: a whole one, or a stream of which `first` is to be written first.

    `granted` output tokens per choice are what the call may still use.
    """

    target: Target
    exchange: Exchange
    attempt: Attempt
    granted: int = 0
    answer: Answer | None = None
    translator: StreamTranslator | None = None
    response: UpstreamResponse | None = None
    first: bytes = b""
