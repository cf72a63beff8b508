"""A recorded whole answer, told again as a stream in its dialect, must give a client the same facts: the judge says so."""

import base64
import json

import pytest

from adapters.base import Endpoint
from adapters.registry import make_adapter
from tests import recorded
from tests.constructed import crlf, ending, frame, piece, start, stop
from tests.constructed_openai import sse
from tests.stream_rules import broken_rules

pytestmark = pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)

KNOWN = {"bedrock-converse-non-stream-tools-010"}  # see test_recorded_http
OPTIONS = {"region": "us-east-1", "project": "p", "location": "us-central1"}


def cut(text, size=5):
    return [text[at : at + size] for at in range(0, len(text), size)]


def claude_stream(answer):
    events = [{"type": "message_start", "message": {**answer, "content": [], "stop_reason": None}}]
    for index, block in enumerate(answer["content"]):
        kind = block["type"]
        if kind == "text":
            events += [start(index, "text", text=""), *(piece(index, "text_delta", text=t) for t in cut(block["text"]))]
            events += [piece(index, "citations_delta", citation=citation) for citation in block.get("citations") or []]
        elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
            events += [{"type": "content_block_start", "index": index, "content_block": {**block, "input": {}}}]
            events += [piece(index, "input_json_delta", partial_json=t) for t in cut(json.dumps(block["input"]))]
        elif kind == "thinking":
            events += [start(index, "thinking", thinking="", signature="")]
            events += [piece(index, "thinking_delta", thinking=t) for t in cut(block["thinking"])]
            events += [piece(index, "signature_delta", signature=block.get("signature", ""))]
        else:
            events += [{"type": "content_block_start", "index": index, "content_block": block}]
        events += [stop(index), {"type": "ping"}]
    delta, last = ending(answer["stop_reason"], stop_details=answer.get("stop_details"))
    return sse(*events, {**delta, "usage": answer["usage"]}, last, done=False, name=True)


def google_stream(answer):
    events = []
    for candidate in answer.get("candidates", []):
        for part in candidate.get("content", {}).get("parts", []):
            texts = cut(part["text"]) if part.keys() == {"text"} else [None]
            for text in texts:
                said = part if text is None else {"text": text}
                events.append(
                    {
                        **answer,
                        "candidates": [
                            {"index": candidate.get("index", 0), "content": {"role": "model", "parts": [said]}}
                        ],
                    }
                )
        rest = {k: v for k, v in candidate.items() if k != "content"}
        events.append({**answer, "candidates": [rest]})
    return crlf(*(events or [answer]))


def bedrock_stream(answer):
    out = frame("messageStart", role="assistant")
    for index, block in enumerate(answer["output"]["message"]["content"]):
        deltas = []
        if "text" in block:
            deltas = [{"text": text} for text in cut(block["text"])]
        elif "toolUse" in block:
            use = {k: v for k, v in block["toolUse"].items() if k != "input"}
            out += frame("contentBlockStart", contentBlockIndex=index, start={"toolUse": use})
            deltas = [{"toolUse": {"input": text}} for text in cut(json.dumps(block["toolUse"]["input"]))]
        elif "reasoningContent" in block:
            inner = block["reasoningContent"].get("reasoningText", block["reasoningContent"])
            deltas = [{"reasoningContent": {key: value}} for key, value in inner.items()]
        for delta in deltas:
            out += frame("contentBlockDelta", contentBlockIndex=index, delta=delta)
        out += frame("contentBlockStop", contentBlockIndex=index)
    out += frame("messageStop", stopReason=answer["stopReason"])
    return out + frame("metadata", usage=answer["usage"])


TWINS = {"anthropic-messages": ("anthropic", claude_stream), "gemini": ("gemini", google_stream), "bedrock-converse": ("bedrock", bedrock_stream)}  # fmt: skip
CASES = [
    case_id
    for case_id in recorded.case_ids(*TWINS)
    if "non-stream" in case_id and "error" not in case_id and case_id not in KNOWN
]


@pytest.mark.parametrize("case_id", CASES)
@pytest.mark.parametrize("size", [0, 7])
def test_a_whole_answer_told_as_a_stream_keeps_its_facts(case_id, size):
    case = recorded.load(case_id)
    kind, tell = TWINS[case["upstream_format"]]
    adapter = make_adapter(Endpoint(name=kind, kind=kind, base_url="http://127.0.0.1:9", repair=True, options=OPTIONS))
    stream = tell(json.loads(recorded.response_bytes(case)))
    request = {**case["request"]["openai"], "stream": True, "stream_options": {"include_usage": True}}
    twin = {
        **case, "request": {**case["request"], "openai": request},
        "response": {**case["response"], "body_text": None, "body_base64": base64.b64encode(stream).decode()},
    }  # fmt: skip
    assert recorded.problems(adapter, twin, size) == []
    translator = adapter.exchange(recorded.call_for(twin)).stream()
    out = b"".join(translator.feed(p) for p in recorded.pieces(stream, size))
    out += b"" if translator.finished else translator.eof()
    assert broken_rules(out) == []
