"""Azure: Entra tokens for Azure OpenAI, from a pod's workload identity, a client secret, or the instance.

Source: https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote, urlencode

from adapters.base import UpstreamRequest
from adapters.credentials.base import Secret
from adapters.credentials.fetch import METADATA, fetch_json, form, token_lease
from adapters.credentials.files import read_secret
from adapters.credentials.renew import Lease
from adapters.transport.base import Transport

Fetch = Callable[[], Awaitable[Lease[Secret]]]
Clock = Callable[[], float]

_RESOURCE = "https://cognitiveservices.azure.com"
_AUTHORITY = "https://login.microsoftonline.com/"
_METADATA_URL = "http://169.254.169.254/metadata/identity/oauth2/token"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def workload_identity(transport: Transport, clock: Clock, environ: Mapping[str, str]) -> Fetch:
    """Exchange the pod's service account token; its file is read at every renewal.

    Source: https://learn.microsoft.com/azure/aks/workload-identity-overview
    """
    path = environ["AZURE_FEDERATED_TOKEN_FILE"]

    def proof() -> dict[str, str]:
        return {"client_assertion_type": _ASSERTION, "client_assertion": read_secret(path).reveal()}

    return _granted(transport, clock, environ, proof, source="Azure workload identity")


def client_secret(transport: Transport, clock: Clock, environ: Mapping[str, str]) -> Fetch:
    """Prove an application by its secret."""
    secret = Secret(environ["AZURE_CLIENT_SECRET"])
    return _granted(transport, clock, environ, lambda: {"client_secret": secret.reveal()}, source="Azure client secret")


def instance(transport: Transport, clock: Clock, environ: Mapping[str, str]) -> Fetch:
    """Ask the instance's metadata service for its managed identity.

    Source: https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
    """
    source = "Azure instance metadata"
    query = {"api-version": "2018-02-01", "resource": _RESOURCE}
    if environ.get("AZURE_CLIENT_ID"):
        query["client_id"] = environ["AZURE_CLIENT_ID"]
    url = f"{environ.get('AZURE_POD_IDENTITY_AUTHORITY_HOST') or ''}".rstrip("/")
    url = f"{url}/metadata/identity/oauth2/token" if url else _METADATA_URL
    request = UpstreamRequest(method="GET", url=f"{url}?{urlencode(query)}", headers=(("metadata", "true"),))

    async def fetch_token() -> Lease[Secret]:
        answer = await fetch_json(transport, request, source=source, timeouts=METADATA)
        return token_lease(answer, clock, source=source)

    return fetch_token


def _granted(
    transport: Transport, clock: Clock, environ: Mapping[str, str], proof: Callable[[], dict[str, str]], *, source: str
) -> Fetch:
    authority = (environ.get("AZURE_AUTHORITY_HOST") or _AUTHORITY).rstrip("/")
    url = f"{authority}/{quote(environ['AZURE_TENANT_ID'], safe='')}/oauth2/v2.0/token"
    fields = {
        "grant_type": "client_credentials",
        "client_id": environ["AZURE_CLIENT_ID"],
        "scope": _RESOURCE + "/.default",
    }

    async def fetch_token() -> Lease[Secret]:
        answer = await fetch_json(transport, form(url, {**fields, **proof()}), source=source)
        return token_lease(answer, clock, source=source)

    return fetch_token
