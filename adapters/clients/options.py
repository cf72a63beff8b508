"""What a client is told: how its provider is reached, and how it is to behave."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from accounting.prices.table import PriceBook
from adapters.base import Endpoint
from adapters.clients.cache import ResponseCache
from adapters.clients.cost import CostController
from adapters.clients.retrying import Retry
from adapters.credentials.base import Credentials
from adapters.transport.base import Transport

if TYPE_CHECKING:
    from accounting.callbacks import CallbackRunner, CustomAsyncCallbackHandler


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A provider as a client reaches it. `price_list` is None where no vendor's public prices apply."""

    endpoint: Endpoint
    credentials: Sequence[Credentials]
    transport: Transport
    own_transport: bool = True  # closed with the client
    price_list: str | None = None


class ClientOptions(TypedDict, total=False):
    """What may be said of any client; everything has a default."""

    model: str  # for calls that name none
    fallback_models: Sequence[str]  # tried in order where the first cannot answer
    timeout: float  # seconds for one attempt
    retry: Retry
    concurrency: int  # calls at once; more wait
    callbacks: "Sequence[CustomAsyncCallbackHandler]"  # hear of every call
    runner: "CallbackRunner"  # shared with others, who close it
    cache: ResponseCache
    costs: CostController
    prices: PriceBook
