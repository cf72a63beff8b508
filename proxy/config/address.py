"""Where Bursar listens, and whether a provider's URL leads back to it.

Names are compared as written, nothing is resolved: `localhost`, every loopback address and the unspecified address are
one machine. A loopback address on another port is another server and fine.
"""

import ipaddress
import re
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

_PORT_MAX = 65535
_HOSTNAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?\Z", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Address(NamedTuple):
    """A host without brackets, and a port; port 0 takes a free one."""

    host: str
    port: int


def listen_address(text: str) -> str:
    """Return `host:port` as written. Raises ValueError when it is neither that nor `[ipv6]:port`."""
    parse_address(text)
    return text


def parse_address(text: str) -> Address:
    """Return the host and port of `127.0.0.1:8080` or `[::1]:8080`. Raises ValueError."""
    wanted = "wants host:port such as 127.0.0.1:8080 or [::1]:8080"
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or int(port) > _PORT_MAX:
        raise ValueError(wanted)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if _ip(host) is None or ":" not in host:
            raise ValueError(wanted)
    elif not _HOSTNAME.match(host):
        raise ValueError(wanted)
    return Address(host, int(port))


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a listener on `host`."""
    name = host.lower().rstrip(".")
    if name in {"localhost", "localhost.localdomain", "ip6-localhost"} or name.endswith(".localhost"):
        return True
    ip = _ip(name)
    return ip is not None and ip.is_loopback


def leads_to(base_url: str, listener: Address, own_names: Collection[str] = ()) -> bool:
    """Tell whether a provider at `base_url` is the listener itself; `own_names` are this machine's host names."""
    parts = _split(base_url)
    if parts is None or parts.hostname is None:
        return False
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return False
    return port == listener.port and _same_host(parts.hostname, listener.host, own_names)


def same_listener(one: Address, other: Address) -> bool:
    """Tell whether two listeners would want the same port of the same address."""
    return one.port == other.port != 0 and (
        _same_host(one.host, other.host, ()) or _same_host(other.host, one.host, ())
    )


def url(text: str) -> str:
    """Return an http(s) URL without the slash at its end. Raises ValueError on anything else, and on user:password@."""
    parts = _split(text)
    if parts is None or parts.scheme not in _DEFAULT_PORTS or not parts.hostname or not text.isascii():
        raise ValueError("wants a URL such as https://api.openai.com/v1")
    try:
        valid_port = parts.port is None or parts.port > 0
    except ValueError:
        valid_port = False
    if not valid_port or re.search(r"[\s\x00-\x1f\x7f\\]", text):
        raise ValueError("wants a URL such as https://api.openai.com/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password; credentials belong in api_keys")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or fragment")
    return text.rstrip("/")


def _same_host(asked: str, listening: str, own_names: Collection[str]) -> bool:
    asked, listening = asked.lower().rstrip("."), listening.lower().rstrip(".")
    if asked == listening:
        return True
    here = is_loopback(asked) or _is_unspecified(asked)
    if _is_unspecified(listening):
        return here or asked in {name.lower() for name in own_names}
    return here and is_loopback(listening)


def _is_unspecified(host: str) -> bool:
    ip = _ip(host)
    return ip is not None and ip.is_unspecified


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.hostname
    except ValueError:
        return None
    return parts
