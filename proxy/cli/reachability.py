"""Connects to each provider as far as its TLS handshake, without calling it: nothing is sent that could cost."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from proxy.building import endpoint_of
from proxy.cli.findings import Finding, bad, fine, note
from proxy.config.model import Config
from proxy.config.providers import Provider

CONNECT_S = 5.0


async def provider_findings(config: Config) -> AsyncIterator[Finding]:
    """Yield whether each provider can be reached from here."""
    for name, provider in config.providers.items():
        base_url = endpoint_of(name, provider).base_url
        if not base_url:
            yield fine(f"reach {name}", "built in")
        elif provider.proxy is not None:
            yield note(f"reach {name}", "is reached through a proxy, which was not tried")
        else:
            yield await _reached(name, provider, base_url)


async def _reached(name: str, provider: Provider, base_url: str) -> Finding:
    parts = urlsplit(base_url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        context = ssl.create_default_context(cafile=provider.ca_file) if parts.scheme == "https" else None
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.close()
    except ssl.SSLError as error:
        reason = error.reason or "TLS failed"
        return bad(
            f"reach {name}", f"{host}:{port}: {reason}", "set ca_file if its certificate is your own authority's"
        )
    except TimeoutError:
        return bad(
            f"reach {name}",
            f"{host}:{port} does not answer within {CONNECT_S:g} s",
            "open the way to it in the firewall",
        )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return bad(
            f"reach {name}", f"{host}:{port}: {reason}", f"check providers.{name}.base_url, DNS and the firewall"
        )
    tls = "TCP and TLS" if parts.scheme == "https" else "TCP"
    return fine(f"reach {name}", f"{host}:{port}: {tls} in {(loop.time() - began_s) * 1000:.0f} ms")
