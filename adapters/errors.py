"""What may go wrong between Bursar and a provider, and how OpenAI's clients are told.

    AdapterError
        InvalidRequestError               the client's request cannot be sent to this provider: 400
            UnsupportedParameterError     it names a field that this provider cannot honour
        UpstreamError                     the provider answered with an error of its own: its status
            UpstreamAuthError             it refused our credentials: 502
            UpstreamProtocolError         it answered with something that is no answer: 502
            UpstreamUnavailableError      it could not be reached, or broke off: 502
            UpstreamTimeoutError          it took longer than a limit allows: 504

Every error knows its status and OpenAI's four keys. Source: https://platform.openai.com/docs/guides/error-codes
"""

from collections.abc import Mapping
from typing import Any


class AdapterError(Exception):
    """An error with a status and OpenAI's error object; `message` never holds a secret or a prompt."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error object: `{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequestError(AdapterError):
    """The client asked for something that no provider, or not this one, can be sent."""

    status = 400
    type = "invalid_request_error"


class UnsupportedParameterError(InvalidRequestError):
    """The field `param` cannot be honoured by this provider, and ignoring it would give a wrong answer."""

    code = "unsupported_parameter"

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message, param=param)


class UpstreamError(AdapterError):
    """The provider refused or failed; `status`, `type`, `code` are already in OpenAI's terms.

    `headers` are those worth handing on, in lower case (`retry-after`, `retry-after-ms`, `x-request-id`, …).
    `extra` are further keys of the error object that a client may want (`innererror`, `failed_generation`).
    """

    status = 502
    type = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,  # noqa: A002 - OpenAI's own word for it
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code)
        if status is not None:
            self.status = status
        if type is not None:
            self.type = type
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def body(self) -> dict[str, Any]:
        error = super().body()["error"]
        return {"error": {**error, **{k: v for k, v in self.extra.items() if k not in error}}}


class UpstreamAuthError(UpstreamError):
    """The provider rejects Bursar's own credentials: the operator must act, not the client."""

    code = "upstream_auth_error"


class UpstreamProtocolError(UpstreamError):
    """What came back is not an answer in the provider's format, or ended before its end."""

    code = "upstream_protocol_error"


class UpstreamUnavailableError(UpstreamError):
    """The provider could not be reached, or the connection broke.

    `delivered` is False only where it is certain that the provider never began on the request, so that
    sending it again cannot be billed twice.
    """

    code = "upstream_unavailable"

    def __init__(self, message: str, *, delivered: bool = True) -> None:
        super().__init__(message)
        self.delivered = delivered


class UpstreamTimeoutError(UpstreamError):
    """A limit passed: `phase` is connect, tls, first_token, idle or total."""

    status = 504
    code = "upstream_timeout"

    def __init__(self, message: str, *, phase: str) -> None:
        super().__init__(message)
        self.phase = phase
