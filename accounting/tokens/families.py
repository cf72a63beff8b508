"""Which encoding, margin and media formula a model name asks for, as data.

OpenAI's models are counted by their own encoding. No other vendor's tokenizer can be had here, so theirs are counted by
o200k and raised by a margin that covers code and non-Latin scripts; the settlement uses the provider's own numbers.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from accounting.tokens.ranks import EncodingName

ImageFormula: TypeAlias = Literal["openai_tiles", "openai_patches", "anthropic", "gemini", "grok", "dearest"]
NAME_CHARS_MAX = 256  # of a model name that is worth looking at


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is known of a group of models. `margin_percent` is what a count is multiplied by, in hundredths."""

    name: str
    encoding: EncodingName = "o200k_base"
    exact: bool = False
    margin_percent: int = 100
    image: ImageFormula = "dearest"
    image_max: int = 1640  # Anthropic: tokens of the largest picture
    audio_per_s: int = 50  # tokens of a second of sound
    message_tokens: int = 8  # of each message, for its role and marks
    base_tokens: int = 0  # of each request: the vendor's own instructions
    tools_tokens: int = 0  # once, when the call has tools: the vendor's own instructions for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """OpenAI's image prices in tokens: `base` for each image, `tile` for each square of 512 px."""

    base: int
    tile: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """OpenAI's other image prices: `percent` hundredths of a token for each square of 32 px, of which so many at most."""

    percent: int
    high_max: int
    auto_max: int
    original_max: int


_OPENAI_O200K = Family(name="openai", exact=True, image="openai_tiles", audio_per_s=10, message_tokens=3)
_OPENAI_CL100K = Family(
    name="openai-cl100k", encoding="cl100k_base", exact=True, image="openai_tiles", audio_per_s=10, message_tokens=3
)
_OPENAI_PATCHES = Family(name="openai-patches", exact=True, image="openai_patches", audio_per_s=10, message_tokens=3)
# Source: https://platform.claude.com/docs/en/build-with-claude/vision
_CLAUDE_NEW = Family(
    name="claude-new", margin_percent=220, image="anthropic", image_max=4784, base_tokens=32, tools_tokens=1000
)
_UNKNOWN = Family(name="unknown", margin_percent=200, base_tokens=80, tools_tokens=800)
# Its template tells the date and the channels. https://cookbook.openai.com/articles/openai-harmony
_GPT_OSS = Family(name="gpt-oss", exact=True, base_tokens=80, tools_tokens=60)

# The first row with a mark that starts the name (after vendor and region) decides.
# Claude: its 3 and 4 series write some 1.15 (English) to 1.6 times (code, Japanese) the tokens of o200k, later ones up to
# 1.35 times that. https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-7
# Its tools cost up to 530 tokens of instructions. https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
_FAMILIES: tuple[tuple[tuple[str, ...], Family], ...] = (
    (("gpt-4.1-mini", "gpt-4.1-nano", "gpt-5-mini", "gpt-5-nano", "o4-mini"), _OPENAI_PATCHES),
    (("gpt-4o", "gpt-4.1", "gpt-4.5", "chatgpt-4o", "gpt-5-chat"), _OPENAI_O200K),
    (("gpt-oss",), _GPT_OSS),
    (("gpt-5.", "gpt-6", "gpt-7"), _OPENAI_PATCHES),
    (("gpt-5", "gpt-audio", "gpt-realtime", "gpt-image", "gpt-chat", "codex", "o1", "o3", "o4"), _OPENAI_O200K),
    (("gpt-4", "gpt-3.5", "gpt-35", "text-embedding", "davinci-002", "babbage-002"), _OPENAI_CL100K),
    (("claude-opus-4-7", "claude-opus-4-8", "claude-opus-4.7", "claude-opus-4.8"), _CLAUDE_NEW),
    (
        ("claude-1", "claude-2", "claude-3", "claude-instant", "claude-haiku-4", "claude-sonnet-4", "claude-opus-4"),
        Family(name="claude", margin_percent=165, image="anthropic", base_tokens=32, tools_tokens=600),
    ),
    (("claude",), _CLAUDE_NEW),
    (
        ("gemini", "gemma", "learnlm"),
        Family(name="gemini", margin_percent=135, image="gemini", audio_per_s=32, tools_tokens=120),
    ),
    (("grok",), Family(name="grok", margin_percent=135, image="grok", message_tokens=12, tools_tokens=400)),
    (("llama", "meta-llama", "codellama"), Family(name="llama", margin_percent=150, base_tokens=32, tools_tokens=700)),
    (
        ("mistral", "mixtral", "ministral", "magistral", "codestral", "devstral", "pixtral", "voxtral", "open-mi"),
        Family(name="mistral", margin_percent=170, audio_per_s=13, tools_tokens=300),
    ),
    (("deepseek",), Family(name="deepseek", margin_percent=150, tools_tokens=600)),
    (("qwen", "qwq", "qvq"), Family(name="qwen", margin_percent=150, tools_tokens=400)),
    (("kimi", "moonshot"), Family(name="kimi", margin_percent=150, tools_tokens=400)),
    (("glm",), Family(name="glm", margin_percent=150, tools_tokens=400)),
    (("nova", "titan"), Family(name="nova", margin_percent=160, tools_tokens=900)),
    (("command", "c4ai"), Family(name="command", margin_percent=150, tools_tokens=1200)),
)

# Source: https://platform.openai.com/docs/guides/images-vision#calculating-costs
_TILES: tuple[tuple[str, Tiles], ...] = (
    ("gpt-4o-mini", Tiles(base=2833, tile=5667)),
    ("gpt-5", Tiles(base=70, tile=140)),
    ("o1", Tiles(base=75, tile=150)),
    ("o3", Tiles(base=75, tile=150)),
    ("computer-use-preview", Tiles(base=65, tile=129)),
    ("gpt-image-1", Tiles(base=65, tile=129)),
)
_TILES_USUAL = Tiles(base=85, tile=170)
# Measured where it differs from what is documented: https://community.openai.com/t/1377015
_PATCHES: tuple[tuple[tuple[str, ...], Patches], ...] = (
    (("gpt-4.1-mini", "gpt-5-mini"), Patches(percent=162, high_max=1536, auto_max=1536, original_max=1536)),
    (("gpt-4.1-nano", "gpt-5-nano"), Patches(percent=246, high_max=1536, auto_max=1536, original_max=1536)),
    (("o4-mini",), Patches(percent=172, high_max=1536, auto_max=1536, original_max=1536)),
    (("gpt-5.1", "gpt-5.2", "gpt-5.3"), Patches(percent=120, high_max=2500, auto_max=2500, original_max=10_000)),
    (("gpt-5.4-mini",), Patches(percent=162, high_max=2500, auto_max=2500, original_max=2500)),
    (("gpt-5.4-nano",), Patches(percent=246, high_max=2500, auto_max=2500, original_max=2500)),
    (("gpt-5.4",), Patches(percent=120, high_max=2500, auto_max=2500, original_max=10_000)),
)
_PATCHES_NEWEST = Patches(percent=162, high_max=2500, auto_max=10_000, original_max=10_000)


@lru_cache(maxsize=512)
def family_of(model: str) -> Family:
    """Return the family of an upstream model, in any vendor's way of naming it ('us.anthropic.claude-…', 'openai/gpt-…')."""
    name = bare_name(model)
    for marks, family in _FAMILIES:
        if name.startswith(marks):
            return family
    return _UNKNOWN


def encoding_for(model: str) -> tuple[EncodingName, bool]:
    """Return the encoding to count with, and whether it is the model's own."""
    family = family_of(model)
    return family.encoding, family.exact


def tiles_of(model: str) -> Tiles:
    """Return what an image costs on an OpenAI model that counts tiles."""
    name = bare_name(model)
    return next((tiles for mark, tiles in _TILES if name.startswith(mark)), _TILES_USUAL)


def patches_of(model: str) -> Patches:
    """Return what an image costs on an OpenAI model that counts patches."""
    name = bare_name(model)
    return next((patches for marks, patches in _PATCHES if name.startswith(marks)), _PATCHES_NEWEST)


def bare_name(model: str) -> str:
    """Strip vendor, region, publisher path and fine-tuning mark from a model name, in lower case."""
    name = model[:NAME_CHARS_MAX].lower().removeprefix("ft:")
    name = name.rsplit("/", 1)[-1]
    if name.startswith(_BEDROCK_REGIONS):
        name = name.split(".", 1)[1]
    vendor, dot, rest = name.partition(".")
    return rest if dot and vendor in _BEDROCK_VENDORS else name


_BEDROCK_REGIONS = ("us.", "eu.", "apac.", "au.", "jp.", "ca.", "global.", "us-gov.")
_BEDROCK_VENDORS = frozenset(
    {"anthropic", "amazon", "meta", "mistral", "cohere", "deepseek", "openai", "qwen", "moonshot", "moonshotai", "zai"}
    | {"google", "nvidia", "minimax", "ai21", "writer", "xai"}
)
