"""Several API keys of one provider, in turn; one that is limited or refused rests for a while."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adapters.credentials.base import Credentials
from adapters.errors import UpstreamAuthError, UpstreamError
from adapters.retrying import concerns_key, retry_after_s

LIMITED_S = 10.0
REFUSED_S = 300.0
SPENT_S = 60.0


@dataclass(slots=True)
class _Key:
    credentials: Credentials
    rests_until_s: float = 0.0


class Rotation:
    """`clock` gives monotonic seconds."""

    def __init__(self, credentials: Sequence[Credentials], clock: Callable[[], float]) -> None:
        if not credentials:
            raise ValueError("a client needs credentials, if only NoCredentials")
        self._keys = [_Key(each) for each in credentials]
        self._clock = clock
        self._turn = -1

    def __len__(self) -> int:
        return len(self._keys)

    def next(self) -> Credentials:
        """Return the next key that does not rest; if all do, the one that may be used first."""
        now_s = self._clock()
        for step in range(1, len(self._keys) + 1):
            at = (self._turn + step) % len(self._keys)
            if self._keys[at].rests_until_s <= now_s:
                self._turn = at
                return self._keys[at].credentials
        soonest = min(range(len(self._keys)), key=lambda at: self._keys[at].rests_until_s)
        self._turn = soonest
        return self._keys[soonest].credentials

    def failed(self, credentials: Credentials, error: UpstreamError) -> bool:
        """Let a key rest that was limited or refused; True if another one can be used at once."""
        rest_s = _rest_s(error)
        if rest_s is None:
            return False
        now_s = self._clock()
        for key in self._keys:
            if key.credentials is credentials:
                key.rests_until_s = now_s + rest_s
        return any(key.rests_until_s <= now_s for key in self._keys)

    async def close(self) -> None:
        """Stop what renews tokens."""
        for key in self._keys:
            await key.credentials.close()


def _rest_s(error: UpstreamError) -> float | None:
    if not concerns_key(error):
        return None
    if error.status == 403 or isinstance(error, UpstreamAuthError):  # noqa: PLR2004 - HTTP's Forbidden
        return REFUSED_S
    if error.code == "insufficient_quota":
        return SPENT_S
    return retry_after_s(error) or LIMITED_S
