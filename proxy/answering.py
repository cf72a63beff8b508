"""The headers of an answer: who answered, what is left of the budget, what was lowered or left out."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from accounting.charge import Receipt
from accounting.hold import HeldRow, Hold, RateRow
from proxy.amounts import rfc3339, usd_text
from proxy.beginning import Begun

_TOKEN_UNITS = ("tokens", "input_tokens", "output_tokens")
_KEPT = ("openai-processing-ms", "openai-version", "openai-organization", "openai-project")


def answer_headers(request_id: str, begun: Begun, hold: Hold, *, clamped: int | None) -> dict[str, str]:
    """Return the headers that are known when an answer begins."""
    provider, model = begun.target.names
    headers = {"x-request-id": request_id, "x-bursar-provider": provider, "x-bursar-model": header_text(model)}
    headers |= budget_headers(hold.rows) | rate_headers(hold.rates)
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
    headers: dict[str, str] = {}
    money = tokens = None
    for row in rows:
        if row.budget.mode == "shadow":
            continue
        if row.budget.unit == "usd":
            money = row if money is None or row.remaining < money.remaining else money
        elif row.budget.unit in _TOKEN_UNITS:
            tokens = row if tokens is None or row.remaining < tokens.remaining else tokens
    if money is not None:
        headers["x-budget-remaining-usd"] = usd_text(money.remaining)
    if tokens is not None:
        headers["x-budget-remaining-tokens"] = str(tokens.remaining)
    resets = [row.resets_ms for row in (money, tokens) if row is not None and row.resets_ms is not None]
    if resets:
        headers["x-budget-reset"] = rfc3339(min(resets)) or ""
    return headers


def rate_headers(rates: Sequence[RateRow]) -> dict[str, str]:
    """Return OpenAI's x-ratelimit headers, of the tightest limit for requests and for tokens."""
    headers: dict[str, str] = {}
    if not rates:
        return headers
    tightest: dict[str, RateRow] = {}
    for rate in rates:
        known = tightest.get(rate.what)
        if rate.what in ("requests", "tokens") and (known is None or rate.remaining < known.remaining):
            tightest[rate.what] = rate
    for what in ("requests", "tokens"):
        if (row := tightest.get(what)) is not None:
            headers[f"x-ratelimit-limit-{what}"] = str(row.limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(row.remaining)
            headers[f"x-ratelimit-reset-{what}"] = f"{row.reset_ms / 1000:.3f}s"
    return headers


def cost_header(receipt: Receipt) -> dict[str, str]:
    """Return what the call cost, where a price is known."""
    return {} if receipt.cost_nanousd is None else {"x-bursar-cost-usd": usd_text(receipt.cost_nanousd)}


@lru_cache(1024)  # the models of a configuration, and few others
def header_text(text: str) -> str:
    """Return text that is safe in a header: visible ASCII, all else as `?`."""
    text = text[:1000]
    return text if text.isascii() and text.isprintable() else "".join(c if " " <= c <= "~" else "?" for c in text)
