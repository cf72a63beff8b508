"""The error contract's houses, and the look at one error object."""

import pytest

from tests.sidecars import KEYS, house

FOUR = {"message", "type", "param", "code"}
TWO_KEYS = KEYS.replace(
    "]\n", ', {id: narrow, user: bob, secret: "sk-bob-0123456789abcdef0123456789", models: ["fake-*", "gpt-4o"]}]\n'
)
BOB = "sk-bob-0123456789abcdef0123456789"


@pytest.fixture
async def free(store, tmp_path):
    """A house whose caller has no budget."""
    async with house(
        store, tmp_path, keys=TWO_KEYS, more="retries: {attempts: 1}\nserver: {max_body: 64KiB}\n"
    ) as made:
        yield made


@pytest.fixture
async def hard(store, tmp_path):
    """A house whose caller has a hard budget of one dollar."""
    more = 'budgets: [{subject: "user:alice", usd: 1, period: day}]\nadmission: {min_completion: 16}\n'
    providers = 'providers: {{fake: {{kind: fake, base_url: "{fake}"}}, bare: {{kind: fake, base_url: "{fake}"}}}}\n'
    models = 'models: {"bare-1": bare/fake-1, "*": fake/*}\n'
    async with house(store, tmp_path, providers=providers, models=models, more=more) as made:
        yield made


def told(reply):
    """The error object, once it is known to have OpenAI's form."""
    error = reply.error
    assert set(reply.json) == {"error"}
    assert set(error) >= FOUR
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert reply.headers["content-type"].startswith("application/json")
    return error
