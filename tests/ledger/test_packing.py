"""Commands put together from pieces are, byte for byte, what the library would have packed, and say what the scripts read."""

import hiredis
from hypothesis import example, given
from hypothesis import strategies as st

from accounting.ask import Ask, Draw, Rate
from accounting.budgets import AMOUNT_MAX, Budget
from accounting.periods import Period
from accounting.reserving import Counted, Reservations
from accounting.settlement import DAYS_KEPT_MS, RECORDS_MAX, Settlement, Spent
from accounting.store.packing import arguments_of, blob, fresh, number, pack, piece, text
from accounting.store.scripts import script

NOW = 1_800_000_000_000
amount = st.integers(0, AMOUNT_MAX)
word = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PERIODS = [Period(kind=kind) for kind in ("total", "month", "hour", "rolling:30d")]


def key(*parts):
    return "b:{t}:" + ":".join(parts)


def unpacked(packed):
    """The KEYS and ARGV that a script is given, as it reads them."""
    reader = hiredis.Reader()
    reader.feed(packed.after(script("reserve").named))
    name, sha, count, *rest = reader.gets()
    assert (name, sha) == (b"EVALSHA", script("reserve").sha.encode())
    assert reader.gets() is False
    return rest[: int(count)], rest[int(count) :]


def same(packed, keys, args):
    """Whether that is what the library makes of these."""
    return packed.after(script("settle").named) == hiredis.pack_command(
        ("EVALSHA", script("settle").sha, len(keys), *keys, *args)
    )


@given(st.lists(st.one_of(word, st.binary(max_size=12), st.integers()), min_size=1, max_size=8))
@example(["", b"", 0])
def test_any_command_is_spelled_as_the_library_does(command):
    packed = hiredis.pack_command(tuple(command))
    assert pack(command) == packed
    assert b"*%d\r\n" % len(command) + piece(*command) == packed
    assert b"*%d\r\n" % len(command) + b"".join(spelled(one) for one in command) == packed
    assert same(arguments_of(["k"], command), ["k"], command)


def spelled(one):
    if isinstance(one, int):
        assert number(one) == fresh(one)
        return number(one)
    return blob(one) if isinstance(one, bytes) else text(one)


@given(
    draws=st.lists(
        st.tuples(word, amount, amount, amount, st.sampled_from(PERIODS), st.sampled_from(["hard", "soft"])), max_size=4
    ),
    rates=st.lists(st.tuples(word, st.sampled_from(["requests", "tokens"]), amount, amount, amount), max_size=3),
    numbers=st.tuples(amount, amount, amount, amount),
    run_id=word,
)
def test_a_reservation_says_what_the_script_reads(draws, rates, numbers, run_id):
    seq, wanted, least, share = numbers
    counted, drawn, keys, args = [], [], [key("g"), key("s", "sid"), key("lim"), key("sess")], []
    for name, limit, fixed, per_output, period, mode in draws:
        one = Budget(
            subject=f"user:{name}", unit="tokens", limit=limit, period=period, mode=mode, hold="full", version=3
        )
        window = period.window(NOW)
        counted.append(Counted(one, window, key))
        drawn.append(Draw(one, fixed, per_output))
        keys += [key("b", one.id, window.key), key("x", one.id, window.key)]
        terms = f"3|{limit}|{mode == 'hard':d}|1|{window.start_ms}|{window.end_ms or 0}|{window.bucket_ms}"
        args += [one.id, terms, fixed, per_output]
    limits = [Rate(subject=s, what=w, limit=n, fixed=f, per_output=p) for s, w, n, f, p in rates]
    keys += [key("q", rate.subject, rate.what) for rate in limits]
    args += [value for rate in limits for value in (rate.limit, 60_000, rate.fixed, rate.per_output)]
    ask = Ask(draws=tuple(drawn), rates=tuple(limits), wanted=wanted, least=least, share_permille=share)
    packed = Reservations(key, "sid", 30_000).packed(ask, counted, run_id, "7", seq)
    head = [run_id, "7", "sid", seq, 30_000, wanted, least, share, len(draws), len(rates)]
    assert same(packed, keys, head + args)


@given(
    rows=st.lists(
        st.tuples(word, word, word, st.one_of(st.just(-1), amount, st.just("500@12")), amount, amount), max_size=4
    ),
    numbers=st.tuples(st.integers(0, 1), *[st.integers(0, 2**60)] * 3),
    record=st.binary(max_size=40),
    words=st.tuples(word, word, word),
    ack=amount,
)
def test_a_settlement_says_what_the_script_reads(rows, numbers, record, words, ack):
    totals_row, sid, run_id = words
    requests, *used = numbers
    spent = Spent(
        requests=requests, input_tokens=used[0], output_tokens=used[1], cost_nanousd=used[2], record=record, totals_row=totals_row
    )  # fmt: skip
    own = [key("s", sid), key("u"), key("day", "none"), key("g")]
    packed = Settlement(seq=5, rows=tuple(rows), spent=spent).packed(piece(*own), sid, ack, run_id)
    keys, args = own + [name for row in rows for name in row[:2]], [
        sid, 5, ack, ".".join(map(str, numbers)), record, RECORDS_MAX, "", totals_row,
        *(min(n, AMOUNT_MAX) for n in used), DAYS_KEPT_MS, len(rows), run_id,
    ]  # fmt: skip
    for _, _, name, held, actual, expiry_ms in rows:
        args += [name, held, min(actual, AMOUNT_MAX), expiry_ms]
    assert same(packed, keys, args)
