"""The last events of runs. One that the log could not take is kept, and written as soon as the log takes it.

Until then the run's callers get the error that the log gave, and the run is not forgotten. What this process cannot
write before it ends itself, the next owner of the log finds: the run is then recovered as interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import anyio

from agentkeel.core.events import Draft
from agentkeel.core.ids import RunId
from agentkeel.engine.job import Job
from agentkeel.engine.log import Log
from agentkeel.errors import Error, NotFound, RunTerminal, StateError, StoreUnavailable, ValidationError, wrap

__all__ = ["End", "Ends"]

_FINAL = (StateError, NotFound, ValidationError)
"""The log will never take this end: the run is another owner's, is gone, or the end is none. Not tried again."""


class End(NamedTuple):
    """How one run ended, stamped for the log, which redacts it once more. `idle` follows if no other run is left."""

    job: Job
    drafts: Sequence[Draft]
    idle: Draft
    fence: int | None = None


class Ends:
    """Writes the ends of one manager's runs. `last` says whether no run but this one is running or waiting."""

    def __init__(self, log: Log, last: Callable[[Job], bool]) -> None:
        self._log = log
        self._last = last
        self._owed: dict[RunId, End] = {}

    def owed(self, run_id: RunId) -> Job | None:
        """The job of a run whose end is not in the log yet, though it has ended."""
        end = self._owed.get(run_id)
        return None if end is None else end.job

    async def write(self, end: End) -> None:
        """The end is in the log and `job.error` is None, or `job.error` says why it is not. Never raises an `Error`.

        An append of unknown outcome is tried again at once: an end that is there already is refused, and stands.
        """
        job = end.job
        job.ending = True
        with anyio.CancelScope(shield=True):
            job.error = await self._try(end)
            if isinstance(job.error, StoreUnavailable):
                job.error = await self._try(end)
        if job.error is None or isinstance(job.error, _FINAL):
            self._owed.pop(job.run_id, None)
        else:
            self._owed[job.run_id] = end

    async def settle(self) -> None:
        """Ends that are owed were tried again; what the log still cannot take stays owed."""
        for end in list(self._owed.values()):
            await self.write(end)
            if end.job.error is not None:
                return

    async def _try(self, end: End) -> Error | None:
        drafts = [*end.drafts, end.idle] if self._last(end.job) else end.drafts
        try:
            await self._log.append(end.job.session_id, drafts, fence=end.fence)
        except RunTerminal:
            return None  # The first end stands, and the log has it.
        except Error as error:
            return error
        except Exception as error:  # noqa: BLE001 - a run's outer edge: what a store must not raise is told as well
            return wrap(error, f"The end of run {end.job.run_id} could not be written: {error}")
        return None
