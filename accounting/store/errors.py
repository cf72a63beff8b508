"""What may go wrong with the store. All of it is the operator's to act on; none of it is retried behind the caller's back."""


class StoreError(Exception):
    """Any trouble with the store."""


class StoreUnavailableError(StoreError):
    """No answer in time, no connection, or the breaker is open. The command may or may not have been carried out."""


class StoreNotAskedError(StoreUnavailableError):
    """The breaker is open: nothing was sent, so nothing can have been carried out."""


class StoreChangedError(StoreUnavailableError):
    """Another process answers now than the one that a command was meant for, and it was not sent to that."""


class StoreSettingsError(StoreError):
    """The server is set up so that budgets could not be kept; the message names the setting and the remedy."""


class StoreReplyError(StoreError):
    """The server answered with an error (OOM, READONLY, NOPERM, wrong type …)."""
