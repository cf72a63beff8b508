"""How Bursar reaches its providers: trust, proxy, and how many idle connections it keeps."""

import ssl
from dataclasses import dataclass, field

IDLE_S = 15.0  # shorter than any provider's own keep-alive, so that it is Bursar that closes first


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """What an operator may set for one transport. `proxy` may hold a password and is not shown by repr.

    `proxy` is `http://[user:password@]host:port`; every connection, also to http:// origins, is tunnelled by CONNECT.
    `client_cert` is the path of a certificate chain and of its key (None: the key is in the same file).
    """

    verify: bool = True  # False accepts any certificate: for an operator's own experiments only
    ca_file: str | None = None  # trusted instead of the system's authorities
    client_cert: tuple[str, str | None] | None = None
    proxy: str | None = field(default=None, repr=False)
    idle_s: float = IDLE_S
    idle_per_origin: int = 64
    idle_total: int = 256
    dns_ttl_s: float = 30.0


def tls_context(options: TransportOptions) -> ssl.SSLContext:
    """Return the context of all TLS connections of a transport: TLS 1.2 or later, HTTP/1.1 only.

    Raises OSError and ssl.SSLError when a file cannot be read.
    """
    context = ssl.create_default_context(cafile=options.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if options.client_cert is not None:
        context.load_cert_chain(*options.client_cert)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def shrink_tls_buffers(size_bytes: int = 64 * 1024) -> None:
    """Let asyncio give each new TLS connection of this process `size_bytes` instead of 256 KiB.

    It is a process-wide setting, so the application calls it once at its start; nothing here does. Any size is correct:
    asyncio only reads less at a time.
    """
    from asyncio import sslproto

    if hasattr(sslproto.SSLProtocol, "max_size"):
        sslproto.SSLProtocol.max_size = size_bytes
