"""Whatever is done to a store, in whatever order, it is what a simple model says; all stores agree to the byte.

The model knows the contract only as the port words it: it shares no code with the stores.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.adapters.stores.postgres import PostgresStore
from agentkeel.adapters.stores.sqlite import SqliteStore
from agentkeel.core import events as ev
from agentkeel.core.events import Body, Draft, Event
from agentkeel.core.ids import EventId, RunId, SessionId, event_id
from agentkeel.errors import Error
from agentkeel.ports.store import EventFilter, EventStore
from agentkeel.testing.postgres import PostgresServer

SESSIONS = [SessionId("s1"), SessionId("s2")]
RUNS = [RunId("r1"), RunId("r2"), RunId("r3")]
BODIES: dict[str, Callable[[str], Body]] = {
    "created": lambda text: ev.SessionCreated(agent_id=text),
    "started": lambda _: ev.SessionStarted(),
    "paused": lambda _: ev.SessionPaused(),
    "resumed": lambda _: ev.SessionResumed(),
    "completed": lambda _: ev.SessionCompleted(),
    "said": lambda text: ev.MessageReceived(content=text),
    "run queued": lambda text: ev.RunQueued(key=text),
    "run started": lambda text: ev.RunStarted(provider=text),
    "run completed": lambda text: ev.RunCompleted(stop_reason=text),
    "run failed": lambda text: ev.RunFailed(error_code="provider_error", error_message=text),
    "run cancelled": lambda text: ev.RunCancelled(reason=text),
}
SESSION_MOVES = {
    ("none", "created"): "pending",
    ("pending", "started"): "active",
    ("active", "paused"): "paused",
    ("paused", "resumed"): "active",
    ("active", "completed"): "completed",
    ("paused", "completed"): "completed",
}
RUN_MOVES = {
    ("none", "run queued"): "queued",
    ("queued", "run started"): "running",
    ("running", "run started"): "running",
    ("running", "run completed"): "completed",
    **{(was, f"run {end}"): end for was in ("queued", "running") for end in ("failed", "cancelled")},
}
ENDED = {"completed", "failed", "cancelled"}


@dataclass(frozen=True)
class Said:
    """A draft, or what became of it, in the model's words."""

    what: str
    text: str
    run: RunId | None = None
    key: str | None = None
    id: str | None = None
    place: int = 0

    @property
    def content(self) -> tuple[str, str]:
        bare = self.what in {"started", "paused", "resumed", "completed"}
        return self.what, "" if bare else self.text


@dataclass
class Model:
    """The contract of a log, in the plainest words."""

    logs: dict[SessionId, list[Said]] = field(default_factory=dict)
    status: dict[SessionId, str] = field(default_factory=dict)
    runs: dict[RunId, tuple[SessionId, str]] = field(default_factory=dict)

    def append(self, session: SessionId, drafts: list[Said], expected: int | None) -> str | list[int]:
        """The places of the drafts, or the code of the error; after an error nothing has changed."""
        log, status, runs = list(self.logs.get(session, [])), self.status.get(session, "none"), dict(self.runs)
        was, places = len(log), []
        if not drafts and status == "none":
            return "session_not_found"
        for draft in drafts:
            same = [old for old in log if (draft.key and old.key == draft.key) or self._same_id(session, draft, old)]
            if same:
                if any(old.content != draft.content for old in same) or len({old.place for old in same}) > 1:
                    return "key_conflict"
                places.append(same[0].place)
                continue
            if draft.id and draft.id.startswith("#") and int(draft.id[1:]) > len(log) + 1:
                return "invalid_input"
            if expected is not None and len(log) == was and expected != was:
                return "sequence_conflict"
            if status == "none" and draft.what != "created":
                return "session_not_found"
            if draft.what in {"created", "started", "paused", "resumed", "completed"}:
                if (status, draft.what) not in SESSION_MOVES:
                    return "invalid_transition"
                status = SESSION_MOVES[status, draft.what]
            if draft.what == "run queued" and status not in {"active", "paused"}:
                return "invalid_status"
            if draft.run is None and draft.what.startswith("run "):
                return "missing_required_field"
            if draft.run is not None:
                owner, at = runs.get(draft.run, (session, "none"))
                if owner != session:
                    return "run_mismatch"
                if at in ENDED:
                    return "run_terminal"
                moved = RUN_MOVES.get((at, draft.what)) if draft.what.startswith("run ") else at
                if moved in {None, "none"}:
                    return "invalid_transition"
                runs[draft.run] = (session, str(moved))
            place = len(log) + 1
            own = None if draft.id == f"#{place}" else draft.id
            log.append(Said(draft.what, draft.text, draft.run, draft.key, own, place))
            places.append(place)
        self.logs[session], self.status[session], self.runs = log, status, runs
        return places

    @staticmethod
    def _same_id(session: SessionId, draft: Said, old: Said) -> bool:
        return draft.id is not None and (old.id == draft.id or draft.id == f"#{old.place}")

    def delete(self, session: SessionId) -> str | None:
        if (session, "running") in self.runs.values():
            return "invalid_operation"
        self.logs.pop(session, None)
        self.status.pop(session, None)
        self.runs = {run: at for run, at in self.runs.items() if at[0] != session}
        return None


class Ticks:
    """Wall time of a store: a second per question."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


texts = st.sampled_from(["a", "b"])
drafts = st.builds(
    Said,
    what=st.sampled_from([*BODIES, *["started", "run queued", "run started", "said", "said", "said"]]),
    text=texts,
    run=st.none() | st.sampled_from(RUNS),
    key=st.none() | st.none() | st.sampled_from(["k1", "k2"]),
    id=st.none() | st.none() | st.sampled_from(["i1", "#3", "#4", "#9"]),
)
whole_life = [
    Said("created", "a"),
    Said("started", ""),
    Said("run queued", "a", RUNS[0]),
    Said("run started", "a", RUNS[0]),
]
batches = st.lists(drafts, max_size=4) | st.integers(1, 4).map(lambda size: whole_life[:size])


class StoreMachine(RuleBasedStateMachine):
    """The model, memory and a store that lasts, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.model = Model()
        self.clocks = (Ticks(), Ticks())
        self.memory = MemoryStore(now=self.clocks[0])

    @initialize()
    def opened(self) -> None:
        self.lasting = self.run(self.open())

    async def open(self) -> EventStore:
        raise NotImplementedError

    def run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return self.runner.run(awaited())

    def both(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        """What both stores answer, or the code of the error both raise. They never differ."""
        answers = []
        for store in (self.memory, self.lasting):
            try:
                answers.append(self.run(ask(store)))
            except Error as error:
                answers.append(error.code)
        assert answers[0] == answers[1]
        return answers[0]

    @rule(
        session=st.sampled_from(SESSIONS),
        batch=batches,
        expected=st.sampled_from([None, None, None, "the head", "the head", 0, 3]),
        durability=st.sampled_from(["process", "process", "process", "full"]),
    )
    def append(self, session: SessionId, batch: list[Said], expected: Any, durability: Any) -> None:
        if expected == "the head":
            expected = len(self.model.logs.get(session, []))
        said = self.model.append(session, batch, expected)
        real = [
            Draft(
                data=BODIES[draft.what](draft.text),
                run_id=draft.run,
                key=draft.key,
                id=self.real_id(session, draft.id),
            )
            for draft in batch
        ]

        async def ask(store: Any) -> list[Event]:
            return list((await store.append(session, real, expected=expected, durability=durability)).events)

        answer = self.both(ask)
        if isinstance(said, str):
            assert answer == said
        else:
            assert [event.sequence for event in answer] == said

    @staticmethod
    def real_id(session: SessionId, said: str | None) -> EventId | None:
        if said is None:
            return None
        return event_id(session, int(said[1:])) if said.startswith("#") else EventId(said)

    @rule(session=st.sampled_from(SESSIONS))
    def delete(self, session: SessionId) -> None:
        said = self.model.delete(session)
        assert self.both(lambda store: store.delete_session(session)) == said

    @precondition(lambda self: self.model.logs)
    @rule()
    def reopen(self) -> None:
        self.run(self.lasting.aclose())
        self.lasting = self.run(self.open())

    @rule(
        session=st.sampled_from(SESSIONS),
        after=st.integers(-1, 8),
        limit=st.integers(1, 4),
        run=st.none() | st.sampled_from(RUNS),
        before=st.none() | st.integers(0, 8),
        types=st.none() | st.just(["message_received", "run_started"]),
        bare=st.booleans(),
    )
    def read(self, session: SessionId, after: int, limit: int, bare: bool, **where: Any) -> None:
        run, before, types = where["run"], where["before"], where["types"]
        wanted = None if bare else EventFilter(run_id=run, before=before, types=types)
        answer = self.both(lambda store: store.read(session, after=after, limit=limit, where=wanted))
        log = self.model.logs.get(session)
        if after < 0:
            assert answer == "invalid_cursor"
        elif log is None:
            assert answer == "session_not_found"
        elif after > len(log):
            assert answer == "invalid_cursor"
        else:
            places = [
                old.place
                for old in log[after:]
                if bare
                or (
                    (run is None or old.run == run)
                    and (before is None or old.place < before)
                    and (types is None or old.what in {"said", "run started"})
                )
            ]
            assert [event.sequence for event in answer] == places[:limit]

    @rule(session=st.sampled_from(SESSIONS), key=texts)
    def find(self, session: SessionId, key: str) -> None:
        found = self.both(lambda store: store.run_by_key(session, key))
        queued = [old.run for old in self.model.logs.get(session, []) if old.what == "run queued" and old.text == key]
        assert (found and found.id) == (queued[0] if queued else None)

    @invariant()
    def the_logs_are_the_models(self) -> None:
        if not hasattr(self, "lasting"):
            return
        for session in SESSIONS:
            log = self.model.logs.get(session)
            assert self.both(lambda store, s=session: store.head(s)) == len(log or [])
            if log is None:
                assert self.both(lambda store, s=session: store.session(s)) == "session_not_found"
                continue
            events = self.both(lambda store, s=session: store.read(s))
            assert [event.sequence for event in events] == list(range(1, len(log) + 1))
            assert [event.data for event in events] == [BODIES[old.what](old.text) for old in log]
            assert [event.key for event in events] == [old.key for old in log]
            assert self.both(lambda store, s=session: store.session(s)).status == self.model.status[session]
        listed = self.both(lambda store: store.runs())
        assert {run.id: (run.session_id, str(run.status)) for run in listed} == self.model.runs
        assert {state.id for state in self.both(lambda store: store.sessions())} == set(self.model.logs)
        alive = {run for run, (_, status) in self.model.runs.items() if status not in ENDED}
        assert {run.id for run in self.both(lambda store: store.orphans("me"))} == alive

    def teardown(self) -> None:
        if hasattr(self, "lasting"):
            self.run(self.lasting.aclose())
        self.runner.close()
        self.folder.cleanup()


class SqliteMachine(StoreMachine):
    async def open(self) -> EventStore:
        return await SqliteStore.open(Path(self.folder.name) / "log.db", now=self.clocks[1])


def test_sqlite_is_what_the_model_says() -> None:
    run_state_machine_as_test(SqliteMachine, settings=examples(40))


def test_postgresql_is_what_the_model_says(postgres_server: PostgresServer) -> None:
    class PostgresMachine(StoreMachine):
        def __init__(self) -> None:
            super().__init__()
            self.url = postgres_server.url()

        async def open(self) -> EventStore:
            return await PostgresStore.open(self.url, now=self.clocks[1])

    run_state_machine_as_test(PostgresMachine, settings=examples(15))


def examples(count: int) -> settings:
    return settings(max_examples=count, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
