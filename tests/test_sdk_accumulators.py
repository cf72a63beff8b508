"""The official SDKs' own accumulators read what Bursar writes: Python's by the strict types and by its helper, and Node's.

Node's helper is fetched with npm into a folder of the test's own; without node, npm or a network it is skipped.
"""

import json
import shutil
import subprocess

import openai
import pytest
import pytest_asyncio

from tests import recorded
from tests.constructed import STREAMS, asking, expected, reply
from tests.replay import bursar_before, reply_of, request_of
from tests.stream_rules import broken_rules

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = ("openai-chat", "anthropic-messages", "gemini", "bedrock-converse")
RECORDED = [c for c in recorded.case_ids(*CHAT) if request_of(recorded.load(c))[1].get("stream")]
HEALTHY = [s for s in STREAMS if not expected(*s).error and expected(*s).status == 200]
SCRIPT = """
const { default: OpenAI } = await import(process.argv[2] + "/node_modules/openai/index.mjs");
const asked = JSON.parse(await new Promise((done) => {
  let text = ""; process.stdin.on("data", (d) => (text += d)); process.stdin.on("end", () => done(text));
}));
const client = new OpenAI({ baseURL: process.argv[3], apiKey: "any", maxRetries: 0 });
const told = [];
for (const body of asked) {
  try {
    const { tools, functions, ...rest } = body;
    const made = await client.chat.completions.stream(rest).finalChatCompletion();
    told.push({ choices: made.choices.map((c) => ({
      text: c.message.content ?? "", finish: c.finish_reason, calls: (c.message.tool_calls ?? []).map((t) => [t.function.name, t.function.arguments]),
    })), usage: made.usage ?? null });
  } catch (error) { told.push({ error: String(error.message), status: error.status ?? null, api: error instanceof OpenAI.APIError }); }
}
console.log(JSON.stringify(told));
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bursar():
    async with bursar_before() as running:
        yield running


@pytest.mark.parametrize("case_id", RECORDED)
async def test_a_recorded_stream_keeps_every_rule_and_satisfies_the_strict_types(bursar, case_id):
    """wire 3.5 to 3.7, 3.85, 3.86, 3.87"""
    case = recorded.load(case_id)
    failing = "stream_error" in case["expected"]
    _, body = request_of(case)
    for options in ({"include_usage": True}, None):
        bursar.replay.serve(reply_of(case, 1000))
        status, _, answer = await bursar.post("/v1/chat/completions", {**body, "stream_options": options})
        if failing and status >= 400:
            continue
        assert status == 200
        shown = None if failing else options is not None and b'"usage":{' in answer.replace(b": ", b":")
        assert broken_rules(answer, usage=shown, error=failing) == []
        counts = case["expected"].get("usage_openai")
        if options and counts and not failing:
            assert shown


@pytest.mark.parametrize(("provider", "name"), HEALTHY)
async def test_pythons_helper_reads_every_constructed_stream(bursar, provider, name):
    wanted = expected(provider, name)
    bursar.replay.serve(reply(provider, name, 7))
    body = asking(provider, **wanted.body)
    async with openai.AsyncOpenAI(
        base_url=f"{bursar.url}/v1", api_key="any", max_retries=0, _strict_response_validation=True
    ) as client:
        rest = {k: v for k, v in body.items() if k not in ("model", "messages")}
        async with client.chat.completions.stream(
            model=body["model"], messages=body["messages"], extra_body=rest
        ) as events:
            async for _ in events:
                pass
            made = events.current_completion_snapshot
    assert (made.choices[0].message.content or "") == wanted.text
    assert made.choices[0].finish_reason == wanted.finish


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not here")
    folder = tmp_path_factory.mktemp("node")
    fetched = subprocess.run(
        ["npm", "i", "openai@6", "--no-audit", "--no-fund", "--silent"],
        cwd=folder,
        capture_output=True,
        timeout=50,
        check=False,
    )
    if fetched.returncode:
        pytest.skip("npm could not fetch the SDK")
    (folder / "read.mjs").write_text(SCRIPT)
    return folder


async def read_by_node(bursar, node, bodies):
    import asyncio

    process = await asyncio.create_subprocess_exec(
        "node",
        str(node / "read.mjs"),
        str(node),
        f"{bursar.url}/v1",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(json.dumps(bodies).encode()), 50)
    assert process.returncode == 0, errors.decode()
    return json.loads(out)


@pytest.mark.slow
async def test_nodes_helper_reads_every_recorded_stream(bursar, node):
    """wire 3.7, 3.19: it throws where a role, a reason or a type is missing"""
    cases = [recorded.load(case_id) for case_id in RECORDED]
    bursar.replay.serve(*(reply_of(case, 1000) for case in cases))
    told = await read_by_node(bursar, node, [request_of(case)[1] for case in cases])
    for case, made in zip(cases, told, strict=True):
        if "stream_error" in case["expected"]:
            assert made["api"], case["id"]
            continue
        assert "error" not in made, (case["id"], made)
        for choice, wanted in zip(made["choices"], case["expected"]["choices"], strict=True):
            assert choice["text"] == (wanted["text"] or ""), case["id"]
            assert [name for name, _ in choice["calls"]] == [call["name"] for call in wanted["tool_calls"]]


async def test_nodes_helper_reads_every_constructed_stream(bursar, node):
    bursar.replay.serve(*(reply(*each, 1000) for each in STREAMS))
    told = await read_by_node(bursar, node, [asking(each[0], **expected(*each).body) for each in STREAMS])
    for each, made in zip(STREAMS, told, strict=True):
        wanted = expected(*each)
        if wanted.error or wanted.status != 200:
            assert made["api"], (each, made)
            assert wanted.error or made["status"] == wanted.status
            continue
        assert "error" not in made, (each, made)
        first = made["choices"][0]
        assert (first["text"], first["finish"]) == (wanted.text, wanted.finish), each
        assert tuple(map(tuple, first["calls"])) == wanted.calls, each
