"""Runs runs: whatever happens to one, it ends, its job is done, and the log or the job says how it went.

An agent that ends its turn is believed; one that goes silent, dies, floods or refuses to stop is ended. A run gets one
terminal event that keeps what was said and used. If the log cannot take it, the caller gets that error, and the event
is written as soon as the log works again.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from agentkeel.engine.connections import Connections, cause_of
from agentkeel.engine.ends import Ends
from agentkeel.engine.job import Job, Stop
from agentkeel.engine.log import Log
from agentkeel.engine.turn import Turn
from agentkeel.errors import Error, Fenced, RunTerminal, wrap
from agentkeel.ports.clock import Clock
from agentkeel.ports.pricing import Pricing

__all__ = ["CLAIM_SECONDS", "Runner"]

CLAIM_SECONDS = 60.0


class Runner:
    """Runs runs. Holds what all runs of a manager share. `last` says whether no other run of a session is left."""

    def __init__(
        self,
        log: Log,
        connections: Connections,
        clock: Clock,
        pricing: Pricing,
        *,
        owner: str,
        last: Callable[[Job], bool],
    ) -> None:
        self.log = log
        self.connections = connections
        self.clock = clock
        self.pricing = pricing
        self.owner = owner
        self.ends = Ends(log, last)

    async def execute(self, job: Job) -> None:
        """The run has ended and the log says how, or `job.error` says why not; `job.done` is set.

        Never raises, but when it is cancelled itself.
        """
        turn = Turn(
            job, log=self.log, connections=self.connections, clock=self.clock, pricing=self.pricing, ends=self.ends
        )
        try:
            fence = await self.log.store.claim(job.run_id, owner=self.owner, ttl=CLAIM_SECONDS)
            await turn.run(fence)
        except anyio.get_cancelled_exc_class() as error:
            if not anyio.get_current_task().has_pending_cancellation():
                # Nobody cancelled us: it leaked out of the provider.
                await turn.end(wrap(error, f"The provider {job.provider.name} cancelled itself."))
                return
            job.stop = job.stop or Stop(kind="cancelled", reason="the manager was closed")
            await turn.end(None)
            raise
        except RunTerminal:
            pass  # Somebody else ended it: its first end stands, and the log has it.
        except Fenced as error:
            job.error = error
        except Exception as error:  # noqa: BLE001 - the run's outer edge: any failure becomes its terminal event
            await turn.end(_told(cause_of(error), job))
        finally:
            job.done.set()


def _told(error: BaseException, job: Job) -> Error:
    """What went wrong, in a sentence that also says where, unless it is an error that says so itself."""
    if isinstance(error, Error):
        return error
    return wrap(
        error,
        f"The provider {job.provider.name} or its handling failed: {type(error).__name__}: {error}. "
        "What was said until then is in the log.",
    )
