"""The other /v1 paths that the configuration lists, for all callers or for one key, and what a call to each costs."""

import re
from dataclasses import dataclass

from accounting.usage import Usage
from proxy.config.model import Config, Passthrough
from proxy.principal import Principal
from proxy.upstreams import Upstream, Upstreams

_SPEAKS_OPENAI = ("openai", "azure", "xai", "fake")


@dataclass(frozen=True, slots=True)
class FixedPrice:
    """A price per call, whatever it does."""

    nanousd: int
    version: str = "config"

    def cost_nanousd(self, usage: Usage) -> int:
        """Return the price of the call."""
        del usage
        return self.nanousd


@dataclass(frozen=True, slots=True)
class Path:
    """One listed path; in its pattern a `*` stands for one segment or, at the end, for the rest."""

    pattern: re.Pattern[str]
    upstream: Upstream
    price: FixedPrice | None


class Paths:
    """The listed paths of one configuration. Without a provider's name the first that speaks OpenAI's format serves them."""

    def __init__(self, config: Config, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._all = [path for entry in config.passthrough if (path := self._path(entry))]
        self._by_key = {
            key.id: [path for route in key.passthrough if (path := self._path(route))] for key in config.keys
        }

    def covers(self, path: str) -> bool:
        """Tell whether the path is listed for anybody."""
        lists = (self._all, *self._by_key.values())
        return any(entry.pattern.fullmatch(path) for entries in lists for entry in entries)

    def find(self, path: str, principal: Principal) -> Path | None:
        """Return the entry that covers a path for this caller."""
        own = self._by_key.get(principal.caller.key or "", [])
        return next((entry for entry in (*self._all, *own) if entry.pattern.fullmatch(path)), None)

    def _path(self, entry: str | Passthrough) -> Path | None:
        listed = entry if isinstance(entry, Passthrough) else Passthrough(path=entry)
        names = [name for name, upstream in self._upstreams.items() if upstream.endpoint.kind in _SPEAKS_OPENAI]
        name = listed.provider or (names[0] if names else "")
        if name not in self._upstreams:
            return None
        price = None if listed.nanousd is None else FixedPrice(listed.nanousd)
        return Path(_pattern(listed.path), self._upstreams[name], price)


def _pattern(route: str) -> re.Pattern[str]:
    parts = [re.escape(part).replace(r"\*", "[^/]+") for part in route.split("/")]
    if parts[-1] == "[^/]+":
        parts[-1] = ".+"
    return re.compile("/".join(parts))
