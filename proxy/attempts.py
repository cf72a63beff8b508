"""Tries a call's targets until one begins to answer: each in its turn, then each once more after a pause.

Nothing has reached the client yet, so trying again is safe; what an attempt may be billed for stays on the charge, and nothing
is sent that the hold does not cover. Another target or another API key is tried at once: that adds to nobody's load. The same
target again waits (`retry-after`, else jitter) and is counted against the retry budget of all calls.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic  # what asyncio's loops tell the time by, without two calls

import msgspec

from accounting.charge import Attempt, Charge
from accounting.meter import Meter
from accounting.tokens.counter import count_input
from adapters.base import Call, Media
from adapters.credentials.base import signed
from adapters.errors import (
    AdapterError,
    InvalidRequestError,
    UpstreamError,
    UpstreamTimeoutError,
)
from adapters.opening import opened, sent
from adapters.retrying import FORBIDDEN, concerns_key, is_safe, retry_after_s
from adapters.transport.base import Timeouts
from proxy.admission import Terms
from proxy.asked import Asked
from proxy.beginning import Begun
from proxy.health import REFUSED_S, Health
from proxy.latency import Latencies
from proxy.retrying import RetryBudget, blames_target, grant_left, is_far_away, wait_s
from proxy.upstreams import Target

_THINKS = re.compile(r"(^|[/.-])(o\d|gpt-5|gpt-oss|grok-[34]|deepseek-r|qwq)|reason|think|research|magistral|-pro\b")
_ONLY: Sequence[int] = (0,)

Fetch = Callable[[str], Awaitable[Media]]


class Plan(msgspec.Struct, frozen=True):
    """What is to be tried: the request, its targets in order, the terms it was admitted on, and when (Unix seconds)."""

    asked: Asked
    targets: Sequence[Target]
    terms: Terms
    created: int


class _Course(msgspec.Struct, kw_only=True):
    """How far one call has come."""

    plan: Plan
    charge: Charge
    granted: int
    until_s: float
    attempts: list[Attempt] = []
    given_up: set[int] = set()
    used_keys: dict[int, set[int]] = {}
    failures: dict[int, AdapterError] = {}
    failure: AdapterError | None = None
    repeated: bool = False  # some target was asked again

    def final(self) -> AdapterError:
        """Return what the client is told: not to multiply our retries by its own."""
        assert self.failure is not None
        if (
            isinstance(self.failure, UpstreamError)
            and self.repeated
            and is_safe(self.failure)
            and not is_far_away(self.failure)
        ):
            self.failure.headers["x-should-retry"] = "false"
        return self.failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Trier:
    """How this sidecar tries. `tries` per target, the first included."""

    tries: int
    retries: RetryBudget
    fetch: Fetch
    on_failure: Callable[[Target, AdapterError], None]
    health: Health = field(default_factory=Health)
    latencies: Latencies = field(default_factory=Latencies)

    async def begin(self, plan: Plan, charge: Charge) -> Begun:
        """Return the first answer that begins. Raises the last target's AdapterError."""
        self.retries.earned()
        targets = plan.targets
        if len(targets) == 1:
            order, total_s = _ONLY, targets[0].limits.total
        else:
            order, total_s = self._order(targets), max([target.limits.total for target in targets])
        course = _Course(
            plan=plan, charge=charge, granted=plan.terms.granted(charge.hold), until_s=monotonic() + total_s
        )
        for turn in range(self.tries):
            for number in order:
                if number in course.given_up or (turn and not await self._may_try_again(course, number, turn)):
                    continue
                if (begun := await self._target(course, number)) is not None:
                    return begun
        raise course.final()

    def ended(self, begun: Begun, outcome: str) -> None:
        """Hear how a stream ended: one that broke off speaks against its target as much as one that never began."""
        breaker = self.health.of(begun.target.place)
        if outcome == "upstream_error":
            breaker.failed(monotonic())
        elif outcome in ("ok", "cut"):
            breaker.succeeded(monotonic())

    def _order(self, targets: Sequence[Target]) -> Sequence[int]:
        """Put targets last that have no API key fit for use, and leave out those that keep failing."""
        now_s = monotonic()
        fit = self.health.order([target.place for target in targets], now_s)
        return sorted(fit, key=lambda number: not targets[number].upstream.keys.ready(now_s))

    async def _may_try_again(self, course: _Course, number: int, turn: int) -> bool:
        pause_s, fit = (
            wait_s(course.failures.get(number), turn),
            self.health.fit(course.plan.targets[number].place, monotonic()),
        )
        if not fit or monotonic() + pause_s >= course.until_s or not self.retries.take():
            course.given_up.add(number)
            return False
        course.repeated = True
        await asyncio.sleep(pause_s)
        return True

    async def _target(self, course: _Course, number: int) -> Begun | None:
        """Try one target, with another API key where one was refused. Raises what no other try may follow."""
        target = course.plan.targets[number]
        used = course.used_keys.setdefault(number, set())
        while True:
            key = target.upstream.next_key(target.stick_to, used)
            used.add(key)
            try:
                begun = await self._attempt(course, number, key)
            except InvalidRequestError as error:
                course.given_up.add(number)  # another target may take it
                course.failure = course.failure or error
                return None
            except UpstreamError as error:
                self._note(target, key, error)
                course.failures[number] = course.failure = error
                if not self._may_follow(course, error):
                    raise course.final() from error
                if is_far_away(error):
                    course.given_up.add(number)
                if not (concerns_key(error) and target.upstream.keys.ready_without(used, monotonic())):
                    return None
            else:
                target.upstream.keys.accepted(key)
                return begun

    @staticmethod
    def _may_follow(course: _Course, error: UpstreamError) -> bool:
        if not is_safe(error) or monotonic() >= course.until_s:
            return False
        left = grant_left(course.charge.hold, course.plan.terms.ask, course.attempts)
        first = course.charge.hold.granted
        course.granted = course.plan.terms.granted(course.charge.hold) if left == first else left or 0
        return left is not None

    def _note(self, target: Target, key: int, error: UpstreamError) -> None:
        """Remember what a failure says, of the target or of the API key."""
        self.on_failure(target, error)
        breaker, keys, now_s = self.health.of(target.place), target.upstream.keys, monotonic()
        if blames_target(error):
            breaker.failed(now_s, slow=isinstance(error, UpstreamTimeoutError) and not is_safe(error))
            return
        breaker.inconclusive()
        if error.code == "upstream_auth_error":
            keys.refused(key, now_s)
        elif concerns_key(error):
            told_s = REFUSED_S if error.status == FORBIDDEN else retry_after_s(error)
            keys.limited(key, now_s, told_s, spent=error.code == "insufficient_quota")

    async def _attempt(self, course: _Course, number: int, key: int) -> Begun:
        plan, charge = course.plan, course.charge
        target, asked = plan.targets[number], plan.asked
        upstream, model, request_id = target.upstream, target.model, charge.request_id
        call = call_for(plan, number, request_id, course.granted)
        if wanted := upstream.adapter.wanted_media(call):
            call = msgspec.structs.replace(call, media={url: await self.fetch(url) for url in wanted})
        exchange = upstream.adapter.exchange(call)
        ours = ("x-request-id", request_id)  # so that the provider's logs and ours can be laid side by side
        request = await signed(exchange.request, upstream.credentials[key], (*upstream.headers, ours))
        meter = Meter(model, lambda: count_input(asked.operation, asked.body, model))
        attempt = charge.begin(Attempt(target.names[0], model, plan.terms.prices[number], meter, billable=True))
        course.attempts.append(attempt)
        breaker, sent_s = self.health.of(target.place), monotonic()
        breaker.began(sent_s)
        try:
            times = limits(target, asked, course.until_s - sent_s)
            response = await sent(upstream.transport, request, times, attempt, whole=not asked.stream)
            found = await opened(exchange, response, attempt, stream=asked.stream)
        except asyncio.CancelledError:
            breaker.inconclusive()
            raise
        now_s = monotonic()
        if asked.stream:
            breaker.answered()
        else:
            breaker.succeeded(now_s)
        self.latencies.observed((target.place, asked.stream), now_s - sent_s, now_s)
        return Begun(
            target=target, exchange=exchange, attempt=attempt, granted=course.granted,
            answer=found.answer, translator=found.translator, response=found.response, first=found.first,
        )  # fmt: skip


def limits(target: Target, asked: Asked, left_s: float) -> Timeouts:
    """Return the time limits of one attempt: patient where a first byte takes long for a good reason."""
    own = target.limits
    if own is not target.patient_limits and (not asked.stream or _thinks(asked, target.model)):
        own = target.patient_limits
    total_s = own.total if left_s > own.total else max(0.001, left_s)
    return Timeouts(connect=own.connect, tls=own.tls, first_token=own.first_token, idle=own.idle, total=total_s)


def _thinks(asked: Asked, model: str) -> bool:
    told = asked.body.get("reasoning_effort") or asked.body.get("reasoning")
    return bool(told) or asked.thinking > 0 or _THINKS.search(model.lower()) is not None


def call_for(plan: Plan, number: int, call_id: str, granted: int) -> Call:
    """Return the call as the target of that number gets it."""
    asked, terms = plan.asked, plan.terms
    return Call(
        operation=asked.operation,
        raw=asked.raw,
        body=asked.body,
        upstream_model=plan.targets[number].model,
        output_limit=output_limit(asked, terms, granted, terms.ceilings[number]),
        stream=asked.stream,
        show_usage=asked.show_usage or asked.operation == "responses",
        call_id=call_id,
        created=plan.created,
    )


def output_limit(asked: Asked, terms: Terms, granted: int, ceiling: int) -> int | None:
    """Return the limit to send upstream; None where the client's own words may go as they are."""
    if asked.operation == "embeddings":
        return None
    if asked.limit is not None:
        return granted if granted < asked.limit or (asked.two_limits and terms.clamps) else None
    return min(granted, max(ceiling, asked.thinking + 1)) if terms.clamps else None
