"""Tells callbacks and alerts of the calls that the proxy relays, after the fact: a call never waits for any of it.

A start is told when the call is sent upstream, the end or the failure when it is settled; what was billed comes with either.
What a stranger would get wrong: handlers see prompts and answers, as the interface says, so they are the operator's own code.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from prometheus_client import CollectorRegistry

from accounting.budgets import Budget
from accounting.callbacks.alerts import BudgetAlerts, Teller
from accounting.callbacks.handler import JSON
from accounting.callbacks.marks import Marks
from accounting.callbacks.metrics import CallbackMetrics
from accounting.callbacks.registry import load_callbacks
from accounting.callbacks.runner import CallbackRunner
from accounting.callbacks.webhook import Webhook
from accounting.charge import Charge, Receipt
from accounting.ledger import Ledger
from accounting.meter import Meter
from accounting.reading import Reader
from accounting.supervisor import Supervisor
from accounting.tokens.output import OutputCount
from adapters.base import UpstreamRequest
from adapters.clients.texts import content_of
from adapters.errors import AdapterError, UpstreamError
from adapters.transport.base import Timeouts, Transport
from proxy.attempts import Plan, Trier
from proxy.beginning import Begun
from proxy.config.model import Alerts

CONTENT_CHARS_MAX = 1024 * 1024  # of an answer that is kept for callbacks
OPEN_MAX = 10_000  # calls whose start was told and whose end was not yet
_NANO = 1_000_000_000
_ENDED = frozenset({"ok", "cut", "disconnect"})
_POST_TIMES = Timeouts(connect=3, tls=5, first_token=10, idle=10, total=10)


@dataclass(slots=True)
class _Open:
    kwargs: JSON
    content: list[str] = field(default_factory=list)
    chars: int = 0
    error: AdapterError | None = None

    def hear(self, chunks: Iterable[JSON]) -> None:
        for chunk in chunks:
            text = content_of(chunk)
            if text and self.chars < CONTENT_CHARS_MAX:
                self.content.append(text)
                self.chars += len(text)


class CallbackFeed:
    """What callbacks hear. While there are none, calls are not even noted, and no thread runs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._metrics = CallbackMetrics(registry)
        self._metrics.expect("none")  # so that the names are there before there are callbacks
        self.runner = CallbackRunner(on_run=self._metrics.ran)
        self._metrics.watch(lambda: self.runner.active)
        self._configured: tuple[str, ...] = ()
        self._open: dict[str, _Open] = {}

    def retune(self, names: Sequence[str]) -> None:
        """Let those of the configuration hear from now on, those that left it no more; the others keep their state.

        Raises CallbackNotFoundError for a name that leads to no handler; then nothing has changed.
        """
        for name, handler in load_callbacks(name for name in names if name not in self._configured):
            self._metrics.expect(self.runner.add(handler, name=name))
        for name in self._configured:
            if name not in names:
                self.runner.remove(name)
        self._configured = tuple(names)

    def begun(self, plan: Plan, charge: Charge) -> None:
        """Tell that a call is sent upstream."""
        if self.runner.idle:
            return
        body, target = plan.asked.body, plan.targets[0]
        kwargs = {
            "provider": target.upstream.name, "model": target.model, "temperature": body.get("temperature"),
            "max_tokens": plan.asked.limit, "request_id": charge.request_id, "user": charge.caller.user,
        }  # fmt: skip
        if len(self._open) >= OPEN_MAX:
            self._open.pop(next(iter(self._open)))
        self._open[charge.request_id] = _Open(kwargs)
        self.runner.tell("start", _messages(body), kwargs, size_bytes=len(plan.asked.raw))

    def answering(self, begun: Begun, charge: Charge) -> None:
        """Note an answer that has begun: listen to its meter."""
        known = self._open.get(charge.request_id) if self._open else None
        if known is None:
            return
        if begun.answer is not None:
            known.hear([begun.answer.completion])
        else:
            begun.attempt.meter = _Overheard(begun.attempt.meter, known)

    def refused(self, error: AdapterError, charge: Charge) -> None:
        """Note that no target answered."""
        known = self._open.get(charge.request_id)
        if known is not None:
            known.error = error

    def receipt(self, receipt: Receipt) -> None:
        """Tell of a settled call."""
        if self.runner.idle and not self._open:
            return
        known = self._open.pop(receipt.request_id, None)
        if known is None:
            if not receipt.attempts:
                return  # nothing was relayed
            known = _Open({"model": receipt.model, "request_id": receipt.request_id, "user": receipt.caller.user})
        kwargs = {**known.kwargs, "provider": receipt.provider, "outcome": receipt.outcome}
        usage, cost = receipt.usage, receipt.cost_nanousd
        spent: JSON = {
            "tokens_used": usage.total, "prompt_tokens": usage.input, "completion_tokens": usage.output,
            "cost_estimate": None if cost is None else cost / _NANO,
        }  # fmt: skip
        if receipt.outcome in _ENDED and known.error is None:
            if receipt.outcome == "disconnect":
                kwargs["cancelled"] = True
            response = {
                "content": "".join(known.content), **spent, "provider": receipt.provider,
                "model": receipt.response_model or receipt.upstream_model, "response_time": receipt.duration_s,
            }  # fmt: skip
            self.runner.tell("end", response, kwargs, size_bytes=known.chars)
            return
        error = known.error or UpstreamError("The call failed after its answer had begun.", status=502)
        self.runner.tell("error", error, kwargs | spent if usage.total else kwargs)


class _Overheard(Meter):
    """A meter that lets the feed hear what it counts."""

    def __init__(self, meter: Meter, known: _Open) -> None:
        self._meter, self._known = meter, known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meter, name)

    @property
    def output(self) -> OutputCount:  # what the meter sees is seen there
        return self._meter.output

    def observe(self, chunks: Iterable[JSON]) -> None:
        seen = list(chunks)
        self._known.hear(seen)
        self._meter.observe(seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class FedTrier(Trier):
    """A trier that tells the feed what it begins."""

    feed: CallbackFeed

    def begin(self, plan: Plan, charge: Charge) -> Coroutine[Any, Any, Begun]:
        return Trier.begin(self, plan, charge) if self.feed.runner.idle else self._told(plan, charge)

    async def _told(self, plan: Plan, charge: Charge) -> Begun:
        self.feed.begun(plan, charge)
        try:
            begun = await Trier.begin(self, plan, charge)
        except AdapterError as error:
            self.feed.refused(error, charge)
            raise
        self.feed.answering(begun, charge)
        return begun


def fed(trier: Trier, feed: CallbackFeed) -> FedTrier:
    """Return the same trier, telling the feed."""
    return FedTrier(feed=feed, **{each.name: getattr(trier, each.name) for each in fields(trier)})


def budget_alerts(
    ledger: Ledger,
    reader: Reader,
    supervisor: Supervisor,
    *,
    alerts: Callable[[], Alerts],
    transport: Callable[[], Transport],
) -> BudgetAlerts:
    """Return what tells of soft thresholds: to the log, and to the webhook that is configured at that time, if any."""
    hooks: dict[tuple[str, str], Webhook] = {}

    def webhook() -> Webhook | None:
        told = alerts()
        if told.webhook is None:
            return None
        place = (told.webhook.reveal(), told.secret.reveal() if told.secret else "")
        if place not in hooks:
            hooks[place] = Webhook(place[0], posting(transport), secret=place[1])
        return hooks[place]

    async def used_now(budget: Budget) -> int:
        (balance,) = await reader.balances([budget], ledger.now_ms())
        return balance.row.used

    def spawn(work: Coroutine[Any, Any, None], name: str) -> object:
        return supervisor.spawn(work, name=name)

    teller = Teller(Marks(ledger.store), webhook)
    return BudgetAlerts(teller, spawn=spawn, now_ms=ledger.now_ms, used_now=used_now)


def posting(transport: Callable[[], Transport]) -> Callable[[str, Mapping[str, str], bytes], Coroutine[Any, Any, int]]:
    """Return what a webhook posts with: the proxy's own transport."""

    async def post(url: str, headers: Mapping[str, str], body: bytes) -> int:
        request = UpstreamRequest(url=url, headers=tuple(headers.items()), body=body)
        response = await transport().send(request, _POST_TIMES)
        response.close()
        return response.status

    return post


def _messages(body: JSON) -> list[JSON]:
    """Return what was asked as messages, whichever operation it was."""
    messages = body.get("messages", body.get("input", body.get("prompt")))
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    return [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []
