"""One call's way through the house: who calls, what is asked, on what terms, who answers, and what it came to."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from accounting.charge import Charge, Till, charged
from accounting.hold import ConfigChangedError, RefusedError
from accounting.store.errors import StoreError
from accounting.supervisor import Supervisor
from adapters.base import Operation
from adapters.errors import AdapterError, UpstreamError
from proxy.admission import Terms
from proxy.admitted import Admitted, counted
from proxy.answering import answer_headers, cost_header, rate_headers, upstream_headers
from proxy.asked import Asked, read_request
from proxy.attempts import Plan, Trier
from proxy.auth import end_user, without_user
from proxy.beginning import Begun
from proxy.cache import AnswerCache, Kept, asks_only_for_speed, headers_of
from proxy.config.environment import CallDefaults
from proxy.config.model import Config, Server, Timeouts
from proxy.errors import ClientError, from_adapter, unavailable
from proxy.grant import Grant
from proxy.outlet import Outlet
from proxy.principal import Principal
from proxy.refusals import refusal
from proxy.retrying import RetryBudget
from proxy.rules import Rules
from proxy.serving.request import BodyTooLargeError, Request
from proxy.serving.response import Answer, Response, StreamedResponse
from proxy.slices import Slices
from proxy.standing import Way
from proxy.streaming import Relay, read_to_end
from proxy.telemetry import Telemetry
from proxy.tending import Tender

RULES_TRIES = 3
_SSE_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


@dataclass(slots=True, kw_only=True)
class Gateway:
    """What every call needs. `rules` is replaced whole when keys, budgets or the file change."""

    rules: Rules
    till: Till
    trier: Trier
    supervisor: Supervisor
    server: Server
    timeouts: Timeouts
    defaults: CallDefaults
    version: Callable[[], Awaitable[str]]  # of what is stored; raises StoreError
    reload: Callable[[str], Awaitable[None]]  # brings `rules` to at least this version of what is stored
    cache: AnswerCache
    telemetry: Telemetry
    streams: set[Relay] = field(default_factory=set)
    tender: Tender = field(default_factory=Tender)

    async def call(self, request: Request, operation: Operation, request_id: str) -> Answer:
        """Serve one POST. Raises ClientError."""
        raw = await self.body(request)
        began_s = self.till.ledger.store.now_s()
        for attempt in range(RULES_TRIES):
            last = attempt + 1 == RULES_TRIES
            admitted, rules = await self._admitted(request, operation, raw, request_id, began_s)
            ask = admitted.terms.ask
            if not (last or ask.draws or ask.rates) and await self._changed(rules):
                continue  # the ledger, which would have noticed, is not asked
            try:
                if admitted.cache_key is not None:
                    kept = await self.cache.find(admitted.cache_key, request.headers, self.till.ledger.now_ms())
                    if kept is not None:
                        return await self._kept(admitted, kept)
                return await self._charged(request, admitted)
            except ConfigChangedError as error:
                if last:
                    raise refusal(error) from error
                await self._catch_up(error.version)
            except RefusedError as error:
                raise refusal(error) from error
            except StoreError as error:
                raise _store_away() from error
        raise AssertionError("unreachable")

    async def _admitted(
        self, request: Request, operation: Operation, raw: bytes, request_id: str, began_s: float
    ) -> tuple[Admitted, Rules]:
        """Return the call as it may be reserved, and the rules that say so. Raises ClientError."""
        headers = request.headers
        rules, principal = await self.admit(headers)
        asked = read_request(operation, raw, self.defaults)
        if principal.user_from is not None:
            principal = end_user(principal, headers, asked.body)
            asked = without_user(principal, asked)
        way = rules.way(asked, principal)
        terms, far = rules.admitter.bound(asked, way)
        if not far:
            terms = await self._counted(rules, asked, way, terms)
        cache_key = self.cache.key(asked, principal, way.targets, headers)
        return Admitted(request_id, asked, principal, way.targets, terms, cache_key, began_s), rules

    async def _catch_up(self, version: str) -> None:
        """Read anew what is stored. Raises ClientError when the store went away in between."""
        try:
            await self.reload(version)
        except StoreError as error:
            raise _store_away() from error

    def interrupt(self) -> None:
        """End all streams now, each with an event that says why."""
        for relay in tuple(self.streams):
            relay.interrupt(
                UpstreamError("This Bursar is shutting down.", status=503, type="server_error", code="draining")
            )

    def retune(self, config: Config) -> None:
        """Take over what a new configuration says of time and retries; calls in flight keep what they began with."""
        self.server, self.timeouts, self.cache.config = config.server, config.timeouts, config.cache
        if config.retries.budget != self.trier.retries.share:
            self.trier = replace(self.trier, retries=RetryBudget(config.retries.budget))
        self.trier = replace(self.trier, tries=config.retries.attempts)

    async def admit(self, headers: Mapping[str, str], *, ask_store: bool = False) -> tuple[Rules, Principal]:
        """Return the rules in force and who calls; a key made a moment ago counts, with `ask_store` also one revoked a moment ago.

        Raises ClientError 401.
        """
        rules = self.rules
        try:
            principal = rules.gate.admit(headers, self.till.ledger.now_ms())
            if not ask_store or not await self._changed(rules):
                return rules, principal
        except ClientError:
            if not await self._changed(rules):
                raise
        return self.rules, self.rules.gate.admit(headers, self.till.ledger.now_ms())

    async def _changed(self, rules: Rules) -> bool:
        """Ask whether keys or budgets were stored or removed since, and bring the rules up to it. Without the store: no."""
        with suppress(StoreError):
            version = await self.version()
            if version != rules.version:
                await self.reload(version)
        return self.rules is not rules

    async def body(self, request: Request) -> bytes:
        """Return the body, within its limits. Raises ClientError 408, 413, 415."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise ClientError(415, "Content-Encoding is not supported for requests; send the body as it is.")
        try:
            if request.complete:  # it came with the head, as most do
                body = await request.read()
            elif (request.content_length or 0) > self.server.max_body_bytes:
                raise self._too_large()  # before more of it is read
            else:
                async with asyncio.timeout(self.server.body_seconds):
                    body = await request.read()
        except BodyTooLargeError as error:
            raise self._too_large() from error
        except TimeoutError as error:
            late = ClientError(408, "The body did not arrive in time.", code="request_timeout")
            late.close = True
            raise late from error
        if len(body) > self.server.max_body_bytes:  # it may be less than when the body began to come
            raise self._too_large()
        return body

    async def _counted(self, rules: Rules, asked: Asked, way: Way, terms: Terms) -> Terms:
        """Return the terms for the input as it is, where its bound is too near to a limit."""
        counts = [await counted(asked, model) for model in {target.model for target in way.targets}]
        return rules.admitter.terms(asked, way, min(terms.input_tokens, max(counts)))

    def _too_large(self) -> ClientError:
        return ClientError(
            413, f"The body is larger than {self.server.max_body_bytes} bytes.", code="request_too_large"
        )

    async def _charged(self, request: Request, admitted: Admitted) -> Answer:
        asked, caller, terms = admitted.asked, admitted.principal.caller, admitted.terms
        async with charged(
            self.till,
            terms.ask,
            request_id=admitted.request_id,
            caller=caller,
            model=asked.model,
            notes=admitted.notes(),
        ) as charge:
            self.telemetry.admission.note(charge.began_s - admitted.began_s)
            self.telemetry.reserve.note(self.till.ledger.store.now_s() - charge.began_s)
            plan = Plan(asked, admitted.targets, terms, int(time.time()))  # noqa: TID251 - `created` is wall time
            try:
                begun = await self.trier.begin(plan, charge)
            except AdapterError as error:
                charge.outcome = "refused" if error.status < 500 else "upstream_error"  # noqa: PLR2004
                raise from_adapter(error) from error
            except asyncio.CancelledError:
                charge.outcome = "disconnect"
                raise
            request.protocol.stall_s = begun.target.write_stall_s or self.timeouts.write_stall_s
            clamped = begun.granted if terms.clamps and begun.granted < terms.wanted else None
            headers = answer_headers(admitted.request_id, begun, charge.hold, clamped=clamped)
            if begun.answer is not None:
                receipt = await charge.finish("ok")
                headers |= cost_header(receipt)
                if admitted.cache_key is not None:
                    headers["x-bursar-cache"] = "miss"
                    keeping = self.cache.keep(
                        admitted.cache_key, begun.target, begun.answer.body, self.till.ledger.now_ms()
                    )
                    self.supervisor.spawn(keeping, name="keep")
                return Response(body=begun.answer.body, headers=headers, content_type="application/json")
            return await self._stream(request, admitted, charge, begun, headers)

    async def _kept(self, admitted: Admitted, kept: Kept) -> Answer:
        """Answer from the cache: no provider is asked, nothing is spent."""
        caller, ask = admitted.principal.caller, asks_only_for_speed(admitted.terms.ask)
        async with charged(
            self.till,
            ask,
            request_id=admitted.request_id,
            caller=caller,
            model=admitted.asked.model,
            notes=admitted.notes(),
        ) as charge:
            await charge.finish("cached")
            headers = {"x-request-id": admitted.request_id, **headers_of(kept), **rate_headers(charge.hold.rates)}
            return Response(body=kept.body, headers=headers, content_type="application/json")

    async def _stream(
        self, request: Request, admitted: Admitted, charge: Charge, begun: Begun, headers: dict[str, str]
    ) -> Answer:
        assert begun.response is not None
        headers |= upstream_headers(begun.response.headers, own_rates=bool(charge.hold.rates)) | _SSE_HEADERS
        response = StreamedResponse(headers=headers)
        asked, terms = admitted.asked, admitted.terms
        grant, more = Grant.of(begun.granted, asked.choices, begun.target.model, clamps=terms.clamps), None
        if charge.hold.reserved and begun.granted > charge.hold.granted:
            slices = Slices(charge, terms.ask, begun.granted, asked.choices, begun.target.model)
            grant, more = slices.grant(), slices.more
        relay = Relay(begun, charge, grant, Outlet(request, response), more)
        self.streams.add(relay)
        charge.outcome = "disconnect"  # unless it comes to its end
        try:
            await response.prepare(request)
            self._tend(relay, request)
            charge.outcome = await relay.run()
            await response.write_eof()
        except ConnectionError:
            charge.outcome = "disconnect"
        finally:
            self.tender.discard(relay)
            self.streams.discard(relay)
            self.trier.ended(begun, charge.outcome)
            if charge.outcome == "ok" and not begun.response.ended:
                self.supervisor.spawn(read_to_end(begun.response), name="read to end")
            else:
                begun.response.close()
        return response

    def _tend(self, relay: Relay, request: Request) -> None:
        def abort() -> None:
            if request.transport is not None:
                request.transport.abort()

        stall_s = request.protocol.stall_s
        self.tender.add(relay, comment_s=self.server.keepalive_comment_s, stall_s=stall_s, abort=abort)


def _store_away() -> ClientError:
    return unavailable(
        "The budget store cannot be reached, and a budget of this caller refuses calls without it.",
        code="budget_store_unavailable",
    )
