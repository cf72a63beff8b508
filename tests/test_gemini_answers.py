"""Google's answers in OpenAI's form: whole, streamed in pieces of any size, and gone wrong in every known way."""

import base64
import json
import math
import struct

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from accounting.usage import usage_from_openai
from adapters.base import Call, Endpoint, StreamTranslator
from adapters.errors import UpstreamAuthError, UpstreamError, UpstreamProtocolError
from adapters.google.finish import FILTERED
from adapters.google.partial import BYTES_MAX, PartialArguments
from adapters.google.usage import usage_of
from adapters.providers.gemini import GeminiAdapter
from tests import recorded

URL = "https://generativelanguage.googleapis.com"
# A key that the provider refuses is the operator's trouble here, and a 401 in the recordings' view.
KNOWN_EXCEPTIONS = {"upstream_auth_error"}


def adapter() -> GeminiAdapter:
    return GeminiAdapter(Endpoint(name="g", kind="gemini", base_url=URL))


def call(body=None, **changes):
    body = {"model": "gemini-2.5-flash", "messages": [{"role": "user", "content": "hi"}], **(body or {})}
    fields = {
        "raw": orjson.dumps(body),
        "body": body,
        "upstream_model": body["model"],
        "stream": bool(body.get("stream")),
        "call_id": "req_1",
        "created": 1_700_000_000,
    }
    return Call(**{**fields, **changes})


def candidate(*parts, finish="STOP", **more):
    content = {"content": {"role": "model", "parts": list(parts)}} if parts else {}
    return {**content, **({"finishReason": finish} if finish else {}), **more}


def response(*candidates, usage=None, **more):
    return {
        "candidates": list(candidates),
        "usageMetadata": usage or {"promptTokenCount": 4, "candidatesTokenCount": 2, "totalTokenCount": 6},
        "modelVersion": "gemini-2.5-flash-001",
        "responseId": "resp-1",
        **more,
    }


def fn(name, args=None, **more):
    return {"functionCall": {"name": name, **({} if args is None else {"args": args}), **more}}


def whole(answer, body=None, **changes):
    exchange = adapter().exchange(call(body, **changes))
    completion = exchange.completion(orjson.dumps(answer), {}).completion
    ChatCompletion.model_validate(completion)
    return completion


def sse(*events, end=b"\r\n\r\n"):
    return b"".join(b"data: " + orjson.dumps(event) + end for event in events)


def run(translator: StreamTranslator, data: bytes, size: int = 0):
    out = []
    for piece in recorded.pieces(data, size):
        out.append(translator.feed(piece))
        if translator.finished:
            break
    if not translator.finished:
        out.append(translator.eof())
    return b"".join(out)


def streamed(*events, body=None, size=0, **changes):
    translator = adapter().exchange(call({"stream": True, **(body or {})}, **changes)).stream()
    chunks, done = recorded.chunks_of(run(translator, sse(*events), size))
    return chunks, done, translator


def accumulate(chunks):
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.current_completion_snapshot


# recorded -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize(
    ("case_id", "size"),
    [(c, size) for c in recorded.case_ids("gemini") for size in ([0, 1, 7, 1000] if "gc-stream" in c else [0])],
)
def test_a_recorded_answer_keeps_every_fact_however_it_is_cut(case_id, size):
    """wire 3.2, 3.8, 3.12, 3.13, 3.25, 3.26, 3.29, 3.30, 3.36, 3.37."""
    case = recorded.load(case_id)
    exchange_case = recorded.call_for(case)
    found = recorded.problems(adapter(), case, size)
    if case["response"]["status"] >= 400:
        error = adapter().exchange(exchange_case).error(case["response"]["status"], {}, recorded.response_bytes(case))
        if error.code in KNOWN_EXCEPTIONS:
            assert error.status == 502
            return
    assert found == []


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("case_id", [c for c in recorded.case_ids("gemini") if "gc-stream" in c])
def test_a_recorded_stream_satisfies_the_official_accumulator(case_id):
    """wire 3.85, 3.86, 3.87."""
    case = recorded.load(case_id)
    translator = adapter().exchange(recorded.call_for(case)).stream()
    chunks, done = recorded.chunks_of(run(translator, recorded.response_bytes(case)))
    completion = accumulate(chunks)
    assert done
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1
    assert completion.choices[0].finish_reason == case["expected"]["choices"][0]["finish_reason_openai"]


# whole answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        *[(name, "content_filter") for name in sorted(FILTERED)],
        ("MALFORMED_FUNCTION_CALL", "stop"),
        ("UNEXPECTED_TOOL_CALL", "stop"),
        ("OTHER", "stop"),
        ("NEWLY_INVENTED", "stop"),
        (None, "stop"),
    ],
)
def test_every_reason_of_the_end_becomes_one_of_openais_words(native, expected):
    """wire 3.42, 3.77: a candidate without content is a choice with its reason."""
    choice = whole(response(candidate(finish=native)))["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == (expected, "")
    assert ("native_finish_reason" in choice) == (native not in {None, "STOP", "MAX_TOKENS", *FILTERED})


@pytest.mark.parametrize("native", ["STOP", "OTHER", "MALFORMED_RESPONSE", None])
def test_a_call_makes_the_reason_tool_calls(native):
    """wire 3.29."""
    assert whole(response(candidate(fn("f", {}), finish=native)))["choices"][0]["finish_reason"] == "tool_calls"


def test_text_thoughts_and_calls_of_one_answer_all_arrive():
    """wire 3.8, 3.10, 3.83: server-side tools never become the client's calls."""
    answer = response(
        candidate(
            {"text": "hm", "thought": True},
            {"text": "Two: "},
            {"executableCode": {"language": "PYTHON", "code": "1+1"}},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}},
            {"toolCall": {"id": "x", "toolType": "FILE_SEARCH"}},
            {"text": ""},
            {"text": "calls."},
            {**fn("f", {"a": [1, {"b": "é"}]}, id="own"), "thoughtSignature": "SIG"},
            fn("f"),
        )
    )
    message = whole(answer)["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Two: calls.", "hm")
    first, second = message["tool_calls"]
    assert first["id"] == "own"
    assert first["extra_content"] == {"google": {"thought_signature": "SIG"}}
    assert (first["function"]["arguments"], second["function"]["arguments"]) == ('{"a":[1,{"b":"é"}]}', "{}")
    assert second["id"].startswith("call_")
    assert "extra_content" not in second


def test_minted_ids_are_unique_and_the_same_each_time():
    answer = response(candidate(fn("f"), fn("f"), fn("f", id="a"), fn("f", id="a")))
    ids = [c["id"] for c in whole(answer)["choices"][0]["message"]["tool_calls"]]
    assert len(set(ids)) == 4
    assert ids == [c["id"] for c in whole(answer)["choices"][0]["message"]["tool_calls"]]
    other = whole(answer, call_id="req_2")["choices"][0]["message"]["tool_calls"]
    assert ids[0] != other[0]["id"]


def test_a_client_of_the_old_form_gets_a_function_call():
    body = {"functions": [{"name": "f"}]}
    choice = whole(response(candidate(fn("f", {"a": 1}), fn("f"))), body)["choices"][0]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert (choice["finish_reason"], "tool_calls" in choice["message"]) == ("function_call", False)
    chunks, done, _ = streamed(response(candidate(fn("f", {"a": 1}))), body=body)
    deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
    calls = [d["function_call"] for d in deltas if "function_call" in d]
    assert calls == [{"name": "f", "arguments": ""}, {"arguments": '{"a":1}'}]
    assert done
    assert chunks[-2]["choices"][0]["finish_reason"] == "function_call"


def test_a_blocked_prompt_is_seen_to_be_blocked():
    """wire 3.78."""
    blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 9}}
    completion = whole(blocked)
    choice = completion["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", None)
    assert "PROHIBITED_CONTENT" in choice["message"]["refusal"]
    assert completion["usage"]["total_tokens"] == 9
    chunks, done, translator = streamed(blocked)
    assert translator.started
    assert done
    assert accumulate(chunks).choices[0].finish_reason == "content_filter"
    assert "PROHIBITED_CONTENT" in accumulate(chunks).choices[0].message.refusal


@pytest.mark.parametrize(
    ("metadata", "numbers"),
    [
        ({"promptTokenCount": 4, "candidatesTokenCount": 2, "totalTokenCount": 6}, (4, 2, 6, 0, 0)),
        ({"promptTokenCount": 4, "candidatesTokenCount": 2, "thoughtsTokenCount": 7, "totalTokenCount": 13}, (4, 9, 13, 0, 7)),
        ({"promptTokenCount": 4, "totalTokenCount": 4}, (4, 0, 4, 0, 0)),
        ({"promptTokenCount": 4, "toolUsePromptTokenCount": 3, "candidatesTokenCount": 1, "totalTokenCount": 8}, (7, 1, 8, 0, 0)),
        ({"promptTokenCount": 9, "cachedContentTokenCount": 5, "candidatesTokenCount": 1}, (9, 1, 10, 5, 0)),
        ({"promptTokenCount": 4, "totalTokenCount": 10}, (4, 6, 10, 0, 0)),
        ({"promptTokenCount": -4, "candidatesTokenCount": "x", "totalTokenCount": True}, (0, 0, 0, 0, 0)),
        ({"totalTokenCount": 0}, (0, 0, 0, 0, 0)),
    ],
)  # fmt: skip
def test_usage_is_in_openais_arithmetic(metadata, numbers):
    """wire 3.36, 3.37."""
    usage = usage_of(metadata)
    details = (usage["prompt_tokens_details"], usage["completion_tokens_details"])
    read = (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"])
    assert (*read, details[0]["cached_tokens"], details[1]["reasoning_tokens"]) == numbers
    metered = usage_from_openai(usage)
    assert (metered.input, metered.output) == numbers[:2]


@pytest.mark.parametrize("metadata", [None, {}, {"trafficType": "ON_DEMAND"}, [], "x"])
def test_metadata_that_counts_nothing_is_no_usage(metadata):
    assert usage_of(metadata) is None


def test_log_probabilities_have_openais_form():
    result = {
        "chosenCandidates": [{"token": "Hé", "tokenId": 1, "logProbability": -0.5}, {"token": "!"}],
        "topCandidates": [
            {"candidates": [{"token": "Hé", "logProbability": -0.5}, {"token": "A", "logProbability": -2}]}
        ],
    }
    answer = response(candidate({"text": "Hé!"}, logprobsResult=result))
    content = whole(answer)["choices"][0]["logprobs"]["content"]
    assert content[0]["bytes"] == list("Hé".encode())
    assert [t["logprob"] for t in content[0]["top_logprobs"]] == [-0.5, -2.0]
    assert content[1]["top_logprobs"] == []
    chunks, _, _ = streamed(answer)
    assert accumulate(chunks).choices[0].logprobs.content[0].token == "Hé"


def test_grounding_becomes_citations_counted_in_characters():
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}, {"web": {}}],
        "groundingSupports": [
            {"segment": {"startIndex": 3, "endIndex": 7, "text": "ab"}, "groundingChunkIndices": [0, 1, 7]}
        ],
    }
    answer = response(candidate({"text": "é abcd"}, groundingMetadata=grounding))
    wanted = {"start_index": 2, "end_index": 6, "title": "A", "url": "https://a.example"}
    assert [a["url_citation"] for a in whole(answer)["choices"][0]["message"]["annotations"]] == [wanted]
    chunks, _, _ = streamed(answer)
    assert accumulate(chunks).choices[0].message.annotations[0].url_citation.model_dump() == wanted


def test_pictures_and_speech_leave_as_extensions_and_audio():
    pcm = base64.b64encode(b"\1\2\3\4").decode()
    picture = {"inlineData": {"mimeType": "image/png", "data": "iVBOR"}}
    message = whole(response(candidate(picture, picture)))["choices"][0]["message"]
    assert [i["index"] for i in message["images"]] == [0, 1]
    assert message["images"][0]["image_url"]["url"] == "data:image/png;base64,iVBOR"
    speech = candidate({"inlineData": {"mimeType": "audio/L16;codec=pcm;rate=24000", "data": pcm}})
    spoken = {"modalities": ["audio"], "audio": {"format": "wav", "voice": "Kore"}}
    audio = whole(response(speech), spoken)["choices"][0]["message"]["audio"]
    wav = base64.b64decode(audio["data"])
    assert (wav[:4], wav[8:16], wav[-4:], len(wav)) == (b"RIFF", b"WAVEfmt ", b"\1\2\3\4", 48)
    chunks, done, _ = streamed(response(candidate(picture, finish=None)), response(candidate(picture)))
    assert done
    assert len(accumulate(chunks).choices[0].message.images) == 2


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"[]", b"[1]", b"3", b"null", b'{"candidates": []}', b"{}", b'{"candidates": {}}', b"\xff\xfe"],
)
def test_what_is_no_answer_is_a_protocol_error(body):
    with pytest.raises(UpstreamProtocolError):
        adapter().exchange(call()).completion(body, {})


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}},
        [{"error": {"code": 429, "message": "slow"}}],
    ],
)
def test_an_error_with_status_200_is_an_error(body):
    """wire 3.21, 3.22."""
    with pytest.raises(UpstreamError) as caught:
        adapter().exchange(call()).completion(orjson.dumps(body), {})
    assert (caught.value.status, caught.value.message) == (429, "slow")
    translator = adapter().exchange(call({"stream": True})).stream()
    assert run(translator, orjson.dumps(body)) == b""
    assert (translator.started, translator.error.status) == (False, 429)
    translator = adapter().exchange(call({"stream": True})).stream()
    assert run(translator, sse(body)) == b""
    assert (translator.started, translator.error.status) == (False, 429)


def test_json_that_is_none_is_read_all_the_same():
    body = b'{"candidates":[{"content":{"parts":[{"text":"a\\ud800b"}]},"finishReason":"STOP","avgLogprobs":NaN}]}'
    completion = adapter().exchange(call()).completion(body, {}).completion
    assert completion["choices"][0]["message"]["content"] == "a?b"
    assert adapter().exchange(call()).completion(body.replace(b"\\ud800", b"\xff"), {}).completion


# streams --------------------------------------------------------------------------------------------------------------


def test_parallel_calls_over_several_chunks_have_indexes_of_their_own():
    """wire 3.2, 3.5, 3.6, 3.30."""
    chunks, done, _ = streamed(
        response(candidate({"text": "On it."}, finish=None)),
        response(candidate(fn("f", {"a": 1}), finish=None)),
        response(candidate(fn("f", {"a": 2}), fn("g"), finish=None)),
        response(candidate({"text": "", "thoughtSignature": "S"})),
        size=7,
    )
    deltas = [t for c in chunks if c["choices"] for t in c["choices"][0]["delta"].get("tool_calls", [])]
    assert [d["index"] for d in deltas] == [0, 0, 1, 1, 2, 2]
    message = accumulate(chunks).choices[0].message
    assert [(t.function.name, t.function.arguments) for t in message.tool_calls] == [
        ("f", '{"a":1}'),
        ("f", '{"a":2}'),
        ("g", "{}"),
    ]
    assert message.content == "On it."
    assert message.reasoning_details[0]["data"] == "S"
    assert done
    assert accumulate(chunks).choices[0].finish_reason == "tool_calls"


def test_role_comes_once_and_usage_comes_last_and_only_if_asked_for():
    """wire 3.7, 3.12, 3.13."""
    events = [
        response(candidate({"text": "a"}, finish=None)),
        response(candidate({"text": "b"}), usage={"trafficType": "X"}),
    ]
    chunks, _, _ = streamed(*events)
    assert sum("role" in c["choices"][0]["delta"] for c in chunks if c["choices"]) == 1
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 6)
    chunks, _, translator = streamed(*events, show_usage=False)
    assert all(c["choices"] for c in chunks)
    assert translator.take()[-1]["usage"]["total_tokens"] == 6


def test_the_choices_of_a_stream_stay_apart():
    """wire 3.88."""
    chunks, done, _ = streamed(
        response(candidate({"text": "b"}, finish=None, index=1)),
        response(candidate({"text": "a"}, index=0), candidate({"text": "B"}, index=1)),
        body={"n": 2},
    )
    assert chunks[0]["choices"][0]["index"] == 0
    assert [c.message.content for c in accumulate(chunks).choices] == ["a", "bB"]
    assert done


@pytest.mark.parametrize("index", [7, 10**9, -1, True, "0", 1.5, None])
def test_a_choice_that_was_not_asked_for_is_not_invented(index):
    answer = response(candidate({"text": "a"}, index=index))
    assert [c["index"] for c in whole(answer)["choices"]] == [0]
    chunks, done, _ = streamed(answer)
    assert [c.message.content for c in accumulate(chunks).choices] == ["a"]
    assert done


def test_a_stream_without_a_reason_of_its_end_was_broken_off():
    """wire 3.18."""
    chunks, done, translator = streamed(response(candidate({"text": "a"}, finish=None)))
    assert (translator.error.code, translator.error.status, done) == ("upstream_stream_truncated", 502, False)
    assert all(c["choices"][0]["finish_reason"] is None for c in chunks)
    translator = adapter().exchange(call({"stream": True})).stream()
    assert translator.eof() == b""
    assert isinstance(translator.error, UpstreamProtocolError)


def test_an_error_amid_a_stream_ends_it_without_a_reason():
    """wire 3.17."""
    error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    chunks, done, translator = streamed(
        response(candidate({"text": "a"}, finish=None)), error, response(candidate({"text": "late"}))
    )
    assert (translator.started, translator.error.status, translator.error.message) == (True, 503, "overloaded")
    assert chunks[-1]["choices"][0]["delta"] == {"content": "a"}
    assert not done
    assert translator.feed(b"data: {}\n\n") == b"" == translator.eof()


def test_a_stream_cut_at_the_grant_ends_as_openai_ends_one():
    translator = adapter().exchange(call({"stream": True})).stream()
    out = translator.feed(sse(response(candidate({"text": "a"}, fn("f", willContinue=True), finish=None))))
    piece = {
        "functionCall": {
            "partialArgs": [{"jsonPath": "$.a", "stringValue": "x", "willContinue": True}],
            "willContinue": True,
        }
    }
    out += translator.feed(sse(response(candidate(piece, finish=None))))
    out += translator.cut()
    chunks, done = recorded.chunks_of(out)
    choice = accumulate(chunks).choices[0]
    assert (choice.finish_reason, choice.message.content, done) == ("length", "a", True)
    assert choice.message.tool_calls[0].function.arguments == '{"a":"x'
    assert chunks[-1]["usage"]["total_tokens"] == 6
    assert translator.finished
    assert translator.feed(sse(response(candidate({"text": "b"})))) == b""


def partial(*pieces, goes_on=True):
    return {"functionCall": {"partialArgs": list(pieces), **({"willContinue": True} if goes_on else {})}}


def test_streamed_arguments_are_put_together():
    """wire 2.2: streamFunctionCallArguments."""
    chunks, _, _ = streamed(
        response(candidate({**fn("cook", willContinue=True), "thoughtSignature": "S"}, finish=None)),
        response(
            candidate(partial({"jsonPath": "$.list[0].name", "stringValue": "Ri", "willContinue": True}), finish=None)
        ),
        response(candidate(partial({"jsonPath": "$.list[0].name", "stringValue": "ce"}), finish=None)),
        response(candidate(partial({"jsonPath": "$.list[1]['a b']", "numberValue": 2}), finish=None)),
        response(
            candidate(
                partial({"jsonPath": "$.ok", "boolValue": False}, {"jsonPath": "$.no", "nullValue": None}), finish=None
            )
        ),
        response(candidate({"functionCall": {}}, fn("next", {}), finish=None)),
        response(candidate(finish="STOP")),
    )
    first, second = accumulate(chunks).choices[0].message.tool_calls
    assert json.loads(first.function.arguments) == {"list": [{"name": "Rice"}, {"a b": 2}], "ok": False, "no": None}
    assert (second.function.name, second.function.arguments) == ("next", "{}")


def test_arguments_cut_off_by_the_limit_stay_cut_off():
    """wire 3.43."""
    chunks, _, _ = streamed(
        response(candidate(fn("cook", willContinue=True), finish=None)),
        response(candidate(partial({"jsonPath": "$.a[0].b", "numberValue": 1}), finish="MAX_TOKENS")),
    )
    choice = accumulate(chunks).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls[0].function.arguments) == ("length", '{"a":[{"b":1')


@pytest.mark.parametrize(
    "path",
    ["", "a", "$", "$.", "$[x]", "$.a[99999999]", "$.a" + ".b" * 500, "$.a[5000]", "$.a[9999999]", "$..a", 3, None],
)
def test_pieces_that_cannot_be_placed_are_ignored(path):
    arguments = PartialArguments()
    arguments.add([{"jsonPath": path, "stringValue": "x"}, "no piece", {"jsonPath": "$.k", "stringValue": "v"}])
    assert json.loads(arguments.text())["k"] == "v"
    assert len(arguments.text()) < 1000


def test_streamed_arguments_are_bounded():
    arguments = PartialArguments()
    for _ in range(6):
        arguments.add([{"jsonPath": "$.a", "stringValue": "x" * (BYTES_MAX // 4)}])
    assert len(arguments.text()) < BYTES_MAX + 100


def test_an_event_that_is_too_large_or_no_json_is_an_error():
    translator = adapter().exchange(call({"stream": True})).stream()
    translator.feed(b"data: " + b"x" * (5 * 1024 * 1024))
    assert isinstance(translator.error, UpstreamProtocolError)
    translator = adapter().exchange(call({"stream": True})).stream()
    translator.feed(b"data: {nonsense\r\n\r\n")
    assert isinstance(translator.error, UpstreamProtocolError)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_character_cut_anywhere_arrives_whole(end, size):
    """wire 3.25, 3.26."""
    translator = adapter().exchange(call({"stream": True})).stream()
    data = b": hello\n\n" + sse(response(candidate({"text": "é😀"}, fn("f", {"k": "😀"}))), end=end)
    chunks, _ = recorded.chunks_of(run(translator, data, size))
    message = accumulate(chunks).choices[0].message
    assert (message.content, message.tool_calls[0].function.arguments) == ("é😀", '{"k":"😀"}')


# errors ---------------------------------------------------------------------------------------------------------------


def rpc(code, status, message="It failed.", *details):
    return orjson.dumps({"error": {"code": code, "message": message, "status": status, "details": list(details)}})


def info(reason):
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}


QUOTA = {"@type": "type.googleapis.com/google.rpc.QuotaFailure"}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, rpc(400, "INVALID_ARGUMENT"), (400, "invalid_request_error", "INVALID_ARGUMENT")),
        (400, rpc(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."), (400, "invalid_request_error", "context_length_exceeded")),
        (400, rpc(400, "INVALID_ARGUMENT", "API key not valid.", info("API_KEY_INVALID")), (502, "upstream_error", "upstream_auth_error")),
        (400, rpc(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), (502, "upstream_error", "upstream_auth_error")),
        (401, rpc(401, "UNAUTHENTICATED"), (502, "upstream_error", "upstream_auth_error")),
        (403, rpc(403, "PERMISSION_DENIED"), (403, "permission_error", "PERMISSION_DENIED")),
        (403, rpc(403, "PERMISSION_DENIED", "off", info("SERVICE_DISABLED")), (502, "upstream_error", "upstream_auth_error")),
        (404, rpc(404, "NOT_FOUND", "models/x is not found"), (404, "invalid_request_error", "model_not_found")),
        (404, rpc(404, "NOT_FOUND", "Publisher Model `x` not found"), (404, "invalid_request_error", "model_not_found")),
        (404, rpc(404, "NOT_FOUND", "CachedContent not found"), (404, "invalid_request_error", "NOT_FOUND")),
        (429, rpc(429, "RESOURCE_EXHAUSTED"), (429, "rate_limit_error", "rate_limit_exceeded")),
        (429, rpc(429, "RESOURCE_EXHAUSTED", "day", {**QUOTA, "violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}), (429, "insufficient_quota", "insufficient_quota")),
        (499, rpc(499, "CANCELLED"), (499, "invalid_request_error", "CANCELLED")),
        (500, rpc(500, "INTERNAL"), (500, "server_error", "INTERNAL")),
        (503, rpc(503, "UNAVAILABLE"), (503, "server_error", "UNAVAILABLE")),
        (504, rpc(504, "DEADLINE_EXCEEDED"), (504, "server_error", "DEADLINE_EXCEEDED")),
        (429, b"[" + rpc(429, "RESOURCE_EXHAUSTED") + b"]", (429, "rate_limit_error", "rate_limit_exceeded")),
        (400, b'{"error": "plain"}', (400, "invalid_request_error", None)),
        (400, b'{"message": "flat"}', (400, "invalid_request_error", None)),
        (422, b'{"detail": "fast"}', (422, "invalid_request_error", None)),
        (502, b"<html>Bad Gateway</html>", (502, "server_error", None)),
        (500, b"", (500, "server_error", None)),
        (500, b"\xff\xfe", (500, "server_error", None)),
        (408, b"", (504, "server_error", None)),
    ],
)  # fmt: skip
def test_an_error_of_any_form_has_openais_four_keys(status, body, expected):
    """wire 3.20, 3.70, 3.80."""
    error = adapter().exchange(call()).error(status, {}, body)
    told = error.body()["error"]
    assert (error.status, told["type"], told["code"]) == expected
    assert told["message"]
    assert isinstance(told["message"], str)
    assert {"message", "type", "param", "code"} <= set(told)
    assert isinstance(error, UpstreamAuthError) == (expected[2] == "upstream_auth_error")


@pytest.mark.parametrize(
    ("body", "text"), [(b'{"error": "plain"}', "plain"), (b"<html>Bad</html>", "<html>Bad</html>")]
)
def test_the_providers_own_words_reach_the_client(body, text):
    assert adapter().exchange(call()).error(500, {}, body).message == text


@pytest.mark.parametrize(
    ("delay", "seconds", "ms"),
    [("34.4s", "35", "34400"), ("7.5s", "8", "7500"), ("0s", "0", "0"), ("120s", "120", "120000")],
)
def test_the_delay_in_the_body_becomes_retry_after(delay, seconds, ms):
    """wire 3.69, 3.70."""
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    error = adapter().exchange(call()).error(429, {"x-other": "1"}, rpc(429, "RESOURCE_EXHAUSTED", "m", retry))
    assert error.headers == {"retry-after": seconds, "retry-after-ms": ms}


def test_a_header_of_the_provider_is_kept_and_a_broken_delay_is_not():
    retry = {"retryDelay": "soon"}
    error = adapter().exchange(call()).error(429, {"retry-after": "9"}, rpc(429, "RESOURCE_EXHAUSTED", "m", retry))
    assert error.headers == {"retry-after": "9"}


# embeddings -----------------------------------------------------------------------------------------------------------


def embedding_call(**body):
    return call({"model": "gemini-embedding-001", "input": ["a", "b"], **body}, operation="embeddings")


@pytest.mark.parametrize("encoding", ["base64", "float", None])
def test_embeddings_come_in_the_encoding_that_was_asked_for(encoding):
    """wire 3.66."""
    values = [0.1, -2.5, 3e-5]
    answer = orjson.dumps({"embeddings": [{"values": values}, {"values": [1, 2, 3]}]})
    completion = adapter().exchange(embedding_call(encoding_format=encoding)).completion(answer, {}).completion
    data = completion["data"]
    assert [d["index"] for d in data] == [0, 1]
    if encoding == "base64":
        read = struct.unpack("<3f", base64.b64decode(data[0]["embedding"]))
        assert all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(read, values, strict=True))
    else:
        CreateEmbeddingResponse.model_validate(completion)
        assert data[0]["embedding"] == values
    assert completion["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"embeddings": []},
        {"embeddings": [{}, {}]},
        {"embeddings": [{"values": ["x"]}, {"values": []}]},
        {"embeddings": [{"values": [1e300]}, {"values": []}]},
    ],
)
def test_embeddings_that_are_none_are_a_protocol_error(answer):
    with pytest.raises(UpstreamProtocolError):
        adapter().exchange(embedding_call(encoding_format="base64")).completion(orjson.dumps(answer), {})


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("case_id", [c for c in recorded.case_ids("gemini-embeddings") if c.startswith("gemini")])
def test_recorded_embeddings(case_id):
    case = recorded.load(case_id)
    exchange = adapter().exchange(call({"model": "m", "input": "Hello, world!"}, operation="embeddings"))
    body = recorded.response_bytes(case)
    if case["response"]["status"] >= 400:
        error = exchange.error(case["response"]["status"], {}, body)
        assert recorded.judge().check_error(case, error.status, error.body()) == []
    else:
        data = exchange.completion(body, {}).completion["data"]
        assert [len(d["embedding"]) for d in data] == case["expected"]["dims"]


# laws -----------------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        *[
            "candidates",
            "content",
            "parts",
            "text",
            "thought",
            "functionCall",
            "name",
            "args",
            "partialArgs",
            "jsonPath",
        ],
        *[
            "willContinue",
            "stringValue",
            "numberValue",
            "inlineData",
            "mimeType",
            "data",
            "finishReason",
            "index",
            "error",
        ],
        *["usageMetadata", "promptTokenCount", "totalTokenCount", "groundingMetadata", "groundingChunks", "web", "uri"],
        *[
            "groundingSupports",
            "groundingChunkIndices",
            "segment",
            "logprobsResult",
            "chosenCandidates",
            "logProbability",
        ],
        *["promptFeedback", "blockReason", "thoughtSignature", "responseId", "modelVersion", "id", "code", "message"],
        *[
            "startIndex",
            "endIndex",
            "topCandidates",
            "details",
            "retryDelay",
            "violations",
            "status",
            "serviceTier",
            "token",
        ],
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["$.a[0]", "STOP", "$.b"])
)
ANY = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=25
)
LIKELY = st.builds(
    lambda parts, more: {"candidates": [{"content": {"parts": parts}, **more}]},
    st.lists(st.dictionaries(KEYS, ANY, max_size=3) | st.builds(lambda f: {"functionCall": f}, st.dictionaries(KEYS, ANY, max_size=4)), max_size=3),
    st.dictionaries(KEYS, ANY, max_size=3),
)  # fmt: skip


def check_stream_law(translator, data, size):
    chunks, done = recorded.chunks_of(run(translator, data, size))
    assert translator.finished
    assert done == (translator.error is None)
    if chunks:
        accumulate(chunks)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(events=st.lists(LIKELY | ANY, max_size=4), size=st.sampled_from([0, 1, 13]))
def test_any_json_is_translated_or_told_as_an_error(events, size):
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\r\n\r\n" for event in events)
    check_stream_law(adapter().exchange(call({"stream": True})).stream(), data, size)
    for event in events:
        body = json.dumps(event).encode()
        try:
            completion = adapter().exchange(call()).completion(body, {}).completion
        except UpstreamError as error:
            told = error.body()
            assert told["error"]["message"]  # noqa: PT017 - either is right
        else:
            ChatCompletion.model_validate(completion)
        assert 400 <= adapter().exchange(call()).error(500, {}, body).status < 600


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200), cut=st.booleans())
def test_any_bytes_are_translated_or_told_as_an_error(data, cut):
    translator = adapter().exchange(call({"stream": True})).stream()
    out = translator.feed(data)
    if not translator.finished:
        out += translator.cut() if cut else translator.eof()
    chunks, done = recorded.chunks_of(out)
    assert translator.finished
    assert done == (translator.error is None)
    assert not chunks or accumulate(chunks)
    assert adapter().exchange(call()).error(500, {}, data).body()["error"]["message"]


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.builds(lambda t: {"text": t}, st.text(max_size=6)) | st.builds(lambda a: fn("f", a), st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)), min_size=1, max_size=5),
    size=st.integers(1, 40),
)  # fmt: skip
def test_a_stream_says_what_the_whole_answer_says(parts, size):
    streamed_events = [response(candidate(part, finish=None)) for part in parts] + [response(candidate())]
    chunks, _, _ = streamed(*streamed_events, size=size)
    told = accumulate(chunks).choices[0]
    answer = whole(response(candidate(*parts)))["choices"][0]
    assert (told.message.content or "") == (answer["message"]["content"] or "")
    assert [c.function.arguments for c in told.message.tool_calls or []] == [
        c["function"]["arguments"] for c in answer["message"].get("tool_calls", [])
    ]
    assert told.finish_reason == answer["finish_reason"]
