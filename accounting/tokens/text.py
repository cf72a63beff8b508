"""Count the tokens of one text, whatever it is: a million blanks, megabytes without a space, lone surrogates.

tiktoken's `encode_ordinary` dies on long runs of blanks (a BaseException), and one call on a long text cannot be
interrupted. Hence `encode`, on pieces. A piece ends where the encoding's own pattern always ends a word, so cutting there
changes no count; a run without such a place in 16 K characters is cut anyway, which costs a token or two.
"""

import re

from accounting.tokens.ranks import EncodingName, load

PIECE_CHARS = 16_384
THREAD_BYTES = 32 * 1024  # about 0.8 ms of counting

# A letter or digit, then a mark that no pattern takes into the same word: any but the apostrophe, which may be a contraction.
# The last such place is found: `.*` takes all there is, and gives back.
_LAST_WORD_END = re.compile(
    r"(?s).*(?<=[^\W_])[\x00-\x26\x28-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f\u3001\u3002\uff01\uff0c\uff1f]"
)
_LOOK_BACK_CHARS = (256, 4096, PIECE_CHARS)


def count_text(text: str, encoding: EncodingName) -> int:
    """Return the number of tokens: exact, or a few above where a text offers no word's end for 16 K characters."""
    encode = load(encoding).encode
    if len(text) <= PIECE_CHARS:
        return len(encode(text, disallowed_special=()))
    count = start = 0
    while start < len(text):
        end = len(text) if len(text) - start <= PIECE_CHARS else word_end(text, start, start + PIECE_CHARS)
        count += len(encode(text[start:end], disallowed_special=()))
        start = end
    return count


def word_end(text: str, start: int, end: int) -> int:
    """Return the last place in text[start:end] where a cut changes no count; `end` when there is none."""
    for chars in _LOOK_BACK_CHARS:
        low = max(start + 1, end - chars)
        last = _LAST_WORD_END.match(text, low, end)
        if last is not None:
            return last.end() - 1
        if low == start + 1:
            break
    return end


def byte_count(text: str) -> int:
    """Return the length in UTF-8: no text has more tokens than that, on any vendor's tokenizer."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def needs_thread(size_bytes: int) -> bool:
    """Tell whether a body of that size would hold up the event loop if it were counted there."""
    return size_bytes > THREAD_BYTES
