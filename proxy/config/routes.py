"""Where model names lead when no `models` are given: data, from the kinds of the configured providers.

In a pattern `*` stands for any text, and for the same text in its target. The longest pattern that fits wins; a name
without a wildcard before any pattern.
"""

from collections.abc import Mapping

# Names that people know, and the kinds that serve them, the vendor itself first.
WELL_KNOWN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("gpt-*", ("openai", "azure")),
    ("chatgpt-*", ("openai", "azure")),
    ("o1*", ("openai", "azure")),
    ("o3*", ("openai", "azure")),
    ("o4*", ("openai", "azure")),
    ("text-embedding-*", ("openai", "azure")),
    ("claude-*", ("anthropic", "vertex")),
    ("gemini-*", ("gemini", "vertex")),
    ("grok-*", ("xai",)),
    ("anthropic.*", ("bedrock",)),
    ("amazon.*", ("bedrock",)),
    ("meta.*", ("bedrock",)),
    ("mistral.*", ("bedrock",)),
    ("cohere.*", ("bedrock",)),
    ("us.*", ("bedrock",)),
    ("eu.*", ("bedrock",)),
    ("apac.*", ("bedrock",)),
    ("global.*", ("bedrock",)),
)


def default_models(kinds: Mapping[str, str]) -> dict[str, str]:
    """Return the map of models for providers by name and kind, in their order: one takes all names as they are."""
    names = list(kinds)
    if not names:
        return {}
    models: dict[str, str] = {}
    if len(names) > 1:
        models |= {f"{name}/*": f"{name}/*" for name in names}
        for pattern, wanted in WELL_KNOWN:
            serving = [name for kind in wanted for name in names if kinds[name] == kind]
            if serving:
                models[pattern] = f"{serving[0]}/{pattern}"
    models["*"] = f"{names[0]}/*"
    return models
