"""Runs an adapter over a recorded exchange, purely: the answer in pieces in, the judge's problems out.

The cases lie outside the project; where they are absent the tests that use them are skipped.
"""

import base64
import importlib.util
import json
import os
import pathlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import orjson

from adapters.base import Adapter, Call
from adapters.errors import UpstreamError

FOLDER = pathlib.Path(os.environ.get("BURSAR_RECORDED", str(pathlib.Path(__file__).parents[2] / "shared" / "recorded")))
PRESENT = (FOLDER / "check.py").exists()
ABSENT = "the recorded exchanges are not beside this checkout"


def judge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recorded_check", FOLDER / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def case_ids(*formats: str) -> list[str]:
    """Ids of the cases whose upstream format is one of `formats`, sorted; none if the folder is absent."""
    if not PRESENT:
        return []
    return sorted(
        p.stem for p in (FOLDER / "cases").glob("*.json") if json.loads(p.read_text())["upstream_format"] in formats
    )


def load(case_id: str) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((FOLDER / "cases" / f"{case_id}.json").read_text())
    return case


def response_bytes(case: dict[str, Any]) -> bytes:
    response = case["response"]
    if response.get("body_base64") is not None:
        return base64.b64decode(response["body_base64"])
    return str(response.get("body_text") or "").encode()


def call_for(case: dict[str, Any], **changes: Any) -> Call:
    body = case["request"]["openai"]
    wants = bool((body.get("stream_options") or {}).get("include_usage"))
    fields: dict[str, Any] = {
        "raw": orjson.dumps(body),
        "body": body,
        "upstream_model": body.get("model") or "m",
        "stream": bool(body.get("stream")),
        "show_usage": wants,
        "call_id": "req_0123456789abcdef",
        "created": 1_700_000_000,
    }
    return Call(**{**fields, **changes})


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size or max(1, len(data))):
        yield data[start : start + (size or len(data))]


def chunks_of(stream: bytes) -> tuple[list[dict[str, Any]], bool]:
    """Parse what a client would read: every event must be one `data:` line of JSON or [DONE]."""
    chunks, done = [], False
    for event in stream.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line for line in event.split(b"\n") if line and not line.startswith(b":")]
        if not lines:
            continue
        data = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
        if data.strip() == b"[DONE]":
            done = True
        else:
            chunks.append(json.loads(data))
    return chunks, done


def problems(adapter: Adapter, case: dict[str, Any], size: int = 0, **changes: Any) -> list[str]:
    """Translate the recorded answer in pieces of `size` bytes (0: whole) and return what the judge finds wrong."""
    check, call = judge(), call_for(case, **changes)
    exchange = adapter.exchange(call)
    response, body = case["response"], response_bytes(case)
    headers = {k.lower(): v for k, v in (response.get("headers") or {}).items()}
    if response["status"] >= 400:
        error = exchange.error(response["status"], headers, body)
        return list(check.check_error(case, error.status, error.body()))
    if not call.stream:
        try:
            answer = exchange.completion(body, headers)
        except UpstreamError as error:
            return (
                list(check.check_error(case, error.status, error.body()))
                if case["expected"].get("error")
                else [repr(error)]
            )
        assert json.loads(answer.body) == answer.completion
        return list(check.check_completion(case, answer.completion))
    translator, out = exchange.stream(), []
    for piece in pieces(body, size):
        out.append(translator.feed(piece))
        if translator.finished or translator.error:
            break
    if not translator.finished and not translator.error:
        out.append(translator.eof())
    if translator.error and not translator.started:
        if case["expected"].get("error") or "stream_error" in case["expected"]:
            return [] if translator.error.body()["error"]["message"] else ["error without message"]
        return [f"error before the start: {translator.error!r}"]
    if translator.error:
        out.append(b"data: " + orjson.dumps(translator.error.body()) + b"\n\n")
    chunks, done = chunks_of(b"".join(out))
    return list(check.check_stream(case, chunks, done, call.show_usage))
