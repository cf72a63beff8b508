"""The pass-through lane: what the providers that speak OpenAI's format have in common. Bytes go on as they came."""
