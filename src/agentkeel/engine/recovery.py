"""Runs whose owner died are ended as what they are: interrupted, with what is known.

Nothing is repeated. A run that had no agent yet never started; one that had may or may not have done its last step,
though the agent had not spoken yet, and whatever is left of that agent is ended first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentkeel.core import events as ev
from agentkeel.core.events import Draft
from agentkeel.core.ids import SessionId
from agentkeel.core.run import RunState, RunStatus
from agentkeel.engine.log import Log
from agentkeel.errors import Fenced, RunTerminal

__all__ = ["Reap", "recover"]

CLAIM_SECONDS = 60.0

Reap = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Ends what is left of an agent's process; takes what `RunState.process` recorded."""


async def recover(log: Log, *, owner: str, reap: Reap) -> list[RunState]:
    """No run of a dead owner is queued or running any more. The runs that were, as they were.

    A run is claimed first: an owner that lives after all cannot write it from then on, and one whose claim lives keeps
    it. An agent that cannot be ended is told of in the log, and keeps no store from being opened.

    Raises what `EventStore.append` raises; the runs that were not reached yet are found again the next time.
    """
    ended: list[RunState] = []
    orphans = list(await log.store.orphans(owner))
    left = Counter(run.session_id for run in orphans)
    busy: set[SessionId] = set()
    for run in orphans:
        left[run.session_id] -= 1
        try:
            fence = await log.store.claim(run.id, owner=owner, ttl=CLAIM_SECONDS)
            drafts = [*await _reaped(run, reap), Draft(data=_interrupted(run), run_id=run.id)]
            if not left[run.session_id] and run.session_id not in busy:
                drafts.append(Draft(data=ev.SessionIdle()))
            await log.append(run.session_id, drafts, fence=fence)
        except Fenced:
            busy.add(run.session_id)  # Its owner lives after all.
            continue
        except RunTerminal:
            continue  # Somebody was faster.
        ended.append(run)
    return ended


async def _reaped(run: RunState, reap: Reap) -> list[Draft]:
    """What is left of the run's agent is gone, or this says why not."""
    if not run.process:
        return []
    try:
        await reap(run.process)
    except Exception as error:  # noqa: BLE001 - becomes an event: a process that resists is no reason not to open
        said = ev.ErrorOccurred(
            error_code="internal_error",
            error_message=f"What is left of the agent could not be ended: {type(error).__name__}: {error}. "
            f"Look for process {run.process.get('pid')} and its children.",
        )
        return [Draft(data=said, run_id=run.id)]
    return []


def _interrupted(run: RunState) -> ev.RunInterrupted:
    return ev.RunInterrupted(
        outcome="not_started" if run.status is RunStatus.QUEUED and run.continuity is None else "unknown",
        open_tool_calls=run.open_tool_calls,
        text=run.text,
        usage=run.usage,
        cost_usd=run.cost_usd,
        cost_source=run.cost_source,
        provider_session_id=run.provider_session_id,
    )
