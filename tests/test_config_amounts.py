"""Amounts from their spelling: money is exact, and what is no amount is refused."""

import decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import amounts
from tests.config_files import BASE, BOUNDED, config_of


@pytest.mark.parametrize(
    ("text", "nanousd"),
    [
        ("5.00", 5 * 10**9),
        ("5", 5 * 10**9),
        ("1e-3", 10**6),
        ("1E3", 10**12),
        (".05", 5 * 10**7),
        ("5.", 5 * 10**9),
        ("+0.1", 10**8),
        ("0", 0),
        ("0e999", 0),
        ("0.000000001", 1),
        ("9007199.254740991", 2**53 - 1),
        ("1_000.5", 1000_500_000_000),
        ("0.1000000000000000", 10**8),
    ],
)
def test_money_is_exact(text, nanousd):
    assert amounts.money(text) == nanousd


@pytest.mark.parametrize(
    "text",
    "-1 -0 $5 5USD 1,5 nan NaN .nan inf .inf 1e-10 0.0000000001 9007199.254740992 1e999 1e-999 1e9999999 true 0x10 1e _1 １".split()
    + ["", " ", "1 2", "0" * 65, "1.2.3", "\n5", "5\n"],
)
def test_what_is_no_exact_amount_is_refused(text):
    with pytest.raises(ValueError):
        amounts.money(text)


@BOUNDED
@given(st.decimals(min_value=0, max_value=9007199, places=9, allow_nan=False))
def test_money_agrees_with_decimal(amount):
    text = format(amount, "f")
    assert amounts.money(text) == int((decimal.Decimal(text) * 10**9).to_integral_exact())


@BOUNDED
@given(st.text(alphabet="0123456789.eE+-_ naif", max_size=70))
def test_any_spelling_is_exact_or_refused(text):
    try:
        nanousd = amounts.money(text)
    except ValueError:
        return
    with decimal.localcontext(prec=2000):
        assert decimal.Decimal(nanousd) == decimal.Decimal(text.replace("_", "")) * 10**9
    assert 0 <= nanousd < 2**53


@pytest.mark.parametrize("text", ["5.00", "'0.05'", '"0.05"', "1e-3", "1.0e+3"])
def test_money_in_a_file_is_read_from_its_spelling(text):
    budget = config_of(BASE + f"budgets: [{{subject: 'user:a', usd: {text}, period: day}}]").budgets[0]
    assert budget.nanousd == int(decimal.Decimal(text.strip("'\"")) * 10**9)


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("2_000_000", 2_000_000), (str(2**53 - 1), 2**53 - 1), ("+5", 5)]
)
def test_counts(text, number):
    assert amounts.count(text) == number


@pytest.mark.parametrize(
    "text", ["-1", "1.0", "1e3", "010", "0x10", "1:30", "true", str(2**53), "9" * 5000, "", "٣", "1__"[:0]]
)
def test_what_is_no_count_is_refused(text):
    with pytest.raises(ValueError):
        amounts.count(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("32MiB", 2**25), ("1", 1), ("500kB", 500_000), ("2 GiB", 2**31), ("7B", 7)]
)
def test_sizes(text, size_bytes):
    assert amounts.size(text) == size_bytes


@pytest.mark.parametrize("text", ["0", "-1", "1.5MiB", "32 mib", "MiB", "9999999GiB", "1TiB", ""])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError):
        amounts.size(text)
