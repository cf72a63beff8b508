"""Byte surgery on JSON objects, judged by the json module on random documents."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import InvalidRequestError
from adapters.splice import elements, members, splice

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=25
)
KEYS = st.sampled_from(["model", "max_tokens", "stream", "a", "é", 'q"', "b\\", ""]) | st.text(max_size=5)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=6)
INDENTS = st.sampled_from([None, 0, 1, "\t"])


def fold(document):
    """Documents that the splicer may refuse: two keys that differ only in case."""
    keys = [key.casefold() for key in document]
    return len(set(keys)) != len(keys)


@settings(deadline=None)
@given(
    OBJECTS,
    INDENTS,
    st.booleans(),
    st.dictionaries(KEYS, st.none() | VALUES.filter(lambda v: v is not None), max_size=4),
)
def test_a_splice_changes_what_is_named_and_nothing_else(document, indent, ascii_only, changes):
    raw = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    document = json.loads(raw)
    new = {key: None if value is None else json.dumps(value).encode() for key, value in changes.items()}
    spliced = json.loads(splice(raw, new, read=frozenset()))
    expected = {key: value for key, value in document.items() if changes.get(key, 0) is not None}
    expected.update({key: value for key, value in changes.items() if value is not None})
    assert spliced == expected
    assert list(spliced) == list(expected)


@settings(deadline=None)
@given(OBJECTS, INDENTS)
def test_the_bytes_between_the_members_stay(document, indent):
    raw = json.dumps(document, indent=indent).encode()
    found = members(raw)
    assert [m.key for m in found] == list(json.loads(raw))
    assert [json.loads(raw[m.value : m.end]) for m in found] == list(json.loads(raw).values())
    same = {m.key: raw[m.value : m.end] for m in found}
    assert splice(raw, same, read=frozenset()) == raw
    assert splice(raw, {}, read=frozenset()) == raw


@settings(deadline=None)
@given(st.lists(VALUES, max_size=6), INDENTS)
def test_the_elements_of_an_array_are_found(document, indent):
    raw = json.dumps(document, indent=indent).encode()
    assert [json.loads(raw[a:b]) for a, b in elements(raw)] == document


@pytest.mark.parametrize(
    ("raw", "changes", "expected"),
    [
        (b'{"model":"a","seed":9007199254740993000001}', {"model": b'"b"'}, b'{"model":"b","seed":9007199254740993000001}'),
        (b' {\n "t" : 1.0 ,\t"model":"a"}\n', {"model": b'"b"'}, b' {\n "t" : 1.0 ,\t"model":"b"}\n'),
        (b'{"mod\\u0065l":"a","x":1E5}', {"model": b'"b"'}, b'{"mod\\u0065l":"b","x":1E5}'),
        (b"{}", {"n": b"1"}, b'{"n":1}'),
        (b"{ }", {"n": b"1"}, b'{"n":1 }'),
        (b'{"a":1 }', {"n": b"1"}, b'{"a":1,"n":1 }'),
        (b'{"a":1, "b":2, "c":3}', {"a": None}, b'{"b":2, "c":3}'),
        (b'{"a":1, "b":2, "c":3}', {"b": None}, b'{"a":1, "c":3}'),
        (b'{"a":1, "b":2, "c":3}', {"c": None}, b'{"a":1, "b":2}'),
        (b'{"a":1, "b":2, "c":3}', {"a": None, "b": None, "z": b"0"}, b'{"c":3,"z":0}'),
        (b'{"a":1, "b":2, "c":3}', {"b": None, "c": None, "z": b"0"}, b'{"a":1,"z":0}'),
        (b'{"a":1}', {"a": None}, b"{}"),
        (b'{"a":1}', {"a": None, "z": b"0"}, b'{"z":0}'),
        (b'{"messages":[{"content":"\\"model\\":\\"x\\"}]"}],"model":"a"}', {"model": b'"b"'},
         b'{"messages":[{"content":"\\"model\\":\\"x\\"}]"}],"model":"b"}'),
    ],
)  # fmt: skip
def test_members_are_set_removed_and_added_in_place(raw, changes, expected):
    assert splice(raw, changes) == expected


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"max_tokens":1,"max_tokens":9}', "max_tokens"),
        (b'{"model":"a","mod\\u0065l":"b"}', "model"),
        (b'{"stream":true,"x":{"stream":1},"stream":false}', "stream"),
        (b'{"Max_Tokens":9}', "max_tokens"),
        (b'{"max_to\\u212Aens":9}', "max_tokens"),
        ('{"meſſages":[]}'.encode(), "messages"),
        (b'{"n":1,"N":5}', "n"),
        (b'{"a":1,"b":1,"c":1,"n":9,"n":1}', "n"),
        (
            b'{"a":1,"b":1,"c":1,"n":10,"n":1}',
            "n",
        ),  # as long as with a blank behind each colon and comma, were it there once
    ],
)
def test_a_second_spelling_of_what_bursar_reads_is_refused_by_name(raw, field):
    with pytest.raises(InvalidRequestError) as caught:
        splice(raw, {})
    assert caught.value.param == field
    assert field in caught.value.message


NEAR = st.sampled_from([b'"n"', b'"\\u006e"', b'"N"', b'"model"', b'"MODEL"', b'"a"', b'"b"', '"é"'.encode(), b'""'])
TEXTS = st.sampled_from([b"1", b"22", b'"x"', b'"n"', b"[1, 2]", b'{"n":1}', b'", "', b"null"])
GAPS = st.sampled_from([(b":", b","), (b": ", b", "), (b": ", b","), (b" : ", b" ,")])


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(NEAR, TEXTS), max_size=8), GAPS)
def test_a_body_is_refused_for_its_keys_alone_however_it_is_written(pairs, gaps):
    colon, comma = gaps
    raw = b"{" + comma.join(key + colon + text for key, text in pairs) + b"}"
    read = frozenset({"n", "model"})
    keys = [key for key, _ in json.loads(raw, object_pairs_hook=list)]
    if any(key.casefold() in read and (key not in read or keys.count(key) > 1) for key in keys):
        with pytest.raises(InvalidRequestError):
            splice(raw, {}, read=read)
    else:
        assert splice(raw, {}, read=read) == raw


def test_a_repeated_key_that_nobody_reads_passes():
    assert splice(b'{"x":1,"x":2,"model":"a"}', {"model": b'"b"'}) == b'{"x":1,"x":2,"model":"b"}'


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"1", b"{", b'{"a"', b'{"a":', b'{"a":1', b'{"a":[', b'{"a":"', b'{"a":]}', b'{"a":1]', b"{1:2}", b'{"a":1,}', b'{"\\x":1}', b'{"\xff":1}']
)  # fmt: skip
def test_what_is_no_object_is_the_clients_mistake(raw):
    with pytest.raises(InvalidRequestError):
        splice(raw, {"model": b'"b"'})


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\ a1', max_size=60).map(str.encode))
def test_any_bytes_are_spliced_or_refused(raw):
    try:
        splice(raw, {"model": b'"b"', "x": None})
    except InvalidRequestError:
        return


HARD = {
    "backslashes": lambda n: b'{"a":"' + b"\\\\" * (n // 2) + b'","model":"x"}',
    "escaped quotes": lambda n: b'{"a":"' + b'\\"' * (n // 2) + b'","model":"x"}',
    "backslashes and quotes": lambda n: b'{"a":"' + b'\\\\\\"' * (n // 4) + b'","model":"x"}',
    "nesting": lambda n: b'{"a":' + b"[" * (n // 10) + b"]" * (n // 10) + b',"model":"x"}',
    "nesting with text": lambda n: (
        b'{"a":' + b'{"k":["text",' * (n // 20) + b"1" + b"]}" * (n // 20) + b',"model":"x"}'
    ),
    "base64": lambda n: b'{"a":"' + b"QUJD" * (n // 4) + b'","model":"x"}',
    "spaces": lambda n: b"{" + b" " * n + b'"model":"x"}',
    "unended": lambda n: b'{"a":"' + b'\\"' * (n // 2),
    "small objects": lambda n: b'{"a":[' + b'{"b":{"c":[1]}},' * (n // 16) + b'1],"model":"x"}',
}


@pytest.mark.parametrize("name", HARD)
def test_time_grows_with_the_length_and_no_faster(name):
    def took(size):
        raw, best = HARD[name](size), 9.0
        for _ in range(2):
            begin = time.perf_counter()
            try:
                splice(raw, {"model": b'"y"'})
            except InvalidRequestError:
                pass
            best = min(best, time.perf_counter() - begin)
        return best

    small, large = took(100_000), took(800_000)  # eight times as long; a quadratic way would take 64 times as long
    assert large < 30 * small + 0.05
