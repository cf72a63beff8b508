"""The journal: what is read back is the longest valid prefix, what is replayed counts once, and a bad disk stops admissions."""

import asyncio
import contextlib
import errno
import itertools
import os
import random
import resource
import stat
import subprocess
import sys
import threading

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting.ask import Ask, Worst, draws_for
from accounting.journal import aftermath
from accounting.journal.errors import JournalError
from accounting.journal.format import (
    ACKNOWLEDGED,
    ADMITTED,
    KINDS,
    PROGRESS,
    RECORD_BYTES_MAX,
    SETTLED,
    Decoder,
    Progress,
    Record,
    decode,
    encode,
    encode_seqs,
    header,
    put,
    put_all,
)
from accounting.journal.reading import Story, read_story
from accounting.journal.recovery import Recovery
from accounting.journal.segment import Disk
from accounting.journal.session import Session
from accounting.journal.writer import KEPT_S, TOLD_MAX, FileJournal, Sizes
from accounting.ledger import Ledger
from accounting.settlement import Settlement, Spent
from accounting.settling import Settler
from accounting.store.resp import Address
from accounting.store.store import Store
from accounting.store.url import read_url
from accounting.supervisor import Supervisor
from tests.sidecars import ROOT, budget, house

SID = "5" * 32
SMALL = Sizes(segment_bytes=4096, total_bytes=64 * 1024, reserve_bytes=64 * 1024)
_prefixes = itertools.count()


def settlement(seq, *, cost=100, rows=(), output=7):
    spent = Spent(
        input_tokens=3,
        output_tokens=output,
        cost_nanousd=cost,
        record=b'{"id":"r%d"}' % seq,
        totals_row="k|u|t|p/m",
        day="20261120",
    )
    return Settlement(seq=seq, rows=tuple(rows), spent=spent)


def note(seq, rows=(), **more):
    return {
        "seq": seq,
        "id": f"req_{seq}",
        "granted": 1000,
        "rows": list(rows),
        "input": 10,
        "output_nanousd": 2,
        "choices": 1,
    } | more


def progress(seq, output, *, input_tokens=10, cost=0):
    return Progress(seq=seq, input_tokens=input_tokens, output_tokens=output, cost_nanousd=cost).dump()


RECORDS = [
    Record(ADMITTED, orjson.dumps(note(1))),
    Record(PROGRESS, progress(1, 0)),
    Record(ADMITTED, orjson.dumps(note(2))),
    Record(SETTLED, settlement(1).dump()),
    Record(ACKNOWLEDGED, encode_seqs([1])),
    Record(PROGRESS, progress(2, 200)),
]
FILE = header(SID) + b"".join(encode(*record) for record in RECORDS)


def ends():
    """Where each record ends in FILE; first where the header does."""
    return list(itertools.accumulate((len(encode(*record)) for record in RECORDS), initial=len(header(SID))))


# the format


def test_what_is_encoded_is_decoded():
    assert decode(FILE) == (SID, RECORDS, len(FILE))


def test_a_file_cut_at_any_byte_gives_the_records_before_the_cut():
    for cut in range(len(FILE) + 1):
        whole = [end for end in ends() if end <= cut]
        sid, records, good_bytes = decode(FILE[:cut])
        assert records == RECORDS[: max(0, len(whole) - 1)]
        assert (sid, good_bytes) == ((SID, whole[-1]) if whole else (None, 0))


def test_a_flipped_bit_ends_the_prefix_where_it_is_and_invents_nothing():
    for at in range(len(FILE)):
        intact = sum(end <= at for end in ends()) - 1
        for bit in range(8):
            data = bytearray(FILE)
            data[at] ^= 1 << bit
            sid, records, _ = decode(data)
            assert records == (RECORDS[:intact] if intact >= 0 else [])
            assert sid == (SID if intact >= 0 else None)


@pytest.mark.parametrize("length", [RECORD_BYTES_MAX + 1, 2**31, 2**32 - 1], ids=str)
def test_an_absurd_length_ends_the_prefix_at_once(length):
    decoder = Decoder()
    assert decoder.feed(FILE + length.to_bytes(4, "big") + bytes(4) + b"S") == RECORDS
    assert decoder.broken
    assert decoder.good_bytes == len(FILE)


@given(data=st.binary(max_size=300), keep=st.integers(0, len(FILE)))
def test_any_bytes_decode_to_a_prefix_and_never_raise(data, keep):
    sid, records, good_bytes = decode(FILE[:keep] + data)
    again = (header(sid) if sid is not None else b"") + b"".join(encode(*record) for record in records)
    assert again == (FILE[:keep] + data)[:good_bytes]
    Story().tell(records)


@given(records=st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.binary(max_size=80)), max_size=20))
def test_records_of_any_content_are_told_without_raising(records):
    story = Story()
    story.tell(Record(*record) for record in records)
    for payload, told in story.open.values():
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
            aftermath.crashed(orjson.loads(payload), told, "20261120")


@given(sizes=st.lists(st.integers(1, 60), min_size=1))
def test_a_file_read_in_any_pieces_gives_the_same(sizes):
    decoder, records, at = Decoder(), [], 0
    for size in itertools.cycle(sizes):
        records += decoder.feed(FILE[at : at + size])
        at += size
        if at >= len(FILE):
            break
    assert (decoder.sid, records, decoder.good_bytes) == (SID, RECORDS, len(FILE))


class Watched(bytearray):
    """Remembers what was in it after each copy."""

    def __init__(self, *args):
        super().__init__(*args)
        self.states = []

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        self.states.append(bytes(self))


def test_a_record_is_there_only_when_all_of_it_is():
    begun = header(SID) + encode(*RECORDS[0])
    data = Watched(begun + bytes(100))
    put(data, len(begun), *RECORDS[1])
    assert [decode(state)[1] for state in data.states] == [RECORDS[:1], RECORDS[:2]]
    assert decode(data) == (SID, RECORDS[:2], len(begun) + len(encode(*RECORDS[1])))


def test_records_that_belong_together_are_all_there_or_none():
    data = Watched(header(SID) + bytes(len(FILE)))
    put_all(data, len(header(SID)), FILE[len(header(SID)) :])
    assert [decode(state)[1] for state in data.states] == [[], RECORDS]


def test_a_head_that_lacks_any_of_its_bytes_ends_the_log():
    record = encode(ADMITTED, b"x" * 0x102)
    written = [at for at in range(9) if record[at]]
    assert len(written) >= 6
    assert decode(FILE + encode(ADMITTED, b"")) == (SID, RECORDS, len(FILE))
    for missing in itertools.chain.from_iterable(
        itertools.combinations(written, n) for n in range(1, len(written) + 1)
    ):
        torn = bytearray(record)
        for at in missing:
            torn[at] = 0
        assert decode(FILE + torn + bytes(100)) == (SID, RECORDS, len(FILE))


@pytest.mark.parametrize(
    ("data", "warned", "unreadable"),
    [
        (FILE, False, False),
        (FILE + bytes(5000), False, False),
        (bytes(5000), False, False),
        (FILE + bytes(5000) + b"x", True, False),
        (FILE + b"x", True, False),
        (b"x" * 500 + bytes(500), True, True),
    ],
    ids=["full", "prepared", "not_begun", "something_behind_zeros", "torn", "foreign"],
)
def test_zeros_at_the_end_are_room_and_anything_else_is_told(tmp_path, caplog, data, warned, unreadable):
    (tmp_path / "00000001.log").write_bytes(data)
    story = read_story([tmp_path / "00000001.log"], SID)
    assert bool(caplog.records) == warned
    assert story.unreadable == unreadable


# what a crash comes to


def row(unit, held, name="b"):
    return [f"{name}:{unit}", f"x:{unit}", "used", held, 0, unit]


UNITS = [
    row("usd", 5000),
    row("tokens", 1010),
    row("output_tokens", 1000),
    row("input_tokens", 10),
    row("requests", 1),
    row("concurrency", 1),
]


@pytest.mark.parametrize(
    ("so_far", "more", "actual"),
    [
        (None, {}, {"usd": 0, "tokens": 0, "output_tokens": 0, "input_tokens": 0, "requests": 0, "concurrency": 0}),
        ((0, 20), {}, {"usd": 500, "tokens": 250, "output_tokens": 240, "input_tokens": 10, "requests": 1, "concurrency": 0}),
        ((300, 620), {}, {"usd": 1100, "tokens": 550, "output_tokens": 540, "input_tokens": 10, "requests": 1, "concurrency": 0}),
        ((900, 1820), {}, {"usd": 2020, "tokens": 1010, "output_tokens": 1000, "input_tokens": 10, "requests": 1, "concurrency": 0}),
        ((900, 4990), {}, {"usd": 5000, "tokens": 1010, "output_tokens": 1000, "input_tokens": 10, "requests": 1, "concurrency": 0}),
        ((1900, 3820), {"choices": 2}, {"usd": 4020, "tokens": 1010, "output_tokens": 1000, "input_tokens": 10, "requests": 1, "concurrency": 0}),
        ((0, 20), {"granted": 0}, {"usd": 20, "tokens": 10, "output_tokens": 0, "input_tokens": 10, "requests": 1, "concurrency": 0}),
        ((900, 1820), {"reserved": False, "granted": 0}, {"usd": 2300, "tokens": 1150, "output_tokens": 1140, "input_tokens": 10, "requests": 1, "concurrency": 0}),
    ],
    ids=["released", "just_begun", "one_interval_more", "not_beyond_the_grant", "not_beyond_the_hold", "two_choices", "no_output", "nothing_was_held"],
)  # fmt: skip
def test_a_crashed_call_is_charged_one_interval_more_within_its_hold(so_far, more, actual):
    told = None if so_far is None else Progress(seq=1, input_tokens=10, output_tokens=so_far[0], cost_nanousd=so_far[1])
    item = aftermath.crashed(note(1, UNITS, **more), told, "20261120")
    assert {unit: charged[4] for (*_, unit), charged in zip(UNITS, item.rows, strict=True)} == actual
    assert bool(item.spent.record) == (so_far is not None)
    if so_far is not None:
        record = orjson.loads(item.spent.record)
        assert (record["outcome"], record["estimated"], record["id"]) == ("crashed", True, "req_1")


# the writer


class Clock:
    def __init__(self):
        self.s = 1000.0

    def __call__(self):
        return self.s


class BadDisk(Disk):
    """Fails as it is told: `room_bytes` are left, `write_error` and `sync_error` are raised."""

    def __init__(self):
        self.room_bytes = 10**9
        self.write_error = self.sync_error = None
        self.synced = 0

    def allocate(self, fd, start, size_bytes):
        if self.write_error:
            raise OSError(self.write_error, os.strerror(self.write_error))
        if size_bytes > self.room_bytes:
            if self.room_bytes:
                super().allocate(fd, start, self.room_bytes)  # as a real one may: it takes what there is
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().allocate(fd, start, size_bytes)
        self.room_bytes -= size_bytes

    def sync(self, fd):
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        self.synced += 1
        super().sync(fd)

    def free_bytes(self, folder):
        return self.room_bytes


@pytest.fixture
def opened(tmp_path):
    """Make and open journals; all are closed at the end."""
    journals = []

    def make(sid=SID, **more):
        journal = FileJournal(tmp_path / "journal", sid, **({"sizes": SMALL} | more))
        journal.open()
        journals.append(journal)
        return journal

    yield make
    for journal in journals:
        journal.close()


def told(journal):
    """What is on the disk now."""
    return read_story(sorted((journal.folder / journal.sid).glob("*.log")), journal.sid)


def until_refused(journal, why):
    """Admit calls until no more are; return those that were."""
    seq = 1
    with contextlib.suppress(JournalError):
        while seq < 500:
            journal.admitted(note(seq))
            seq += 1
    assert seq < 500
    assert why in journal.fault
    return list(range(1, seq))


def logs(journal):
    return sorted(path.name for path in (journal.folder / journal.sid).glob("*.log"))


def test_what_is_written_is_in_the_file_before_the_call_returns(opened):
    journal = opened()
    journal.admitted(note(1))
    assert list(told(journal).open) == [1]
    journal.progress(1, progress(1, 40))
    assert told(journal).open[1][1].output_tokens == 40
    journal.settled(settlement(1).dump())
    assert told(journal) == Story(settled={1: settlement(1).dump()})
    assert journal.pending == 1
    journal.acknowledged(1)
    assert journal.pending == 0
    journal.close()
    assert told(journal) == Story()


def test_what_the_store_has_is_written_down_some_at_a_time_and_before_the_end(opened):
    journal = opened()
    for seq in range(1, TOLD_MAX + 1):
        journal.settled(settlement(seq).dump())
    for seq in range(1, TOLD_MAX):
        journal.acknowledged(seq)
    assert list(told(journal).settled) == list(range(1, TOLD_MAX + 1))
    journal.acknowledged(TOLD_MAX)
    assert told(journal) == Story()


def test_what_the_store_has_is_written_down_at_the_end_also_where_that_takes_a_new_file(opened):
    journal, seq = opened(), 0
    while len(journal._segments) == 1:
        seq += 1
        journal.settled(settlement(seq).dump())
    for each in range(1, seq + 1):
        journal.acknowledged(each)
    journal._segments[-1].left_bytes = 0
    journal.close()
    assert told(journal) == Story()


def test_an_acknowledgement_of_one_is_still_read():
    story = Story()
    story.tell([Record(SETTLED, settlement(7).dump()), Record(ACKNOWLEDGED, (7).to_bytes(8, "big"))])
    assert story == Story()


def test_progress_of_a_call_that_is_settled_is_not_written(opened):
    journal = opened()
    journal.admitted(note(1))
    journal.settled(settlement(1).dump())
    size_bytes = journal.size_bytes
    journal.progress(1, progress(1, 40))
    journal.acknowledged(99)  # never admitted
    assert journal.size_bytes == size_bytes


def test_only_its_owner_may_read_a_journal(opened):
    journal = opened()
    folder = journal.folder / SID
    assert stat.S_IMODE(journal.folder.stat().st_mode) == stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert {path.name for path in folder.iterdir()} == {"00000001.log", "lock", "reserve"}


def test_open_calls_are_carried_into_each_new_file(opened):
    journal = opened()
    journal.admitted(note(1))
    journal.progress(1, progress(1, 120))
    for seq in range(2, 100):
        journal.admitted(note(seq))
        journal.settled(settlement(seq).dump())
        journal.acknowledged(seq)
    assert len(logs(journal)) > 3
    assert told(journal).open[1][1].output_tokens == 120
    assert list(read_story([journal.folder / SID / logs(journal)[-1]], SID).open) == [1]


def test_a_file_goes_when_the_store_has_had_its_settlements_for_ten_minutes(opened):
    clock = Clock()
    journal = opened(clock=clock)
    for seq in range(1, 80):
        journal.admitted(note(seq))
        journal.settled(settlement(seq).dump())
    assert len(first := logs(journal)) > 2
    for seq in range(2, 80):
        journal.acknowledged(seq)
    journal.flush()
    assert logs(journal) == first
    clock.s += KEPT_S + 1
    journal.acknowledged(1)
    journal.flush()
    assert logs(journal) == first[-1:]
    assert journal.size_bytes < SMALL.segment_bytes * 2


def test_a_file_that_waits_for_the_store_keeps_all_after_it(opened):
    clock = Clock()
    journal = opened(clock=clock)
    for seq in range(1, 40):
        journal.admitted(note(seq))
        journal.settled(settlement(seq).dump())
    for seq in range(2, 40):
        journal.acknowledged(seq)
    clock.s += KEPT_S + 1
    journal.admitted(note(100))
    journal.flush()
    assert logs(journal)[0] == "00000001.log"
    journal.close()
    assert list(told(journal).settled) == [1]


def test_acknowledged_files_go_early_when_all_take_too_much(opened):
    journal = opened()
    for seq in range(1, 1500):
        journal.admitted(note(seq))
        journal.settled(settlement(seq).dump())
        journal.acknowledged(seq)
    journal.flush()
    assert journal.size_bytes <= SMALL.total_bytes + SMALL.segment_bytes
    assert journal.healthy


def test_a_journal_full_of_what_the_store_does_not_take_admits_nothing_until_it_does(opened):
    journal = opened()
    seq = 0
    while journal.healthy:
        seq += 1
        assert seq < 2000
        journal.admitted(note(seq))
        journal.settled(settlement(seq).dump())
    with pytest.raises(JournalError, match="has not taken"):
        journal.admitted(note(seq + 1))
    for each in range(1, seq + 1):
        journal.acknowledged(each)
    assert journal.healthy
    journal.admitted(note(seq + 1))


def test_a_record_too_large_to_be_read_back_is_not_written(opened):
    journal = opened()
    journal.admitted(note(1))
    with pytest.raises(JournalError, match="too large"):
        journal.admitted(note(2, text="x" * RECORD_BYTES_MAX))
    journal.settled(settlement(1).dump()[:-1] + b" " * RECORD_BYTES_MAX + b"]")  # it does not raise
    assert list(told(journal).open) == [1]
    assert journal.healthy


def test_a_full_disk_stops_admissions_and_its_reserve_takes_the_settlements(opened, tmp_path):
    class Full(BadDisk):
        def allocate(self, fd, start, size_bytes):
            if not reserve.exists() and not self.freed:
                self.freed, self.room_bytes = True, SMALL.reserve_bytes
            super().allocate(fd, start, size_bytes)

    reserve = tmp_path / "journal" / SID / "reserve"
    disk = Full()
    disk.freed = True
    journal = opened(disk=disk)
    assert reserve.stat().st_size == SMALL.reserve_bytes
    disk.freed, disk.room_bytes = False, 20  # half of a record fits
    admitted = until_refused(journal, "full")
    for seq in admitted:
        journal.settled(settlement(seq).dump())
    assert logs(journal) == ["00000001.log"]  # a new one would begin with a copy of all open calls
    assert told(journal).settled == {seq: settlement(seq).dump() for seq in admitted}
    with pytest.raises(JournalError, match="full"):
        journal.admitted(note(999))


async def test_admissions_begin_again_when_there_is_room(opened):
    disk = BadDisk()
    journal = opened(disk=disk)
    disk.room_bytes = 0
    admitted = until_refused(journal, "full")
    journal.settled(settlement(1).dump()[:-1] + b" " * 500 + b"]")  # no room at all: nothing of it is written
    assert not journal.healthy
    assert list(told(journal).open) == admitted
    disk.room_bytes = 3 * SMALL.reserve_bytes
    async with asyncio.timeout(10):
        while not journal.healthy:
            await asyncio.sleep(0.02)
    journal.admitted(note(999))
    assert set(told(journal).open) == {*admitted, 999}


def test_a_broken_disk_stops_admissions_for_good(opened):
    disk = BadDisk()
    journal = opened(disk=disk)
    disk.write_error = errno.EIO
    until_refused(journal, "Input/output")
    journal.settled(settlement(1).dump())  # does not raise
    disk.write_error = None
    assert "start Bursar anew" in journal.fault
    with pytest.raises(JournalError):
        journal.admitted(note(3))


def test_a_failed_sync_is_never_taken_for_a_good_one_later(opened):
    disk = BadDisk()
    disk.sync_error = errno.EIO
    journal = opened(disk=disk)
    journal.admitted(note(1))
    assert not journal.flush()
    disk.sync_error = None
    assert not journal.flush()
    assert not journal.healthy


def test_policy_always_makes_durable_before_it_returns(opened):
    disk = BadDisk()
    journal = opened(disk=disk, policy="always")
    before = disk.synced
    journal.admitted(note(1))
    assert disk.synced > before
    disk.sync_error = errno.EIO
    with pytest.raises(JournalError):
        journal.admitted(note(2))


def test_the_disk_space_of_a_file_is_taken_when_it_is_made_and_given_back_at_its_end(opened):
    journal = opened(sizes=Sizes())
    journal.admitted(note(1))
    path = journal.folder / SID / "00000001.log"
    assert path.stat().st_blocks * 512 >= path.stat().st_size >= Sizes().segment_bytes
    journal.close()
    assert path.stat().st_size == journal.size_bytes
    assert list(told(journal).open) == [1]


async def test_the_next_file_is_made_before_it_is_needed_and_not_by_whoever_fills_it(opened):
    class Noting(BadDisk):
        def allocate(self, fd, start, size_bytes):
            super().allocate(fd, start, size_bytes)
            takers.append(threading.current_thread().name)

    takers, seq = [], 0
    journal = opened(disk=Noting(), sizes=Sizes(segment_bytes=256 * 1024))
    takers.clear()
    for number in (1, 2, 3):
        while len(logs(journal)) == number:
            seq += 1
            journal.admitted(note(seq))
            journal.settled(settlement(seq).dump())
            if journal._segments[-1].left_bytes < 100 * 1024:
                async with asyncio.timeout(10):
                    while len(takers) < number:
                        await asyncio.sleep(0.01)
    assert takers == ["journal"] * 3
    assert set(told(journal).settled) == set(range(1, seq + 1))
    journal.close()
    assert {path.name for path in (journal.folder / SID).iterdir()} == {*logs(journal), "lock"}


def test_a_disk_without_room_for_a_whole_file_gets_a_smaller_one(opened):
    disk = BadDisk()
    disk.room_bytes = 200 * 1024
    journal = opened(disk=disk, sizes=Sizes(reserve_bytes=64 * 1024))
    assert journal.healthy
    assert disk.room_bytes == (200 - 64 - 128) * 1024
    assert (journal.folder / SID / "00000001.log").stat().st_size == 128 * 1024


_KILLED = """
import sys
from pathlib import Path
from accounting.journal.format import Progress
from accounting.journal.writer import FileJournal, Sizes
from accounting.settlement import Settlement, Spent
journal = FileJournal(Path(sys.argv[1]), "5" * 32, sizes=Sizes(segment_bytes=8192))
journal.open()
journal.admitted({"seq": 1, "rows": []})
journal.progress(1, Progress(seq=1, input_tokens=1, output_tokens=77, cost_nanousd=1).dump())
for seq in range(2, 10**9):
    journal.admitted({"seq": seq, "rows": [], "text": "x" * 300})
    journal.settled(Settlement(seq=seq, rows=(), spent=Spent(record=b"{}")).dump())
    sys.stdout.write("%d\\n" % seq)
    sys.stdout.flush()
"""


@pytest.mark.parametrize("after", [2, 31, 400])
def test_a_kill_9_loses_nothing_that_was_written(tmp_path, after):
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    told_of = [process.stdout.readline() for _ in range(after)]
    process.kill()
    told_of += process.stdout.read().splitlines()
    last = int(told_of[-1])
    process.wait()
    process.stdout.close()
    story = read_story(sorted((tmp_path / SID).glob("*.log")), SID)
    assert set(story.settled) | set(story.open) >= set(range(1, last + 1))
    assert set(range(2, last + 1)) <= set(story.settled)
    assert story.open[1][1].output_tokens == 77
    assert not story.unreadable


def test_after_its_end_nothing_is_written_and_only_an_admission_fails(opened):
    journal = opened()
    for seq in (1, 2, 3):
        journal.admitted(note(seq))
    journal.settled(settlement(1).dump())
    journal.close()
    before = told(journal)
    journal.acknowledged(1)
    journal.progress(2, progress(2, 40))
    journal.settled(settlement(2).dump())
    with pytest.raises(JournalError, match="closed"):
        journal.admitted(note(4))
    assert told(journal) == before
    assert list(before.open) == [2, 3]


def test_a_folder_that_cannot_be_written_is_told_with_its_remedy(tmp_path):
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(JournalError, match="data_dir"):
        FileJournal(tmp_path / "journal", SID).open()


_FILLS = """
import sys
from pathlib import Path
from accounting.journal.errors import JournalError
from accounting.journal.writer import FileJournal, Sizes
from accounting.settlement import Settlement, Spent
journal = FileJournal(Path(sys.argv[1]), "5" * 32, sizes=Sizes(reserve_bytes=64 * 1024))
journal.open()
seq = 0
try:
    while True:
        journal.admitted({"seq": seq + 1, "rows": [], "text": "x" * 1000})
        seq += 1
except JournalError:
    pass
for each in range(1, 41):
    journal.settled(Settlement(seq=each, rows=(), spent=Spent(record=b"{}")).dump())
print(seq, journal.fault, flush=True)
journal.close()
"""


def test_a_disk_that_is_really_full_keeps_all_that_was_admitted_and_the_settlements(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True)
    if mount.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        ran = subprocess.run(
            [sys.executable, "-c", _FILLS, str(disk)], cwd=ROOT, capture_output=True, text=True, timeout=30
        )
        count, _, fault = ran.stdout.strip().partition(" ")
        assert "full" in fault, ran.stderr
        story = read_story(sorted((disk / SID).glob("*.log")), SID)
        assert int(count) > 100
        assert set(story.settled) == set(range(1, 41))
        assert set(range(41, int(count) + 1)) <= set(story.open)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_size_limit_counts_as_a_full_disk(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, 100 * 1024))

    ran = subprocess.run(
        [sys.executable, "-c", _FILLS, str(tmp_path / "j")], cwd=ROOT, capture_output=True, text=True, timeout=30, preexec_fn=limit,
    )  # fmt: skip
    count, _, fault = ran.stdout.strip().partition(" ")
    assert "full" in fault, ran.stderr
    story = read_story(sorted((tmp_path / "j" / SID).glob("*.log")), SID)
    assert set(story.open) | set(story.settled) >= set(range(1, int(count) + 1))


# whose it is


def test_a_living_sessions_journal_is_nobody_elses(opened):
    journal = opened()
    assert list(Session.dead(journal.folder, 0)) == []
    journal.close()
    (dead,) = Session.dead(journal.folder, 0)
    assert dead.sid == SID
    assert list(Session.dead(journal.folder, 0)) == []  # now it is ours
    dead.release()


def test_the_lock_goes_with_its_process(tmp_path):
    code = (
        "import sys, os, signal; from pathlib import Path; from accounting.journal.writer import FileJournal\n"
        f"FileJournal(Path(sys.argv[1]), '{SID}').open(); print('open', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"open\n"
        assert list(Session.dead(tmp_path, 0)) == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    (dead,) = Session.dead(tmp_path, 0)
    dead.delete()
    assert list(tmp_path.iterdir()) == []


# recovery, on a real store


class World:
    """A store of its own prefix; `session` writes a dead session's journal."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        self.prefix = f"j{os.getpid()}x{next(_prefixes)}"
        self.supervisor = Supervisor()
        self.store = self.another_store()
        self.journal = FileJournal(folder, "f" * 32, sizes=SMALL)
        self.now_s = 0.0

    def another_store(self):
        async def locate():
            return (Address(path=str(self.server.socket)),)

        return Store(read_url(self.server.url), prefix=self.prefix, locate=locate)

    def recovery(self, journal=None, store=None):
        journal = journal or self.journal
        return Recovery(
            journal,
            Settler(store or self.store, journal.sid, self.supervisor, journal.acknowledged),
            now_s=lambda: self.now_s,
        )

    def rows(self, *, tokens=0, cost=0):
        key = self.store.key
        return [
            (key("b", "t"), key("x", "t"), "used", 2000, tokens, 0),
            (key("b", "c"), key("x", "c"), "used", 10_000, cost, 0),
        ]

    def note(self, seq, **more):
        rows = [[*r[:4], r[5], unit] for r, unit in zip(self.rows(), ("tokens", "usd"), strict=True)]
        return note(seq, rows, **more)

    def item(self, seq):
        return settlement(seq, rows=self.rows(tokens=10, cost=100), output=7)

    async def totals(self):
        key, call = self.store.key, self.store.call
        used = [await call("HGET", key("b", name), "used") for name in ("t", "c")]
        day = await call("HGETALL", key("day", "20261120"))
        return [int(u or 0) for u in used], await call("XLEN", key("u")), sorted(zip(day[::2], day[1::2], strict=True))


@pytest.fixture
async def world(store, tmp_path):
    world = World(store, tmp_path / "journal")
    await world.store.start()
    world.journal.open()
    yield world
    await world.supervisor.drain(5)
    world.journal.close()
    await world.store.close()


def dead_session(world, sid="d" * 32):
    """Five calls: acknowledged by a store that has lost it since, settled, streaming, admitted only, streaming from the start. Then the process is gone."""
    journal = FileJournal(world.folder, sid, sizes=SMALL)
    journal.open()
    for seq in (1, 2, 3, 4, 5):
        journal.admitted(world.note(seq))
    for seq in (1, 2):
        journal.settled(world.item(seq).dump())
    journal.acknowledged(1)
    journal.progress(3, progress(3, 300, cost=620))
    journal.progress(5, progress(5, 0, cost=20))
    journal.close()
    return journal


LEFT = [2 * 10 + (10 + 540) + (10 + 240), 2 * 100 + (620 + 480) + (20 + 480)]


async def test_what_a_dead_session_left_is_settled_once(world):
    dead_session(world)
    found = world.recovery()
    assert await found.once()
    totals = await world.totals()
    assert totals[:2] == (LEFT, 4)
    assert await found.once()
    found.release()
    again = world.recovery()
    assert await again.once()
    assert await world.totals() == totals
    assert again.recovered_total == 0  # the first has written down what it did


async def test_what_was_settled_for_the_dead_but_not_written_down_counts_once(world):
    path = world.folder / dead_session(world).sid
    found = world.recovery()
    assert await found.once()
    found.release()
    (path / "00000002.log").unlink()
    totals = await world.totals()
    again = world.recovery()
    assert await again.once()
    assert again.recovered_total == 3
    assert await world.totals() == totals


async def test_a_hold_of_a_call_that_never_reached_its_client_is_given_back(world):
    ledger = Ledger(
        world.store,
        supervisor=world.supervisor,
        embedded=True,
        sid="e" * 32,
        journal=(dying := FileJournal(world.folder, "e" * 32)),
    )
    dying.open()
    await ledger.start()
    limits = [budget("user:a", "tokens", 10_000)]
    ask = Ask(
        draws=draws_for(limits, Worst(input_tokens=10, input_nanousd=0, output_nanousd=0, choices=1)),
        wanted=500,
        least=100,
    )
    hold = await ledger.reserve(ask, request_id="r", notes={"input": 10, "choices": 1})
    key = hold.rows[0].counters_key
    assert await world.store.call("HGET", key, "held") == b"510"
    dying.close()
    assert await world.recovery().once()
    assert await world.store.call("HMGET", key, "held", "used") == [b"0", None]
    assert await world.store.call("ZCARD", hold.rows[0].holds_key) == 0


async def test_what_a_dead_session_had_set_aside_is_given_back(world):
    path = world.folder / dead_session(world).sid
    for name in ("reserve", "00000003.new"):
        (path / name).write_bytes(bytes(5000))
    assert await world.recovery().once()
    assert {each.name for each in path.iterdir()} == {"lock", "00000001.log", "00000002.log"}


async def test_two_processes_that_recover_at_once_count_once(world):
    for n in range(4):
        dead_session(world, f"{n}" * 32)
    other = FileJournal(world.folder, "a" * 32)
    other.open()
    store = world.another_store()
    one, two = world.recovery(), world.recovery(other, store)
    assert all(await asyncio.gather(one.once(), two.once()))
    assert (await world.totals())[:2] == ([4 * n for n in LEFT], 16)
    assert one.recovered_total + two.recovered_total == 12
    two.release()
    other.close()
    await store.close()


async def test_a_dead_journal_is_deleted_ten_minutes_after_its_last_word(world):
    path = world.folder / dead_session(world).sid
    found = world.recovery()
    world.now_s = max(p.stat().st_mtime for p in path.glob("*.log")) + KEPT_S - 1
    assert await found.once()
    assert path.exists()
    world.now_s += 2
    assert await found.once()
    assert not path.exists()


async def test_a_store_that_is_away_is_asked_again(world, own_store):
    dead_session(world)
    away = Store(read_url(own_store.url), prefix=world.prefix)
    own_store.stop()
    found = world.recovery(store=away)
    assert not await found.once()
    found._settler._store = world.store
    assert await found.once()
    assert (await world.totals())[0] == LEFT
    await away.close()


async def test_a_journal_of_another_version_is_left_alone(world):
    path = world.folder / dead_session(world).sid / "00000001.log"
    data = bytearray(path.read_bytes())
    data[9] = 77
    path.write_bytes(data)
    found = world.recovery()
    world.now_s = path.stat().st_mtime + KEPT_S + 1
    assert await found.once()
    assert (await world.totals())[1] == 0
    assert path.exists()


async def test_a_settlement_that_the_store_rejects_keeps_its_journal_and_holds_up_no_other(world):
    sid = "d" * 32
    journal = FileJournal(world.folder, sid, sizes=SMALL)
    journal.open()
    bad = settlement(1, rows=[(world.store.key("b", "bad"), world.store.key("x", "bad"), "used", -7, 5, 0)])
    for item in (bad, world.item(2)):
        journal.admitted(world.note(item.seq))
        journal.settled(item.dump())
    journal.close()
    found = world.recovery()
    world.now_s = (world.folder / sid / "00000001.log").stat().st_mtime + KEPT_S + 1
    assert await found.once()
    assert (await world.totals())[0] == [10, 100]
    assert (world.folder / sid).exists()


async def test_a_store_that_lost_everything_is_told_again_by_the_living_and_for_the_dead(world):
    dead_session(world)
    found = world.recovery()
    assert await found.once()
    settler = found._settler
    for seq in range(1, 30):
        world.journal.admitted(world.note(seq))
        world.journal.settled(world.item(seq).dump())
        await settler.deliver(world.item(seq))
        settler.terminal(seq)
        world.journal.acknowledged(seq)
    before = await world.totals()
    for key in await world.store.call("KEYS", f"{world.prefix}:*"):
        await world.store.call("DEL", key)
    await world.store.call("HSET", world.store.key("g"), "gen", world.store.run_id)
    settler.trusted_run_id = world.store.run_id  # of what is told again, nothing may be taken for known
    await found.replay()
    after = await world.totals()
    assert after == before
    await found.replay()
    assert await world.totals() == after


def test_only_the_last_ten_minutes_are_told_again(opened):
    clock = Clock()
    journal = opened(clock=clock)
    for seq in range(1, 200):
        journal.admitted(note(seq))
        journal.settled(settlement(seq).dump())
        journal.acknowledged(seq)
        clock.s += 20
    seqs = [orjson.loads(payload)[0] for payloads in journal.recent() for payload in payloads]
    assert seqs == sorted(seqs)
    assert seqs[-1] == 199
    assert set(range(199 - 29, 200)) <= set(seqs)
    assert len(seqs) <= 33


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), cut=st.floats(0, 1))
def test_any_prefix_replayed_any_number_of_times_in_any_order_gives_the_same_totals(store, tmp_path_factory, seed, cut):
    rng = random.Random(seed)

    async def go():
        world = World(store, tmp_path_factory.mktemp("j") / "journal")
        await world.store.start()
        world.journal.open()
        sid = "c" * 32
        items = [world.item(seq) for seq in range(1, 9)]
        data = b"".join(encode(ADMITTED, orjson.dumps(world.note(i.seq))) + encode(SETTLED, i.dump()) for i in items)
        data = header(sid) + data[: int(len(data) * cut)]
        session = Session.create(world.folder, sid)
        session.file(1).write_bytes(data)
        session.release()
        settled = {r.payload for r in decode(data)[1] if r.kind == SETTLED}
        late = [
            i for i in items if i.dump() in settled for _ in range(rng.randrange(3))
        ]  # delivered before, some of it twice
        rng.shuffle(late)
        deliver = world.recovery()._settler.deliver
        for item in late:
            await deliver(item, sid)
        for _ in range(rng.randrange(1, 4)):
            found = world.recovery()
            assert await found.once()
            if rng.random() < 0.5:
                await found.replay()
            found.release()
        try:
            assert (await world.totals())[:2] == ([10 * len(settled), 100 * len(settled)], len(settled))
        finally:
            world.journal.close()
            await world.store.close()

    asyncio.run(go())


# in the house


async def test_a_sidecar_that_cannot_keep_its_journal_admits_nothing_and_says_so(store, tmp_path):
    limits = 'budgets: [{subject: "user:alice", tokens: 100000, period: total}]\n'
    async with house(store, tmp_path, more=limits) as h:
        assert (await h.chat()).status == 200
        disk = h.sidecar.journal._disk = BadDisk()
        h.sidecar.journal._segments[-1]._disk = disk
        disk.sync_error = errno.EIO
        h.sidecar.journal.settled(settlement(10**6).dump())
        assert not h.sidecar.journal.flush()
        answer = await h.chat()
        assert (answer.status, answer.error["type"]) == (503, "server_error")
        ready = await h.ops("/readyz")
        assert ready.status == 503
        assert "mend the disk" in ready.json["checks"]["journal"]
        await h.settled()
        assert (await h.balances())["user:alice", "tokens"][1] == 0
        assert len(h.fake.invoice) == 1


async def test_what_the_journal_holds_is_among_the_metrics(store, tmp_path):
    async with house(store, tmp_path) as h:
        await h.chat()
        await h.until_receipts(1)
        found = await h.metrics()
        assert found["bursar_journal_pending", ()] == 0
        assert found["bursar_journal_bytes", ()] == h.sidecar.journal.size_bytes > 0
        text = b"".join(path.read_bytes() for path in (tmp_path / "journal").rglob("*.log"))
        assert b"alice-laptop" in text
        assert b"treasurer" not in text  # the prompt


def test_the_interval_is_within_what_is_promised():
    assert aftermath.INTERVAL_TOKENS <= 256
