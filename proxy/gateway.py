"""One call's way through the house: who calls, what is asked, on what terms, who answers, and what it came to."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from accounting.charge import Charge, Till, charged
from accounting.hold import ConfigChangedError, RefusedError
from accounting.store.errors import StoreError
from accounting.supervisor import Supervisor
from accounting.tokens.counter import count_input, needs_thread
from accounting.tokens.families import encoding_for
from accounting.tokens.ranks import loaded
from adapters.base import Operation
from adapters.errors import AdapterError
from proxy.admission import Terms
from proxy.answering import answer_headers, cost_header, upstream_headers
from proxy.asked import Asked, read_request
from proxy.attempts import Begun, Plan, Trier
from proxy.auth import end_user, without_user
from proxy.config.environment import CallDefaults
from proxy.config.model import Server, Timeouts
from proxy.errors import ClientError, from_adapter, model_not_found, unavailable
from proxy.principal import Principal
from proxy.refusals import refusal
from proxy.rules import Rules
from proxy.streaming import Grant, Relay, read_to_end, tend
from proxy.upstreams import Target

_RULES_TRIES = 3
_SSE_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A call that may be reserved: everything that admission found out about it."""

    request_id: str
    asked: Asked
    principal: Principal
    targets: list[Target]
    terms: Terms

    def notes(self) -> dict[str, object]:
        """Return what the journal needs to charge the call after a crash; no prompt."""
        caller, (provider, model) = self.principal.caller, self.targets[0].names
        price = self.terms.prices[0]
        return {
            "key": caller.key, "user": caller.user, "team": caller.team, "provider": provider, "model": model,
            "asked": self.asked.model, "input": self.terms.input_tokens,
            "output_nanousd": price.worst_output_nanousd_per_token(self.terms.input_tokens) if price else 0,
            "input_nanousd": price.worst_input_nanousd(self.terms.input_tokens) if price else 0,
        }  # fmt: skip


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
    reload: Callable[[str], Awaitable[None]]  # brings `rules` to at least this version of what is stored

    async def call(self, request: web.BaseRequest, operation: Operation, request_id: str) -> web.StreamResponse:
        """Serve one POST. Raises ClientError."""
        raw = await self.body(request)
        for attempt in range(_RULES_TRIES):
            rules = self.rules
            principal = rules.gate.admit(request.headers, self.till.ledger.now_ms())
            asked = read_request(operation, raw, self.defaults)
            principal = end_user(principal, request.headers, asked.body)
            asked = without_user(principal, asked)
            targets = self._targets(rules, asked, principal)
            terms = await self._terms(rules, asked, principal, targets)
            admitted = Admitted(request_id=request_id, asked=asked, principal=principal, targets=targets, terms=terms)
            try:
                return await self._charged(request, admitted)
            except ConfigChangedError as error:
                if attempt + 1 == _RULES_TRIES:
                    raise refusal(error) from error
                await self.reload(error.version)
            except RefusedError as error:
                raise refusal(error) from error
            except StoreError as error:
                raise unavailable(
                    "The budget store cannot be reached, and a budget of this caller refuses calls without it.",
                    code="budget_store_unavailable",
                ) from error
        raise AssertionError("unreachable")

    async def body(self, request: web.BaseRequest) -> bytes:
        """Return the body, within its limits. Raises ClientError 408, 413, 415."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise ClientError(415, "Content-Encoding is not supported for requests; send the body as it is.")
        try:
            async with asyncio.timeout(self.server.body_seconds):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise ClientError(
                413, f"The body is larger than {self.server.max_body_bytes} bytes.", code="request_too_large"
            ) from error
        except TimeoutError as error:
            late = ClientError(408, "The body did not arrive in time.", code="request_timeout")
            late.close = True
            raise late from error

    @staticmethod
    def _targets(rules: Rules, asked: Asked, principal: Principal) -> list[Target]:
        targets = rules.router.targets(asked.model) if principal.may_use(asked.model) else []
        targets = [t for t in targets if asked.operation in t.upstream.adapter.operations]
        if not targets:
            raise model_not_found(asked.model)
        return targets

    async def _terms(self, rules: Rules, asked: Asked, principal: Principal, targets: list[Target]) -> Terms:
        tokens, far = rules.admitter.bound(asked, principal.caller, targets)
        if not far:
            models = {target.model for target in targets}
            counts = [await _counted(asked, model) for model in models]
            tokens = min(tokens, max(counts))
        return rules.admitter.terms(asked, principal.caller, targets, tokens)

    async def _charged(self, request: web.BaseRequest, admitted: Admitted) -> web.StreamResponse:
        asked, caller, terms = admitted.asked, admitted.principal.caller, admitted.terms
        async with charged(
            self.till,
            terms.ask,
            request_id=admitted.request_id,
            caller=caller,
            model=asked.model,
            notes=admitted.notes(),
        ) as charge:
            plan = Plan(asked=asked, targets=admitted.targets, terms=terms, created=int(time.time()))  # noqa: TID251 - `created` is wall time
            try:
                begun = await self.trier.begin(plan, charge)
            except AdapterError as error:
                charge.outcome = "refused" if error.status < 500 else "upstream_error"  # noqa: PLR2004
                raise from_adapter(error) from error
            except asyncio.CancelledError:
                charge.outcome = "disconnect"
                raise
            clamped = charge.hold.granted if terms.clamps and charge.hold.granted < terms.ask.wanted else None
            headers = answer_headers(admitted.request_id, begun, charge.hold, clamped=clamped)
            if begun.answer is not None:
                receipt = await charge.finish("ok")
                headers |= cost_header(receipt)
                return web.Response(body=begun.answer.body, headers=headers, content_type="application/json")
            return await self._stream(request, admitted, charge, begun, headers)

    async def _stream(
        self, request: web.BaseRequest, admitted: Admitted, charge: Charge, begun: Begun, headers: dict[str, str]
    ) -> web.StreamResponse:
        assert begun.response is not None
        headers |= upstream_headers(begun.response.headers, own_rates=bool(charge.hold.rates)) | _SSE_HEADERS
        response = web.StreamResponse(headers=headers)
        asked, terms = admitted.asked, admitted.terms
        grant = Grant.of(charge.hold.granted, asked.choices, begun.target.model, clamps=terms.clamps)
        relay = Relay(begun, charge, grant, response.write)
        tending = None
        charge.outcome = "disconnect"  # unless it comes to its end
        try:
            await response.prepare(request)
            tending = self.supervisor.spawn(self._tend(relay, request, response), name="tend")
            charge.outcome = await relay.run()
            await response.write_eof()
        except ConnectionError:
            charge.outcome = "disconnect"
        finally:
            if tending is not None:
                tending.cancel()
            if charge.outcome == "ok":
                self.supervisor.spawn(read_to_end(begun.response), name="read to end")
            else:
                begun.response.close()
        return response

    async def _tend(self, relay: Relay, request: web.BaseRequest, response: web.StreamResponse) -> None:
        def abort() -> None:
            if request.transport is not None:
                request.transport.abort()

        comment_s, stall_s = self.server.keepalive_comment_s, self.timeouts.write_stall_s
        with suppress(ConnectionError):
            await tend(relay, response.write, comment_s=comment_s, stall_s=stall_s, abort=abort)


async def _counted(asked: Asked, model: str) -> int:
    """Count exactly; in a thread where that would hold up the loop."""
    if needs_thread(len(asked.raw)) or not loaded(encoding_for(model)[0]):
        return await asyncio.to_thread(count_input, asked.operation, asked.body, model)
    return count_input(asked.operation, asked.body, model)
