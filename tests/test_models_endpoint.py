"""GET /v1/models and /v1/models/{id}: what this caller may send, and nothing of what others may."""

import openai
import pytest

from tests.sidecars import KEYS, house

BOB = "sk-bob-0123456789abcdef0123456789"
TWO_KEYS = KEYS.replace("]\n", f', {{id: bobs, user: bob, secret: "{BOB}", models: ["org/*"]}}]\n')
MODELS = 'models: {fake-1: fake/fake-1, "org/with/slashes": fake/x, "a b%2F?c#d": fake/y, spread: [fake/a, fake/b], "ft:*": fake/*}\n'


@pytest.fixture
async def h(store, tmp_path):
    async with house(store, tmp_path, keys=TWO_KEYS, models=MODELS) as made:
        yield made


async def test_the_sdk_lists_the_models_without_the_patterns(h):
    async with h.sdk() as sdk:
        found = [model async for model in await sdk.models.list()]
    assert [m.id for m in found] == ["a b%2F?c#d", "fake-1", "org/with/slashes", "spread"]
    assert {(m.object, m.owned_by) for m in found} == {("model", "fake")}
    assert all(isinstance(m.created, int) for m in found)


@pytest.mark.parametrize("name", ["fake-1", "org/with/slashes", "a b%2F?c#d", "ft:anything/at:all"])
async def test_the_sdk_retrieves_a_model_whatever_its_name(h, name):
    async with h.sdk() as sdk:
        assert (await sdk.models.retrieve(name)).id == name


async def test_slashes_may_be_sent_as_they_are(h):
    assert (await h.get("/models/org/with/slashes")).json["id"] == "org/with/slashes"


async def test_a_model_that_is_not_there_is_not_found(h):
    async with h.sdk() as sdk:
        with pytest.raises(openai.NotFoundError) as caught:
            await sdk.models.retrieve("gone")
    assert caught.value.code == "model_not_found"


async def test_a_key_with_an_allow_list_sees_only_what_it_may_use(h):
    assert [m["id"] for m in (await h.get("/models", key=BOB)).json["data"]] == ["org/with/slashes"]
    assert (await h.get("/models/org/with/slashes", key=BOB)).status == 200
    hidden, absent = await h.get("/models/fake-1", key=BOB), await h.get("/models/gone", key=BOB)
    assert (hidden.status, absent.status) == (404, 404)
    assert hidden.error["message"].replace("fake-1", "gone") == absent.error["message"]
