"""The headers of an answer: who answered, what is left of the budget, what was lowered or left out."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from accounting.charge import Receipt
from accounting.hold import HeldRow, Hold, RateRow
from proxy.amounts import rfc3339, usd_text
from proxy.beginning import Begun

_TOKEN_UNITS = ("tokens", "input_tokens", "output_tokens")
_RATES = (
    ("requests", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("tokens", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
)
_KEPT = ("openai-processing-ms", "openai-version", "openai-organization", "openai-project")


def answer_headers(request_id: str, begun: Begun, hold: Hold, *, clamped: int | None) -> dict[str, str]:
    """Return the headers that are known when an answer begins."""
    provider, model = begun.target.names
    headers = {"x-request-id": request_id, "x-bursar-provider": provider, "x-bursar-model": header_text(model)}
    if hold.rows:
        headers |= budget_headers(hold.rows)
    if hold.rates:
        headers |= rate_headers(hold.rates)
    if clamped is not None:
        headers["x-budget-clamped"] = str(clamped)
    if begun.exchange.dropped:
        headers["x-bursar-dropped"] = header_text(", ".join(begun.exchange.dropped)[:1000])
    if not hold.reserved:
        headers["x-bursar-unreserved"] = "escrow" if hold.escrow else "true"
    return headers


def upstream_headers(headers: Mapping[str, str], *, own_rates: bool) -> dict[str, str]:
    """Return those of the provider's headers that the client gets."""
    kept = {name: headers[name] for name in _KEPT if name in headers}
    if not own_rates:
        kept |= {name: value for name, value in headers.items() if name.startswith("x-ratelimit-")}
    if "x-request-id" in headers:
        kept["x-bursar-upstream-request-id"] = headers["x-request-id"]
    return kept


def budget_headers(rows: Iterable[HeldRow]) -> dict[str, str]:
    """Return what is left of the tightest budget in money and in tokens, after this call's own hold."""
    usd = tokens = usd_resets_ms = tokens_resets_ms = None
    for row in rows:
        unit, remaining = row.budget.unit, row.remaining
        if row.budget.mode == "shadow":
            continue
        if unit == "usd":
            if usd is None or remaining < usd:
                usd, usd_resets_ms = remaining, row.resets_ms
        elif unit in _TOKEN_UNITS and (tokens is None or remaining < tokens):
            tokens, tokens_resets_ms = remaining, row.resets_ms
    headers: dict[str, str] = {}
    if usd is not None:
        headers["x-budget-remaining-usd"] = usd_text(usd)
    if tokens is not None:
        headers["x-budget-remaining-tokens"] = str(tokens)
    resets = rfc3339(_earlier(usd_resets_ms, tokens_resets_ms))
    if resets is not None:
        headers["x-budget-reset"] = resets
    return headers


def _earlier(one: int | None, other: int | None) -> int | None:
    if one is None or (other is not None and other < one):
        return other
    return one


def rate_headers(rates: Iterable[RateRow]) -> dict[str, str]:
    """Return OpenAI's x-ratelimit headers, of the tightest limit for requests and for tokens."""
    tightest: dict[str, RateRow] = {}
    for rate in rates:
        known = tightest.get(rate.what)
        if known is None or rate.remaining < known.remaining:
            tightest[rate.what] = rate
    headers: dict[str, str] = {}
    for what, limit, remaining, reset in _RATES:
        if what in tightest:
            row = tightest[what]
            headers[limit], headers[remaining] = str(row.limit), str(row.remaining)
            headers[reset] = f"{row.reset_ms / 1000:.3f}s"
    return headers


def cost_header(receipt: Receipt) -> dict[str, str]:
    """Return what the call cost, where a price is known."""
    return {} if receipt.cost_nanousd is None else {"x-bursar-cost-usd": usd_text(receipt.cost_nanousd)}


@lru_cache(1024)  # the models of a configuration, and few others
def header_text(text: str) -> str:
    """Return text that is safe in a header: visible ASCII, all else as `?`."""
    text = text[:1000]
    return text if text.isascii() and text.isprintable() else "".join(c if " " <= c <= "~" else "?" for c in text)
