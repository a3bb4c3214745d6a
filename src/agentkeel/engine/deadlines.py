"""The clocks a silent agent cannot escape. They are timers, not looks at the watch when something happens."""

from __future__ import annotations

from typing import Protocol

import anyio

from agentkeel.engine.job import Job, Stop
from agentkeel.ports.clock import Clock

__all__ = ["Watched", "watch_deadlines"]


class Watched(Protocol):
    """A turn, as its deadlines see it."""

    @property
    def silent_since(self) -> float | None:
        """Monotonic seconds of the agent's last word; None while it is not its turn to speak."""
        ...


async def watch_deadlines(turn: Watched, clock: Clock, job: Job) -> None:
    """The job is told to stop when its total or its idle time is over. Runs until it is cancelled."""
    async with anyio.create_task_group() as tasks:
        if job.options.timeout is not None:
            tasks.start_soon(_total, clock, job, job.options.timeout)
        if job.options.idle_timeout is not None:
            tasks.start_soon(_idle, turn, clock, job, job.options.idle_timeout)


async def _total(clock: Clock, job: Job, seconds: float) -> None:
    await clock.sleep(seconds)
    job.request_stop(Stop(kind="timeout", deadline="total", seconds=seconds))


async def _idle(turn: Watched, clock: Clock, job: Job, seconds: float) -> None:
    while True:
        since = turn.silent_since
        silent = 0.0 if since is None else clock.monotonic() - since
        if silent >= seconds:
            job.request_stop(Stop(kind="timeout", deadline="idle", seconds=seconds))
            return
        await clock.sleep(max(seconds - silent, 0.05))
