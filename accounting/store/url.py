"""Reads `store.url`: redis, rediss and unix addresses, and the schemes for Cluster and Sentinel."""

import ssl
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from accounting.store.resp import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUrl:
    """`kind` is embedded, single, cluster or sentinel; `addresses` are tried in order; `service` names a Sentinel's primary."""

    kind: str
    addresses: tuple[Address, ...] = ()
    service: str = ""

    def __repr__(self) -> str:  # an address may hold a password
        places = ", ".join(a.path or f"{a.host}:{a.port}" for a in self.addresses)
        return f"StoreUrl({self.kind}: {places})"


def read_url(url: str) -> StoreUrl:
    """Parse a store URL. Raises ValueError, which names what is wrong but never the password."""
    if url == "embedded":
        return StoreUrl(kind="embedded")
    parts = urlsplit(url)
    scheme, _, flavour = parts.scheme.partition("+")
    if scheme == "unix":
        path = unquote(parts.path) if not parts.netloc else unquote("/" + parts.netloc + parts.path)
        query = parse_qs(parts.query)
        return StoreUrl(kind="single", addresses=(Address(path=path, database=int(query.get("db", ["0"])[0])),))
    if scheme not in ("redis", "rediss") or flavour not in ("", "cluster", "sentinel"):
        msg = f"store.url has the scheme {parts.scheme!r}: use embedded, redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://"
        raise ValueError(msg)
    pieces = [piece for piece in unquote(parts.path).split("/") if piece]
    service = pieces.pop(0) if flavour == "sentinel" and pieces else ""
    if pieces and not pieces[0].isdigit():
        msg = "the database in store.url must be a number, as in redis://host:6379/0"
        raise ValueError(msg)
    tls = _tls(parts.query) if scheme == "rediss" else None
    user_info, _, hosts = parts.netloc.rpartition("@")
    user, _, password = user_info.partition(":")
    addresses = []
    for place in hosts.split(","):
        host, _, port = place.rpartition(":") if ":" in place.rpartition("]")[2] else (place, "", "")
        if port and not port.isdigit():
            msg = "the port in store.url must be a number"
            raise ValueError(msg)
        addresses.append(
            Address(
                host=(host or "127.0.0.1").strip("[]"),
                port=int(port or (26379 if flavour == "sentinel" else 6379)),
                tls=tls,
                username=unquote(user) or None,
                password=unquote(password) or None,
                database=int(pieces[0]) if pieces else 0,
            )
        )
    return StoreUrl(kind=flavour or "single", addresses=tuple(addresses), service=service)


def _tls(query: str) -> ssl.SSLContext:
    options = parse_qs(query)
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs", [None])[0])
    if options.get("ssl_cert_reqs", ["required"])[0] == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
