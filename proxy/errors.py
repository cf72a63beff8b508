"""What a client is told when Bursar itself says no: OpenAI's error object, status and headers, for every case of the contract."""

from collections.abc import Mapping
from typing import Any

from adapters.errors import AdapterError, UpstreamError
from adapters.exact import dumps_exact

INVALID = "invalid_request_error"


class ClientError(Exception):
    """An answer that is an error. `extra` are further keys of the error object (`budget`)."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,  # noqa: A002 - OpenAI's own word for it
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type, self.code, self.param = status, message, type, code, param
        self.headers: dict[str, str] = dict(headers or {})
        self.extra = dict(extra or {})
        self.close = False  # the connection cannot be used for another request

    def body(self) -> bytes:
        """Return the four-key error object as JSON."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code, **self.extra}
        return dumps_exact({"error": error})  # a provider's own words may hold what orjson refuses


def from_adapter(error: AdapterError) -> ClientError:
    """Return what the client is told of an error between us and a provider."""
    told = error.body()["error"]
    extra = {k: v for k, v in told.items() if k not in ("message", "type", "param", "code")}
    headers = error.headers if isinstance(error, UpstreamError) else {}
    return ClientError(
        error.status, error.message, type=error.type, code=error.code, param=error.param, headers=headers, extra=extra
    )


def bad_body(message: str, param: str | None = None) -> ClientError:
    """400: the body is not what OpenAI's API takes."""
    return ClientError(400, message, param=param)


def unknown_url(method: str, path: str) -> ClientError:
    """404: no such route."""
    return ClientError(404, f"Unknown request URL: {method} {path[:200]}", code="unknown_url")


def method_not_allowed(method: str, allow: str) -> ClientError:
    """405: the route is there, the method is not."""
    return ClientError(
        405, f"{method[:20]} is not allowed here; use {allow}.", code="method_not_allowed", headers={"allow": allow}
    )


def unauthorised(message: str) -> ClientError:
    """401: no key, or one that is not known."""
    return ClientError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def model_not_found(model: str) -> ClientError:
    """404: no such model for this caller; whether it exists for others is not told."""
    return ClientError(
        404,
        f"The model `{model[:200]}` does not exist or you do not have access to it.",
        code="model_not_found",
        param="model",
    )


def unavailable(message: str, *, code: str, retry_after_s: int = 1, close: bool = False) -> ClientError:
    """503: not now. The SDKs retry it after `retry_after_s`."""
    error = ClientError(503, message, type="server_error", code=code, headers={"retry-after": str(retry_after_s)})
    error.close = close
    return error
