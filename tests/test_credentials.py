"""Credentials: signatures equal AWS's own, tokens are fetched once for all, and no secret ever shows itself."""

import asyncio
import base64
import json
import traceback
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote

import botocore.auth
import pytest
from aiohttp import web
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoKeys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import UpstreamRequest
from adapters.credentials.base import Secret
from adapters.credentials.factory import make_credentials
from adapters.credentials.files import CredentialsError
from adapters.credentials.renew import Lease, Renewed
from adapters.credentials.sigv4 import AwsKeys, sign
from adapters.errors import UpstreamAuthError, UpstreamUnavailableError
from adapters.transport.plain import PlainTransport
from adapters.transport.raw import RawTransport

CANARY = "CANARY-7f3a9b"
NOW = datetime(2026, 11, 20, 13, 5, 9, tzinfo=UTC)
CALL = UpstreamRequest(url="https://provider.invalid/v1/x", headers=(("accept", "*/*"),), body=b"{}")


# signatures ----------------------------------------------------------------------------------------------------------


def boto_sign(monkeypatch, request, *, token=None, region="us-east-1", service="bedrock", now=NOW):
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now)
    aws = AWSRequest(method=request.method, url=request.url, data=request.body, headers=dict(request.headers))
    botocore.auth.SigV4Auth(BotoKeys("AKIDEXAMPLE", CANARY, token), service, region).add_auth(aws)
    return {name.lower(): value for name, value in aws.headers.items()}


def our_sign(request, *, token=None, region="us-east-1", service="bedrock", now=NOW):
    keys = AwsKeys(
        access_key_id="AKIDEXAMPLE", secret_access_key=Secret(CANARY), session_token=Secret(token) if token else None
    )
    signed = sign(request, keys, region=region, service=service, now=now)
    assert (signed.url, signed.body, signed.method) == (request.url, request.body, request.method)
    return dict(signed.headers)


HOST = "https://bedrock-runtime.us-east-1.amazonaws.com"
REQUESTS = [
    UpstreamRequest(url=f"{HOST}/model/amazon.nova-lite-v1%3A0/converse", body=b'{"a": 1}'),
    UpstreamRequest(url=f"{HOST}/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse-stream"),
    UpstreamRequest(
        url=f"{HOST}/model/x/invoke",
        headers=(("content-type", "application/json"), ("accept", " a   b "), ("x-amzn-bedrock-trace", "ENABLED")),
        body="{'naïve': '☕'}".encode(),
    ),
    UpstreamRequest(url=f"{HOST}/a/../b/./c//d/", headers=(("user-agent", "x"), ("traceparent", "00-1"), ("te", "x"))),
    UpstreamRequest(method="GET", url=f"{HOST}/list?b=2&a=1&a=0&c&d=%2F~%20"),
    UpstreamRequest(method="GET", url="https://EXAMPLE.com:443"),
    UpstreamRequest(url="http://127.0.0.1:8089/model/m/converse", body=b"x"),
    UpstreamRequest(url="https://[::1]:8443/model/m/converse", body=b"x"),
]


@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.url)
def test_a_signature_equals_botocores(monkeypatch, request_, token):
    assert our_sign(request_, token=token) == boto_sign(monkeypatch, request_, token=token)


def test_headers_that_the_transport_writes_are_not_signed():
    plain = UpstreamRequest(url=f"{HOST}/x", body=b"x")
    framed = UpstreamRequest(url=plain.url, headers=(("host", "h"), ("Content-Length", "1"), ("accept-encoding", "br")))
    framed = UpstreamRequest(url=plain.url, headers=framed.headers, body=b"x")
    assert our_sign(framed) == our_sign(plain)


segment = st.text(min_size=1, max_size=12).filter(lambda s: s not in {".", ".."}).map(lambda s: quote(s, safe=""))
name = st.from_regex(r"x-[a-z0-9-]{1,8}", fullmatch=True)
value = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@settings(max_examples=100, deadline=None)
@given(
    path=st.lists(segment, max_size=4),
    query=st.lists(st.tuples(segment, segment), max_size=3),
    headers=st.dictionaries(name, value, max_size=4),
    body=st.binary(max_size=50),
    region=st.sampled_from(["us-east-1", "eu-west-3", "ap-southeast-2"]),
    now=st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)),
    token=st.none() | st.just("tok/+="),
)
def test_every_signature_equals_botocores(path, query, headers, body, region, now, token):
    url = HOST + "/" + "/".join(path) + ("?" + "&".join(f"{k}={v}" for k, v in query) if query else "")
    request = UpstreamRequest(url=url, headers=tuple(headers.items()), body=body)
    with pytest.MonkeyPatch.context() as patch:
        expected = boto_sign(patch, request, token=token, region=region, now=now)
    assert our_sign(request, token=token, region=region, now=now) == expected


# a token server, a transport to it, a clock --------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = NOW.timestamp()

    def __call__(self):
        return self.now


class TokenServer:
    """Answers every request by `answer(method, path, headers, form)`; keeps what came."""

    def __init__(self):
        self.seen = []
        self.answer = lambda seen: (200, {"access_token": CANARY + str(len(self.seen)), "expires_in": 3600})
        self.hold = None

    async def handle(self, request):
        body = await request.read()
        self.seen.append({
            "method": request.method, "path": request.path_qs, "headers": {k.lower(): v for k, v in request.headers.items()}, "body": body,
            "form": {k: v[0] for k, v in parse_qs(body.decode()).items()},
        })  # fmt: skip
        if self.hold is not None:
            await self.hold.wait()
        status, answer = self.answer(self.seen[-1])
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return web.Response(status=status, body=data)

    @asynccontextmanager
    async def run(self):
        server = web.Server(self.handle, handler_cancellation=True, access_log=None)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            listening.close()
            server.pre_shutdown()
            await server.shutdown(0.05)


@pytest.fixture
async def server():
    async with TokenServer().run() as running:
        yield running


@pytest.fixture(params=[RawTransport, PlainTransport])
async def transport(request):
    made = request.param()
    yield made
    await made.close()


@pytest.fixture
def clock():
    return Clock()


def make(kind, transport, clock, *, keys=(), environ=None, **options):
    return make_credentials(
        kind, options, [Secret(k) for k in keys], transport=transport, clock=clock, environ=environ or {}
    )


async def bearer(credentials):
    return dict((await credentials.apply(CALL)).headers)["authorization"]


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def no_canary(*things):
    for thing in things:
        assert CANARY not in repr(thing)
        assert CANARY not in str(thing)
        seen = thing
        while isinstance(seen, BaseException):
            assert CANARY not in repr((seen, seen.args, vars(seen)))
            assert CANARY not in "".join(traceback.format_exception(seen))
            seen = seen.__cause__ or seen.__context__


# renewal -------------------------------------------------------------------------------------------------------------


class Source:
    """Counts fetches; gives tokens of an hour, or fails."""

    def __init__(self, clock):
        self.clock, self.calls, self.fails, self.hold, self.lifetime_s = clock, 0, False, None, 3600

    async def __call__(self):
        self.calls += 1
        call = self.calls
        if self.hold is not None:
            await self.hold.wait()
        if self.fails:
            raise UpstreamUnavailableError("could not be reached")
        return Lease(f"token-{call}", self.clock() + self.lifetime_s)


@pytest.fixture
def source(clock):
    return Source(clock)


@pytest.fixture
def renewed(source, clock):
    return Renewed(source, clock, source="test", jitter=lambda: 0.5)


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_hundred_waiting_calls_fetch_once(renewed, source):
    source.hold = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(renewed.get()) for _ in range(100)]
        await settle()
        source.hold.set()
    assert {c.result() for c in calls} == {"token-1"}
    assert source.calls == 1


async def test_a_token_is_renewed_five_minutes_and_a_jitter_ahead(renewed, source, clock):
    start = clock.now
    assert await renewed.get() == "token-1"
    clock.now = start + 3600 - 331
    assert await renewed.get() == "token-1"
    clock.now = start + 3600 - 329
    assert await renewed.get() == "token-2"
    assert source.calls == 2


async def test_a_short_token_is_renewed_at_half_its_life(renewed, source, clock):
    source.lifetime_s = 100
    await renewed.get()
    clock.now += 49
    assert await renewed.get() == "token-1"
    clock.now += 2
    assert await renewed.get() == "token-2"


async def test_others_go_on_with_the_old_token_while_one_renews(renewed, source, clock):
    await renewed.get()
    clock.now += 3400
    source.hold = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(renewed.get())
        await settle()
        assert [await renewed.get() for _ in range(20)] == ["token-1"] * 20
        source.hold.set()
    assert first.result() == "token-2"
    assert source.calls == 2


async def test_a_failure_keeps_the_old_token_until_it_ends(renewed, source, clock):
    await renewed.get()
    source.fails = True
    clock.now += 3400
    for _ in range(10):
        assert await renewed.get() == "token-1"
    assert source.calls == 2  # the nine others did not ask a server that is down
    clock.now += 189  # 11 seconds left
    assert await renewed.get() == "token-1"
    clock.now += 2
    for _ in range(3):
        with pytest.raises(UpstreamAuthError, match=r"^test: could not be reached$"):
            await renewed.get()
    assert source.calls == 4
    source.fails = False
    clock.now += 30
    assert await renewed.get() == "token-5"


async def test_all_that_wait_for_a_failing_fetch_fail_with_it(renewed, source):
    source.hold, source.fails = asyncio.Event(), True
    calls = [asyncio.get_running_loop().create_task(renewed.get()) for _ in range(50)]
    await settle()
    source.hold.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(r, UpstreamAuthError) for r in results)
    assert source.calls == 1


async def test_a_failing_source_is_asked_less_and_less(renewed, source, clock):
    source.fails = True
    for _ in range(600):
        with pytest.raises(UpstreamAuthError):
            await renewed.get()
        clock.now += 0.5
    assert 10 <= source.calls <= 16  # 1, 2, 4, 8, 16, 30, 30 … seconds apart, in five minutes


async def test_a_cancelled_fetch_is_taken_over_by_the_next_that_waits(renewed, source):
    source.hold = asyncio.Event()
    loop = asyncio.get_running_loop()
    first, second = loop.create_task(renewed.get()), loop.create_task(renewed.get())
    await settle()
    first.cancel()
    await settle()
    source.hold.set()
    assert await second == "token-2"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_wait_has_a_limit(monkeypatch, renewed, source, clock):
    monkeypatch.setattr("adapters.credentials.renew.WAIT_S", 0.02)
    monkeypatch.setattr("adapters.credentials.renew.WAIT_AHEAD_S", 0.02)
    source.hold = asyncio.Event()
    with pytest.raises(UpstreamAuthError, match="in time"):
        await renewed.get()
    source.hold.set()
    clock.now += 2
    assert await renewed.get() == "token-2"
    source.hold = asyncio.Event()
    clock.now += 3400
    assert await renewed.get() == "token-2"


async def test_a_token_that_comes_expired_is_an_error_that_names_the_clock(renewed, source):
    source.lifetime_s = -5
    for _ in range(3):
        with pytest.raises(UpstreamAuthError, match="clock"):
            await renewed.get()
    assert source.calls == 1


# API keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "header", "value"),
    [
        ("openai", "authorization", "Bearer k1"),
        ("xai", "authorization", "Bearer k1"),
        ("fake", "authorization", "Bearer k1"),
        ("bedrock", "authorization", "Bearer k1"),
        ("anthropic", "x-api-key", "k1"),
        ("gemini", "x-goog-api-key", "k1"),
        ("vertex", "x-goog-api-key", "k1"),
        ("azure", "api-key", "k1"),
    ],
)
async def test_an_api_key_goes_where_its_provider_wants_it(transport, clock, kind, header, value):
    one, two = make(kind, transport, clock, keys=["k1\n", "", "k2"])
    request = await one.apply(CALL)
    assert request.headers == (*CALL.headers, (header, value))
    assert (request.url, request.body) == (CALL.url, CALL.body)
    assert one.name != two.name


async def test_a_provider_without_a_key_is_asked_without_one(transport, clock):
    (only,) = make("openai", transport, clock, keys=[" "])
    assert await only.apply(CALL) == CALL


@pytest.mark.parametrize("key", [CANARY + "\r\nx-evil: 1", CANARY + "é", CANARY + "\x00"])
def test_a_key_that_no_header_can_carry_is_refused_at_start(transport, clock, key):
    with pytest.raises(CredentialsError, match="API key 2") as caught:
        make("openai", transport, clock, keys=["fine", key])
    no_canary(caught.value)


@pytest.mark.parametrize(("kind", "option"), [("vertex", "access_token"), ("azure", "access_token")])
async def test_a_fixed_access_token_is_a_bearer_token(transport, clock, kind, option):
    (only,) = make(kind, transport, clock, **{option: "t"})
    assert await bearer(only) == "Bearer t"


# AWS -----------------------------------------------------------------------------------------------------------------

KEYS = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": CANARY, "Expiration": "2026-11-20T14:05:09Z"}
STS = (
    b"<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\n"
    b"<AccessKeyId>AKIDEXAMPLE</AccessKeyId><SecretAccessKey>CANARY-7f3a9b</SecretAccessKey>"
    b"<SessionToken>CANARY-7f3a9b/+==</SessionToken><Expiration>2026-11-20T14:05:09Z</Expiration>\n"
    b"</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
)


async def assert_signs_as_boto(monkeypatch, credentials, token):
    request = REQUESTS[0]
    assert dict((await credentials.apply(request)).headers) == boto_sign(monkeypatch, request, token=token)
    no_canary(credentials, vars(credentials))


@pytest.mark.parametrize("token", [None, CANARY + "/+=="])
@pytest.mark.parametrize("place", ["options", "environment"])
async def test_given_keys_sign(monkeypatch, transport, clock, token, place):
    options = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": CANARY, "session_token": token}
    environ = {"AWS_" + key.upper(): value for key, value in options.items() if value}
    given = {"environ": environ} if place == "environment" else options
    (only,) = make("bedrock", transport, clock, region="us-east-1", **given)
    await assert_signs_as_boto(monkeypatch, only, token)


async def test_a_web_identity_is_exchanged_with_the_file_as_it_is_then(monkeypatch, transport, clock, server, tmp_path):
    path = written(tmp_path, "token", CANARY + "-one\n")
    environ = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": path, "AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_STS": server.url,
    }  # fmt: skip
    server.answer = lambda seen: (200, STS)
    (only,) = make("bedrock", transport, clock, environ=environ)
    await assert_signs_as_boto(monkeypatch, only, CANARY + "/+==")
    assert server.seen[0]["form"]["Action"] == "AssumeRoleWithWebIdentity"
    assert server.seen[0]["form"]["RoleArn"] == "arn:aws:iam::1:role/r"
    written(tmp_path, "token", CANARY + "-two")
    clock.now += 3400
    await only.apply(CALL)
    assert [s["form"]["WebIdentityToken"] for s in server.seen] == [CANARY + "-one", CANARY + "-two"]


@pytest.mark.parametrize("from_file", [True, False])
async def test_a_container_is_asked_with_its_token(monkeypatch, transport, clock, server, tmp_path, from_file):
    server.answer = lambda seen: (200, {**KEYS, "Token": CANARY + "t"})
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url + "/v1/credentials"}
    if from_file:
        environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = written(tmp_path, "t", "pod-token\n")
    else:
        environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "pod-token"
    (only,) = make("bedrock", transport, clock, environ=environ, region="us-east-1")
    await assert_signs_as_boto(monkeypatch, only, CANARY + "t")
    assert server.seen[0]["headers"]["authorization"] == "pod-token"


def test_a_containers_token_is_not_sent_in_the_clear_to_anywhere(transport, clock):
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example/x"}
    with pytest.raises(CredentialsError, match="link-local"):
        make("bedrock", transport, clock, environ=environ, region="us-east-1")


async def test_an_instance_is_asked_by_version_two(monkeypatch, transport, clock, server):
    answers = {"/latest/api/token": b"imds-token", "/latest/meta-data/iam/security-credentials/": b"my-role\n"}
    server.answer = lambda seen: (200, answers.get(seen["path"], {**KEYS, "Token": "t"}))
    environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url, "AWS_REGION": "us-east-1"}
    (only,) = make("bedrock", transport, clock, environ=environ)
    await assert_signs_as_boto(monkeypatch, only, "t")
    assert [(s["method"], s["path"].rsplit("/", 1)[1]) for s in server.seen] == [
        ("PUT", "token"), ("GET", ""), ("GET", "my-role"),
    ]  # fmt: skip
    assert all(s["headers"]["x-aws-ec2-metadata-token"] == "imds-token" for s in server.seen[1:])


@pytest.mark.parametrize(
    ("options", "environ", "message"),
    [
        ({"access_key_id": "A"}, {}, "together"),
        ({"access_key_id": "A", "secret_access_key": CANARY}, {}, "region"),
        ({"region": "us-east-1"}, {"AWS_EC2_METADATA_DISABLED": "true"}, "no credentials"),
    ],
)
def test_a_mistake_in_aws_keys_is_told_at_start(transport, clock, options, environ, message):
    with pytest.raises(CredentialsError, match=message) as caught:
        make("bedrock", transport, clock, environ=environ, **options)
    no_canary(caught.value)


async def test_bedrocks_bearer_key_may_come_from_the_environment(transport, clock):
    (only,) = make("bedrock", transport, clock, environ={"AWS_BEARER_TOKEN_BEDROCK": "b"})
    assert await bearer(only) == "Bearer b"


# Google --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key):
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def unbase64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def test_a_service_account_signs_an_assertion_that_google_can_verify(transport, clock, server, tmp_path, rsa_key):
    info = {"type": "service_account", "client_email": "me@p.example", "private_key": pem(rsa_key)}
    info |= {"private_key_id": "k1", "token_uri": server.url + "/token"}
    (only,) = make("vertex", transport, clock, credentials_file=written(tmp_path, "sa.json", info))
    assert await bearer(only) == f"Bearer {CANARY}1"
    assert await bearer(only) == f"Bearer {CANARY}1"
    (seen,) = server.seen
    header, claims, signature = seen["form"]["assertion"].split(".")
    rsa_key.public_key().verify(unbase64(signature), f"{header}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
    assert json.loads(unbase64(header)) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    read = json.loads(unbase64(claims))
    assert (read["iss"], read["aud"], read["exp"] - read["iat"]) == ("me@p.example", server.url + "/token", 3600)
    assert read["iat"] == int(clock.now)
    assert seen["form"]["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    no_canary(only, vars(only))


async def test_an_authorized_user_uses_the_refresh_token(transport, clock, server, tmp_path):
    info = {"type": "authorized_user", "client_id": "c", "client_secret": CANARY, "refresh_token": CANARY}
    info |= {"token_uri": server.url, "quota_project_id": "quota"}
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": written(tmp_path, "adc.json", info)}
    (only,) = make("vertex", transport, clock, environ=environ)
    headers = dict((await only.apply(CALL)).headers)
    assert headers["authorization"] == f"Bearer {CANARY}1"
    assert headers["x-goog-user-project"] == "quota"
    assert server.seen[0]["form"] == {
        "grant_type": "refresh_token", "client_id": "c", "client_secret": CANARY, "refresh_token": CANARY,
    }  # fmt: skip


@pytest.mark.parametrize("impersonated", [True, False])
@pytest.mark.parametrize("style", ["text file", "json file", "url"])
async def test_an_external_account_is_exchanged(transport, clock, server, tmp_path, style, impersonated):
    answers = {"/subject": {"id_token": "subject"}, "/impersonate": {
        "accessToken": CANARY + "imp", "expireTime": "2026-11-20T14:05:09.123456789Z"}}  # fmt: skip
    default = {"access_token": CANARY + "sts", "expires_in": 3600}
    server.answer = lambda seen: (200, answers.get(seen["path"], default))
    json_format = {"type": "json", "subject_token_field_name": "id_token"}
    sources = {
        "text file": {"file": written(tmp_path, "t", "subject\n")},
        "json file": {"file": written(tmp_path, "t.json", {"id_token": "subject"}), "format": json_format},
        "url": {"url": server.url + "/subject", "headers": {"X-Metadata": "yes"}, "format": json_format},
    }
    info = {"type": "external_account", "audience": "//iam/pool", "token_url": server.url + "/sts"}
    info |= {"subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "credential_source": sources[style]}
    if impersonated:
        info["service_account_impersonation_url"] = server.url + "/impersonate"
    (only,) = make("vertex", transport, clock, credentials_file=written(tmp_path, "wif.json", info))
    assert await bearer(only) == "Bearer " + CANARY + ("imp" if impersonated else "sts")
    exchange = next(s for s in server.seen if s["path"] == "/sts")
    assert (exchange["form"]["subject_token"], exchange["form"]["audience"]) == ("subject", "//iam/pool")
    assert not impersonated or server.seen[-1]["headers"]["authorization"] == f"Bearer {CANARY}sts"


async def test_the_metadata_server_is_asked_where_nothing_is_given(transport, clock, server):
    environ = {"GCE_METADATA_HOST": server.url.removeprefix("http://")}
    (only,) = make("vertex", transport, clock, environ=environ)
    assert await bearer(only) == f"Bearer {CANARY}1"
    assert server.seen[0]["headers"]["metadata-flavor"] == "Google"
    assert server.seen[0]["path"] == "/computeMetadata/v1/instance/service-accounts/default/token"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CANARY, "no JSON object"),
        ({"type": "service_account", "private_key": CANARY}, "client_email"),
        ({"type": "service_account", "client_email": "e", "private_key": CANARY}, "no RSA key"),
        ({"type": "impersonated", "x": CANARY}, "none of service_account"),
        (
            {"type": "external_account", "token_url": "u", "audience": "a", "subject_token_type": "t"},
            "credential_source",
        ),
        ("x" * 70_000, "larger"),
    ],
)
def test_a_mistake_in_googles_file_is_told_at_start(transport, clock, tmp_path, content, message):
    with pytest.raises(CredentialsError, match=message) as caught:
        make("vertex", transport, clock, credentials_file=written(tmp_path, "c.json", content))
    no_canary(caught.value)


def test_another_kind_of_private_key_is_refused(transport, clock, tmp_path):
    info = {"type": "service_account", "client_email": "e", "private_key": pem(ec.generate_private_key(ec.SECP256R1()))}
    with pytest.raises(CredentialsError, match="no RSA key"):
        make("vertex", transport, clock, credentials_file=written(tmp_path, "c.json", info))


def test_a_file_that_is_missing_is_told_at_start(transport, clock, tmp_path):
    with pytest.raises(CredentialsError, match="nowhere.json cannot be read: No such file"):
        make("vertex", transport, clock, credentials_file=str(tmp_path / "nowhere.json"))


# Azure ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proof", ["AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_SECRET"])
async def test_an_application_proves_itself_to_entra(transport, clock, server, tmp_path, proof):
    secret = written(tmp_path, "token", CANARY + "f\n") if "FILE" in proof else CANARY + "s"
    environ = {
        "AZURE_TENANT_ID": "ten/ant",
        "AZURE_CLIENT_ID": "app",
        proof: secret,
        "AZURE_AUTHORITY_HOST": server.url,
    }
    (only,) = make("azure", transport, clock, environ=environ)
    assert await bearer(only) == f"Bearer {CANARY}1"
    (seen,) = server.seen
    assert seen["path"] == "/ten%2Fant/oauth2/v2.0/token"
    expected = {"grant_type": "client_credentials", "client_id": "app"}
    expected["scope"] = "https://cognitiveservices.azure.com/.default"
    if "FILE" in proof:
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        expected |= {"client_assertion_type": kind, "client_assertion": CANARY + "f"}
    else:
        expected["client_secret"] = CANARY + "s"
    assert seen["form"] == expected
    no_canary(only, vars(only))


async def test_an_azure_instance_says_its_times_as_text(transport, clock, server):
    ends = str(int(clock.now) + 7200)
    server.answer = lambda seen: (200, {"access_token": f"t{len(server.seen)}", "expires_on": ends})
    environ = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": server.url, "AZURE_CLIENT_ID": "me"}
    (only,) = make("azure", transport, clock, environ=environ)
    assert await bearer(only) == "Bearer t1"
    clock.now += 6000
    assert await bearer(only) == "Bearer t1"
    assert server.seen[0]["headers"]["metadata"] == "true"
    assert "client_id=me" in server.seen[0]["path"]


# what goes wrong at a token server -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (400, {"error": "invalid_grant", "error_description": CANARY}, r"answered 400 \(invalid_grant\)$"),
        (403, {"error": {"status": "PERMISSION_DENIED", "message": CANARY}}, r"answered 403 \(PERMISSION_DENIED\)$"),
        (400, {"error": "a " + CANARY}, r"answered 400$"),
        (500, CANARY.encode(), r"answered 500$"),
        (302, b"", r"answered 302$"),
        (200, CANARY.encode(), "no JSON object"),
        (200, [CANARY], "no JSON object"),
        (200, {"token": CANARY}, "without an access_token"),
        (200, {"access_token": {"a": CANARY}}, "without an access_token"),
        (200, {"access_token": CANARY + "\r\nx: y"}, "without an access_token"),
        (200, {"access_token": CANARY, "expires_in": 0}, "expired"),
    ],
)
async def test_a_token_servers_refusal_is_told_without_its_words(transport, clock, server, status, answer, message):
    server.answer = lambda seen: (status, answer)
    environ = {"GCE_METADATA_HOST": server.url.removeprefix("http://")}
    (only,) = make("vertex", transport, clock, environ=environ)
    with pytest.raises(UpstreamAuthError, match=message) as caught:
        await only.apply(CALL)
    assert caught.value.status == 502
    assert caught.value.message.startswith("Google metadata server: ")
    no_canary(caught.value)


async def test_aws_codes_are_read_from_xml(transport, clock, server, tmp_path):
    environ = {"AWS_WEB_IDENTITY_TOKEN_FILE": written(tmp_path, "t", CANARY), "AWS_ROLE_ARN": "r",
               "AWS_ENDPOINT_URL_STS": server.url}  # fmt: skip
    server.answer = lambda seen: (403, f"<Error><Code>AccessDenied</Code><Message>{CANARY}</Message></Error>".encode())
    (only,) = make("bedrock", transport, clock, environ=environ, region="us-east-1")
    with pytest.raises(
        UpstreamAuthError, match=r"AWS web identity: the token server answered 403 \(AccessDenied\)$"
    ) as e:
        await only.apply(CALL)
    no_canary(e.value)
    server.answer = lambda seen: (200, STS.replace(b"Expiration", b"Nothing"))
    clock.now += 2
    with pytest.raises(UpstreamAuthError, match="when it expires") as e:
        await only.apply(CALL)
    no_canary(e.value)


async def test_a_token_file_that_vanishes_is_an_error_of_ours(transport, clock, tmp_path):
    environ = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "gone"), "AWS_ROLE_ARN": "r"}
    (only,) = make("bedrock", transport, clock, environ=environ, region="us-east-1")
    with pytest.raises(UpstreamAuthError, match="gone cannot be read"):
        await only.apply(CALL)


async def test_a_token_server_that_is_down_is_named(transport, clock):
    (only,) = make("vertex", transport, clock, environ={"GCE_METADATA_HOST": "127.0.0.1:1"})
    with pytest.raises(UpstreamAuthError, match="Google metadata server: no connection"):
        await only.apply(CALL)


async def test_a_hundred_calls_at_once_ask_the_token_server_once(transport, clock, server):
    (only,) = make("vertex", transport, clock, environ={"GCE_METADATA_HOST": server.url.removeprefix("http://")})
    got = await asyncio.gather(*(bearer(only) for _ in range(100)))
    assert set(got) == {f"Bearer {CANARY}1"}
    assert len(server.seen) == 1


def test_a_secret_shows_itself_nowhere():
    keys = AwsKeys(access_key_id="A", secret_access_key=Secret(CANARY), session_token=Secret(CANARY))
    no_canary(Secret(CANARY), keys, Lease(Secret(CANARY), 1.0), f"{Secret(CANARY)!r:>10}")
