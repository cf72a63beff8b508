"""Amounts from their spelling in the file: money, token counts, sizes, seconds, shares.

Money never becomes a float: `0.1` is read as the text it is, so 0.10 USD is exactly 100,000,000 nano-USD. Every
function takes the text of one YAML scalar and raises ValueError with a sentence that says what is wanted.
"""

import math
import re
from decimal import Decimal, localcontext

AMOUNT_MAX = 2**53 - 1  # what Redis's Lua can hold exactly
NANOUSD_PER_USD = 10**9

_MONEY = re.compile(r"\+?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\Z", re.ASCII)
_COUNT = re.compile(r"\+?(?:0|[1-9][0-9_]*)\Z", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,16})[ ]?(B|kB|KB|KiB|MB|MiB|GB|GiB)?\Z", re.ASCII)
_DECIMAL = re.compile(r"\+?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?\Z", re.ASCII)
_TEXT_CHARS_MAX = 64
_UNITS_BYTES = {
    None: 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "KiB": 2**10,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
}


def money(text: str) -> int:
    """Return an amount in USD, such as `5.00`, `1e-3` or `.05`, as exact nano-USD."""
    if len(text) > _TEXT_CHARS_MAX or not _MONEY.match(text):
        raise ValueError("wants an amount in USD such as 5.00, not negative and without a currency sign")
    with localcontext(prec=1100) as exact:
        exact.Emax, exact.Emin = 9999, -9999
        scaled = Decimal(text.replace("_", "")) * NANOUSD_PER_USD
        whole = scaled.to_integral_value()
    if scaled > AMOUNT_MAX:
        raise ValueError("is too large: an amount is at most 9007199.254740991 USD (2^53-1 nano-USD)")
    if scaled != whole:
        raise ValueError("is finer than one nano-USD (0.000000001 USD)")
    return int(whole)


def count(text: str) -> int:
    """Return a whole number from 0 to 2^53-1; `2_000_000` is taken, leading zeros are not."""
    if not _COUNT.match(text):
        raise ValueError("wants a whole number, not negative and without quotes, fraction or leading zero")
    digits = text.replace("_", "").lstrip("+")
    if len(digits) > len(str(AMOUNT_MAX)) or int(digits) > AMOUNT_MAX:
        raise ValueError("is too large: at most 9007199254740991 (2^53-1)")
    return int(digits)


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    number = count(text)
    if number == 0:
        raise ValueError("must be at least 1")
    return number


def size(text: str) -> int:
    """Return a size such as `32MiB`, `500kB` or a bare number of bytes as bytes, at least 1."""
    match = _SIZE.match(text)
    if not match:
        raise ValueError("wants a size such as 32MiB (B, kB, KiB, MB, MiB, GB, GiB)")
    size_bytes = int(match[1]) * _UNITS_BYTES[match[2]]
    if not 1 <= size_bytes <= AMOUNT_MAX:
        raise ValueError("must be at least 1 byte and below 2^53")
    return size_bytes


def seconds(text: str) -> float:
    """Return a time of more than 0 and at most a week, in seconds."""
    number = _decimal(text, "wants a number of seconds such as 3 or 0.5")
    if not 0 < number <= 7 * 86400:
        raise ValueError("must be more than 0 and at most 604800 seconds (a week)")
    return number


def seconds_or_zero(text: str) -> float:
    """Return a time in seconds as `seconds` does, where 0 turns the thing off."""
    number = _decimal(text, "wants a number of seconds such as 15, or 0")
    return number if number == 0 else seconds(text)


def share(text: str) -> float:
    """Return a fraction from 0 to 1, such as 0.25."""
    number = _decimal(text, "wants a fraction from 0 to 1 such as 0.25")
    if not 0 <= number <= 1:
        raise ValueError("must be from 0 to 1: a quarter is 0.25")
    return number


def _decimal(text: str, wanted: str) -> float:
    if len(text) > _TEXT_CHARS_MAX or not _DECIMAL.match(text):
        raise ValueError(wanted)
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(wanted)
    return number
