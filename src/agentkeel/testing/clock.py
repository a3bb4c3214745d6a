"""Time that moves only when a test says so."""

from __future__ import annotations

import heapq
import itertools
import random
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel

from agentkeel.core.entropy import entropy_after

__all__ = ["VirtualClock"]

_START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TURNS_TO_SETTLE = 50
"""Turns of the event loop that woken tasks get. A hand-over between tasks costs one or two."""


class VirtualClock:
    """`ports.clock.Clock` for tests: hours pass in no time, in the same order each time.

    `sleep` parks its caller; `advance` is the only thing that wakes it. Clocks with one `seed` give the same entropy.
    Tasks that wait for something real, such as a thread or a process, are not waited for: use `wait_for_sleepers`.
    """

    def __init__(self, *, start: datetime = _START, seed: int = 0) -> None:
        if start.tzinfo is None:
            raise ValueError("A clock starts at an instant: give `start` a time zone.")
        self._wall = start.astimezone(UTC)
        self._monotonic = 0.0
        self._count = itertools.count()
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._changed = anyio.Event()
        self._random = random.Random(seed)  # noqa: S311 - to be repeatable is the point
        self._last = b""

    def now(self) -> datetime:
        """Wall time, in UTC: moved by `advance` and `jump_wall`."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds since the clock was made, moved by `advance` alone."""
        return self._monotonic

    @property
    def sleepers(self) -> int:
        """How many tasks are parked in `sleep`."""
        return len(self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has moved the clock by `seconds`; at once for 0 or less."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        sleeper = (self._monotonic + seconds, next(self._count), anyio.Event())
        heapq.heappush(self._sleepers, sleeper)
        self._changed.set()
        try:
            await sleeper[2].wait()
        finally:
            if sleeper in self._sleepers:  # Cancelled before its time.
                self._sleepers.remove(sleeper)
                heapq.heapify(self._sleepers)

    def entropy(self) -> bytes:
        """16 bytes that sort behind all before, also after a jump back of the wall time."""
        ms = (self._wall - _EPOCH) // timedelta(milliseconds=1)
        self._last = entropy_after(self._last, ms=ms, chance=self._random.randbytes(10))
        return self._last

    async def advance(self, seconds: float) -> None:
        """The clock stands `seconds` later, and all who were due by then have run, in the order of their times.

        Between two wakings the event loop turns, so a task that sleeps again within the window is woken again at its
        time. Who is due at the same time wakes in the order of falling asleep.
        """
        if seconds < 0:
            raise ValueError("Monotonic time never goes back; `jump_wall` moves the wall time alone.")
        until = self._monotonic + seconds
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            due, _, woken = heapq.heappop(self._sleepers)
            self._move_to(due)
            woken.set()
            await self._settle()
        self._move_to(until)
        await self._settle()

    def jump_wall(self, seconds: float) -> None:
        """Wall time alone is `seconds` later, or earlier: somebody set the machine's clock. Nobody wakes."""
        self._wall += timedelta(seconds=seconds)

    async def wait_for_sleepers(self, count: int = 1) -> None:
        """Return once at least `count` tasks are parked in `sleep`. For tasks on their way there through real waits."""
        while len(self._sleepers) < count:
            if self._changed.is_set():
                self._changed = anyio.Event()
            await self._changed.wait()

    def _move_to(self, monotonic: float) -> None:
        if monotonic > self._monotonic:
            self._wall += timedelta(seconds=monotonic - self._monotonic)
            self._monotonic = monotonic

    async def _settle(self) -> None:
        for _ in range(_TURNS_TO_SETTLE):
            await anyio.lowlevel.checkpoint()
