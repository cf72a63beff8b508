"""What opens a provider: API keys, signatures, and tokens that are renewed ahead of time."""
