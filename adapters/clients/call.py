"""One call of a client: what is asked, what was tried, and what callbacks are told of it in the end."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from accounting.meter import Meter
from accounting.prices.price import Price
from accounting.usage import Usage
from adapters.clients.cost import CostController, Held
from adapters.clients.errors import LLMClientError
from adapters.clients.messages import JSON, LLMResponse

if TYPE_CHECKING:
    from accounting.callbacks import CallbackRunner, CustomAsyncCallbackHandler

_NANO = 1_000_000_000


@dataclass(slots=True, kw_only=True)
class Try:
    """One attempt: `billable` once the provider may have begun to work on it."""

    model: str
    price: Price | None
    meter: Meter
    billable: bool = False


@dataclass(slots=True, kw_only=True)
class ClientCall:
    """`begin`, then exactly one of `succeeded`, `failed` and `cancelled`; `kwargs` are what callbacks get with every event."""

    provider: str
    runner: "CallbackRunner"
    handlers: "Sequence[CustomAsyncCallbackHandler]"
    kwargs: JSON
    body: JSON  # without model and stream
    models: tuple[str, ...]
    output_limit: int | None
    began_s: float
    costs: CostController | None = None
    held: Held | None = None
    tries: list[Try] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    status: int | None = None  # of the last answer that was none
    finish_reason: str | None = None
    ended: bool = False

    def begin(self) -> None:
        """Tell that the call is sent."""
        self._tell("start", self.body["messages"])

    def succeeded(self, response: LLMResponse) -> None:
        """Tell of a whole answer."""
        self._end(lambda: response.told())

    def failed(self, error: LLMClientError) -> None:
        """Tell of a failure, and of what was billed all the same."""
        if self.ended:
            return
        self.ended = True
        if any(each.billable for each in self.tries):
            taken_s = self.seconds()

            def more() -> JSON:
                told = self.response(taken_s).told()
                names = ("tokens_used", "prompt_tokens", "completion_tokens", "cost_estimate")
                return {name: told[name] for name in names}

            self._tell("error", error, more)
        else:
            self._tell("error", error)
        self._settle()

    def cancelled(self) -> None:
        """Tell of a call whose caller went away: of what had come by then."""
        if not self.tries or not self.tries[-1].billable:
            self.failed(LLMClientError("the call was cancelled by its caller", provider=self.provider))
            return
        self.kwargs = {**self.kwargs, "cancelled": True}
        self.streamed()

    def streamed(self) -> None:
        """Tell of a stream that has ended; what the provider did not count is counted in the callbacks' thread."""
        taken_s = self.seconds()
        self._end(lambda: self.response(taken_s).told())

    def response(self, taken_s: float) -> LLMResponse:
        """Return the answer so far. May load ranks, where the provider did not say what was used."""
        last = self.tries[-1]
        usage = self.usage()
        cost = self.cost_nanousd(usage)
        return LLMResponse(
            content="".join(self.text), provider=self.provider, model=last.meter.response_model or last.model,
            tokens_used=usage.total, prompt_tokens=usage.input, completion_tokens=usage.output,
            cost_estimate=None if cost is None else cost / _NANO, response_time=taken_s, finish_reason=self.finish_reason,
        )  # fmt: skip

    def usage(self) -> Usage:
        """Return what the last try used, as reported or counted."""
        return self.tries[-1].meter.usage()

    def cost_nanousd(self, usage: Usage) -> int | None:
        """Return what the call cost, None without a price."""
        price = self.tries[-1].price
        return None if price is None else price.cost_nanousd(usage)

    def seconds(self) -> float:
        """Return how long the call has taken."""
        return asyncio.get_running_loop().time() - self.began_s

    def _end(self, make: Callable[[], JSON]) -> None:
        if self.ended:
            return
        self.ended = True
        self._tell("end", make, lazily=True)
        self._settle()

    def _tell(self, kind: Any, what: Any, more: Callable[[], JSON] | None = None, *, lazily: bool = False) -> None:
        self.runner.tell(kind, what, self.kwargs, self.handlers, lazily=lazily, more=more)

    def _settle(self) -> None:
        """Charge the cost controller; where counting takes long, when it is done."""
        costs, held = self.costs, self.held
        if costs is None or held is None:
            return
        billable = [each for each in self.tries if each.billable and each.price is not None]
        if all(each.meter.reported is not None for each in billable):
            costs.settle(held, _sum(billable))
            return
        done = asyncio.get_running_loop().run_in_executor(None, _sum, billable)
        done.add_done_callback(lambda found: costs.settle(held, _or_all(found, held)))


def _sum(tries: Sequence[Try]) -> int:
    return sum(each.price.cost_nanousd(each.meter.usage()) for each in tries if each.price is not None)


def _or_all(found: "asyncio.Future[int]", held: Held) -> int:
    """What could not be counted cost all that was held."""
    return held.nanousd if found.cancelled() or found.exception() is not None else found.result()
