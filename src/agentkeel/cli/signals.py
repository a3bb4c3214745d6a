"""Ctrl-C once ends the run in good order; twice leaves at once. SIGTERM and a closed terminal count as Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import anyio
import anyio.abc

from agentkeel.cli.exits import INTERRUPTED
from agentkeel.cli.screen import Screen
from agentkeel.run import Run

__all__ = ["Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = b"\r\x1b[2K\x1b[?25h"


class Interrupts:
    """What a signal stops: the run, once there is one; before that, `scope`.

    Args:
        out: Tells the person, where there is one.

    Attributes:
        reason: What stopped the command; None if nothing did.
    """

    def __init__(self, out: Screen) -> None:
        self.run: Run | None = None
        self.scope = anyio.CancelScope()
        self.reason: str | None = None
        self._out = out

    async def watch(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Signals are obeyed while this runs."""
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
            task_status.started()
            async for number in signals:
                if self.reason is not None and number != signal.SIGHUP:
                    _leave()
                self._out.pin("stopping; once more leaves at once")
                await self.stop(f"interrupted by {number.name}")

    async def stop(self, reason: str) -> None:
        """The run was told to end; without a run, the command."""
        self.reason = self.reason or reason
        if self.run is None:
            self.scope.cancel()
        else:
            await self.run.cancel(reason)


def _leave() -> None:
    """Gone at once, with all agents. The log says `interrupted` when it is opened next."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    if sys.stdout is not None and sys.stdout.isatty():
        with suppress(OSError):
            os.write(sys.stdout.fileno(), _SHOW_CURSOR)
    os._exit(INTERRUPTED)
