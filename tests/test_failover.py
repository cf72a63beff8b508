"""The demonstration, scaled: one provider killed, one failing and stalling, one limiting, and no client the worse for it."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "demonstrate_failover.py"


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_no_client_sees_an_error_that_it_did_not_have_to_see_and_the_books_agree():
    demonstrate = runpy.run_path(str(SCRIPT))["demonstrate"]
    tally, books = await demonstrate(1.2, 6)
    assert not tally.failed
    assert sum(tally.ok.values()) > 60
    assert len(tally.ok) == 6  # in every phase
    assert books.different == 0
    assert books.ledger == books.billed > 0
    assert books.held == 0
    assert books.estimated >= books.estimated_billed
