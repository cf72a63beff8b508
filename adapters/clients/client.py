"""The one implementation of a client: a translator, a transport, credentials and a meter, as in the proxy.

Around them: keys in turn, retries, fallback models, a bound on calls at once, an optional cache and an optional daily budget.
A client belongs to one event loop.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from accounting.meter import Meter
from accounting.prices.ceilings import max_output
from accounting.prices.table import PriceBook
from accounting.tokens.counter import count_input, upper_bound
from adapters.base import Call
from adapters.clients.base import TEMPERATURE, BaseLLMClient
from adapters.clients.call import ClientCall, Try
from adapters.clients.errors import LLMClientError, client_error
from adapters.clients.messages import JSON, LLMMessage, LLMResponse, message_dicts
from adapters.clients.options import Access, ClientOptions
from adapters.clients.retrying import Retry
from adapters.clients.rotation import Rotation
from adapters.clients.streaming import pieces_of
from adapters.clients.texts import content_of, finish_of, refuses_sampling
from adapters.credentials.base import Credentials
from adapters.errors import AdapterError, InvalidRequestError, UpstreamError
from adapters.opening import FIRST_REDIRECT, Opened, opened, sent
from adapters.registry import make_adapter
from adapters.retrying import is_safe
from adapters.transport.base import Timeouts

if TYPE_CHECKING:
    from accounting.callbacks import CustomAsyncCallbackHandler

CONCURRENCY = 64
DEFAULT_MAX_OUTPUT = 4096  # held where a cost is to be bounded and nobody names a limit


class LLMClient(BaseLLMClient):
    """See BaseLLMClient. Calls share one pool of connections. Raises ValueError for an endpoint that cannot be."""

    def __init__(self, access: Access, options: ClientOptions | None = None) -> None:
        super().__init__(access.endpoint.name)
        from accounting.callbacks.runner import CallbackRunner

        options = options or {}
        self.model, self.fallback_models = options.get("model"), tuple(options.get("fallback_models", ()))
        self.runner = options.get("runner") or CallbackRunner(options.get("callbacks", ()))
        self._own_runner = "runner" not in options
        self._access, self._adapter = access, make_adapter(access.endpoint)
        self._rotation = Rotation(access.credentials, time.monotonic)
        self._timeouts = _timeouts(options.get("timeout"))
        self._retry = options.get("retry") or Retry()
        self._places = asyncio.Semaphore(options.get("concurrency", CONCURRENCY))
        self._cache, self._costs = options.get("cache"), options.get("costs")
        self._prices = options.get("prices") or PriceBook()
        self._closed = False

    async def generate_text(
        self,
        messages: list[LLMMessage],
        model: str | None = None,
        temperature: float = TEMPERATURE,
        max_tokens: int | None = None,
        *,
        callbacks: "Sequence[CustomAsyncCallbackHandler]" = (),
        **kwargs: Any,
    ) -> LLMResponse:
        call = self._call(messages, model, temperature, max_tokens, callbacks, kwargs)
        call.begin()
        key = (
            self._cache.key(self.provider_name, self._access.endpoint.base_url, _cached_by(call))
            if self._cache is not None
            else b""
        )
        try:
            if self._cache is not None and (kept := self._cache.get(key)) is not None:
                call.succeeded(kept)
                return kept
            response = await self._generated(call)
        except AdapterError as error:
            raise self._failed(call, error) from error
        except LLMClientError as error:
            call.failed(error)
            raise
        except asyncio.CancelledError:
            call.cancelled()
            raise
        if self._cache is not None:
            self._cache.put(key, response)
        call.succeeded(response)
        return response

    async def stream_text(
        self,
        messages: list[LLMMessage],
        model: str | None = None,
        temperature: float = TEMPERATURE,
        max_tokens: int | None = None,
        *,
        callbacks: "Sequence[CustomAsyncCallbackHandler]" = (),
        **kwargs: Any,
    ) -> AsyncGenerator[str, None]:
        call = self._call(messages, model, temperature, max_tokens, callbacks, kwargs)
        call.begin()
        try:
            self._hold(call)
            async with self._places:
                begun = await self._begin(call, stream=True)
                async with aclosing(pieces_of(call, begun)) as pieces:
                    async for text in pieces:
                        yield text
            call.streamed()
        except AdapterError as error:
            raise self._failed(call, error) from error
        except LLMClientError as error:
            call.failed(error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            call.cancelled()
            raise

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._own_runner:
            await self.runner.close()
        await self._rotation.close()
        if self._access.own_transport:
            await self._access.transport.close()

    async def health_check(self) -> JSON:
        from adapters.clients.health import client_health

        if self._closed:
            return {**await super().health_check(), "status": "unhealthy", "error": "the client is closed"}
        return await client_health(self._access, self._rotation.next())

    def _call(
        self, messages: list[LLMMessage], model: str | None, temperature: float, max_tokens: int | None,
        callbacks: "Sequence[CustomAsyncCallbackHandler]", kwargs: JSON,
    ) -> ClientCall:  # fmt: skip
        first = model or self.model
        if self._closed:
            raise LLMClientError("the client is closed", provider=self.provider_name)
        if not first:
            raise ValueError("name a model, with the call or with the client")
        if max_tokens is not None and max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")
        told = {
            "provider": self.provider_name, "model": first, "temperature": temperature, "max_tokens": max_tokens,
            "request_id": kwargs.pop("request_id", None) or f"req_{os.urandom(12).hex()}", "user": kwargs.pop("user", None),
        }  # fmt: skip
        body = {"messages": message_dicts(messages), **kwargs}
        if not (temperature == TEMPERATURE and refuses_sampling(first)):
            body["temperature"] = temperature
        return ClientCall(
            provider=self.provider_name, runner=self.runner, handlers=tuple(callbacks), kwargs=told, body=body,
            models=(first, *(m for m in self.fallback_models if m != first)), output_limit=max_tokens,
            began_s=asyncio.get_running_loop().time(), costs=self._costs,
        )  # fmt: skip

    def _hold(self, call: ClientCall) -> None:
        """Set the dearest of the models' worst cases aside, and bound the output by it. Raises BudgetExceededError."""
        if self._costs is None:
            return
        ceilings = [max_output(model) or DEFAULT_MAX_OUTPUT for model in call.models]
        limit = call.output_limit or max(ceilings)
        choices = call.body.get("n") if isinstance(call.body.get("n"), int) else 1
        worst: int | None = 0
        for model in call.models:
            price = self._price(model)
            tokens = upper_bound("chat", call.body, model)
            if price is None or worst is None:
                worst = None
                continue
            output = price.worst_output_nanousd_per_token(tokens) * limit * (choices or 1)
            worst = max(worst, price.per_request + price.worst_input_nanousd(tokens) + output)
        call.held = self._costs.hold(worst)
        call.output_limit = limit

    def _price(self, model: str) -> Any:
        return self._prices.lookup(self._access.price_list, model, provider=self.provider_name)

    def _failed(self, call: ClientCall, error: AdapterError) -> LLMClientError:
        failure = client_error(error, provider=self.provider_name, status=call.status)
        call.failed(failure)
        return failure

    async def _generated(self, call: ClientCall) -> LLMResponse:
        self._hold(call)
        async with self._places:
            begun = await self._begin(call, stream=False)
        assert begun.answer is not None
        completion = begun.answer.completion
        call.text = [content_of(completion)]
        call.finish_reason = finish_of(completion)
        taken_s = call.seconds()
        if call.tries[-1].meter.reported is None:
            response = await asyncio.to_thread(call.response, taken_s)
        else:
            response = call.response(taken_s)
        return replace(response, completion=completion)

    async def _begin(self, call: ClientCall, *, stream: bool) -> Opened:
        """Return the first answer that begins. Raises the last model's AdapterError."""
        failure: AdapterError | None = None
        for model in call.models:
            failed, rotated, wait = 0, 0, False
            while failed < self._retry.attempts:
                if wait:
                    await asyncio.sleep(self._retry.wait_s(failure, failed))
                credentials = self._rotation.next()
                call.status = None
                try:
                    return await self._attempt(call, model, credentials, stream=stream)
                except InvalidRequestError as error:
                    failure = failure or error  # another model may take it
                    break
                except UpstreamError as error:
                    failure = error
                    if self._rotation.failed(credentials, error) and rotated < len(self._rotation) - 1:
                        rotated, wait = rotated + 1, False
                        continue
                    if error.code == "model_not_found":
                        break
                    if not is_safe(error):
                        raise
                    if self._retry.hopeless(error):
                        break
                    failed, wait = failed + 1, True
        assert failure is not None
        raise failure

    async def _attempt(self, call: ClientCall, model: str, credentials: Credentials, *, stream: bool) -> Opened:
        body = {**call.body, "model": model, **({"stream": True} if stream else {})}
        asked = Call(
            raw=orjson.dumps(body), body=body, upstream_model=model, output_limit=call.output_limit, stream=stream,
            call_id=str(call.kwargs["request_id"]), created=int(time.time()),  # noqa: TID251 - `created` is wall time
        )  # fmt: skip
        asked = await self._with_media(asked)
        exchange = self._adapter.exchange(asked)
        request = await credentials.apply(exchange.request)
        meter = Meter(model, lambda: count_input("chat", body, model))
        this = Try(model=model, price=self._price(model), meter=meter, billable=True)
        call.tries.append(this)
        response = await sent(self._access.transport, request, self._timeouts, this)
        if response.status >= FIRST_REDIRECT:
            call.status = response.status
        return await opened(exchange, response, this, stream=stream)

    async def _with_media(self, call: Call) -> Call:
        wanted = self._adapter.wanted_media(call)
        if not wanted:
            return call
        from adapters.transport.guard import MediaFetcher

        fetcher = MediaFetcher()
        try:
            return msgspec.structs.replace(
                call, media={url: await fetcher.fetch(url, 20 * 1024 * 1024, 20.0) for url in wanted}
            )
        finally:
            await fetcher.close()


def _cached_by(call: ClientCall) -> JSON:
    return {**call.body, "models": call.models, "limit": call.output_limit, "user": call.kwargs["user"]}


def _timeouts(total_s: float | None) -> Timeouts:
    if total_s is None:
        return Timeouts()
    return Timeouts(first_token=min(120, total_s), idle=min(60, total_s), total=total_s)
