"""What a client raises. Each keeps the HTTP status, the provider's own code and how long it asks to wait.

LLMClientError
    ProviderNotAvailableError   it cannot be reached, timed out, broke off, or answers 5xx
    RateLimitError              429: too many calls, or the account's quota is spent
    AuthenticationError         our credentials are refused, or there are none
    ModelNotFoundError          the model is unknown, or not for this account
    BudgetExceededError         refused here, by the cost controller: nothing was sent
"""

from adapters.errors import (
    AdapterError,
    UpstreamAuthError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from adapters.retrying import retry_after_s


class LLMClientError(Exception):
    """`status` is None where no answer came; `retry_after` in seconds, None where nothing was said."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        provider: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.code = message, status, code
        self.retry_after, self.provider, self.param = retry_after, provider, param


class ProviderNotAvailableError(LLMClientError):
    """The provider cannot answer now; another may."""


class RateLimitError(LLMClientError):
    """The provider wants fewer calls, or the account has no quota left."""


class AuthenticationError(LLMClientError):
    """The provider refuses the credentials, or there are none."""


class ModelNotFoundError(LLMClientError):
    """The provider knows no such model, or not for this account."""


class BudgetExceededError(LLMClientError):
    """The cost controller refuses: the call could pass the daily budget. Nothing was sent."""


_NOT_AVAILABLE = (UpstreamUnavailableError, UpstreamTimeoutError, UpstreamProtocolError)


def client_error(error: AdapterError, *, provider: str, status: int | None = None) -> LLMClientError:
    """Return the client's error for one of a translator or the transport; `status` is the answer's own, where there was one."""
    known = status or (
        error.status if isinstance(error, UpstreamError) and not isinstance(error, _NOT_AVAILABLE) else None
    )
    return _class_of(error, known)(
        error.message,
        status=known,
        code=error.code,
        retry_after=retry_after_s(error),
        provider=provider,
        param=error.param,
    )


def _class_of(error: AdapterError, status: int | None) -> type[LLMClientError]:
    if isinstance(error, UpstreamAuthError) or status in (401, 403):
        return AuthenticationError
    if status == 429:  # noqa: PLR2004 - HTTP's Too Many Requests
        return RateLimitError
    if error.code == "model_not_found" or status == 404:  # noqa: PLR2004 - HTTP's Not Found
        return ModelNotFoundError
    if isinstance(error, _NOT_AVAILABLE) or (status is not None and status >= 500):  # noqa: PLR2004 - HTTP's server errors
        return ProviderNotAvailableError
    return LLMClientError
