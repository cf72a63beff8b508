"""An answer or a stream of Bedrock, translated and held against the official OpenAI SDK's own types."""

import json
from typing import Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from adapters.base import StreamTranslator
from tests.bedrock import (
    CLAUDE,
    adapter,
    call,
)
from tests.recorded import chunks_of, pieces

CITY = {"type": "json_schema", "json_schema": {"name": "City", "schema": {"type": "object", "properties": {}}}}
ONE_TOOL = [{"type": "function", "function": {"name": "f"}}]


def completed(
    body: bytes, request: dict[str, Any] | None = None, model: str = CLAUDE, **headers: str
) -> dict[str, Any]:
    """Translate a whole answer, and hold it against the official SDK's own types."""
    given_answer = adapter().exchange(call(request, model)).completion(body, headers)
    assert json.loads(given_answer.body) == given_answer.completion
    ChatCompletion.model_validate(given_answer.completion, strict=True)
    return given_answer.completion


def run(translator: StreamTranslator, data: bytes, size: int = 0) -> bytes:
    out = []
    for piece in pieces(data, size):
        out.append(translator.feed(piece))
        if translator.finished:
            break
    if not translator.finished:
        out.append(translator.eof())
    return b"".join(out)


def streamed(data: bytes, request: dict[str, Any] | None = None, model: str = CLAUDE, size: int = 0, **changes: Any):
    """Translate a stream that ends well; return the chunks and what the SDK's own helper makes of them."""
    changes = {"stream": True, "show_usage": True, **changes}
    translator = adapter().exchange(call(request, model, **changes)).stream()
    chunks, done = chunks_of(run(translator, data, size))
    assert translator.error is None
    assert translator.finished
    assert translator.started
    assert done
    assert [c for c in translator.take() if changes["show_usage"] or c["choices"]] == chunks
    state = ChatCompletionStreamState()
    for chunk in chunks:
        list(state.handle_chunk(ChatCompletionChunk.model_validate(chunk, strict=True)))
    return chunks, state.current_completion_snapshot
