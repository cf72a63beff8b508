"""Fixtures of several files: the store that end-to-end tests share. And how properties are looked for.

A run tries the same examples as the run before, so that a change is judged by what it changed. `BURSAR_EXPLORE=1` looks elsewhere
each time; what it finds becomes an example by name.
"""

import os

from hypothesis import HealthCheck, settings

from tests.sidecars import own_store, store

__all__ = ["own_store", "store"]

settings.register_profile(
    "bursar", derandomize=not os.environ.get("BURSAR_EXPLORE"), print_blob=True,
    deadline=None, suppress_health_check=[HealthCheck.too_slow],  # a machine that is busy is no fault of ours
)  # fmt: skip
settings.load_profile("bursar")
