"""Who may write a run's events: claims with a fence, living until a time of the database's clock.

A claim is a row, so it is good in every process; its owner renews it, and when the owner dies it lapses. A run that
nobody claimed yet stands in the queue of the process that submitted it, which the log does not show: so each run
remembers its writer, and is an orphan only when that writer's lease has lapsed too, or its store was closed. The first
`renew` through a store says whose writer it is. A store that is closed releases what was claimed through it.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentkeel.adapters.stores.asking import ended, no_run, still_running
from agentkeel.adapters.stores.postgres.link import Link
from agentkeel.adapters.stores.postgres.rows import plain, run_of
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunState
from agentkeel.core.status import RunStatus
from agentkeel.errors import Fenced

__all__ = ["claim", "delete", "orphans", "release", "renew"]

_ALIVE = {str(RunStatus.QUEUED), str(RunStatus.RUNNING)}


async def claim(link: Link, run_id: RunId, *, owner: str, ttl: float, writer: int) -> int:
    """`owner` has the run for `ttl` seconds. The fence; all earlier ones of this run are stale.

    Raises:
        RunNotFound, RunTerminal: It is not there, or has ended.
        Fenced: Another owner's claim lives.
    """
    await link.ask("session_hold_by_run", plain(run_id))
    rows = await link.ask("run_claimable", plain(run_id))
    if not rows:
        raise no_run(run_id)
    ((number, session, status, holder, left),) = rows
    if status not in _ALIVE:
        raise ended(run_id, status)
    if holder is not None and holder != plain(owner) and left > 0:
        raise Fenced(
            f"Run {run_id} belongs to {holder} for another {left:.1f} s.",
            details={"run_id": run_id, "owner": holder},
        )
    ((fence,),) = await link.ask("claim_put", number, plain(owner), writer, float(ttl))
    await link.ask("session_touch", [session])
    return int(fence)


async def renew(link: Link, owner: str, *, ttl: float, writer: int) -> None:
    """The claims of `owner`, and the writer it uses, live for another `ttl` seconds."""
    await link.ask("claim_renew", plain(owner), float(ttl))
    await link.ask("writer_renew", writer, plain(owner), float(ttl))


async def orphans(link: Link, owner: str, *, writer: int) -> Sequence[RunState]:
    """The runs that nobody who lives looks after, oldest first."""
    return [run_of(fixed, state) for fixed, state in await link.ask("run_orphans", plain(owner), writer)]


async def release(link: Link, writer: int) -> None:
    """Nothing is claimed through this writer any more, and it is gone."""
    held = [number for (number,) in await link.ask("session_hold_claimed", writer)]
    await link.ask("claim_release", writer)
    await link.ask("session_touch", held)
    await link.ask("writer_delete", writer)
    await link.ask("writer_forget")


async def delete(link: Link, session_id: SessionId) -> None:
    """The session and all of it is gone.

    Raises:
        StateError: One of its runs is at work.
    """
    rows = await link.ask("session_hold", [plain(session_id)], [0], [0])
    if not rows:
        return
    number = rows[0][1]
    at_work = await link.ask("run_at_work", number)
    if at_work:
        raise still_running(at_work[0][0], session_id)
    for what in ("name", "event", "claim", "run", "session"):
        await link.ask(f"{what}_delete", number)
