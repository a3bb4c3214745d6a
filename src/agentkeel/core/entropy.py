"""16 bytes that sort by time and are never alike: 6 of milliseconds, 10 of chance. Pure: both arrive as arguments."""

from __future__ import annotations

__all__ = ["entropy_after"]

_MS_BITS = 48
_CHANCE_BITS = 80


def entropy_after(previous: bytes, *, ms: int, chance: bytes) -> bytes:
    """16 bytes that sort behind `previous` (empty for the first ones), whatever the clock did meanwhile.

    In the millisecond of `previous`, or when the clock went back, the chance of `previous` goes on by a random step; it
    never starts again, so two makers with their own chance stay apart.

    Args:
        ms: Milliseconds since 1970, 0 to 2**48 - 1.
        chance: 10 random bytes.
    """
    # The highest bit stays free, so that steps of up to 2**32 find room for more of them than a millisecond has.
    fresh = (ms << _CHANCE_BITS) | (int.from_bytes(chance[:10]) >> 1)
    last = int.from_bytes(previous)
    if previous and ms <= last >> _CHANCE_BITS:
        fresh = last + 1 + int.from_bytes(chance[:4])
    return fresh.to_bytes((_MS_BITS + _CHANCE_BITS) // 8)
