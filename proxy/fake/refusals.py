"""OpenAI's error objects, as its servers word them. Source: https://platform.openai.com/docs/guides/error-codes"""

from adapters.base import JSON
from proxy.fake.script import Script

_BY_STATUS = {
    400: ("invalid_request_error", None, "The request was refused by the fake provider."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: (
        "invalid_request_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported.",
    ),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
}
PAGE = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


def body(status: int, *, message: str | None = None, param: str | None = None, code: str | None = None) -> JSON:
    """Return the error object that goes with a status."""
    near = status if status in _BY_STATUS else 500 if status >= 500 else 400  # noqa: PLR2004 - the two classes of errors
    kind, usual, text = _BY_STATUS[near]
    if code == "insufficient_quota":
        kind, text = (
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
        )
    return {"error": {"message": message or text, "type": kind, "param": param, "code": code or usual}}


def scripted(script: Script) -> tuple[int, dict[str, str], JSON | bytes]:
    """Return status, headers and body of the error that a script asks for."""
    headers = {} if script.retry_after is None else {"retry-after": script.retry_after}
    if script.html_error:
        return (script.status if script.status != 200 else 502), headers, PAGE  # noqa: PLR2004 - the default of a script
    return script.status, headers, body(script.status, code=script.code)
