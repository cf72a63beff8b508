"""Edges of the journal that a mutant could cross unseen."""

import asyncio

import orjson
import pytest

import accounting.journal.recovery
from accounting.journal.aftermath import crashed
from accounting.journal.format import (
    ACKNOWLEDGED,
    Decoder,
    Progress,
    Record,
    admitted_seq,
    decode,
    encode,
    header,
)
from accounting.journal.recovery import Recovery
from accounting.journal.writer import FileJournal
from accounting.ledger import Ledger
from accounting.settlement import Settlement, Spent
from accounting.store.store import Store
from accounting.store.url import read_url
from accounting.supervisor import Supervisor

U64_MAX = 2**64 - 1
HEADER = header("5" * 32)


@pytest.mark.parametrize("size", range(len(HEADER) + 1))
def test_a_file_that_ends_within_its_header_tells_nothing(size):
    sid, records, good = decode(HEADER[:size])
    whole = size == len(HEADER)
    assert (sid, records, good) == ("5" * 32 if whole else None, [], size if whole else 0)


@pytest.mark.parametrize("at", [*range(8), 9, 10, *range(12, len(HEADER))])
def test_a_header_that_is_not_ours_ends_it_and_takes_no_memory(at):
    decoder = Decoder()
    assert decoder.feed(HEADER[:at] + bytes([HEADER[at] ^ 0x40]) + HEADER[at + 1 :]) == []
    assert decoder.feed(b"x" * 1000) == []
    assert decoder.broken


def test_a_record_of_one_byte_is_a_record():
    decoder = Decoder(within=True)
    assert decoder.feed(encode(ACKNOWLEDGED, b"x")) == [Record(ACKNOWLEDGED, b"x")]
    assert decoder.feed(bytes(64)) == []
    assert decoder.broken, "zeros are the end"
    assert decoder.feed(encode(ACKNOWLEDGED, b"x")) == []


@pytest.mark.parametrize(
    ("told", "kept"), [(-1, 0), (0, 0), (1, 1), (U64_MAX, U64_MAX), (U64_MAX + 1, U64_MAX), (10**30, U64_MAX)]
)
def test_an_absurd_progress_is_kept_as_the_most_there_can_be(told, kept):
    progress = Progress(seq=1, input_tokens=told, output_tokens=told, cost_nanousd=told)
    assert Progress.load(progress.dump()) == Progress(seq=1, input_tokens=kept, output_tokens=kept, cost_nanousd=kept)


@pytest.mark.parametrize("reserved", [True, False])
def test_a_crashed_call_says_whether_it_was_held(reserved):
    rows = [("b", "x", "used", 100, 0, "usd")]
    note = {"seq": 3, "id": "r", "granted": 10, "rows": rows, "reserved": reserved, "output_nanousd": 1_000}
    item = crashed(note, Progress(seq=3, input_tokens=5, output_tokens=2, cost_nanousd=90), "20260101")
    assert (f'"reserved":{str(reserved).lower()}').encode() in item.spent.record
    assert item.rows[0][4] == item.spent.cost_nanousd == (100 if reserved else 90 + 8 * 1_000)
    assert (item.seq, item.spent.output_tokens, item.spent.requests) == (3, 10, 1)


async def test_what_the_dead_left_is_settled_by_the_clock_on_the_wall(tmp_path, store, caplog):
    """No clock is given here: the one that a sidecar uses."""
    dead = FileJournal(tmp_path, "d" * 32)
    dead.open()
    dead.settled(
        Settlement(
            seq=1, rows=(), spent=Spent(output_tokens=3, record=b"{}", totals_row="a|b|c|d", day="20260101")
        ).dump()
    )
    dead.close()
    url, supervisor, journal = read_url(store.url), Supervisor(), FileJournal(tmp_path, "a" * 32)
    reached = Store(url, prefix=f"edges{id(journal)}", deadline_s=5)
    journal.open()
    ledger = Ledger(reached, supervisor=supervisor, journal=journal, sid=journal.sid)
    await ledger.start()
    recovery = Recovery(journal, ledger.settler)
    try:
        assert await recovery.once()
        assert await recovery.once()
        assert await reached.call("XLEN", reached.key("u")) == 1
        assert (tmp_path / ("d" * 32)).exists(), "it is kept for ten minutes"
        assert "ended without us: settled 0 calls that it had cut short, and 1 that it had noted" in caplog.text
    finally:
        recovery.release()
        journal.close()
        await reached.close()


async def test_of_a_session_that_left_nothing_nothing_is_said(tmp_path, store, caplog):
    dead = FileJournal(tmp_path, "d" * 32)
    dead.open()
    dead.close()
    journal = FileJournal(tmp_path, "a" * 32)
    journal.open()
    reached = Store(read_url(store.url), prefix=f"edges{id(journal)}", deadline_s=5)
    recovery = Recovery(journal, Ledger(reached, supervisor=Supervisor(), journal=journal).settler)
    assert await recovery.once()
    assert "ended without us" not in caplog.text
    recovery.release()
    journal.close()
    await reached.close()


async def test_a_crashed_call_that_the_store_rejects_keeps_its_journal(tmp_path, store):
    prefix = f"edges{id(tmp_path)}"
    reached = Store(read_url(store.url), prefix=prefix, deadline_s=5)
    await reached.call("SET", reached.key("b", "planted"), "no hash")
    dead, journal = FileJournal(tmp_path, "d" * 32), FileJournal(tmp_path, "a" * 32)
    dead.open()
    rows = [(reached.key("b", "planted"), reached.key("x", "planted"), "used", 100, 0, "tokens")]
    dead.admitted({"seq": 1, "id": "r", "granted": 10, "reserved": True, "rows": rows})
    dead.progress(1, Progress(seq=1, input_tokens=5, output_tokens=2, cost_nanousd=0).dump())
    dead.close()
    journal.open()
    wall = [1.0]
    recovery = Recovery(
        journal, Ledger(reached, supervisor=Supervisor(), journal=journal).settler, now_s=lambda: wall[0]
    )
    assert await recovery.once()
    wall[0] = 1e12
    assert await recovery.once()
    assert (tmp_path / ("d" * 32)).exists(), "a person has to look at it"
    recovery.release()
    journal.close()
    await reached.close()


@pytest.mark.parametrize("seq", [True, "1", 1.5, None, [1]])
def test_a_number_that_is_none_is_nobodys(seq):
    with pytest.raises(TypeError):
        admitted_seq(orjson.dumps({"seq": seq}))
    assert admitted_seq(b'{"seq":7}') == 7


async def test_a_dead_journal_that_is_deleted_is_forgotten(tmp_path, store):
    dead, journal = FileJournal(tmp_path, "d" * 32), FileJournal(tmp_path, "a" * 32)
    dead.open()
    dead.close()
    journal.open()
    reached = Store(read_url(store.url), prefix=f"edges{id(journal)}", deadline_s=5)
    recovery = Recovery(journal, Ledger(reached, supervisor=Supervisor(), journal=journal).settler, now_s=lambda: 1e12)
    for _ in range(3):
        assert await recovery.once()
        assert not (tmp_path / ("d" * 32)).exists()
    recovery.release()
    recovery.release()
    journal.close()
    await reached.close()


@pytest.mark.parametrize("away", [True, False])
async def test_who_finds_the_store_away_looks_again_soon(tmp_path, store, monkeypatch, away):
    monkeypatch.setattr(accounting.journal.recovery, "RETRY_S", 0.01)
    dead, journal = FileJournal(tmp_path, "d" * 32), FileJournal(tmp_path, "a" * 32)
    dead.open()
    dead.settled(Settlement(seq=1, rows=(), spent=Spent(record=b"{}", day="20260101")).dump())
    dead.close()
    journal.open()
    url = "redis://127.0.0.1:1" if away else store.url
    reached = Store(read_url(url), prefix=f"edges{id(journal)}", deadline_s=5)
    recovery = Recovery(journal, Ledger(reached, supervisor=Supervisor(), journal=journal).settler)
    looks, once = [], recovery.once

    async def counted():
        looks.append(await once())
        return looks[-1]

    recovery.once = counted
    task = asyncio.create_task(recovery.run())
    await asyncio.sleep(0.3)
    task.cancel()
    assert looks[0] is not away
    assert len(looks) > 3 if away else looks == [True]
    recovery.release()
    journal.close()
    await reached.close()
