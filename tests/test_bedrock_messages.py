"""OpenAI's messages and files as Converse's blocks."""

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Media
from adapters.errors import InvalidRequestError, UnsupportedParameterError
from tests.bedrock import CLAUDE, HELLO, LLAMA, MISTRAL, NOVA, NOVA_2, adapter, call, sent
from tests.bedrock_requests import (
    CALLED,
    LOOP,
    PDF,
    PNG,
    RESULT,
    TOOLS,
    WEBP,
    checked,
    dropped,
    file,
    image,
    shown,
    text,
    user,
)

USE = ("toolUse", {"toolUseId": "a", "name": "f", "input": {"x": 1}})
DONE = ("toolResult", {"toolUseId": "a", "content": [{"text": "done"}]})

MESSAGES = [
    (
        "a later system message keeps its place as user text (wire 3.44)",
        [*HELLO, {"role": "assistant", "content": "Hi"}, {"role": "developer", "content": "Be brief."}, *HELLO],
        [
            ("user", [("text", "Hello")]),
            ("assistant", [("text", "Hi")]),
            ("user", [("text", "Be brief."), ("text", "Hello")]),
        ],
    ),
    (
        "neighbours of one role are one message",
        [*HELLO, *HELLO],
        [("user", [("text", "Hello"), ("text", "Hello")])],
    ),
    (
        "empty content beside calls is no block (wire 3.46)",
        LOOP,
        [("user", [("text", "Hello")]), ("assistant", [USE]), ("user", [DONE])],
    ),
    (
        "blank text is no block, and a turn of nothing else is a point (wire 3.46)",
        user(text("  \n")),
        [("user", [("text", ".")])],
    ),
    (
        "results come before other parts, also when a system message stands between (wire 3.47)",
        [*HELLO, CALLED, {"role": "system", "content": "S"}, RESULT, *HELLO],
        [("user", [("text", "Hello")]), ("assistant", [USE]), ("user", [DONE, ("text", "S"), ("text", "Hello")])],
    ),
    (
        "an empty result says so",
        [*HELLO, CALLED, {**RESULT, "content": ""}],
        [
            ("user", [("text", "Hello")]),
            ("assistant", [USE]),
            ("user", [("toolResult", {"toolUseId": "a", "content": [{"text": "(empty)"}]})]),
        ],
    ),
    (
        "what the model is to continue has no white space at its end (wire 3.90)",
        [*HELLO, {"role": "assistant", "content": "Well, \n"}],
        [("user", [("text", "Hello")]), ("assistant", [("text", "Well,")])],
    ),
    (
        "a refusal is text",
        [*HELLO, {"role": "assistant", "content": None, "refusal": "No."}, *HELLO],
        [("user", [("text", "Hello")]), ("assistant", [("text", "No.")]), ("user", [("text", "Hello")])],
    ),
]


@pytest.mark.parametrize(("messages", "expected"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
def test_messages(messages, expected):
    assert shown(checked({"messages": messages})["messages"]) == expected


def test_leading_system_messages_are_system_blocks_with_cache_points():
    """wire 3.45, 3.74."""
    parts = [{**text("A"), "cache_control": {"type": "ephemeral", "ttl": "1h"}}, text(" "), text("B")]
    messages = [{"role": "system", "content": parts}, {"role": "developer", "content": "C"}, *HELLO]
    native = checked({"messages": messages})
    assert native["system"] == [
        {"text": "A"},
        {"cachePoint": {"type": "default", "ttl": "1h"}},
        {"text": "B"},
        {"text": "C"},
    ]
    assert checked({"messages": messages}, NOVA)["system"][1] == {"cachePoint": {"type": "default"}}
    assert "cachePoint" not in json.dumps(checked({"messages": messages}, LLAMA))
    assert "cache_control" in dropped({"messages": messages}, LLAMA)


def test_a_conversation_of_system_messages_alone_gets_a_user():
    native = checked({"messages": [{"role": "system", "content": "S"}]})
    assert (native["system"], shown(native["messages"])) == ([{"text": "S"}], [("user", [("text", ".")])])


def test_no_more_than_four_cache_points_are_sent():
    parts = [{**text(str(n)), "cache_control": {"type": "ephemeral"}} for n in range(6)]
    body = {"messages": user(*parts)}
    assert json.dumps(checked(body)).count("cachePoint") == 4
    assert "cache_control" in dropped(body)


def test_cache_points_follow_tools_results_and_calls():
    cached = {"cache_control": {"type": "ephemeral"}}
    body = {"messages": [*HELLO, CALLED, {**RESULT, **cached}], "tools": [{**TOOLS[0], **cached}]}
    native = checked(body)
    point = {"cachePoint": {"type": "default"}}
    assert native["toolConfig"]["tools"][1] == point
    assert native["messages"][-1]["content"][-1] == point


def test_all_results_of_one_turn_are_one_message_in_the_order_of_the_calls():
    """wire 3.47, 3.48."""
    calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": ""}} for i in ("a", "b")]
    results = [{"role": "tool", "tool_call_id": i, "content": i} for i in ("b", "a")]
    native = checked({"messages": [*HELLO, {"role": "assistant", "tool_calls": calls}, *results, *HELLO]})
    blocks = native["messages"][-1]["content"]
    assert [b["toolResult"]["toolUseId"] for b in blocks[:2]] == ["a", "b"]
    assert blocks[2:] == [{"text": "Hello"}]


def test_ids_of_other_providers_are_rewritten_alike_in_call_and_result():
    """wire 3.57."""
    odd = "call|" + "x" * 80
    called = {"role": "assistant", "tool_calls": [{**CALLED["tool_calls"][0], "id": odd}]}
    native = checked({"messages": [*HELLO, called, {**RESULT, "tool_call_id": odd}]})
    use = native["messages"][1]["content"][0]["toolUse"]["toolUseId"]
    assert use == native["messages"][2]["content"][0]["toolResult"]["toolUseId"] != odd


def test_arguments_that_were_cut_off_survive_and_long_numbers_are_kept():
    """wire 3.89."""
    for raw, expected in (
        ('{"x":', {"_invalid_json": '{"x":'}),
        ("", {}),
        ('{"x": 36893488147419103233}', {"x": 2**65 + 1}),
    ):
        function = {"name": "f", "arguments": raw}
        called = {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": function}]}
        native = sent({"messages": [*HELLO, called, RESULT]})
        assert native["messages"][1]["content"][0]["toolUse"]["input"] == expected


def test_models_that_want_results_alone_and_as_json_get_them_so():
    body = {"messages": [*LOOP, {"role": "user", "content": "And now?"}], "tools": TOOLS}
    native = checked(body, MISTRAL)
    assert shown(native["messages"])[2:] == [
        ("user", [("toolResult", {"toolUseId": "a", "content": [{"json": {"result": "done"}}]})]),
        ("assistant", [("text", ".")]),
        ("user", [("text", "And now?")]),
    ]


def test_a_conversation_that_the_model_begins_gets_a_user_where_it_must():
    messages = [{"role": "assistant", "content": "Hi"}, *HELLO]
    assert checked({"messages": messages}, CLAUDE)["messages"][0]["role"] == "assistant"
    assert shown(checked({"messages": messages}, NOVA)["messages"])[0] == ("user", [("text", ".")])


def test_a_model_without_a_system_slot_reads_it_first():
    body = {"messages": [{"role": "system", "content": "S"}, *HELLO]}
    native = checked(body, "amazon.titan-text-express-v1")
    assert "system" not in native
    assert shown(native["messages"]) == [("user", [("text", "S"), ("text", "Hello")])]


FILES = [
    (image(f"data:image/png;base64,{PNG}"), {"image": {"format": "png", "source": {"bytes": PNG}}}),
    (image(f"data:image/jpg;base64,{WEBP}"), {"image": {"format": "webp", "source": {"bytes": WEBP}}}),
    (
        image("s3://bucket/a/cat.jpg"),
        {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket/a/cat.jpg"}}}},
    ),
    (
        image("data:video/webm;base64,AAAA"),
        {"video": {"format": "webm", "source": {"bytes": "AAAA"}}},
    ),
    (
        file(f"data:application/pdf;base64,{PDF}", "Report_(v2) [final]...pdf"),
        {"document": {"format": "pdf", "name": "Report (v2) [final]", "source": {"bytes": PDF}}},
    ),
    (file(PDF), {"document": {"format": "pdf", "name": "Document 1", "source": {"bytes": PDF}}}),
    (
        file("data:application/json;base64,e30=", "été.json"),
        {"document": {"format": "txt", "name": "t", "source": {"bytes": "e30="}}},
    ),
    (
        file("s3://bucket/x.docx"),
        {"document": {"format": "docx", "name": "x", "source": {"s3Location": {"uri": "s3://bucket/x.docx"}}}},
    ),
]


@pytest.mark.parametrize(("part", "block"), FILES)
def test_a_file_is_the_block_that_its_bytes_ask_for(part, block):
    """wire 3.53, 3.54, 3.56."""
    assert checked({"messages": user(text("See."), part)})["messages"][0]["content"] == [{"text": "See."}, block]
    result = {**RESULT, "content": [part]}
    native = checked({"messages": [*HELLO, CALLED, result]})
    assert native["messages"][-1]["content"][0]["toolResult"]["content"] == [block]


def test_documents_have_names_of_their_own_and_a_text_beside_them():
    """wire 3.53."""
    documents = [file(PDF, "a.pdf"), file(PDF, "a.pdf"), file(PDF), file(PDF), file(PDF, "x" * 300 + ".pdf")]
    blocks = checked({"messages": user(*documents)})["messages"][0]["content"]
    names = [b["document"]["name"] for b in blocks if "document" in b]
    assert names[:4] == ["a", "a (2)", "Document 1", "Document 2"]
    assert len(names[4]) <= 200
    assert [b for b in blocks if "text" in b] == [{"text": "See the attached document."}]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_any_filenames_give_names_that_bedrock_takes(filenames):
    blocks = sent({"messages": user(*(file(PDF, name) for name in filenames))})["messages"][0]["content"]
    names = [b["document"]["name"] for b in blocks if "document" in b]
    assert len(set(names)) == len(names) == len(filenames)
    for name in names:
        assert re.fullmatch(r"[0-9A-Za-z\-()\[\]]+( [0-9A-Za-z\-()\[\]]+)*", name)


def test_pictures_at_urls_are_asked_for_and_sent_as_bytes():
    """wire 3.55."""
    url = "https://example.com/cat.png"
    body = {"messages": [*user(text("?"), image(url), image(url), image("http://example.com/b.png")), CALLED]}
    assert adapter().wanted_media(call(body)) == (url, "http://example.com/b.png")
    body = {"messages": user(text("?"), image(url))}
    media = {url: Media(mime="image/jpeg", data=base64.b64decode(PNG))}
    assert checked(body, media=media)["messages"][0]["content"][1] == {
        "image": {"format": "png", "source": {"bytes": PNG}}
    }
    with pytest.raises(InvalidRequestError) as caught:
        sent(body)
    assert caught.value.param == "messages[0].content[1].image_url.url"
    assert adapter().wanted_media(call({"messages": 5})) == ()


REFUSED_FILES = [
    (image("data:image/tiff;base64,AAAA"), "messages[0].content[0].image_url.url"),
    (image("s3://bucket/noending"), "messages[0].content[0].image_url.url"),
    ({"type": "file", "file": {"file_id": "file-1"}}, "messages[0].content[0].file.file_id"),
    ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "messages[0].content[0].input_audio"),
]


@pytest.mark.parametrize(("part", "param"), REFUSED_FILES)
def test_a_file_that_cannot_be_sent_is_refused_by_name(part, param):
    with pytest.raises(UnsupportedParameterError) as caught:
        sent({"messages": user(part)})
    assert caught.value.param == param


def test_audio_reaches_models_that_may_listen():
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    blocks = checked({"messages": user(part)}, NOVA_2)["messages"][0]["content"]
    assert blocks == [{"audio": {"format": "wav", "source": {"bytes": "AAAA"}}}]
