"""Azure OpenAI: OpenAI's bodies under Azure's addresses.

What a stranger would get wrong: a deployment is named by the customer, so `deployments` maps models to it, and on the dated
API the deployment is in the path while `model` in the body is ignored. `/responses` alone has no deployment in its path.
With `api_version` null, `v1`, `latest` or `preview` the undated surface is used, which takes the deployment as `model`.
Source: https://learn.microsoft.com/azure/ai-foundry/openai/reference
"""

import dataclasses
from typing import Any
from urllib.parse import quote

from adapters.base import Call, Endpoint
from adapters.openai_lane.lane import PATHS, OpenAILane
from adapters.quirks import Quirks, quirks_of

_UNDATED = (None, "", "v1", "latest", "preview")
_NEWER_FIELDS = "2024-09-01"  # from here on stream_options, max_completion_tokens and role developer are known

_OLD: dict[str, Any] = {"limit_field": "max_tokens", "stream_options": "unknown", "developer_role": False}


class AzureAdapter(OpenAILane):
    """Options: `api_version` (str or null) and `deployments` (model -> deployment; a model not in it is its own name)."""

    def settled_quirks(self, endpoint: Endpoint) -> Quirks:
        version = endpoint.options.get("api_version")
        if version in _UNDATED or str(version) >= _NEWER_FIELDS:
            return quirks_of(endpoint)
        return quirks_of(dataclasses.replace(endpoint, quirks=_OLD | dict(endpoint.quirks)))

    def model_name(self, call: Call) -> str:
        deployments = self.endpoint.options.get("deployments") or {}
        return str(deployments.get(call.upstream_model, call.upstream_model))

    def url(self, call: Call, model: str) -> str:
        base = self.endpoint.base_url.rstrip("/").removesuffix("/v1").removesuffix("/openai")
        version, path = self.endpoint.options.get("api_version"), PATHS[call.operation]
        if version in _UNDATED:
            return f"{base}/openai/v1{path}" + ("?api-version=preview" if version == "preview" else "")
        place = "" if call.operation == "responses" else f"/deployments/{quote(model, safe='')}"
        return f"{base}/openai{place}{path}?api-version={quote(str(version), safe='')}"
