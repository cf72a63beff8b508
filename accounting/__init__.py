"""Tokens, prices, budgets, the ledger in Redis, the journal, callbacks. Knows nothing of HTTP."""
