"""A provider may say until when it wants to be left alone, not for how long (RFC 9110, 10.2.3): that is as good as seconds."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from adapters.errors import UpstreamError
from adapters.retrying import dated, retry_after_s
from tests.misbehaving import provider as peer
from tests.sidecars import house

NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
HTTP_NOON = "Fri, 20 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("told", "date", "expected_s"),
    [
        ("Fri, 20 Nov 2026 12:00:07 GMT", HTTP_NOON, 7),
        ("Friday, 20-Nov-26 12:00:07 GMT", HTTP_NOON, 7),  # the old forms, which a recipient must read
        ("Fri Nov 20 12:00:07 2026", HTTP_NOON, 7),
        ("Fri, 20 Nov 2026 13:00:00 GMT", "Fri, 20 Nov 2026 12:59:00 GMT", 60),  # its clock counts, not ours
        ("Fri, 20 Nov 2026 12:01:00 GMT", None, 60),  # it has none: ours
        ("Fri, 20 Nov 2026 12:01:00 GMT", "yesterday", 60),
        (HTTP_NOON, HTTP_NOON, None),
        ("Fri, 20 Nov 2026 11:00:00 GMT", HTTP_NOON, None),  # it has passed
        ("Fri, 20 Nov 2026", HTTP_NOON, None),
        ("soon", HTTP_NOON, None),
        ("", HTTP_NOON, None),
        ("9", HTTP_NOON, 9),
    ],
)
def test_a_date_is_told_in_seconds_from_the_answers_own_date(told, date, expected_s):
    error = dated(UpstreamError("x", status=503, headers={"retry-after": told}), {"date": date} if date else {}, NOON)
    assert retry_after_s(error) == expected_s


def test_milliseconds_beside_a_date_win():
    headers = {"retry-after": "Fri, 20 Nov 2026 12:00:07 GMT", "retry-after-ms": "250"}
    assert retry_after_s(dated(UpstreamError("x", headers=headers), {"date": HTTP_NOON}, NOON)) == 0.25


@pytest.mark.parametrize("with_date", [True, False], ids=["with a date of its own", "without"])
async def test_a_client_gets_it_in_seconds_and_the_provider_is_left_alone(store, tmp_path, with_date):
    now = datetime.now(UTC)
    until = format_datetime(now + timedelta(seconds=60), usegmt=True).encode()
    date = b"date: " + format_datetime(now, usegmt=True).encode() + b"\r\n" if with_date else b""

    async def refuse(p):
        while await p.request():
            head = b"HTTP/1.1 503 Busy\r\nretry-after: " + until + b"\r\n" + date
            await p.write(head + b"content-length: 2\r\n\r\n{}")

    async with peer(refuse) as p:
        providers = (
            f'providers: {{{{fake: {{{{kind: openai, base_url: "{p.url("/v1")}", api_keys: [k-0123456789]}}}}}}}}\n'
        )
        async with house(store, tmp_path, providers=providers) as h:
            reply = await h.chat()
            assert reply.status == 503
            assert 50 <= int(reply.headers["retry-after"]) <= 60
            assert len(p.requests) == 1  # a minute is too long to wait for a second attempt
