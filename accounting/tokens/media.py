"""What pictures, files and sound cost in input tokens, by each vendor's own formula; never counted as text.

Everything errs upwards: a picture whose size cannot be seen (an https URL, a broken header) counts as the largest that the
vendor does not scale down, a document by its pages, sound as long as so many bytes can last.
"""

import binascii
import re
from collections.abc import Callable
from math import isqrt

from accounting.tokens.families import Family, patches_of, tiles_of
from accounting.tokens.image_size import HEAD_BYTES, Size, image_size

PAGE_TEXT_TOKENS = 3000  # of a dense page. https://platform.claude.com/docs/en/build-with-claude/pdf-support
PAGES_MAX = 1000  # what the most generous vendor takes. https://ai.google.dev/gemini-api/docs/document-processing
PAGES_OF_UNSEEN_FILE = 100  # one that is named by id or URL
PAGE_BYTES_MIN = 4096  # when a PDF hides its page tree: a page of it is taken to be at least so long
FILE_TOKENS_MAX = 1_050_000  # no context window takes more
SOUND_REFERENCE_TOKENS = 3000  # an earlier answer in sound, named by id: five minutes

_DATA_URL_HEADER_CHARS = 256
_GEMINI_TILE_TOKENS = 258
_GEMINI_TILES_MAX = 24  # of the longest strip at 3072 px
_GEMINI_3_IMAGE_TOKENS = 2240  # at its highest media resolution
_GROK_IMAGE_TOKENS_MAX = 1792
_UNKNOWN_IMAGE_TOKENS_MAX = 16_384
_UNKNOWN_IMAGE_TOKENS_MIN = 2_600
# Bytes in a second of sound, at the lowest rate of the format.
_BYTES_PER_S = {"pcm16": 48_000, "wav": 8_000, "flac": 4_000, "aac": 1_000, "mp3": 1_000, "opus": 750}
_WAV_BYTES_PER_S_MAX = 1_536_000
_PDF_WINDOW_CHARS = 1 << 20  # of base64, a multiple of 4
_PDF_PAGE = re.compile(rb"/Type\s{0,8}/Page(?![a-zA-Z])")
_PDF_COUNT = re.compile(rb"/Count\s{1,8}(\d{1,6})")


def image_tokens(url: str, detail: str, model: str, family: Family) -> int:
    """Count one picture, given by data URL or by https URL."""
    data = data_of(url)
    size = image_size(decode_base64(data[: HEAD_BYTES * 4 // 3])) if data is not None else None
    return _FORMULAS[family.image](size, detail, model, family)


def file_tokens(file_data: str, model: str, family: Family, count_text: Callable[[str], int]) -> int:
    """Count one file: text as text, a PDF as pages of text and picture, any other a token per byte."""
    data = data_of(file_data)
    if data is None:
        if "://" in file_data[:16] or not file_data:
            return min(FILE_TOKENS_MAX, PAGES_OF_UNSEEN_FILE * _page_tokens(model, family))
        data = file_data  # some clients leave out the data URL's header
    kind = file_data[: len(file_data) - len(data)][:_DATA_URL_HEADER_CHARS].lower()
    if kind.startswith(("data:text/", "data:application/json")):
        return count_text(decode_base64(data).decode("utf-8", "replace"))
    if "pdf" in kind or data.startswith("JVBERi"):  # "%PDF-" in base64
        return min(FILE_TOKENS_MAX, pdf_pages(data) * _page_tokens(model, family))
    return min(FILE_TOKENS_MAX, len(data) * 3 // 4)


def audio_tokens(data: str, sound_format: str, family: Family) -> int:
    """Count sound given in base64 by the longest time that it can last."""
    data = data_of(data) or data
    length = len(data) * 3 // 4
    bytes_per_s = _BYTES_PER_S.get(sound_format, min(_BYTES_PER_S.values()))
    head = decode_base64(data[:64])
    if head[:4] == b"RIFF" and len(head) >= 32:  # noqa: PLR2004 - a WAV tells its own rate
        told = int.from_bytes(head[28:32], "little")
        bytes_per_s = told if 0 < told <= _WAV_BYTES_PER_S_MAX else _BYTES_PER_S["wav"]
    return (-(-length // bytes_per_s) + 1) * family.audio_per_s


def data_of(url: str) -> str | None:
    """Return the base64 in a data URL, None when it is another URL."""
    if url[:5].lower() != "data:":
        return None
    comma = url.find(",", 0, _DATA_URL_HEADER_CHARS)
    return url[comma + 1 :] if comma >= 0 else ""


def decode_base64(data: str) -> bytes:
    """Decode as much as is whole, both alphabets, with or without padding; b"" when it is no base64."""
    try:
        raw = data.replace("-", "+").replace("_", "/").rstrip("=").encode("ascii")
        return binascii.a2b_base64(raw[: len(raw) - (len(raw) % 4 == 1)] + b"==")
    except ValueError:  # UnicodeEncodeError and binascii.Error are such
        return b""


def pdf_pages(data: str) -> int:
    """Count the pages that a PDF in base64 shows; one that shows none has a page for each 4 KiB."""
    seen = told = 0
    tail = b""
    for start in range(0, len(data), _PDF_WINDOW_CHARS):
        window = tail + decode_base64(data[start : start + _PDF_WINDOW_CHARS])
        tail_start = max(0, len(window) - 32)
        seen += sum(1 for match in _PDF_PAGE.finditer(window) if match.start() < tail_start)
        told = max([told, *(int(match[1]) for match in _PDF_COUNT.finditer(window))])
        tail = window[tail_start:]
    pages = max(seen, told) or -(-len(data) * 3 // 4 // PAGE_BYTES_MIN) + 1
    return min(pages, PAGES_MAX)


def _page_tokens(model: str, family: Family) -> int:
    """Text and picture of a page; the picture as large as a page is usually drawn."""
    if family.image == "gemini":
        return max(_GEMINI_TILE_TOKENS, _GEMINI_3_IMAGE_TOKENS // 4)  # pages cost no text there
    return PAGE_TEXT_TOKENS + _FORMULAS[family.image]((1275, 1650), "high", model, family)


def _openai_tiles(size: Size | None, detail: str, model: str, family: Family) -> int:
    """Fit in 2048 by 2048, bring the short side to 768, count squares of 512.

    Source: https://platform.openai.com/docs/guides/images-vision#calculating-costs
    """
    del family
    price = tiles_of(model)
    if detail == "low":
        return price.base
    width, height = size or (2048, 768)
    longest = max(width, height)
    if longest > 2048:  # noqa: PLR2004
        width, height = -(-width * 2048 // longest), -(-height * 2048 // longest)
    shortest = min(width, height)
    if shortest > 768:  # noqa: PLR2004
        width, height = -(-width * 768 // shortest), -(-height * 768 // shortest)
    return price.base + price.tile * -(-width // 512) * -(-height // 512)


def _openai_patches(size: Size | None, detail: str, model: str, family: Family) -> int:
    """Count squares of 32 up to the model's budget, whatever the detail: low is not cheaper on these.

    Source: https://platform.openai.com/docs/guides/images-vision#calculating-costs
    """
    del family
    price = patches_of(model)
    budget = {"high": price.high_max, "low": price.high_max, "original": price.original_max}.get(detail, price.auto_max)
    patches = -(-size[0] // 32) * -(-size[1] // 32) if size else budget
    return -(-min(patches, budget) * price.percent // 100)


def _anthropic(size: Size | None, detail: str, model: str, family: Family) -> int:
    """Source: https://platform.claude.com/docs/en/build-with-claude/vision#calculate-image-costs."""
    del detail, model
    return min(family.image_max, -(-size[0] * size[1] // 750) + 4) if size else family.image_max


def _gemini(size: Size | None, detail: str, model: str, family: Family) -> int:
    """One tile up to 384 px, else squares of a side between 256 and 768; a fixed sum from Gemini 3 on.

    Source: https://ai.google.dev/gemini-api/docs/image-understanding#token-calculation
    """
    del detail, family
    flat = 0 if "gemini-1" in model or "gemini-2" in model else _GEMINI_3_IMAGE_TOKENS
    tiles = _GEMINI_TILES_MAX
    if size and max(size) <= 384:  # noqa: PLR2004
        tiles = 1
    elif size:
        side = min(768, max(256, min(size) * 2 // 3))
        tiles = min(tiles, -(-size[0] // side) * -(-size[1] // side))
    return max(flat, tiles * _GEMINI_TILE_TOKENS)


def _grok(size: Size | None, detail: str, model: str, family: Family) -> int:
    """Squares of 448 and one more, 256 tokens each, six at most. Source: https://docs.x.ai/docs/guides/image-understanding."""
    del detail, model, family
    if size is None:
        return _GROK_IMAGE_TOKENS_MAX
    return min(_GROK_IMAGE_TOKENS_MAX, 256 * (-(-size[0] // 448) * -(-size[1] // 448) + 1))


def _dearest(size: Size | None, detail: str, model: str, family: Family) -> int:
    """A token for each square of 14 px, and no less than the models take that bring every picture to one size."""
    del detail, model, family
    if size is None:
        return _UNKNOWN_IMAGE_TOKENS_MAX
    patches = -(-size[0] // 14) * -(-size[1] // 14)
    return min(_UNKNOWN_IMAGE_TOKENS_MAX, max(_UNKNOWN_IMAGE_TOKENS_MIN, patches + isqrt(patches)))


_FORMULAS: dict[str, Callable[[Size | None, str, str, Family], int]] = {
    "openai_tiles": _openai_tiles,
    "openai_patches": _openai_patches,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "grok": _grok,
    "dearest": _dearest,
}
