"""Runs whose owner died are ended as what they are: interrupted, with what is known.

Nothing is repeated. A run that waited for a slot never started; one that worked may or may not have done its last step,
and whatever is left of its agent is ended first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentkeel.core import events as ev
from agentkeel.core.events import Draft
from agentkeel.core.run import RunState, RunStatus
from agentkeel.engine.log import Log
from agentkeel.errors import Fenced, RunTerminal

__all__ = ["Reap", "recover"]

Reap = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Ends what is left of an agent's process; takes what `RunState.process` recorded."""


async def recover(log: Log, *, owner: str, reap: Reap) -> list[RunState]:
    """No run of a dead owner is queued or running any more. The runs that were, as they were."""
    orphans = list(await log.store.orphans(owner))
    ended = []
    for run in orphans:
        if run.process:
            await reap(run.process)
        try:
            await log.append(run.session_id, [Draft(data=_interrupted(run), run_id=run.id)])
        except (Fenced, RunTerminal):
            continue  # its owner lives after all, or somebody was faster; either way it is not ours to end
        ended.append(run)
    for session_id in {run.session_id for run in ended}:
        await log.append(session_id, [Draft(data=ev.SessionIdle())])
    return ended


def _interrupted(run: RunState) -> ev.RunInterrupted:
    return ev.RunInterrupted(
        outcome="not_started" if run.status is RunStatus.QUEUED else "unknown",
        open_tool_calls=run.open_tool_calls,
        text=run.text,
        usage=run.usage,
        cost_usd=run.cost_usd,
        cost_source=run.cost_source,
        provider_session_id=run.provider_session_id,
    )
