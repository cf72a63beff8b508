"""For how long a holder may believe in its hold. Here and not with the amounts, which no float may touch."""


def lease_until_s(began_s: float, ttl_ms: int) -> float:
    """When a lease asked for then is over, on our clock: always before the store thinks so."""
    return began_s + ttl_ms * 0.99 / 1000 - 0.05
