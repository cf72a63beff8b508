"""Every recorded chat request, sent to every other provider: the vendor's own SDK types accept what is built, or it is refused by name."""

import json

import pytest

from adapters.base import Call, Endpoint, Media
from adapters.errors import InvalidRequestError
from adapters.exact import dumps_exact
from adapters.registry import make_adapter
from adapters.treatment import OPENAI_FIELDS
from tests import recorded
from tests.bedrock_requests import complaints
from tests.test_anthropic_request import PARAMS
from tests.test_gemini_request import accepted

pytestmark = pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)

OPTIONS = {"region": "us-east-1", "project": "p", "location": "us-central1"}
PNG = bytes.fromhex("89504e470d0a1a0a") + bytes(16)
MODELS = [
    ("anthropic", "claude-sonnet-4-0"), ("anthropic", "claude-sonnet-4-5"), ("anthropic", "claude-opus-4-7"), ("anthropic", "claude-opus-5-5"),
    ("gemini", "gemini-2.0-flash"), ("gemini", "gemini-2.5-pro"), ("gemini", "gemini-3-pro-preview"), ("vertex", "gemini-2.5-flash"),
    ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"), ("bedrock", "us.anthropic.claude-opus-4-7-v1:0"),
    ("bedrock", "us.amazon.nova-pro-v1:0"), ("bedrock", "openai.gpt-oss-120b-1:0"), ("bedrock", "us.meta.llama4-maverick-17b-instruct-v1:0"),
]  # fmt: skip
REQUESTS = [c for c in recorded.case_ids("openai-chat", "anthropic-messages", "gemini", "bedrock-converse")]


def native_of(kind, model, request):
    adapter = make_adapter(Endpoint(name=kind, kind=kind, base_url="http://127.0.0.1:9", options=OPTIONS))
    body = {**request, "model": model}
    call = Call(
        raw=dumps_exact(body), body=body, upstream_model=model, stream=bool(body.get("stream")), call_id="req_1", created=1
    )  # fmt: skip
    media = {url: Media(mime="image/png", data=PNG) for url in adapter.wanted_media(call)}
    call = Call(**{name: getattr(call, name) for name in call.__slots__ if name != "media"}, media=media)
    return json.loads(adapter.exchange(call).request.body)


def check(kind, model, native):
    if kind == "anthropic":
        known = {name: value for name, value in native.items() if name not in ("temperature", "top_p", "top_k")}
        PARAMS[bool(native.get("stream"))].validate_python(known)
        roles = [message["role"] for message in native["messages"]]
        assert roles[0] == "user"
        assert native["max_tokens"] >= 1
    elif kind == "bedrock":
        assert complaints(native, model) == []
    else:
        accepted(native)


@pytest.mark.parametrize(("kind", "model"), MODELS)
def test_what_is_built_of_any_recorded_request_is_what_the_vendors_types_accept(kind, model):
    refused, wrong = {}, []
    for case_id in REQUESTS:
        request = recorded.load(case_id)["request"]["openai"]
        request = {
            name: value for name, value in request.items() if name in OPENAI_FIELDS
        }  # others mean another provider
        try:
            native = native_of(kind, model, request)
        except InvalidRequestError as error:
            refused[case_id] = f"{error.param}: {error.message}"
            continue
        try:
            check(kind, model, native)
        except (AssertionError, ValueError) as error:
            wrong.append(f"{case_id}: {error}"[:500])
    assert wrong == []
    assert len(refused) < len(REQUESTS) // 3, refused
