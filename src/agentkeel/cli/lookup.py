"""From what a person types to a session or run: the whole id, or the beginning of one that no other shares."""

from __future__ import annotations

from collections.abc import AsyncIterable

from agentkeel.core.ids import RunId
from agentkeel.core.run import RunState
from agentkeel.core.session import SessionState
from agentkeel.errors import NotFound, RunNotFound, SessionNotFound, ValidationError
from agentkeel.manager import Manager
from agentkeel.session import Session

__all__ = ["run_named", "session_named"]

_SHOWN = 8


async def session_named(manager: Manager, name: str) -> Session:
    """The session of this id, or the one whose id begins so.

    Raises:
        SessionNotFound: There is none.
        ValidationError: There are several; the message lists them.
    """
    try:
        return await manager.session(name)
    except NotFound:
        return manager.session(await _only(manager.sessions(), name, "session"))


async def run_named(session: Session, name: str) -> RunId:
    """The id of the session's run of this id, or of the one whose id begins so.

    Raises:
        RunNotFound: There is none.
        ValidationError: There are several; the message lists them.
    """
    return RunId(await _only(session.runs(), name, "run"))


async def _only(states: AsyncIterable[SessionState] | AsyncIterable[RunState], name: str, what: str) -> str:
    found: list[str] = []
    if name:
        async for state in states:
            if state.id == name:
                return name
            if state.id.startswith(name) or state.id.partition("_")[2].startswith(name):
                found.append(state.id)
    if not found:
        missing = SessionNotFound if what == "session" else RunNotFound
        raise missing(f"There is no {what} {name!r}.", details={what: name})
    if len(found) > 1:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ValidationError(
            f"{name!r} begins {len(found)} {what} ids: {', '.join(found[:_SHOWN])}{more}. Give more of it.",
            code="invalid_input",
            details={what: name, "candidates": found},
        )
    return found[0]
