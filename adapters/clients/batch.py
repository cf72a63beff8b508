"""Many prompts through one client: bounded concurrency, results in the order of the prompts, one item's failure its own."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from adapters.clients.base import BaseLLMClient
from adapters.clients.messages import JSON, LLMMessage, LLMResponse

CONCURRENCY = 8
_WIDTH = 30


@dataclass(frozen=True, slots=True)
class BatchItem:
    """The outcome of one prompt: `response`, or `error`."""

    index: int
    response: LLMResponse | None = None
    error: Exception | None = None


async def generate_batch(
    client: BaseLLMClient,
    prompts: "Sequence[str | list[LLMMessage]]",
    *,
    concurrency: int = CONCURRENCY,
    progress: Callable[[int, int], None] | None = None,
    bar: bool | TextIO = False,
    **call: Any,
) -> list[BatchItem]:
    """Return one item for each prompt. `call` are further arguments of `generate_text`.

    `progress` gets (done, all) after each item. `bar` draws one on standard error, or the stream given, if that is a terminal.
    Raises ValueError for a concurrency below 1, and what `progress` raises; then the rest is cancelled.
    """
    if concurrency < 1:
        raise ValueError("concurrency must be at least 1")
    items: list[BatchItem | None] = [None] * len(prompts)
    waiting = iter(range(len(prompts)))
    drawn = Bar(sys.stderr if bar is True else bar) if bar else None
    done = 0

    async def work() -> None:
        nonlocal done
        for index in waiting:
            items[index] = await _item(client, index, prompts[index], call)
            done += 1
            if progress is not None:
                progress(done, len(prompts))
            if drawn is not None:
                drawn.draw(done, len(prompts))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(prompts))):
            group.create_task(work())
    return [item for item in items if item is not None]


class Bar:
    """A progress bar on a terminal; elsewhere it draws nothing."""

    def __init__(self, out: "TextIO | bool") -> None:
        self._out = out if not isinstance(out, bool) and out.isatty() else None

    def draw(self, done: int, whole: int) -> None:
        """Draw it anew, and end the line when all is done."""
        if self._out is None or not whole:
            return
        full = _WIDTH * done // whole
        self._out.write(f"\r[{'#' * full}{'.' * (_WIDTH - full)}] {done}/{whole}" + ("\n" if done == whole else ""))
        self._out.flush()


async def _item(client: BaseLLMClient, index: int, prompt: "str | list[LLMMessage]", call: JSON) -> BatchItem:
    messages = [LLMMessage("user", prompt)] if isinstance(prompt, str) and prompt.strip() else prompt
    try:
        if isinstance(messages, str):
            raise ValueError(f"prompt {index} is empty")  # noqa: TRY004 - it is a value that no call can have
        return BatchItem(index, response=await client.generate_text(messages, **call))
    except Exception as error:  # noqa: BLE001 - one item's failure is its own result
        return BatchItem(index, error=error)
