"""Calls, chunks and a relay without sockets, for the tests of the pass-through lane."""

import json

import orjson
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from adapters.base import Call, Endpoint
from adapters.registry import make_adapter
from tests import recorded

OPENAI = "https://api.openai.com/v1"


def adapter(kind="openai", base_url=OPENAI, **fields):
    return make_adapter(Endpoint(name="p", kind=kind, base_url=base_url, **fields))


def call(body=None, *, raw=None, **fields):
    body = (
        {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], **(body or {})}
        if raw is None
        else orjson.loads(raw)
    )
    raw = orjson.dumps(body) if raw is None else raw
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    own = {"upstream_model": body.get("model", "m"), "stream": bool(body.get("stream")), "show_usage": usage}
    return Call(**{"raw": raw, "body": body, "call_id": "req_1", "created": 1_700_000_000, **own, **fields})


def sent(endpoint, its_call):
    return json.loads(endpoint.exchange(its_call).request.body)


def chunk(delta=None, finish=None, choices=None, **more):
    body = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    body["choices"] = [{"index": 0, "delta": delta or {}, "finish_reason": finish}] if choices is None else choices
    return b"data: " + orjson.dumps({**body, **more}) + b"\n\n"


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ROLE, TEXT, STOP = chunk({"role": "assistant", "content": ""}), chunk({"content": "hé [DONE]"}), chunk(finish="stop")
USED = chunk(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"


def relay(endpoint, data, size=0, **fields):
    translator = endpoint.exchange(call({"stream": True}, **fields)).stream()
    out, chunks = [], []
    for piece in recorded.pieces(data, size) if isinstance(data, bytes) else data:
        out.append(translator.feed(piece))
        chunks += translator.take()
        if translator.finished:
            break
    out += [] if translator.finished else [translator.eof()]
    return b"".join(out), translator, chunks + translator.take()


def accumulate(chunks):
    state = ChatCompletionStreamState()
    for one in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(one, strict=True))
    return state.current_completion_snapshot
