"""An OpenAI request as Google's body: every field mapped, dropped and told, or refused."""

import base64
import json

import orjson
import pytest
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from adapters.base import Call, Endpoint, Media
from adapters.errors import AdapterError, InvalidRequestError, UnsupportedParameterError
from adapters.google.contents import SKIP_SIGNATURE
from adapters.google.models import model_of
from adapters.google.request import GEMINI, VERTEX
from adapters.google.schema import to_openapi
from adapters.google.thinking import thinking_of
from adapters.providers.gemini import GeminiAdapter
from adapters.treatment import OPENAI_FIELDS
from tests import recorded
from tests.native_oracle import google, oracle_ids

URL = "https://generativelanguage.googleapis.com"
USER = {"role": "user", "content": "hi"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n0000").decode()


def adapter(**quirks) -> GeminiAdapter:
    return GeminiAdapter(Endpoint(name="g", kind="gemini", base_url=URL, quirks=quirks))


def call(body, **changes):
    body = {"model": "gemini-2.5-flash", "messages": [USER], **body}
    fields = {
        "raw": json.dumps(body).encode(),
        "body": body,
        "upstream_model": body["model"],
        "stream": bool(body.get("stream")),
        "call_id": "req_1",
        "created": 1_700_000_000,
    }
    return Call(**{**fields, **changes})


def sent(body, through=None, **changes):
    """Return the body that is sent, after Google's own types have accepted it."""
    native = json.loads((through or adapter()).exchange(call(body, **changes)).request.body)
    accepted(native)
    return native


KNOWN = {
    "contents": TypeAdapter(list[types.Content]),
    "systemInstruction": TypeAdapter(types.Content),
    "tools": TypeAdapter(list[types.Tool]),
    "toolConfig": TypeAdapter(types.ToolConfig),
    "generationConfig": TypeAdapter(types.GenerationConfig),
    "safetySettings": TypeAdapter(list[types.SafetySetting]),
    "serviceTier": TypeAdapter(types.ServiceTier),
    "labels": TypeAdapter(dict[str, str]),
    "cachedContent": TypeAdapter(str),
    "modelArmorConfig": TypeAdapter(types.ModelArmorConfig),
}


def accepted(native):
    for name, value in native.items():
        KNOWN[name].validate_json(json.dumps(value))
    assert native["contents"]
    assert all(content["parts"] and content["role"] in ("user", "model") for content in native["contents"])


def contents(*messages, **more):
    return sent({"messages": list(messages), **more})["contents"]


def calls(*named):
    made = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in named]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(call_id, content):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def function(name="f", **more):
    return {"type": "function", "function": {"name": name, **more}}


# recorded -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("case_id", oracle_ids("gemini"))
def test_the_request_is_the_one_that_was_recorded(case_id):
    """wire 3.29, 3.49: URL, contents, tools and knobs, modulo what `native_oracle` explains."""
    case = recorded.load(case_id)
    request = case["request"]
    exchange = adapter().exchange(recorded.call_for(case))
    ours = json.loads(exchange.request.body)
    accepted(ours)
    assert google(ours, request["openai"]) == google(request["native"], request["openai"])
    if case["provider"] == "gemini":
        assert exchange.request.url == case["endpoint"]["url"]


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("case_id", [c for c in recorded.case_ids("gemini") if "gc" in c])
def test_every_recorded_request_is_accepted_by_googles_types(case_id):
    """wire 3.47, 3.49, 3.74: the same bytes each time; results alone, one for each call, with their names."""
    case = recorded.load(case_id)
    exchange = adapter().exchange(recorded.call_for(case))
    native = json.loads(exchange.request.body)
    accepted(native)
    assert adapter().exchange(recorded.call_for(case)).request.body == exchange.request.body
    for before, content in zip(native["contents"], native["contents"][1:], strict=False):
        responses = [p["functionResponse"] for p in content["parts"] if "functionResponse" in p]
        if responses:
            assert [r["name"] for r in responses] == [
                p["functionCall"]["name"] for p in before["parts"] if "functionCall" in p
            ]
            assert len(responses) == len(content["parts"])


# URL ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, f"{URL}/v1beta/models/gemini-2.5-flash:generateContent"),
        ({"stream": True}, f"{URL}/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
        ({"upstream_model": "models/gemini-x"}, f"{URL}/v1beta/models/gemini-x:generateContent"),
        ({"upstream_model": "tunedModels/mine"}, f"{URL}/v1beta/tunedModels/mine:generateContent"),
        ({"upstream_model": "a/../b?c"}, f"{URL}/v1beta/models/a%2F..%2Fb%3Fc:generateContent"),
    ],
)
def test_the_url_names_model_and_method_and_never_a_key(changes, url):
    assert adapter().exchange(call({}, **changes)).request.url == url


def test_the_version_of_the_api_can_be_set():
    endpoint = Endpoint(name="g", kind="gemini", base_url="http://127.0.0.1:1", options={"api_version": "v1"})
    url = GeminiAdapter(endpoint).exchange(call({})).request.url
    assert url == "http://127.0.0.1:1/v1/models/gemini-2.5-flash:generateContent"


# messages -------------------------------------------------------------------------------------------------------------


def test_leading_system_and_developer_text_goes_into_its_own_slot():
    """wire 3.45."""
    native = sent({"messages": [{"role": "system", "content": "A"}, {"role": "developer", "content": "B"}, USER]})
    assert native["systemInstruction"] == {"parts": [{"text": "A"}, {"text": "B"}]}
    assert native["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]


def test_later_system_text_keeps_its_place():
    """wire 3.44."""
    native = sent(
        {"messages": [USER, {"role": "assistant", "content": "yo"}, {"role": "system", "content": "S"}, USER]}
    )
    assert "systemInstruction" not in native
    assert native["contents"][2] == {"role": "user", "parts": [{"text": "S"}, {"text": "hi"}]}


@pytest.mark.parametrize("messages", [[{"role": "system", "content": "S"}], [{"role": "user", "content": ""}]])
def test_a_request_without_a_users_text_still_has_a_turn(messages):
    assert contents(*messages) == [{"role": "user", "parts": [{"text": " "}]}]


def test_a_model_without_a_slot_for_the_system_gets_its_text_as_the_users():
    native = sent({"model": "gemma-3-27b-it", "messages": [{"role": "system", "content": "S"}, USER]})
    assert native == {"contents": [{"role": "user", "parts": [{"text": "S"}, {"text": "hi"}]}]}


def test_results_stand_alone_in_one_turn_in_the_order_of_the_calls():
    """wire 3.46, 3.47, 3.48, 3.49."""
    out = contents(
        USER,
        {**calls(("a", "f", '{"x": 9007199254740993}'), ("b", "g", ""), ("c", "f", "{bro")), "content": ""},
        result("b", "B"),
        {"role": "system", "content": "meanwhile"},
        result("a", "A"),
        result("c", [{"type": "text", "text": "C1"}, {"type": "text", "text": "C2"}]),
        USER,
    )
    assert [p["functionCall"] for p in out[1]["parts"]] == [
        {"name": "f", "args": {"x": 9007199254740993}, "id": "a"},
        {"name": "g", "args": {}, "id": "b"},
        {"name": "f", "args": {"_invalid_json": "{bro"}, "id": "c"},
    ]
    answers = [(p["functionResponse"]["name"], p["functionResponse"]["response"]["output"]) for p in out[2]["parts"]]
    assert sorted(answers) == [("f", "A"), ("f", "C1\nC2"), ("g", "B")]
    assert out[3] == {"role": "user", "parts": [{"text": "meanwhile"}, {"text": "hi"}]}
    assert len(out) == 4


def test_results_of_an_uninterrupted_turn_are_in_the_order_of_the_calls():
    out = contents(USER, calls(("a", "f", ""), ("b", "g", "")), result("b", "B"), result("a", "A"))
    assert [p["functionResponse"]["id"] for p in out[2]["parts"]] == ["a", "b"]


def test_numbers_and_text_of_arguments_survive_as_they_are():
    """wire 3.89."""
    raw = '{"z":9007199254740993,"big":123456789012345678901234567890,"a":"é😀"}'
    body = adapter().exchange(call({"messages": [USER, calls(("i", "f", raw)), result("i", raw)]})).request.body
    assert raw.encode() in body
    assert json.dumps(raw, ensure_ascii=False).encode() in body


def test_ids_that_bursar_made_up_are_not_sent_to_the_provider_that_gave_none():
    minted = "call_0123456789abcdef01234567"
    out = contents(USER, calls((minted, "f", "")), result(minted, "x"))
    assert "id" not in out[1]["parts"][0]["functionCall"]
    assert "id" not in out[2]["parts"][0]["functionResponse"]


def test_a_tool_message_that_answers_no_call_is_refused():
    with pytest.raises(InvalidRequestError) as caught:
        sent({"messages": [USER, result("nope", "x")]})
    assert caught.value.param == "messages[1].tool_call_id"


def test_the_old_form_of_functions_is_sent_as_tools():
    native = sent(
        {
            "functions": [{"name": "f", "parameters": {"type": "object", "properties": {}}}],
            "function_call": {"name": "f"},
            "messages": [
                USER,
                {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "done"},
            ],
        }
    )
    assert native["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowedFunctionNames": ["f"]}
    assert native["contents"][2]["parts"][0]["functionResponse"]["name"] == "f"


# signatures -----------------------------------------------------------------------------------------------------------


def loop(model, first, **more):
    return {"model": model, "messages": [USER, first, result("a", "A")], **more}


@pytest.mark.parametrize(
    ("extra", "details", "expected"),
    [
        ({"extra_content": {"google": {"thought_signature": "U0lH"}}}, None, "U0lH"),
        ({}, [{"type": "reasoning.encrypted", "data": "U0lH", "id": "a", "format": "google-gemini-v1"}], "U0lH"),
        ({}, [{"type": "reasoning.encrypted", "data": "U0lH", "id": "a", "format": "anthropic-claude-v1"}], None),
        ({}, None, None),
    ],
)
@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3-pro-preview", "gemini-flash-latest"])
def test_a_signature_goes_back_on_the_call_that_it_came_with(model, extra, details, expected):
    """wire 3.51: Gemini 3 is told to skip what is lost; older models go without."""
    first = calls(("a", "f", "{}"))
    first["tool_calls"][0].update(extra)
    if details:
        first["reasoning_details"] = details
    part = sent(loop(model, first))["contents"][1]["parts"][0]
    lost = None if model == "gemini-2.5-flash" else SKIP_SIGNATURE
    assert part.get("thoughtSignature") == (expected or lost)


def test_only_the_first_of_parallel_calls_is_told_to_skip():
    out = sent(
        {
            "model": "gemini-3-flash",
            "messages": [USER, calls(("a", "f", ""), ("b", "g", "")), result("a", "A"), result("b", "B")],
        }
    )
    assert [p.get("thoughtSignature") for p in out["contents"][1]["parts"]] == [SKIP_SIGNATURE, None]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_loop_works_through_a_client_that_drops_unknown_fields(streaming):
    """wire 3.51: the signature is remembered by the call's id."""
    through = adapter()
    answer = {
        "candidates": [
            {
                "content": {"parts": [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "REAL"}]},
                "finishReason": "STOP",
            }
        ]
    }
    exchange = through.exchange(call({"model": "gemini-3-pro", "stream": streaming}))
    if streaming:
        translator = exchange.stream()
        chunks, _ = recorded.chunks_of(translator.feed(b"data: " + orjson.dumps(answer) + b"\n\n") + translator.eof())
        deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
        tool_id = next(d["tool_calls"][0]["id"] for d in deltas if "tool_calls" in d)
    else:
        message = exchange.completion(orjson.dumps(answer), {}).completion["choices"][0]["message"]
        tool_id = message["tool_calls"][0]["id"]
    messages = [USER, calls((tool_id, "f", "{}")), result(tool_id, "A")]
    out = sent({"model": "gemini-3-pro", "messages": messages}, through)
    assert out["contents"][1]["parts"][0]["thoughtSignature"] == "REAL"
    forgotten = sent({"model": "gemini-3-pro", "messages": messages})
    assert forgotten["contents"][1]["parts"][0]["thoughtSignature"] == SKIP_SIGNATURE


def test_a_texts_signature_goes_back_on_the_text():
    detail = {"index": 0, "type": "reasoning.encrypted", "data": "VEVY", "format": "google-gemini-v1"}
    said = {"role": "assistant", "content": "yo", "reasoning_content": "hm", "reasoning_details": [detail]}
    assert contents(USER, said, USER)[1]["parts"] == [{"text": "yo", "thoughtSignature": "VEVY"}]


# media ----------------------------------------------------------------------------------------------------------------


def image(url):
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PNG}"}}, {"inlineData": {"mimeType": "image/png", "data": PNG}}),
        ({"type": "image_url", "image_url": {"url": "https://x.example/a.jpg?v=1"}}, {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://x.example/a.jpg?v=1"}}),
        ({"type": "image_url", "image_url": {"url": "https://youtu.be/abc"}}, {"fileData": {"mimeType": "video/mp4", "fileUri": "https://youtu.be/abc"}}),
        ({"type": "image_url", "image_url": {"url": f"{URL}/v1beta/files/abc"}}, {"fileData": {"fileUri": f"{URL}/v1beta/files/abc"}}),
        ({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "mp3"}}, {"inlineData": {"mimeType": "audio/mp3", "data": "UklGRg=="}}),
        ({"type": "file", "file": {"filename": "a.pdf", "file_data": base64.b64encode(b"%PDF-1.4").decode()}}, {"inlineData": {"mimeType": "application/pdf", "data": base64.b64encode(b"%PDF-1.4").decode()}}),
        ({"type": "file", "file": {"file_id": f"{URL}/v1beta/files/abc"}}, {"fileData": {"fileUri": f"{URL}/v1beta/files/abc"}}),
    ],
)  # fmt: skip
def test_files_reach_the_model(part, expected):
    """wire 3.54, 3.55, 3.56."""
    assert contents({"role": "user", "content": [part]})[0]["parts"] == [expected]


@pytest.mark.parametrize(
    ("model", "url", "wanted"),
    [
        ("gemini-2.5-flash", "https://x.example/a.png", False),
        ("gemini-2.5-flash", "https://x.example/a", True),
        ("gemini-2.0-flash", "https://x.example/a.png", True),
        ("gemini-2.0-flash", "https://www.youtube.com/watch?v=1", False),
        ("gemini-2.5-flash", f"data:image/png;base64,{PNG}", False),
    ],
)
def test_what_the_model_does_not_fetch_is_asked_for_and_sent_inline(model, url, wanted):
    """wire 3.55."""
    asked = call({"model": model, "messages": [image(url), image(url)]})
    assert adapter().wanted_media(asked) == ((url,) if wanted else ())
    if wanted:
        with pytest.raises(InvalidRequestError) as caught:
            adapter().exchange(asked)
        assert caught.value.param == "messages[0].content[0].image_url.url"
        media = {url: Media(mime="image/jpeg", data=base64.b64decode(PNG))}
        native = sent({"model": model, "messages": [image(url)]}, media=media)
        assert native["contents"][0]["parts"] == [{"inlineData": {"mimeType": "image/png", "data": PNG}}]


def test_a_wrong_request_wants_no_media():
    assert adapter().wanted_media(call({"messages": [{"role": "nobody"}]})) == ()


@pytest.mark.parametrize(("model", "inside"), [("gemini-3-flash", True), ("gemini-2.5-flash", False)])
def test_a_picture_in_a_result_arrives(model, inside):
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    out = sent(loop(model, calls(("a", "f", ""))) | {"messages": [USER, calls(("a", "f", "")), result("a", [picture])]})
    native = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    if inside:
        assert out["contents"][2]["parts"][0]["functionResponse"]["parts"] == [native]
    else:
        assert out["contents"][3] == {"role": "user", "parts": [native]}


# knobs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "config"),
    [
        ({"temperature": 0.5, "top_p": 1, "n": 2}, {"temperature": 0.5, "topP": 1, "candidateCount": 2}),
        ({"n": 1, "stop": None, "seed": None}, None),
        ({"stop": "a"}, {"stopSequences": ["a"]}),
        ({"stop": ["a", "", "b"]}, {"stopSequences": ["a", "b"]}),
        ({"seed": 7}, {"seed": 7}),
        ({"seed": -7}, {"seed": -7}),
        ({"seed": 2**31}, {"seed": -(2**31)}),
        ({"seed": 9007199254740993}, {"seed": 1}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"maxOutputTokens": 6}),
        ({"max_tokens": 5}, {"maxOutputTokens": 5}),
        ({"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
        ({"logprobs": False}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        ({"modalities": ["text"]}, None),
        ({"modalities": ["text", "image"]}, {"responseModalities": ["TEXT", "IMAGE"]}),
        ({"top_k": 4, "generationConfig": {"topK": 5, "mediaResolution": "MEDIA_RESOLUTION_LOW"}}, {"topK": 5, "mediaResolution": "MEDIA_RESOLUTION_LOW"}),
        ({"extra_body": {"google": {"thinking_config": {"thinkingBudget": 9}}}, "reasoning_effort": "high"}, {"thinkingConfig": {"thinkingBudget": 9}}),
    ],
)  # fmt: skip
def test_knobs_are_mapped(body, config):
    assert sent(body).get("generationConfig") == config


def test_speech_is_asked_for_with_its_voice():
    body = {
        "model": "gemini-2.5-flash-preview-tts",
        "modalities": ["text", "audio"],
        "audio": {"format": "wav", "voice": "Kore"},
    }
    config = sent(body)["generationConfig"]
    assert config["responseModalities"] == ["AUDIO"]
    assert config["speechConfig"]["voiceConfig"]["prebuiltVoiceConfig"]["voiceName"] == "Kore"


@pytest.mark.parametrize(("limit", "body"), [(3, {}), (3, {"max_tokens": 900}), (3, {"max_completion_tokens": 2})])
def test_the_granted_limit_is_what_is_sent(limit, body):
    assert sent(body, output_limit=limit)["generationConfig"]["maxOutputTokens"] == 3


@pytest.mark.parametrize("name", ["maxOutputTokens", "max_output_tokens", "candidateCount", "candidate_count"])
@pytest.mark.parametrize("place", ["generationConfig", "generation_config", "google"])
def test_no_native_field_widens_what_was_reserved(name, place):
    native = {name: 9} if place != "google" else {"generation_config": {name: 9}}
    with pytest.raises(UnsupportedParameterError) as caught:
        sent({place: native}, output_limit=3)
    assert caught.value.param == f"generationConfig.{name}"


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128, "includeThoughts": False}),
        ("gemini-2.5-flash", "minimal", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-flash", "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        ("gemini-2.5-flash", "max", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-2.5-pro", "max", {"thinkingBudget": 32768, "includeThoughts": True}),
        ("gemini-3-pro-preview", "none", {"thinkingLevel": "LOW", "includeThoughts": False}),
        ("gemini-3-pro-preview", "medium", {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3.1-pro-preview", "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-3-flash-preview", "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-3-flash-preview", "max", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-2.0-flash", "high", None),
    ],
)
def test_effort_becomes_a_budget_or_a_level_and_never_both(model, effort, config):
    """wire 3.62."""
    assert thinking_of(effort, model_of(model, {})) == config
    asked = adapter().exchange(call({"model": model, "reasoning_effort": effort}))
    assert json.loads(asked.request.body).get("generationConfig", {}).get("thinkingConfig") == config
    assert asked.dropped == (() if config else ("reasoning_effort",))


def test_quirks_of_a_provider_win_over_the_table():
    through = adapter(levels=("low", "xhigh"), penalties=True)
    config = sent({"model": "gemini-9", "reasoning_effort": "max", "presence_penalty": 1}, through)["generationConfig"]
    assert config["thinkingConfig"]["thinkingLevel"] == "XHIGH"
    assert config["presencePenalty"] == 1


@pytest.mark.parametrize(
    ("tier", "native", "dropped"),
    [
        ("auto", None, ()),
        ("default", "standard", ()),
        ("flex", "flex", ()),
        ("fast", "priority", ()),
        ("scale", None, ("service_tier",)),
    ],
)
def test_tiers(tier, native, dropped):
    exchange = adapter().exchange(call({"service_tier": tier}))
    assert (json.loads(exchange.request.body).get("serviceTier"), exchange.dropped) == (native, dropped)


# tools ----------------------------------------------------------------------------------------------------------------

HARD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {"b": {"$ref": "#/$defs/B"}, "a": {"type": ["string", "null"], "examples": ["x"]}, "c": {"const": 3}},
    "required": ["b"],
    "$defs": {"B": {"type": "array", "items": {"$ref": "#/$defs/B"}}},
}


def test_a_tools_schema_is_sent_as_it_came():
    """wire 3.64, 3.74."""
    body = adapter().exchange(call({"tools": [function(description="D", parameters=HARD, strict=True)]})).request.body
    assert orjson.dumps(HARD) in body
    declaration = json.loads(body)["tools"][0]["functionDeclarations"][0]
    assert list(declaration) == ["name", "description", "parametersJsonSchema"]


def test_a_schema_in_googles_own_form_keeps_its_field():
    parameters = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}
    declaration = sent({"tools": [function(parameters=parameters)]})["tools"][0]["functionDeclarations"][0]
    assert declaration == {"name": "f", "parameters": parameters}


def test_a_model_that_takes_only_the_subset_gets_the_subset():
    """wire 3.64."""
    declaration = sent({"model": "gemini-1.5-pro", "tools": [function(parameters=HARD), function("g")]})["tools"][0]
    first, second = declaration["functionDeclarations"]
    assert first["parameters"]["properties"]["a"] == {"nullable": True, "type": "string"}
    assert first["parameters"]["properties"]["c"] == {"enum": ["3"], "type": "string"}
    assert second == {"name": "g"}
    assert "$" not in json.dumps(first)


@pytest.mark.parametrize(
    ("schema", "subset"),
    [
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"nullable": True, "type": "string"}),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ({"allOf": [{"type": "string"}, {"description": "d"}]}, {"type": "string", "description": "d"}),
        ({"enum": [1, None, True]}, {"nullable": True, "enum": ["1", "true"], "type": "string"}),
        ({"type": ["string", "integer"]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ({"type": "array"}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "string", "format": "uri"}, {"type": "string"}),
        ({"$ref": "#/definitions/X", "definitions": {"X": {"type": "integer"}}}, {"type": "integer"}),
        ({"$ref": "#/nowhere"}, {"type": "object"}),
    ],
)
def test_the_subset_of_a_schema(schema, subset):
    assert to_openapi(schema) == subset


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function("f")]}}, {"mode": "VALIDATED", "allowedFunctionNames": ["f"]}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [function("f")]}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)  # fmt: skip
def test_the_choice_of_tools(choice, expected):
    assert sent({"tools": [function()], "tool_choice": choice})["toolConfig"]["functionCallingConfig"] == expected


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ({"google_search": {}}, {"googleSearch": {}}),
        ({"googleSearch": {"excludeDomains": ["x"]}}, {"googleSearch": {"excludeDomains": ["x"]}}),
        ({"type": "code_execution"}, {"codeExecution": {}}),
        ({"type": "url_context", "url_context": {}}, {"urlContext": {}}),
    ],
)
def test_googles_own_tools_stand_beside_functions(tool, expected):
    tools = sent({"tools": [function(), tool]})["tools"]
    assert (tools[0]["functionDeclarations"][0]["name"], tools[1]) == ("f", expected)


def test_web_search_is_googles():
    assert sent({"web_search_options": {}})["tools"] == [{"googleSearch": {}}]


JSON_FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": HARD}}


@pytest.mark.parametrize("kind", [{"type": "json_object"}, JSON_FORMAT])
def test_tools_beside_a_json_answer_are_refused_where_the_model_refuses_them(kind):
    """wire 3.65."""
    body = {"tools": [function()], "response_format": kind}
    with pytest.raises(UnsupportedParameterError) as caught:
        sent({"model": "gemini-2.5-flash", **body})
    assert caught.value.param == "response_format"
    assert sent({"model": "gemini-3-flash", **body})["generationConfig"]["responseMimeType"] == "application/json"
    unneeded = sent({"model": "gemini-2.5-flash", "tool_choice": "none", **body})
    assert "tools" not in unneeded
    assert "toolConfig" not in unneeded


def test_an_answers_schema_is_sent_as_it_came_or_as_the_subset():
    body = adapter().exchange(call({"response_format": JSON_FORMAT})).request.body
    assert b'"responseJsonSchema":' + orjson.dumps(HARD) in body
    config = sent({"model": "gemini-1.5-pro", "response_format": JSON_FORMAT})["generationConfig"]
    assert config["responseSchema"]["type"] == "object"


# treatment ------------------------------------------------------------------------------------------------------------


def test_every_field_of_openais_has_one_treatment():
    """wire 3.71."""
    assert GEMINI.complete
    assert VERTEX.complete


VALUES = {
    "audio": {"format": "pcm16", "voice": "Kore"}, "frequency_penalty": 1, "function_call": "auto", "functions": [],
    "logit_bias": {"1": 2}, "logprobs": True, "max_completion_tokens": 9, "max_tokens": 9, "messages": [USER],
    "metadata": {"a": "b"}, "modalities": ["text", "audio"], "model": "gemini-2.5-flash", "moderation": {"model": "m"}, "n": 2,
    "parallel_tool_calls": False, "prediction": {"type": "content", "content": "x"}, "presence_penalty": 1,
    "prompt_cache_key": "k", "prompt_cache_options": {"mode": "implicit"}, "prompt_cache_retention": "24h",
    "reasoning_effort": "low", "response_format": {"type": "json_object"}, "safety_identifier": "s", "seed": 1,
    "service_tier": "flex", "stop": ["x"], "store": True, "stream": True, "stream_options": {"include_usage": True},
    "temperature": 1, "tool_choice": "auto", "tools": [function()], "top_logprobs": 2, "top_p": 0.5, "user": "u",
    "verbosity": "low", "web_search_options": {},
}  # fmt: skip
# What only states OpenAI's default, or steers another field, changes nothing on its own.
SILENT = {
    "model",
    "messages",
    "stream",
    "stream_options",
    "functions",
    "function_call",
    "tool_choice",
    "audio",
    "parallel_tool_calls",
    "top_logprobs",
}


@pytest.mark.parametrize("name", sorted(OPENAI_FIELDS))
def test_no_field_is_ignored_in_silence(name):
    """wire 3.71."""
    plain = adapter().exchange(call({})).request.body
    more = {"audio": VALUES["audio"]} if name == "modalities" else {}
    try:
        exchange = adapter().exchange(call({name: VALUES[name], **more}))
    except UnsupportedParameterError as error:
        assert error.param == name  # noqa: PT017 - refusing is one of the three
        return
    assert name in exchange.dropped or exchange.request.body != plain or name in SILENT


def test_a_single_call_at_a_time_cannot_be_asked_for_and_that_is_told():
    assert adapter().exchange(call({"tools": [function()], "parallel_tool_calls": False})).dropped == (
        "parallel_tool_calls",
    )
    assert adapter().exchange(call({"tools": [function()], "parallel_tool_calls": True})).dropped == ()


def test_native_fields_go_through_and_unknown_ones_are_told():
    safety = [{"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "BLOCK_NONE"}]
    body = {
        "cachedContent": "cachedContents/x",
        "safety_settings": safety,
        "frobnicate": 1,
        "labels": {"a": "b"},
        "store": False,
    }
    exchange = adapter().exchange(call(body))
    native = json.loads(exchange.request.body)
    accepted(native)
    assert (native["cachedContent"], native["safetySettings"]) == ("cachedContents/x", safety)
    assert sorted(exchange.dropped) == ["frobnicate", "labels"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"seed": 1.5}, "seed"),
        ({"n": 0}, "n"),
        ({"stop": [1]}, "stop"),
        ({"stop": list("abcdef")}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"modalities": ["audio"], "audio": {"format": "mp3"}}, "audio.format"),
        ({"modalities": ["audio"], "audio": {"format": "wav"}, "stream": True}, "audio.format"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tools": [{"type": "web_search_preview"}]}, "tools[0]"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]}, "messages[0].content[0].file.file_id"),
        ({"messages": [image("ftp://x/a.png")]}, "messages[0].content[0].image_url.url"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_its_name(body, param):
    with pytest.raises(InvalidRequestError) as caught:
        sent(body)
    assert caught.value.param == param


# embeddings -----------------------------------------------------------------------------------------------------------


def embed(**body):
    exchange = adapter().exchange(call({"model": "gemini-embedding-001", **body}, operation="embeddings"))
    return exchange, json.loads(exchange.request.body)


def test_a_batch_of_embeddings():
    exchange, native = embed(
        input=["a", "b"], dimensions=8, task_type="RETRIEVAL_QUERY", user="u", encoding_format="float", messages=None
    )
    assert exchange.request.url == f"{URL}/v1beta/models/gemini-embedding-001:batchEmbedContents"
    options = {"model": "models/gemini-embedding-001", "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 8}
    assert native["requests"] == [{"content": {"parts": [{"text": t}]}, **options} for t in "ab"]
    assert exchange.dropped == ("user",)


@pytest.mark.parametrize("given_input", [None, [], "", [""], [1, 2], [[1]], [{}], ["a"] * 2049, 3])
def test_inputs_that_are_no_text_are_refused(given_input):
    with pytest.raises(InvalidRequestError) as caught:
        embed(input=given_input)
    assert caught.value.param == "input"


@pytest.mark.parametrize("operation", ["completions", "responses"])
def test_other_operations_are_refused(operation):
    with pytest.raises(UnsupportedParameterError):
        adapter().exchange(call({}, operation=operation))


# laws -----------------------------------------------------------------------------------------------------------------

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.sampled_from(["auto", "a"])
)
KEYS = st.sampled_from(
    [
        *VALUES,
        "role",
        "content",
        "type",
        "function",
        "name",
        "parameters",
        "tool_calls",
        "id",
        "arguments",
        "google",
        "extra_body",
        "generationConfig",
        "reasoning_details",
        "extra_content",
        "thought_signature",
        "image_url",
        "url",
        "$ref",
        "anyOf",
        "properties",
        "enum",
    ]
)
ANY = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)
ROLES = st.sampled_from(["system", "user", "assistant", "tool", "developer", "function"])


@settings(max_examples=250, deadline=None)
@given(
    body=st.dictionaries(KEYS, ANY, max_size=4),
    messages=st.lists(st.fixed_dictionaries({"role": ROLES, "content": ANY}), max_size=3) | ANY,
)
def test_any_request_is_built_or_refused(body, messages):
    asked = call({**body, "messages": messages, "model": "gemini-1.5-pro"})
    adapter().wanted_media(asked)
    try:
        built = adapter().exchange(asked).request.body
    except AdapterError as error:
        assert error.status == 400  # noqa: PT017 - either is right
    else:
        assert json.loads(built)["contents"]


@settings(max_examples=150, deadline=None)
@given(
    schema=st.dictionaries(
        st.sampled_from(
            ["type", "properties", "items", "anyOf", "allOf", "$ref", "$defs", "enum", "const", "prefixItems"]
        ),
        st.recursive(
            LEAVES | st.sampled_from(["#", "#/$defs/a"]),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["type", "a", "$ref", "anyOf", "allOf", "items", "properties"]), inner, max_size=2
                )
            ),
            max_leaves=12,
        ),
    )
)
def test_any_schema_has_a_subset(schema):
    assert isinstance(to_openapi(schema), dict)
