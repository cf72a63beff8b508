"""The fast lane keeps only the texts of events that are alike. The meter and the client must get what they would get without it."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accounting.meter import Meter
from adapters.openai_lane import runs
from adapters.openai_lane.frames import data_of, events
from adapters.openai_lane.parsing import parse
from tests.lane import DONE, ROLE, STOP, USED, adapter, call

HEADS = [
    b'{"id":"c1","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":0,"delta":{',
    b'{"id":"c1","object":"chat.completion.chunk","created":6,"model":"m2","service_tier":"flex","choices":[{"index":1,"delta":{',
    b'{"choices": [ {"text":"also", "delta" : {',
    b'{"x":{"delta":{"content":"no"}},"choices":[{"index":0,"delta":{',
]
KEYS = [
    b'"content":"', b'"role":"assistant","content" : "', b'"content":"","reasoning_content":"', b'"content":null,"reasoning":"',
    b'"reasoning":"same","content":"', b'"refusal":"', b'"\\u0063ontent":"', b'"content":"first","content":"',
    b'"tool_calls":[{"index":0,"function":{"arguments":"{}"}}],"content":"',
]  # fmt: skip
TAILS = [
    b'"},"finish_reason":null}]}',
    b'"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"aB3"}',
    b'"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":""}',
    b'"},"finish_reason":"stop"}]}',
    b'"}}],"usage":{"prompt_tokens":1,"completion_tokens":7}}',
    b'"}},{"index":7,"delta":{"content":"two"}}]}',
    b'"}}],"created":7,"model":"m3"}',
    b'"}}],"choices":null}',
    b'","content":"again"}}]}',
]
TEXTS = st.text(max_size=6).map(lambda text: parse_free(text)) | st.sampled_from([
    b" word", b"", b"[DONE]", b'\\"error\\"', b"\\n\\\\", b"\\ud83d", b"\\ude00", b"\\u00e9", b"\xe2\x82", b"\xac", b"\xff", b'"',
    b"\\x", b"\\u12", b"\x01", "é".encode(), b"obfuscation",
])  # fmt: skip
OTHERS = st.sampled_from(
    [ROLE, STOP, USED, b": ping\n\n", b"data: {}\n\n", b"data: 7\n\n", b"\n\n", b"data: nonsense\n\n"]
)


def parse_free(text):
    """The inside of a JSON string."""
    return json.dumps(text, ensure_ascii=len(text) % 2 == 0).encode("utf-8", "surrogatepass")[1:-1]


def alike(head, key, tail, texts):
    return [b"data: " + head + key + text + tail + b"\n\n" for text in texts]


RUNS = st.builds(
    alike,
    st.sampled_from(HEADS),
    st.sampled_from(KEYS),
    st.sampled_from(TAILS),
    st.lists(TEXTS, min_size=1, max_size=6),
)
PLAIN = st.builds(
    alike,
    st.sampled_from(HEADS[:2]),
    st.sampled_from(KEYS[:4]),
    st.sampled_from(TAILS[:3]),
    st.lists(TEXTS, min_size=2, max_size=9),
)
STREAMS = st.lists(RUNS | PLAIN | OTHERS.map(lambda event: [event]), max_size=6).map(
    lambda groups: [event for group in groups for event in group]
)


def known(meter):
    texts = {place: "".join(text.parts) for place, text in meter.output._texts.items()}
    return texts, meter.chunks, meter.reported, meter.response_model, meter._service_tier, meter.output._fixed()


def plainly(stream):
    """What a meter knows that is shown one event after another."""
    meter = Meter("m", lambda: 0)
    for event in events(stream):
        chunk = parse(data_of(event))
        if isinstance(chunk, dict):
            meter.observe([chunk])
    return meter


def characters(known_texts):
    """Halves of a surrogate pair are the same text, however they were put together."""
    return {place: text.encode("utf-16", "surrogatepass") for place, text in known_texts.items()}


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    stream=STREAMS,
    how=st.lists(st.sampled_from(["feed", "passes", "take", "joined"]), min_size=1, max_size=8),
    glue=st.integers(1, 4),
)
def test_a_meter_learns_the_same_of_texts_that_were_joined(stream, how, glue):
    translator = adapter().exchange(call({"stream": True, "stream_options": {"include_usage": True}})).stream()
    meter, out = Meter("m", lambda: 0), translator.feed(ROLE)
    pieces = [b"".join(stream[at : at + glue]) for at in range(0, len(stream), glue)]
    for number, piece in enumerate(pieces):
        way = how[number % len(how)]
        before = translator.untaken
        if way != "feed" and translator.passes(piece, 50):
            out += piece
            assert before is not None
            assert before < translator.untaken <= 50
        else:
            assert translator.untaken == before  # a piece that was refused has left no trace
            out += translator.feed(piece)
        bound = translator.untaken
        if way in ("take", "joined"):
            known_bytes, known_chunks = meter.output.bytes, meter.chunks
            meter.observe(translator.take() if way == "take" else translator.take_joined())
            assert translator.untaken == 0
            if bound is not None:
                assert meter.output.bytes - known_bytes <= bound
                assert meter.chunks - known_chunks <= bound
        if translator.finished:
            return  # an error; the rest is nobody's
    out += translator.feed(DONE)
    meter.observe(translator.take_joined())
    whole = ROLE + b"".join(stream)
    assert out == whole + DONE
    expected, found = known(plainly(whole)), known(meter)
    assert characters(found[0]) == characters(expected[0])
    assert found[1:] == expected[1:]


@settings(max_examples=400, deadline=None)
@given(stream=STREAMS, joined=st.booleans(), glue=st.integers(1, 4), role=st.booleans())
@example(stream=alike(HEADS[0], KEYS[1], TAILS[0], [b" a", b" b", b" c"]), joined=False, glue=1, role=False)
def test_an_event_that_is_known_again_is_mended_no_less_than_one_that_is_read(stream, joined, glue, role):
    body = {"stream": True, "stream_options": {"include_usage": True}}
    quick, slow = (adapter(repair=True).exchange(call(body)).stream() for _ in range(2))
    slow._learn_left = 0
    meters, outs = (Meter("m", lambda: 0), Meter("m", lambda: 0)), [[], []]
    pieces = [b"".join(stream[at : at + glue]) for at in range(0, len(stream), glue)]
    for piece in [*([ROLE] * role), *pieces, DONE]:
        outs[1].append(slow.feed(piece))
        outs[0].append(piece if quick.passes(piece, 50) else quick.feed(piece))
        meters[0].observe(quick.take_joined() if joined else quick.take())
        meters[1].observe(slow.take())
        assert (quick.finished, quick.error is None) == (slow.finished, slow.error is None)
        if quick.finished:
            break
    assert outs[0] == outs[1]
    assert known(meters[0]) == known(meters[1])


def event(text=b" word", head=HEADS[0], key=KEYS[0], tail=TAILS[0]):
    return alike(head, key, tail, [text])[0]


@pytest.mark.parametrize("tail", TAILS[:3])
@pytest.mark.parametrize("key", KEYS[:4])
@pytest.mark.parametrize("head", HEADS[:2])
def test_events_that_differ_in_their_text_alone_are_kept_as_texts(head, key, tail):
    shape = runs.shape_of(event(b"first", head, key, tail))
    run = runs.Run(shape)
    block = b"".join(event(text, head, key, tail) for text in (b"one", b"", b"thr\\n"))
    assert run.take_in(block, 0) == len(block)
    assert (run.texts, run.size) == ([b"one", b"", b"thr\\n"], 9)
    assert run.joined()[1:] == [{}, {}]
    assert not run.take_all(event(b"four", head, key, tail), 12)
    assert run.take_all(event(b"four", head, key, tail), 13)
    assert len(run.chunks()) == 4


@pytest.mark.parametrize(
    "other",
    [
        event(head=HEADS[2]), event(head=HEADS[3], key=KEYS[6]), event(key=KEYS[4]), event(key=KEYS[6]), event(key=KEYS[8]),
        event(tail=TAILS[3]), event(tail=TAILS[4]), event(tail=TAILS[5]), event(tail=TAILS[7]), event(b"\\ud83d"),
        event()[:-1], event()[:-2] + b"\r\n\r\n", b": ping\n\n", DONE, USED, b"",
        event(tail=b'"},"error":null}]}'),
    ],
)  # fmt: skip
def test_an_event_that_says_more_than_one_text_has_no_shape(other):
    assert runs.shape_of(other) is None


@pytest.mark.parametrize("text", [b"\\ud83d", b"\\uDE00", b"\xac", b"\x01", b'"', b"\\x", b"a\n\nb", b"a\\"])
def test_a_text_that_may_not_be_joined_is_no_part_of_a_run(text):
    run = runs.Run(runs.shape_of(event()))
    assert run.take_in(event(text), 0) == 0
    assert not run.take_all(event(text), 100)
    assert run.texts == []


@pytest.mark.parametrize("repair", [False, True])
def test_a_piece_with_half_an_event_or_too_much_text_is_not_passed_at_once(repair):
    translator = adapter(repair=repair).exchange(call({"stream": True})).stream()
    for each in (ROLE, event(), event(b"b")):
        translator.feed(each)
    translator.take()
    assert translator.passes(event(b"c"), 10)
    assert translator.passes(event(b"d") * 2, 10)
    assert not translator.passes(event(b"d") * 8, 10)
    assert not translator.passes(event(b"d") + event()[:-1], 100)
    assert translator.feed(event()[:30]) == b""
    assert not translator.passes(event(b"e"), 100)
    assert not translator.passes(event()[30:], 100)
    assert translator.feed(event()[30:]) == event()
    assert [one["choices"][0]["delta"]["content"] for one in translator.take()] == ["c", "d", "d", " word"]


@pytest.mark.parametrize("repair", [False, True])
def test_a_stream_of_ever_new_shapes_is_not_learned_for_ever(monkeypatch, repair):
    learned = []
    monkeypatch.setattr("adapters.openai_lane.shaped_stream.shape_of", lambda each, _: learned.append(each))
    translator = adapter(repair=repair).exchange(call({"stream": True})).stream()
    translator.feed(ROLE)
    for number in range(100):
        translator.feed(event(tail=b'"},"finish_reason":null}],"x":%d}' % number))
    assert 0 < len(learned) < 20
