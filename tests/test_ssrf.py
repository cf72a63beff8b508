"""D3: no word of a client, a provider or a name server makes Bursar connect anywhere but to the configured providers."""

import asyncio
import json
import socket

import pytest

from adapters.errors import InvalidRequestError
from adapters.transport.guard import AddressRefusedError, GuardedResolver, is_public
from adapters.transport.resolver import Address, Resolver
from proxy.routes import CALLS
from tests.misbehaving import provider
from tests.sidecars import HELLO, house
from tests.test_upstream_oddities import At
from tests.wire import answers, post, talk


@pytest.fixture
def connections(monkeypatch):
    """Every (host, port) that anything in this process connects to."""
    made = []
    connect = asyncio.BaseEventLoop.create_connection

    async def noted(self, factory, host=None, port=None, **more):
        made.append((host, port))
        return await connect(self, factory, host, port, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", noted)
    return made


class Trap:
    """A listener that nobody has any business with."""

    def __init__(self):
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(8)
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def was_visited(self):
        try:
            self.socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def trap():
    made = Trap()
    yield made
    made.socket.close()


HEADERS = ("x-base-url", "x-api-base", "x-portkey-custom-host", "helicone-target-url", "x-forwarded-host", "x-original-url", "x-rewrite-url",
           "x-http-host-override", "forwarded", "x-openai-base-url", "openai-api-base", "x-litellm-api-base", "cf-aig-custom-endpoint")  # fmt: skip
FIELDS = ("api_base", "base_url", "api_url", "endpoint", "host", "proxy", "custom_llm_provider", "azure_endpoint", "vertex_location", "aws_bedrock_runtime_endpoint",
          "webhook", "callback_url", "metadata_url")  # fmt: skip


@pytest.mark.parametrize("path", sorted(CALLS))
async def test_nothing_in_a_request_moves_the_call_to_another_host(store, tmp_path, trap, connections, path):
    async with house(store, tmp_path) as home:
        headers = dict.fromkeys(HEADERS, trap.url)
        body = {"model": "fake-1", "messages": HELLO, "prompt": "x", "input": "x", **dict.fromkeys(FIELDS, trap.url)}
        if path != "/v1/chat/completions":
            body.pop("messages")
        reply = await home.post(path.removeprefix("/v1"), headers=headers, **body)
        assert reply.status in (200, 400)
        for query in (f"?api_base={trap.url}", f"?base_url={trap.url}&host=127.0.0.1:{trap.port}"):
            await home.post(path.removeprefix("/v1") + query, **body)
        assert not trap.was_visited()
        own = {
            home.port,
            int(home.sidecar.ops_url.rpartition(":")[2]),
            int(home.fake.url.rpartition(":")[2].removesuffix("/v1")),
        }
        assert {port for _, port in connections if port} <= own
        for seen in home.fake.requests:
            assert seen.path in CALLS  # no query of the client's either


MODELS = [
    "http://127.0.0.1:1/v1",
    "fake/../../admin",
    "x@127.0.0.1:1",
    "fake-1?x#y",
    "//127.0.0.1:1/",
    "..",
    "x/../../y",
    "fake-1\r\nHost: evil",
    "a b",
    "ä",
]


@pytest.mark.parametrize("model", MODELS)
async def test_a_models_name_is_never_an_address(store, tmp_path, trap, connections, model):
    async with house(store, tmp_path) as home:
        reply = await home.chat(model.replace(":1", f":{trap.port}"))
        assert reply.status in (200, 400, 404)
        assert not trap.was_visited()
        assert all(seen.path == "/v1/chat/completions" for seen in home.fake.requests)


@pytest.mark.parametrize("kind", ["gemini", "vertex", "bedrock", "azure"])
@pytest.mark.parametrize(
    "model", ["../../x", "x?key=y", "x#y", "x/../y", "x%2f..%2fy", "x:evil", "@evil.example/x", "a\r\nb"]
)
async def test_where_the_models_name_is_part_of_the_path_it_stays_one_segment(kind, model):
    from adapters.base import Call, Endpoint
    from adapters.registry import make_adapter
    from adapters.transport.outgoing import parse_url

    endpoint = Endpoint(
        name="p",
        kind=kind,
        base_url="https://provider.example",
        options={"project": "p", "location": "l", "region": "r", "api_version": "v", "deployments": {}},
    )
    raw = json.dumps({"model": model, "messages": HELLO}).encode()
    try:
        made = (
            make_adapter(endpoint)
            .exchange(Call(raw=raw, body=json.loads(raw), upstream_model=model, call_id="c", created=1))
            .request
        )
        target = parse_url(made.url)
    except InvalidRequestError:
        return
    assert target.origin.host == "provider.example"
    path = target.path.partition("?")[0]
    assert "/../" not in path + "/"
    assert "#" not in target.path
    if "?" in model:
        assert "key=y" not in target.path.partition("?")[2]


async def test_an_absolute_target_does_not_make_a_forward_proxy(store, tmp_path, trap):
    async with house(store, tmp_path) as home:
        for line, host in (
            (f"POST {trap.url}/v1/chat/completions HTTP/1.1", "bursar.example"), (f"POST {trap.url}/v1/chat/completions HTTP/1.1", f"127.0.0.1:{trap.port}"),
            (f"CONNECT 127.0.0.1:{trap.port} HTTP/1.1", "x"), (f"GET {trap.url}/ HTTP/1.1", f"127.0.0.1:{trap.port}"),
        ):  # fmt: skip
            got, _ = await talk(
                home.port, post(line=line.encode(), host=f"host: {host}\r\nconnection: close\r\n".encode()), 3
            )
            assert [status for status, _ in answers(got)][0] in (200, 400, 404)
        assert not trap.was_visited()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_providers_redirect_is_not_followed_and_its_target_not_told(store, tmp_path, trap, status):
    async def script(peer):
        while await peer.request():
            await peer.write(
                b"HTTP/1.1 %d Moved\r\nlocation: %s/steal\r\ncontent-length: 0\r\n\r\n" % (status, trap.url.encode())
            )

    async with provider(script) as odd, house(store, tmp_path, fake=At(odd), more="retries: {attempts: 1}\n") as home:
        for stream in (False, True):
            reply = await home.chat(stream=stream)
            assert reply.status == 502
            assert str(trap.port) not in str(reply.headers) + reply.body.decode()
        assert not trap.was_visited()


ADDRESSES = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "192.168.1.1", "172.16.0.1", "0.0.0.0", "::1", "::", "fe80::1", "fd00::1", "::ffff:127.0.0.1",
             "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::", "ff02::1", "fd00:ec2::254", "168.63.129.16", "224.0.0.1", "255.255.255.255"]  # fmt: skip


class Scripted(Resolver):
    """Answers what a hostile name server would: something else each time."""

    def __init__(self, *answers):
        super().__init__(30)
        self.answers = list(answers)

    async def resolve(self, host, port):
        found = self.answers.pop(0)
        return [Address(socket.AF_INET6 if ":" in ip else socket.AF_INET, (ip, port)) for ip in found]


@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_file_is_not_fetched_from_an_address_that_is_not_public(monkeypatch, address):
    assert not is_public(address)
    scripted = Scripted([address], ["93.184.215.14", address])
    monkeypatch.setattr(Resolver, "resolve", lambda self, host, port: scripted.resolve(host, port))
    for _ in range(2):  # alone, and beside one that is public
        with pytest.raises(AddressRefusedError):
            await GuardedResolver().resolve("files.example", 443)


async def test_what_was_checked_is_what_is_connected_to(monkeypatch, connections):
    """A name that is public when it is checked and private when it is used gains nothing: it is resolved once."""
    from adapters.transport.guard import MediaFetcher, MediaUnavailableError

    scripted = Scripted(["192.0.0.9", "93.184.215.14"][1:], ["127.0.0.1"], ["127.0.0.1"])
    monkeypatch.setattr(Resolver, "resolve", lambda self, host, port: scripted.resolve(host, port))
    fetcher = MediaFetcher()
    with pytest.raises((MediaUnavailableError, AddressRefusedError)):
        await fetcher.fetch("http://rebind.example:1/x.png", 1000, 0.2)
    await fetcher.close()
    assert {host for host, _ in connections} <= {"93.184.215.14"}


async def test_a_client_cannot_make_bursar_fetch_from_the_inside(store, tmp_path, trap, connections):
    async with house(store, tmp_path) as home:
        gateway = home.sidecar.routes.gateway
        for url in (
            trap.url + "/x.png",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]/x",
            "file:///etc/passwd",
            "http://localhost/x",
            "gopher://x/",
        ):
            with pytest.raises(InvalidRequestError):
                await gateway.trier.fetch(url)
        assert not trap.was_visited()
