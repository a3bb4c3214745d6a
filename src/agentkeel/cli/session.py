"""`agentkeel session list | show | events`: reading a log, also while another process writes it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec

import agentkeel
from agentkeel.cli.events import about
from agentkeel.cli.exits import DONE
from agentkeel.cli.lookup import run_named, session_named
from agentkeel.cli.screen import Screen
from agentkeel.cli.stage import screen_of
from agentkeel.cli.table import Table
from agentkeel.core import events as ev
from agentkeel.core.codec import event_to_json
from agentkeel.core.events import TERMINAL_TYPES, Event
from agentkeel.core.figures import duration, money, tokens
from agentkeel.core.ids import RunId
from agentkeel.core.run import RunState
from agentkeel.core.session import SessionState
from agentkeel.errors import ValidationError
from agentkeel.manager import Manager
from agentkeel.registry import default_store
from agentkeel.session import Session

__all__ = ["list_sessions", "show_events", "show_session", "tell_events", "tell_sessions"]

_PIECES = frozenset({ev.MessageStreamed.type, ev.ReasoningStreamed.type})
_EVENT_TYPES = "docs/reference/events.md"


def list_sessions(*, store: str | None, status: str | None, provider: str | None, limit: int, json: bool) -> int:
    """The sessions are listed, newest first."""
    if limit < 0:
        raise ValidationError(f"--limit {limit} is below 0.", code="invalid_input")

    if store is None and _nothing_yet():
        sys.stderr.write(f"There is no log yet; the first run makes {default_store()}\n")
        return DONE

    wanted: dict[str, Any] = {"status": status, "provider": provider, "limit": limit or None}
    return _reading(store, partial(tell_sessions, json=json, **wanted))


async def tell_sessions(manager: Manager, out: Screen, *, json: bool = False, **wanted: Any) -> None:
    """The sessions that are wanted, newest first."""
    table = Table("SESSION", "STATUS", "PROVIDER", "CREATED", "WORKSPACE")
    async for state in manager.sessions(**wanted):
        if json:
            out.json(_values(state))
        else:
            table.add(state.id, state.status, state.provider or "", _time(state.created_at), state.workspace or "")
    if not json:
        table.show(out, nothing="No sessions.")


def show_session(id: str, *, store: str | None, json: bool) -> int:
    """What a session is, then its runs, oldest first."""

    async def shown(manager: Manager, out: Screen) -> None:
        session = await session_named(manager, id)
        state = await session.info()
        runs = list(reversed(await session.runs()))
        if json:
            out.json({"type": "session", **_values(state)})
            for run in runs:
                out.json({"type": "run", **_values(run)})
            return
        for name, value in _facts(state):
            out.line((f"{name:<10}", "dim"), value)
        table = Table("RUN", "STATUS", "PROVIDER", "MODEL", "USED", "COST", "TIME", "ERROR")
        for run in runs:
            table.add(*_run_row(run))
        out.line()
        table.show(out, nothing="No runs.")

    return _reading(store, shown)


def show_events(
    id: str, *, after: int, follow: bool, types: frozenset[str] | None, run: str | None, store: str | None, json: bool
) -> int:
    """The events are shown; with `follow`, up to the end of the session or run."""
    for kind in types or ():
        if kind not in ev.BODIES and kind != "unknown":
            raise ValidationError(f"There is no event type {kind!r}; see {_EVENT_TYPES}.", code="invalid_event_type")

    async def shown(manager: Manager, out: Screen) -> None:
        session = await session_named(manager, id)
        run_id = None if run is None else await run_named(session, run)
        events = (
            _following(session, after, run_id, types)
            if follow
            else session.events(after=after, run_id=run_id, types=types)
        )
        await tell_events(events, out, json=json)

    return _reading(store, shown)


async def tell_events(events: AsyncIterable[Event], out: Screen, *, json: bool = False, brief: bool = False) -> None:
    """The events, each in one line: sequence, time, type, and what it says.

    Where `brief`, of pieces of one text only the first has a line.
    """
    before = ""
    async for event in events:
        if json:
            out.json(event_to_json(event))
        elif not (brief and event.type == before and event.type in _PIECES):
            _show_event(out, event)
        before = event.type


async def _following(
    session: Session, after: int, run_id: RunId | None, types: frozenset[str] | None
) -> AsyncIterator[Event]:
    """What was, then what comes. With a run, its terminal event is the last one, shown or not."""
    watched = None if types is None else types | TERMINAL_TYPES
    async for event in session.subscribe(after=after, run_id=run_id, types=watched):
        if types is None or event.type in types:
            yield event
        if run_id is not None and event.type in TERMINAL_TYPES:
            return


def _reading(store: str | None, show: Callable[[Manager, Screen], Awaitable[None]]) -> int:
    out = screen_of(sys.stdout)
    try:
        anyio.run(partial(_read, store, show, out))
    finally:
        out.close()
    return DONE


def _nothing_yet() -> bool:
    """Whether nothing was ever run: the log of whoever names none is not there."""
    return not Path(default_store().partition(":")[2]).exists()


async def _read(store: str | None, show: Callable[[Manager, Screen], Awaitable[None]], out: Screen) -> None:
    async with agentkeel.open(store, read_only=True) as manager:
        await show(manager, out)


def _show_event(out: Screen, event: Event) -> None:
    words = about(event).rstrip()
    at = f"{event.at.astimezone():%H:%M:%S.%f}"[:-3]
    out.line(
        f"{event.sequence:>6}  ", (f"{at}  ", "dim"), (f"{event.type:<24}" if words else event.type, "bold"), words
    )


def _facts(state: SessionState) -> list[tuple[str, str]]:
    facts = {
        "session": state.id,
        "status": str(state.status),
        "provider": state.provider,
        "agent": state.agent_id,
        "workspace": state.workspace,
        "created": _time(state.created_at),
        "updated": _time(state.updated_at),
        "tags": ", ".join(state.tags),
        "error": f"{state.error_message} [{state.error_code}]" if state.error_code else None,
    }
    return [(name, value) for name, value in facts.items() if value]


def _run_row(run: RunState) -> tuple[str, ...]:
    return (
        run.id,
        str(run.status),
        run.provider or "",
        run.model or "",
        tokens(run.usage),
        money(run.cost_usd),
        duration(run.duration),
        run.error_code or "",
    )


def _values(state: SessionState | RunState) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(state)
    return values


def _time(at: Any) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"
