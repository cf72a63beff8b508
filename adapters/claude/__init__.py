"""The body that Claude reads and writes, for every place that hosts it."""
