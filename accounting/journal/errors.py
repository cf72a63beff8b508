"""What the operator must act on: the journal cannot be kept, so no new call may be admitted."""

from accounting.store.errors import StoreError


class JournalError(StoreError):
    """The journal cannot be written. Told to callers like a store that is away: what is spent could not be kept."""
