"""The machine's own time and chance."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime

import anyio

from agentkeel.core.entropy import entropy_after

__all__ = ["SystemClock"]


class SystemClock:
    """`ports.clock.Clock` from the system: all clocks of one process share one order of entropy."""

    def now(self) -> datetime:
        """Wall time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back; they stand still while the machine is suspended."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; at once, but after a turn of the event loop, for 0 or less."""
        await anyio.sleep(max(0.0, seconds))

    def entropy(self) -> bytes:
        """16 bytes that sort behind all that this process got before, from any thread."""
        return _shared.take()


class _Order:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = b""

    def take(self) -> bytes:
        with self._lock:
            self._last = entropy_after(self._last, ms=time.time_ns() // 1_000_000, chance=os.urandom(10))
            return self._last


_shared = _Order()
