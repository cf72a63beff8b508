"""The two encodings of OpenAI, from rank files in this package, loaded when first needed.

tiktoken ships no ranks and would fetch them. Loading takes some 200 ms and is done once per process and encoding, by one
thread while others wait; whoever must not wait asks `loaded` first, or loads in a thread at start.
"""

import lzma
from importlib import resources
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import tiktoken

EncodingName: TypeAlias = Literal["o200k_base", "cl100k_base"]

# Source: https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py
_PATTERNS: dict[EncodingName, str] = {
    "o200k_base": "|".join(  # noqa: FLY002 - one alternative per line can be compared with the source
        [
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ]
    ),
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}
_SPECIAL: dict[EncodingName, dict[str, int]] = {
    "o200k_base": {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    "cl100k_base": {
        "<|endoftext|>": 100257,
        "<|fim_prefix|>": 100258,
        "<|fim_middle|>": 100259,
        "<|fim_suffix|>": 100260,
        "<|endofprompt|>": 100276,
    },
}
_LOADED: "dict[EncodingName, tiktoken.Encoding]" = {}
_LOADING = Lock()


def load(name: EncodingName) -> "tiktoken.Encoding":
    """Return the encoding, reading its ranks at the first call. Safe from any thread."""
    encoding = _LOADED.get(name)
    if encoding is not None:
        return encoding
    with _LOADING:
        if name not in _LOADED:
            _LOADED[name] = _build(name)
        return _LOADED[name]


def loaded(name: EncodingName) -> bool:
    """Tell whether `load` would return at once."""
    return name in _LOADED


def _build(name: EncodingName) -> "tiktoken.Encoding":
    import tiktoken

    encoding = tiktoken.Encoding(
        name, pat_str=_PATTERNS[name], mergeable_ranks=read_ranks(name), special_tokens=_SPECIAL[name]
    )
    encoding._mergeable_ranks = {}  # noqa: SLF001 - the Rust half has its own copy; this one would cost 22 MB for ever
    return encoding


def read_ranks(name: EncodingName) -> dict[bytes, int]:
    """Read a packed rank file: token count in 4 bytes, one length byte per token, all tokens in rank order."""
    packed = lzma.decompress(resources.files(__package__).joinpath(f"{name}.bin").read_bytes())
    count = int.from_bytes(packed[:4], "big")
    ends = list(accumulate(packed[4 : 4 + count], initial=4 + count))
    return {packed[ends[rank] : ends[rank + 1]]: rank for rank in range(count)}
