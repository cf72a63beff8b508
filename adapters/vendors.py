"""Where each vendor's own API is, and whose public prices an endpoint has."""

from collections.abc import Mapping

from adapters.quirks import is_openai

BASE_URLS: Mapping[str, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "vertex": "https://{location}-aiplatform.googleapis.com",
    "bedrock": "https://bedrock-runtime.{region}.amazonaws.com",
    "xai": "https://api.x.ai/v1",
}
LOCATION = "us-central1"
REGION = "us-east-1"


# A stream that its client leaves is billed to its end there.
# Source: https://openrouter.ai/docs/api-reference/streaming (which of its providers stop at cancellation)
_BILL_AFTER_CANCEL_KINDS = frozenset({"bedrock"})
_BILL_AFTER_CANCEL_PRESETS = frozenset({"openrouter"})


def bills_after_cancel(kind: str, preset: str | None) -> bool:
    """Tell whether to cancel a stream does not stop its bill."""
    return kind in _BILL_AFTER_CANCEL_KINDS or preset in _BILL_AFTER_CANCEL_PRESETS


def vendor_url(kind: str, *, location: str | None = None, region: str | None = None) -> str:
    """Return the base URL of a kind's own API, "" where each customer has one of its own (azure)."""
    url = BASE_URLS.get(kind, "")
    if location == "global":
        url = url.replace("{location}-", "")
    return url.format(location=location or LOCATION, region=region or REGION)


def price_list_of(kind: str, preset: str | None, base_url: str | None) -> str | None:
    """Return whose prices apply: a vendor's own endpoint (`base_url` None) has its vendor's, any other address none."""
    if base_url is not None and kind != "azure" and not is_openai(base_url):
        return None
    return preset or (None if kind == "fake" else kind)
