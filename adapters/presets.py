"""Servers that speak OpenAI's format: address, name of the key's variable, and what each does otherwise (`adapters.quirks`).

A preset is `kind: openai` with these defaults; the configuration may override any of them. What a stranger would get
wrong: a field that a server does not know is not always ignored, Mistral answers 422 and Groq 400; and a field that is
ignored (`max_completion_tokens` by Ollama) is worse than one that is refused, since the limit is then no limit.
Sources: the providers' own API references, as linked in each row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One row; `key_env` is None where the server usually asks for no key."""

    base_url: str
    key_env: str | None
    quirks: Mapping[str, Any] = field(default_factory=dict)


_OLD = {"limit_field": "max_tokens", "developer_role": False}  # the format as it was before OpenAI's reasoning models
_ONLY_OPENAI = ["store", "service_tier", "verbosity", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"]

PRESETS: Mapping[str, Preset] = {
    # https://docs.mistral.ai/api: unknown fields are refused; usage comes in the last chunk unasked
    "mistral": Preset(
        base_url="https://api.mistral.ai/v1",
        key_env="MISTRAL_API_KEY",
        quirks={
            **_OLD,
            "stream_options": "needless",
            "tool_id": "nine",
            "rename": {"seed": "random_seed"},
            "drop": [*_ONLY_OPENAI, "user", "logit_bias"],
        },
    ),
    # https://console.groq.com/docs/openai
    "groq": Preset(
        base_url="https://api.groq.com/openai/v1",
        key_env="GROQ_API_KEY",
        quirks={"limit_field": "max_completion_tokens", "drop": ["logit_bias", "store", "verbosity"]},
    ),
    # https://api-docs.deepseek.com
    "deepseek": Preset(
        base_url="https://api.deepseek.com/v1",
        key_env="DEEPSEEK_API_KEY",
        quirks={**_OLD, "reasoning_echo": True},
    ),
    # https://openrouter.ai/docs/api-reference
    "openrouter": Preset(
        base_url="https://openrouter.ai/api/v1", key_env="OPENROUTER_API_KEY", quirks={"limit_field": "max_tokens"}
    ),
    # https://docs.together.ai/reference
    "together": Preset(base_url="https://api.together.xyz/v1", key_env="TOGETHER_API_KEY", quirks=_OLD),
    # https://docs.fireworks.ai/api-reference
    "fireworks": Preset(base_url="https://api.fireworks.ai/inference/v1", key_env="FIREWORKS_API_KEY", quirks=_OLD),
    # https://inference-docs.cerebras.ai/api-reference
    "cerebras": Preset(
        base_url="https://api.cerebras.ai/v1",
        key_env="CEREBRAS_API_KEY",
        quirks={
            "limit_field": "max_completion_tokens",
            "drop": ["logit_bias", "store", "frequency_penalty", "presence_penalty"],
        },
    ),
    # https://docs.perplexity.ai/api-reference: cumulative usage comes on every chunk
    "perplexity": Preset(
        base_url="https://api.perplexity.ai",
        key_env="PERPLEXITY_API_KEY",
        quirks={**_OLD, "stream_options": "needless"},
    ),
    # https://huggingface.co/docs/inference-providers
    "huggingface": Preset(base_url="https://router.huggingface.co/v1", key_env="HF_TOKEN", quirks=_OLD),
    # https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope
    "alibaba": Preset(
        base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1", key_env="DASHSCOPE_API_KEY", quirks=_OLD
    ),
    # https://platform.moonshot.ai/docs/api/chat
    "moonshotai": Preset(
        base_url="https://api.moonshot.ai/v1",
        key_env="MOONSHOT_API_KEY",
        quirks={**_OLD, "reasoning_echo": True},
    ),
    # https://docs.z.ai/api-reference
    "zai": Preset(base_url="https://api.z.ai/api/paas/v4", key_env="ZAI_API_KEY", quirks=_OLD),
    # https://docs.api.nvidia.com/nim/reference
    "nvidia": Preset(base_url="https://integrate.api.nvidia.com/v1", key_env="NVIDIA_API_KEY", quirks=_OLD),
    # https://docs.ollama.com/api/openai-compatibility
    "ollama": Preset(base_url="http://127.0.0.1:11434/v1", key_env=None, quirks=_OLD),
    # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
    "vllm": Preset(base_url="http://127.0.0.1:8000/v1", key_env=None, quirks=_OLD),
    # https://lmstudio.ai/docs/developer/openai-compat
    "lmstudio": Preset(base_url="http://127.0.0.1:1234/v1", key_env=None, quirks=_OLD),
}
