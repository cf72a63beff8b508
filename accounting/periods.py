"""The windows of time that budgets are counted in.

Nothing is ever reset: each window has its own counter, named by its start, so a rollover races with nothing. Boundaries are
computed here, in the budget's time zone; which window a call falls into is decided by the store's clock.
A billing cycle that starts on the 29th to 31st ends on the last day of a shorter month and never drifts.
"""

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

CALENDAR = ("minute", "hour", "day", "week", "month", "cycle", "total")
ROLLING_BUCKETS = 60
_ROLLING = re.compile(r"rolling:([1-9][0-9]{0,3})([mhd])")
_UNIT_S = {"m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Window:
    """One window: [start_ms, end_ms) in epoch milliseconds; `end_ms` is None if it never ends."""

    key: str  # names the counter within its budget
    start_ms: int
    end_ms: int | None
    bucket_ms: int = 0  # rolling windows only


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A kind of window, e.g. Period(kind="month", tz="Europe/Berlin"), Period(kind="rolling:30d")."""

    kind: str
    tz: str = "UTC"
    starts: date | None = None  # cycle only: the first day of one of its cycles

    def __post_init__(self) -> None:
        if self.kind not in CALENDAR and not _ROLLING.fullmatch(self.kind):
            msg = f"period {self.kind!r} is not one of {', '.join(CALENDAR)} or rolling:30d"
            raise ValueError(msg)
        if self.kind == "cycle" and self.starts is None:
            msg = "a cycle needs the date on which it starts"
            raise ValueError(msg)

    def window(self, now_ms: int) -> Window:
        """Return the window that `now_ms` (epoch milliseconds) lies in."""
        if self.kind == "total":
            return Window("total", 0, None)
        if rolling := _ROLLING.fullmatch(self.kind):
            width_ms = int(rolling[1]) * _UNIT_S[rolling[2]] * 1000
            return Window("rolling", 0, None, -(-width_ms // ROLLING_BUCKETS))
        if self.kind in ("minute", "hour"):
            start, end = self._clock(now_ms)
        else:
            start, end = self._days(now_ms)
        return Window(str(start // 1000), start, end)

    def _clock(self, now_ms: int) -> tuple[int, int]:
        """Minutes and hours: counted on the zone's wall clock, which matters where the offset is not whole hours."""
        width_s = 60 if self.kind == "minute" else 3600
        offset = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZoneInfo(self.tz)).utcoffset() or timedelta()
        shift_s = int(offset.total_seconds()) % width_s
        start_s = (now_ms // 1000 + shift_s) // width_s * width_s - shift_s
        return start_s * 1000, (start_s + width_s) * 1000

    def _days(self, now_ms: int) -> tuple[int, int]:
        zone = ZoneInfo(self.tz)
        today = datetime.fromtimestamp(now_ms / 1000, zone).date()
        if self.kind == "day":
            first, last = today, today + timedelta(days=1)
        elif self.kind == "week":
            first = today - timedelta(days=today.weekday())
            last = first + timedelta(days=7)
        else:
            anchor = self.starts.day if self.kind == "cycle" and self.starts else 1
            first = _anchored(today.year, today.month, anchor)
            if first > today:
                first = _month_after(first, -1, anchor)
            last = _month_after(first, 1, anchor)
        return _midnight_ms(first, zone), _midnight_ms(last, zone)


def _anchored(year: int, month: int, day: int) -> date:
    """The day of that month, or its last one if the month is shorter."""
    return date(year, month, min(day, calendar.monthrange(year, month)[1]))


def _month_after(day: date, months: int, anchor: int) -> date:
    index = day.year * 12 + day.month - 1 + months
    return _anchored(index // 12, index % 12 + 1, anchor)


def _midnight_ms(day: date, zone: ZoneInfo) -> int:
    """The first instant of a day; where a clock change skips midnight, the first instant that exists."""
    moment = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(moment.astimezone(UTC).timestamp()) * 1000
