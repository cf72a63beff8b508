"""Token counts against tiktoken itself, on friendly and on hostile text, and the request and answer forms built on them."""

import hashlib
import importlib.util
import json
import lzma
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tiktoken
import tiktoken_ext.openai_public as published
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting.tokens import ranks
from accounting.tokens.counter import (
    count_chat,
    count_completions,
    count_embeddings,
    count_input,
    count_responses,
    upper_bound,
)
from accounting.tokens.families import bare_name, encoding_for, family_of
from accounting.tokens.output import HELD_CHARS_MAX, PLACES_MAX, OutputCount
from accounting.tokens.text import PIECE_CHARS, THREAD_BYTES, byte_count, count_text, needs_thread, word_end

ROOT = Path(__file__).resolve().parent.parent
ENCODINGS = ["o200k_base", "cl100k_base"]
CORPUS = [
    "",
    " ",
    "Hello, world! It's 3.14159 o'clock; don't panic.",
    "東京タワーは高い。漢字とかなとカナ、そして絵文字🎉👩‍👩‍👧‍👦。",
    "Ünïcödé ﬁne Ω≈ç√∫˜µ≤≥÷ \u0301\u0301 العربية हिन्दी ไทย",
    "def f(x):\n\treturn {'a': [1, 2, 3], \"b\": None}  # ok\r\n\r\n\r\n   ",
    "<|endoftext|><|endofprompt|> are plain text here",
    "aGVsbG8gd29ybGQhIGFzZGZhc2RmYXNkZg==" * 20,
    "\x00\x01\x02\ufeff\u200b",
    "1234567890" * 30,
    "'s't're've'm'll'd 'S'T",
]
GREEDY_SLACK = 3  # tokens that a cut in the middle of a word may add or take, measured 0 to 2


def reference(name: str) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        name, pat_str=_published(name)["pat_str"], mergeable_ranks=ranks.read_ranks(name), special_tokens={}
    )


def _published(name: str) -> dict:
    """The source's own parameters, with its download left out."""
    load, published.load_tiktoken_bpe = published.load_tiktoken_bpe, lambda *_, **__: {}
    try:
        return published.ENCODING_CONSTRUCTORS[name]()
    finally:
        published.load_tiktoken_bpe = load


@pytest.fixture(scope="module")
def references() -> dict[str, tiktoken.Encoding]:
    return {name: reference(name) for name in ENCODINGS}


def exact(encoding: tiktoken.Encoding, text: str) -> int:
    return len(encoding.encode(text, disallowed_special=()))


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ENCODINGS)
def test_the_packed_ranks_give_back_the_published_file(name):
    pack_ranks = script("pack_ranks")
    packed = lzma.decompress((ROOT / "accounting/tokens" / f"{name}.bin").read_bytes())
    assert hashlib.sha256(pack_ranks.unpack(packed)).hexdigest() == pack_ranks.PUBLISHED_SHA256[name]
    assert pack_ranks.PUBLISHED_SHA256[name] in Path(published.__file__).read_text()


def test_a_file_of_other_ranks_is_refused(tmp_path, capsys):
    other = tmp_path / "o200k_base.tiktoken"
    other.write_bytes(b"IQ== 0\nIg== 1\n")
    before = (ROOT / "accounting/tokens/o200k_base.bin").stat().st_mtime_ns
    assert script("pack_ranks").main([str(other)]) == 1
    assert "not the published one" in capsys.readouterr().err
    assert (ROOT / "accounting/tokens/o200k_base.bin").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ENCODINGS)
def test_patterns_and_special_tokens_are_those_of_tiktoken(name):
    source = _published(name)
    assert source["pat_str"] == ranks._PATTERNS[name]
    assert source["special_tokens"] == ranks._SPECIAL[name]


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_a_text_counts_as_in_tiktoken(references, name, text):
    assert count_text(text, name) == exact(references[name], text)


@pytest.mark.parametrize("name", ENCODINGS)
@given(text=st.text(max_size=400))
def test_any_text_counts_as_in_tiktoken(references, name, text):
    assert count_text(text, name) == exact(references[name], text)


@pytest.mark.parametrize("name", ENCODINGS)
@given(
    words=st.lists(
        st.sampled_from(["word", "Ünïcödé", "don't", "42", "漢字", "\n", " ", "(x)", "a/b", "_", "é́", "'ll"]),
        max_size=60,
    ),
    at=st.integers(1, 200),
)
def test_a_cut_at_a_words_end_changes_no_count(references, name, words, at):
    text = "".join(words)
    end = word_end(text, 0, min(at, len(text)))
    if end < min(at, len(text)):
        assert exact(references[name], text[:end]) + exact(references[name], text[end:]) == exact(
            references[name], text
        )


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_long_text_counts_exactly_although_it_is_cut(references, name):
    text = "The quick brown fox's tail (42 cm) — naïve, wasn't it? 漢字です。\n\n\t" * 2000
    assert len(text) > 5 * PIECE_CHARS
    assert count_text(text, name) == exact(references[name], text)


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("unit", ["a", " ", "\n", "漢", "🎉", "7", "ab'", "\u0301", "Zz"], ids=repr)
def test_a_text_without_any_words_end_counts_within_the_slack(references, name, unit):
    text = unit * (3 * PIECE_CHARS // len(unit) + 5)
    cuts = len(text) // PIECE_CHARS
    assert 0 <= count_text(text, name) - exact(references[name], text) <= GREEDY_SLACK * cuts


@pytest.mark.parametrize(
    "text",
    [
        " " * 1_000_002,
        "a" * 5_000_000,
        "\ud800" * 100_000,
        "\n" * 300_000,
        "<|endoftext|>" * 20_000,
        "\U0010ffff" * 50_000,
    ],
    ids=["million blanks", "5 MB of a", "lone surrogates", "newlines", "special tokens", "last code point"],
)
def test_hostile_text_is_counted_between_one_and_its_bytes(text):
    for name in ENCODINGS:
        assert 0 < count_text(text, name) <= byte_count(text)


def test_importing_the_counter_reads_no_ranks_and_no_tiktoken():
    code = (
        "import sys; from accounting.tokens import counter, output, ranks\n"
        "counter.upper_bound('chat', {'messages': [{'role': 'user', 'content': 'hi'}]}, 'gpt-4o')\n"
        "output.OutputCount('gpt-4o').feed({'choices': [{'index': 0, 'delta': {'content': 'x'}}]})\n"
        "assert 'tiktoken' not in sys.modules and not ranks.loaded('o200k_base')\n"
        "assert not {'asyncio', 'aiohttp', 'adapters', 'proxy', 'genai_prices', 'requests'} & set(sys.modules)\n"
        "counter.count_text('x', 'o200k_base'); assert ranks.loaded('o200k_base')\n"
        "assert not ranks.loaded('cl100k_base')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_threads_that_ask_at_once_share_one_encoding():
    ranks._LOADED.pop("cl100k_base", None)
    found = []
    threads = [threading.Thread(target=lambda: found.append(ranks.load("cl100k_base"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len({id(encoding) for encoding in found}) == 1
    assert found[0]._mergeable_ranks == {}


@pytest.mark.parametrize(
    ("model", "encoding", "own"),
    [
        ("gpt-4o-mini-2024-07-18", "o200k_base", True),
        ("chatgpt-4o-latest", "o200k_base", True),
        ("gpt-4.1", "o200k_base", True),
        ("gpt-5-nano", "o200k_base", True),
        ("gpt-5.4", "o200k_base", True),
        ("o1", "o200k_base", True),
        ("o3-mini", "o200k_base", True),
        ("o4-mini", "o200k_base", True),
        ("openai/gpt-oss-120b", "o200k_base", True),
        ("ft:gpt-4o:org::id", "o200k_base", True),
        ("gpt-4", "cl100k_base", True),
        ("gpt-4-turbo", "cl100k_base", True),
        ("gpt-3.5-turbo", "cl100k_base", True),
        ("gpt-35-turbo", "cl100k_base", True),
        ("text-embedding-3-small", "cl100k_base", True),
        ("claude-sonnet-4-5", "o200k_base", False),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "o200k_base", False),
        ("gemini-2.5-flash", "o200k_base", False),
        ("my-deployment", "o200k_base", False),
        ("", "o200k_base", False),
        ("x" * 100_000, "o200k_base", False),
    ],
)
def test_a_model_is_counted_by_its_own_encoding_or_by_o200k(model, encoding, own):
    assert encoding_for(model) == (encoding, own)
    assert (family_of(model).margin_percent > 100) is not own


@pytest.mark.parametrize(
    ("model", "bare"),
    [
        ("publishers/anthropic/models/claude-opus-5", "claude-opus-5"),
        ("apac.amazon.nova-pro-v1:0", "nova-pro-v1:0"),
        ("Qwen/Qwen3-32B", "qwen3-32b"),
        ("gpt-4.1", "gpt-4.1"),
    ],
)
def test_a_models_bare_name_has_no_vendor(model, bare):
    assert bare_name(model) == bare


def cookbook(encoding: tiktoken.Encoding, messages: list[dict]) -> int:
    """https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken, for messages of texts."""
    total = 3
    for message in messages:
        total += 3
        for key, value in message.items():
            total += exact(encoding, value) + (1 if key == "name" else 0)
    return total


COOKBOOK_MESSAGES = [
    {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon."},
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]


@pytest.mark.parametrize(
    ("model", "name"), [("gpt-4o", "o200k_base"), ("gpt-4", "cl100k_base"), ("gpt-4.1", "o200k_base")]
)
def test_messages_of_openai_models_count_by_the_documented_formula(references, model, name):
    assert count_chat({"messages": COOKBOOK_MESSAGES}, model) == cookbook(references[name], COOKBOOK_MESSAGES)


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": {
                "type": "object",
                "properties": {
                    "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                    "unit": {
                        "type": "string",
                        "description": "The unit of temperature",
                        "enum": ["celsius", "fahrenheit"],
                    },
                },
                "required": ["location"],
            },
        },
    }
]


def test_tools_count_at_or_above_openais_published_numbers():
    """The cookbook's example; OpenAI's API said 101 (gpt-4o) and 105 (gpt-4)."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
        {"role": "user", "content": "What's the weather like in San Francisco?"},
    ]
    assert 101 <= count_chat({"messages": messages, "tools": TOOLS}, "gpt-4o") <= 180
    assert 105 <= count_chat({"messages": messages, "tools": TOOLS}, "gpt-4") <= 180


@pytest.mark.parametrize(
    "more",
    [
        {"tools": TOOLS},
        {"functions": [TOOLS[0]["function"]]},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_current_weather"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
        {"prediction": {"type": "content", "content": "an answer that was predicted"}},
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}]}
            ]
        },
        {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": '{"a": 1}'}}]},
        {"messages": [{"role": "assistant", "content": "x", "reasoning_content": "a long thought"}]},
        {"messages": [{"role": "assistant", "content": "x", "reasoning_details": [{"text": "a long thought"}]}]},
        {"messages": [{"role": "assistant", "refusal": "I will not"}]},
        {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a part"}, {"type": "unheard_of", "x": "y"}]}
            ]
        },
    ],
    ids=lambda more: "+".join(more),
)
def test_whatever_the_model_is_shown_is_counted(more):
    body = {"messages": [], **more}
    assert count_chat(body, "gpt-4o") > 6
    assert upper_bound("chat", body, "gpt-4o") >= count_chat(body, "gpt-4o")


def test_the_same_reasoning_under_two_names_counts_once():
    once = {"messages": [{"role": "assistant", "reasoning": "thinking about it"}]}
    twice = {
        "messages": [{"role": "assistant", "reasoning": "thinking about it", "reasoning_content": "thinking about it"}]
    }
    assert count_chat(once, "gpt-4o") == count_chat(twice, "gpt-4o")


def test_another_vendors_model_counts_with_its_margin_but_no_more_than_its_bytes():
    body = {"messages": [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 50}]}
    own = count_chat(body, "gpt-4o")
    assert own * 1.3 < count_chat(body, "claude-sonnet-4-5") < count_chat(body, "claude-opus-5") < own * 2.5
    emoji = {"messages": [{"role": "user", "content": "🎉" * 100}]}
    assert count_chat(emoji, "claude-opus-5") <= upper_bound("chat", emoji, "claude-opus-5")


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("Hello world", 2), (["Hello world", "Hello"], 3), ([1, 2, 3], 3), ([[1, 2], [3]], 3), (None, 0), ([], 0)],
)
def test_prompts_and_embedding_inputs_count_in_all_their_forms(prompt, tokens):
    assert count_completions({"prompt": prompt}, "gpt-3.5-turbo-instruct") == tokens
    assert count_embeddings({"input": prompt}, "text-embedding-3-small") == tokens


def test_a_completions_suffix_is_input_too():
    assert count_completions({"prompt": "Hello", "suffix": " world"}, "davinci-002") == 2


def test_a_responses_input_counts_like_the_same_chat():
    chat = count_chat({"messages": [{"role": "user", "content": "Hello world"}]}, "gpt-4o")
    text = count_responses({"input": "Hello world"}, "gpt-4o")
    items = [{"role": "user", "content": [{"type": "input_text", "text": "Hello world"}]}]
    assert chat == text == count_responses({"input": items}, "gpt-4o")
    more = {"input": items, "instructions": "Be brief.", "tools": TOOLS, "text": {"format": {"type": "json_object"}}}
    assert count_responses(more, "gpt-4o") > chat + 30
    call = [{"type": "function_call_output", "call_id": "c", "output": "a result of it"}]
    assert count_responses({"input": call}, "gpt-4o") > 10


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
MESSAGE_KEYS = [
    "role",
    "content",
    "name",
    "tool_calls",
    "function_call",
    "audio",
    "refusal",
    "reasoning",
    "reasoning_details",
    "tool_call_id",
]
PART_KEYS = ["type", "text", "image_url", "input_audio", "file", "file_data", "detail", "data", "format", "url"]
PART = st.dictionaries(
    st.sampled_from(PART_KEYS),
    st.sampled_from(["text", "image_url", "input_audio", "file", "data:x", "data:;base64,AAAA"]) | JSON_VALUES,
)
MESSAGE = st.dictionaries(st.sampled_from(MESSAGE_KEYS), JSON_VALUES | st.lists(PART, max_size=3))
BODY = st.dictionaries(
    st.sampled_from(
        ["messages", "tools", "functions", "tool_choice", "response_format", "prediction", "input", "prompt", "text"]
    ),
    st.lists(MESSAGE, max_size=3) | JSON_VALUES,
)


@pytest.mark.slow
@settings(max_examples=120)
@given(
    operation=st.sampled_from(["chat", "completions", "embeddings", "responses"]),
    body=BODY,
    model=st.sampled_from(["gpt-4o", "gpt-4", "claude-opus-5", "gemini-3-pro", "grok-4", "nobody", "gpt-5.4"]),
)
def test_any_body_is_counted_and_the_cheap_bound_is_never_below(operation, body, model):
    count = count_input(operation, body, model)
    assert 0 <= count <= upper_bound(operation, body, model)


def test_a_schema_too_deep_for_a_json_writer_is_counted():
    deep: dict = {}
    node = deep
    for _ in range(50_000):
        node["properties"] = {}
        node = node["properties"]
    assert count_chat({"messages": [], "tools": [deep]}, "gpt-4o") > 50_000
    while deep:  # taken apart by hand: freeing it at once would exhaust the stack of older interpreters
        deep = deep.pop("properties")


def test_a_thread_is_needed_above_32_kib():
    assert not needs_thread(THREAD_BYTES)
    assert needs_thread(THREAD_BYTES + 1)


# ---------------------------------------------------------------------------------------------------- output


def delta(content=None, index=0, **more):
    return {"choices": [{"index": index, "delta": {"content": content, **more}, "finish_reason": None}]}


@settings(max_examples=60)
@given(
    pieces=st.lists(
        st.text(alphabet="ab '\n.漢🎉\u03011", max_size=6) | st.sampled_from([" hello", "wor", "ld", "'ll", "  "]),
        max_size=60,
    ),
    asked=st.sets(st.integers(0, 60)),
)
def test_output_counts_at_or_above_the_whole_text_however_it_is_cut_and_asked_for(references, pieces, asked):
    count = OutputCount("gpt-4o")
    for position, piece in enumerate(pieces):
        count.feed(delta(piece))
        if position in asked:
            count.tokens()
    whole = exact(references["o200k_base"], "".join(pieces))
    assert whole <= count.tokens_of(0) <= whole + GREEDY_SLACK
    assert count.tokens() <= count.upper_bound


def test_a_stream_and_the_same_completion_count_alike():
    stream, whole = OutputCount("gpt-4o"), OutputCount("gpt-4o")
    stream.feed(delta("", role="assistant"))
    for word in "It is twenty two degrees in Paris, so there is no need of a coat .".split(" "):
        stream.feed(delta(word + " "))
    stream.feed(
        delta(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "get", "arguments": ""}}])
    )
    stream.feed(delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]))
    stream.feed(delta(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]))
    message = {
        "content": "It is twenty two degrees in Paris, so there is no need of a coat . ",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "get", "arguments": '{"a":1}'}}],
    }
    whole.feed({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    assert stream.tokens() == whole.tokens() > 30


@pytest.mark.parametrize(
    "said",
    [
        {"content": "some words"},
        {"refusal": "some words"},
        {"reasoning_content": "some words"},
        {"reasoning": "some words"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "some words"}]},
        {"content": [{"type": "text", "text": "some words"}]},
        {"function_call": {"name": "some words"}},
        {"tool_calls": [{"function": {"arguments": "some words"}}]},
        {"tool_calls": [{"custom": {"name": "f", "input": "some words"}}]},
        {"audio": {"id": "a", "transcript": "some words", "data": "AAAA"}},
    ],
    ids=lambda said: "+".join(said),
)
def test_whatever_the_model_says_is_counted(said):
    for key in ("delta", "message"):
        count = OutputCount("gpt-4o")
        count.feed({"choices": [{"index": 0, key: said}]})
        assert count.tokens() >= 2


def test_reasoning_told_under_two_names_counts_once():
    once, twice = OutputCount("gpt-4o"), OutputCount("gpt-4o")
    once.feed(delta(reasoning="I think so"))
    twice.feed(
        delta(reasoning="I think so", reasoning_content="I think so", reasoning_details=[{"text": "I think so"}])
    )
    assert once.tokens() == twice.tokens()


def test_a_message_that_repeats_the_delta_counts_once():
    count = OutputCount("gpt-4o")
    count.feed({"choices": [{"index": 0, "delta": {"content": "Hello"}, "message": {"content": "Hello"}}]})
    assert count.tokens_of(0) == 1


def test_choices_are_counted_apart():
    count = OutputCount("gpt-4o")
    count.feed(delta("Hello world", index=0))
    count.feed(delta("Hello", index=1))
    assert (count.tokens_of(0), count.tokens_of(1), count.tokens_of(2)) == (2, 1, 0)


def test_completions_and_responses_are_counted_too():
    count = OutputCount("gpt-4o")
    count.feed({"choices": [{"index": 0, "text": "Hello world"}]})
    assert count.tokens_of(0) == 2
    count = OutputCount("gpt-4o")
    count.feed({"type": "response.output_text.delta", "output_index": 0, "delta": "Hello"})
    count.feed({"type": "response.output_text.delta", "output_index": 0, "delta": " world"})
    assert count.tokens_of(0) == 2
    count = OutputCount("gpt-4o")
    count.feed({"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello world"}]}]})
    assert count.tokens_of(0) == 2


@given(
    chunk=st.dictionaries(
        st.sampled_from(["choices", "output", "type", "delta"]), JSON_VALUES | st.lists(MESSAGE, max_size=3)
    ),
    more=MESSAGE,
)
def test_any_chunk_is_taken(chunk, more):
    count = OutputCount("gpt-4o")
    count.feed(chunk)
    count.feed({"choices": [{"delta": more}, {"message": more}]})
    assert 0 <= count.tokens() <= count.upper_bound


SAID = [
    {"content": "a few words"}, {"role": "assistant", "content": ""}, {"reasoning_content": "hm"}, {"refusal": "no"},
    {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
    {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}, {"audio": {"data": "A" * 4000}}, {"content": "more", "refusal": "x"},
]  # fmt: skip


@pytest.mark.parametrize("model", ["gpt-4o", "claude-haiku-4-5"])
@given(said=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(SAID)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_marks_around_texts_are_the_same_however_often_they_are_asked_for(model, said):
    often, once = OutputCount(model), OutputCount(model)
    for index, delta in said:
        for count in (often, once):
            count.feed({"choices": [{"index": index, "delta": delta}]})
        assert often.upper_bound >= often.bytes
        assert often.tokens() >= 0
    assert (often.upper_bound, often.tokens()) == (once.upper_bound, once.tokens())


def test_an_endless_answer_is_held_in_bounded_memory():
    count = OutputCount("gpt-4o")
    for _ in range(200):
        count.feed(delta("a" * 10_000))
        held = sum(len(part) for text in count._texts.values() for part in text.parts)
        assert held <= HELD_CHARS_MAX + 10_000
    assert 250_000 <= count.tokens_of(0) <= 2_000_000
    assert count.bytes == 2_000_000


def test_a_provider_that_invents_choices_and_calls_is_held_in_bounded_memory():
    count = OutputCount("gpt-4o")
    for index in range(3 * PLACES_MAX):
        count.feed(delta("some text", index=index, tool_calls=[{"index": index, "function": {"arguments": "{}"}}]))
    assert len(count._texts) <= PLACES_MAX + 1
    assert count.tokens() >= 3 * PLACES_MAX * 2


def test_asking_again_recounts_only_what_is_new(references):
    count = OutputCount("gpt-4o")
    for _ in range(400):
        count.feed(delta("a sentence of several words, more or less. "))
        count.tokens()
        assert sum(len(part) for text in count._texts.values() for part in text.parts) < 100
    assert count.tokens_of(0) == exact(references["o200k_base"], "a sentence of several words, more or less. " * 400)


RECORDED = ROOT.parent / "shared" / "recorded" / "cases"


@pytest.mark.skipif(not RECORDED.is_dir(), reason="recorded exchanges are not here")
def test_recorded_plain_chats_of_openai_count_as_openai_counted_them():
    seen = 0
    for path in RECORDED.glob("openai-chat-*.json"):
        case = json.loads(path.read_text())
        request, usage = case["request"], case["expected"].get("usage_openai") or {}
        if request["openai_source"] != "recorded" or not usage.get("prompt_tokens"):
            continue
        body = request["openai"]
        if any(body.get(key) for key in ("tools", "response_format", "functions")) or request["media_substituted"]:
            continue
        assert 0 <= count_chat(body, body["model"]) - usage["prompt_tokens"] <= 1, path.name
        seen += 1
    assert seen >= 5
