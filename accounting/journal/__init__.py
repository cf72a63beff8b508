"""The journal: what this process knows of open and settled calls, on disk, so that a kill -9 loses none of it."""
