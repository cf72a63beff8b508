"""Fixtures of several files: the store that end-to-end tests share."""

from tests.sidecars import own_store, store

__all__ = ["own_store", "store"]
