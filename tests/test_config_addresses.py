"""Listeners, and providers that lead back to them."""

import pytest

from proxy.config.address import Address, is_loopback, leads_to, parse_address, same_listener
from tests.config_files import config_of, problems_of


@pytest.mark.parametrize(
    ("url", "listen", "itself"),
    [
        ("http://127.0.0.1:8080/v1", "127.0.0.1:8080", True),
        ("http://localhost:8080/v1", "127.0.0.1:8080", True),
        ("http://LOCALHOST.:8080", "127.0.0.1:8080", True),
        ("http://api.localhost:8080", "127.0.0.1:8080", True),
        ("http://127.8.9.1:8080", "127.0.0.1:8080", True),
        ("http://[::1]:8080/v1", "127.0.0.1:8080", True),
        ("http://[::ffff:127.0.0.1]:8080/v1", "127.0.0.1:8080", True),
        ("http://0.0.0.0:8080/v1", "127.0.0.1:8080", True),
        ("http://127.0.0.1:8080", "0.0.0.0:8080", True),
        ("http://127.0.0.1:8080", "[::]:8080", True),
        ("http://me.example:8080", "0.0.0.0:8080", True),
        ("http://me.example:8080", "me.example:8080", True),
        ("http://10.0.0.5:8080", "10.0.0.5:8080", True),
        ("http://127.0.0.1", "127.0.0.1:80", True),
        ("https://localhost", "127.0.0.1:443", True),
        ("http://127.0.0.1:8081", "127.0.0.1:8080", False),
        ("http://10.0.0.6:8080", "10.0.0.5:8080", False),
        ("http://other.example:8080", "0.0.0.0:8080", False),
        ("http://me.example:8080", "127.0.0.1:8080", False),
        ("https://api.openai.com/v1", "127.0.0.1:443", False),
    ],
)
def test_a_provider_that_is_bursar_itself_is_seen(url, listen, itself):
    assert leads_to(url, parse_address(listen), {"me.example"}) is itself


def test_a_preset_whose_own_port_is_ours_is_seen():
    assert problems_of("listen: 127.0.0.1:8000\nproviders: {v: {preset: vllm}}")[0].path == "providers.v.base_url"
    assert config_of("providers: {v: {preset: vllm}}").providers["v"].preset == "vllm"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", True),
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "0.0.0.0:1", True),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("127.0.0.1:1", "127.0.0.1:2", False),
        ("10.0.0.1:1", "127.0.0.1:1", False),
    ],
)
def test_two_listeners_on_one_port_are_seen(one, other, same):
    assert same_listener(parse_address(one), parse_address(other)) is same


def test_addresses():
    assert parse_address("[::1]:80") == Address("::1", 80)
    assert [
        host
        for host in ("localhost", "127.1.2.3", "::1", "0.0.0.0", "::", "10.0.0.1", "x.example")
        if is_loopback(host)
    ] == [
        "localhost",
        "127.1.2.3",
        "::1",
    ]
    for wrong in ("::1:80", "[x]:80", ":80", "a b:80", "127.0.0.1:", "127.0.0.1:8a", "http://h:80"):
        with pytest.raises(ValueError):
            parse_address(wrong)
