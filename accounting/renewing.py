"""What becomes of a call whose lease is over: its process stood still, or could not reach the store, for longer than a lease lasts.

Its room may be somebody else's by now, so it is held anew before more is relayed, and ends if that is refused. What a stranger would
get wrong: a hold that is lost can never come back under its own number, since late copies of old commands could bring it back, too.
"""

import asyncio

from accounting.ask import Ask, Draw
from accounting.hold import BudgetRefusedError, Hold, RateRefusedError, RefusedError
from accounting.ledger import Ledger
from accounting.store.errors import StoreError, StoreUnavailableError


def leased(hold: Hold) -> bool:
    """Whether others may take its room when its lease is over; what binds nobody is simply charged late."""
    return hold.reserved and any(row.budget.binds for row in hold.rows)


async def renewed(ledger: Ledger, hold: Hold) -> bool:
    """Give an open call its lease again, or the same room under another number; False if others have taken that room.

    Without the store it goes on only where all budgets that bind allow that; else raises StoreUnavailableError.
    """
    try:
        await ledger.extend([hold])
        if hold.lost and not await _held_anew(ledger, hold):
            return False
    except (BudgetRefusedError, RateRefusedError):
        return False
    except (StoreError, RefusedError) as error:  # away, learning, or about to tell us of other budgets
        if all(row.budget.outage == "allow" for row in hold.rows if row.budget.binds):
            return True
        raise StoreUnavailableError(str(error)) from error
    if leased(hold) and asyncio.get_running_loop().time() >= hold.until_s:
        msg = "the store answers too late for a lease"
        raise StoreUnavailableError(msg)
    return True


async def _held_anew(ledger: Ledger, hold: Hold) -> bool:
    ask = Ask(draws=tuple(Draw(r.budget, r.amount, 0) for r in hold.rows), wanted=hold.granted, least=hold.granted)
    new = await ledger.reserve(ask, request_id=hold.request_id, notes=hold.notes)
    if hold.seq not in ledger.open:  # its caller left meanwhile
        ledger.release(new)
        return False
    try:
        ledger.release(hold)
    finally:
        hold.seq, hold.rows, hold.reserved, hold.escrow = new.seq, new.rows, new.reserved, new.escrow
        hold.lost, hold.until_s = False, new.until_s
        ledger.open[hold.seq] = hold
    return True
