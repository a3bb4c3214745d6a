"""Time. Wall time labels events; deadlines, leases and back-off count in monotonic seconds."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

__all__ = ["Clock"]


class Clock(Protocol):
    """Where the engine gets its time and its chance from, so that tests own both."""

    def now(self) -> datetime:
        """Wall time, in UTC. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time."""
        ...

    def entropy(self) -> bytes:
        """16 bytes: 6 of milliseconds, 10 of chance. Later ones sort later."""
        ...
