"""What the cases of the store suite share: an empty store, drafts, and short ways to say what was read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentkeel.core import events as ev
from agentkeel.core.events import Body, Draft, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.ports.store import EventStore

__all__ = ["DAY", "R", "S", "StoreCases", "created", "of_run", "running", "said", "sequences", "started", "texts"]

S = SessionId("ses_1")
R = RunId("run_1")
DAY = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)


def said(text: str, **envelope: Any) -> Draft:
    """A draft that moves nothing."""
    return Draft(data=ev.MessageReceived(content=text), **envelope)


def of_run(data: Body, run_id: RunId = R, **envelope: Any) -> Draft:
    """A draft of a run."""
    return Draft(data=data, run_id=run_id, **envelope)


async def started(store: EventStore, session_id: SessionId = S, **created: Any) -> SessionId:
    """An active session with two events."""
    drafts = [Draft(data=ev.SessionCreated(agent_id="tester", **created)), Draft(data=ev.SessionStarted())]
    await store.append(session_id, drafts)
    return session_id


async def running(store: EventStore, run_id: RunId = R, session_id: SessionId = S, **queued: Any) -> RunId:
    """A run at work, in a session that is there."""
    await store.append(session_id, [of_run(ev.RunQueued(**queued), run_id)])
    await store.append(session_id, [of_run(ev.RunStarted(provider="scripted"), run_id)])
    return run_id


def sequences(events: Sequence[Event]) -> list[int]:
    """Their places."""
    return [event.sequence for event in events]


def texts(events: Sequence[Event]) -> list[str]:
    """What the messages among them say."""
    return [event.data.content for event in events if isinstance(event.data, ev.MessageReceived)]


def created() -> list[Draft]:
    """The first draft of a session."""
    return [Draft(data=ev.SessionCreated(agent_id="tester"))]


class StoreCases:
    """A store for each case. `make_store` opens the one that belongs to `tmp_path`."""

    durable: ClassVar[bool] = True
    pytestmark: ClassVar[Any] = pytest.mark.anyio

    async def make_store(self, tmp_path: Path) -> EventStore:
        """The store that belongs to `tmp_path`, open."""
        raise NotImplementedError

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Stores run on asyncio."""
        return "asyncio"

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[EventStore]:
        """An empty store."""
        store = await self.make_store(tmp_path)
        yield store
        await store.aclose()
