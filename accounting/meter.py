"""Counts one call to one model as its answer passes by. The provider's own usage wins; if it never comes, we count.

An explicit zero is a value: a provider that says 0 is believed. Nothing here waits or sleeps; `usage` may take long where it
has to count (it loads ranks), so call it in a thread unless `reported` is set.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, TypeAlias

from accounting.tokens.output import OutputCount
from accounting.usage import Usage, usage_from_openai

JSON: TypeAlias = dict[str, Any]

SURELY_BYTES = 3  # fewer bytes of text than this per granted token, and no more chunks than tokens: not worth a count


class Meter:
    """One attempt's counts. `count_input` gives the input's tokens when the provider does not; it may load ranks."""

    def __init__(self, model: str, count_input: Callable[[], int]) -> None:
        self._model = model
        self.reported: Usage | None = None
        self.response_model: str | None = None
        self.chunks = 0
        self._count_input = count_input
        self._service_tier: str | None = None

    @cached_property
    def output(self) -> OutputCount:
        """What of the output is seen; made when it is first looked at, which a whole answer that tells its usage never is."""
        return OutputCount(self._model)

    def observe(self, chunks: Iterable[JSON]) -> None:
        """Take chunks, or a whole completion, in OpenAI's form. An empty one is only counted."""
        for chunk in chunks:
            self.chunks += 1
            if chunk:
                self.output.feed(chunk)
                self._notice(chunk)

    def whole(self, completion: JSON) -> None:
        """Take a whole completion; its text is kept to be counted only where it does not tell its usage."""
        self.chunks += 1
        self._notice(completion)
        if self.reported is None:
            self.output.feed(completion)

    def usage(self) -> Usage:
        """Return the usage: as reported, else counted and marked as an estimate."""
        if self.reported is not None:
            return self.reported
        return Usage(
            input=self._count_input(), output=self.output.tokens(), service_tier=self._service_tier, estimated=True
        )

    def worth_counting(self, granted: int) -> bool:
        """Tell whether the answer could have passed `granted` output tokens; cheap, and never False when it has by much."""
        if self.reported is not None or self.output.upper_bound <= granted:
            return False
        return self.chunks > granted or self.output.bytes > SURELY_BYTES * granted

    def _notice(self, chunk: JSON) -> None:
        response = chunk.get("response")
        source: JSON = response if isinstance(response, dict) else chunk
        model, tier, usage = source.get("model"), source.get("service_tier"), source.get("usage")
        if isinstance(model, str) and model:
            self.response_model = model[:256]
        if isinstance(tier, str):
            self._service_tier = tier[:32]
        if isinstance(usage, dict) and usage and not (chunk.get("object") == "list" and not any(usage.values())):
            # an embedding of nothing costs nothing, but a provider that never counts says 0 too
            self.reported = usage_from_openai(usage, service_tier=self._service_tier)
