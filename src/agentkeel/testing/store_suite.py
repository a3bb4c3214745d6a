"""The contract of `EventStore`, as tests. A backend proves itself with one factory method.

::

    class TestMyStore(StoreSuite):
        async def make_store(self, tmp_path: Path) -> EventStore:
            return await MyStore.open(tmp_path / "log")

`make_store` opens the store that belongs to `tmp_path`: called again after `aclose`, it opens the same one. A store
that forgets says `durable = False`, and the suite holds it to that. Needs pytest and anyio's plugin.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import msgspec
import pytest

from agentkeel.core import events as ev
from agentkeel.core.append import MAX_BODY_BYTES
from agentkeel.core.codec import encode_body, kind_of
from agentkeel.core.events import Body, Draft, Event
from agentkeel.core.ids import EventId, RunId, SessionId, event_id
from agentkeel.core.run import RunStatus
from agentkeel.core.session import SessionStatus
from agentkeel.core.usage import Usage
from agentkeel.errors import (
    Fenced,
    InvalidTransition,
    KeyConflict,
    RunNotFound,
    RunTerminal,
    SequenceConflict,
    SessionNotFound,
    StateError,
    ValidationError,
)
from agentkeel.ports.store import EventFilter, EventStore

__all__ = ["StoreSuite"]

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


class StoreSuite:
    """Subclass it, give `make_store`, and collect. See the module."""

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

    # -- sequence and order (E-08, ST-03, ST-05) --------------------------------------------------------------------

    async def test_sequence_continues_from_one_without_a_gap(self, store: EventStore) -> None:
        first = await store.append(S, [Draft(data=ev.SessionCreated(agent_id="a"))])
        assert sequences(first.events) == [1]
        await store.append(S, [Draft(data=ev.SessionStarted())])
        batch = await store.append(S, [said(str(n)) for n in range(100)])
        assert sequences(batch.events) == list(range(3, 103))
        assert texts(batch.events) == [str(n) for n in range(100)]
        assert await store.read(S, limit=200) == [*first.events, *(await store.read(S, after=1, limit=200))]
        assert await store.head(S) == 102

    async def test_concurrent_appends_share_one_dense_sequence(self, store: EventStore) -> None:
        sessions = [await started(store, SessionId(f"ses_{n}")) for n in range(4)]
        acknowledged: list[Event] = []

        async def write(session: SessionId, writer: int) -> None:
            for n in range(8):
                size = 1 + (n + writer) % 3
                drafts = [said(f"{writer}.{n}.{part}") for part in range(size)]
                appended = await store.append(session, drafts)
                assert sequences(appended.events) == list(
                    range(appended.events[0].sequence, appended.events[0].sequence + size)
                ), "a batch is contiguous"
                acknowledged.extend(appended.events)

        async with anyio.create_task_group() as group:
            for session in sessions:
                for writer in range(6):
                    group.start_soon(write, session, writer)
        for session in sessions:
            log = await store.read(session, limit=1000)
            assert sequences(log) == list(range(1, len(log) + 1))
            mine = sorted((e for e in acknowledged if e.session_id == session), key=lambda event: event.sequence)
            assert list(log[2:]) == mine, "what was acknowledged is what is read, and nothing else"
            for writer in range(6):
                words = [text for text in texts(log) if text.startswith(f"{writer}.")]
                assert words == sorted(words, key=lambda word: [int(part) for part in word.split(".")])

    async def test_an_event_is_its_draft_at_its_place(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        draft = Draft(
            data=ev.ToolCallStarted(tool_call_id="t1", tool_name="Bash", kind="bash", tool_input={"command": "ls ü"}),
            run_id=R,
            source="agent",
            provider="scripted",
            key="k1",
            at=DAY,
            parent=EventId("evt_parent"),
            correlation_id="c1",
            causation_id="c2",
            raw=b"\x00\xffraw",
        )
        (event,) = (await store.append(S, [draft])).events
        (stored,) = await store.read(S, after=event.sequence - 1)
        assert stored == event
        assert stored == Event(
            id=event_id(S, 5),
            session_id=S,
            sequence=5,
            **{f: getattr(draft, f) for f in draft.__struct_fields__ if f != "id"},
        )

    async def test_a_time_is_kept_to_the_microsecond_and_read_in_utc(self, store: EventStore) -> None:
        await started(store)
        there = DAY.astimezone(timezone(timedelta(hours=5, minutes=30)))
        old = datetime(1, 1, 1, tzinfo=UTC)
        far = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
        await store.append(S, [said("a", at=there), said("b", at=old), said("c", at=far)])
        events = await store.read(S, after=2)
        assert [event.at for event in events] == [DAY, old, far]
        assert all(event.at.utcoffset() == timedelta(0) for event in events)
        with pytest.raises(ValidationError) as caught:
            await store.append(S, [said("no zone", at=DAY.replace(tzinfo=None))])
        assert caught.value.code == "invalid_format"

    async def test_a_draft_without_a_time_gets_the_stores(self, store: EventStore) -> None:
        await started(store)
        before = datetime.now(UTC) - timedelta(minutes=5)
        (event,) = (await store.append(S, [said("now")])).events
        assert before < event.at < datetime.now(UTC) + timedelta(minutes=5)

    async def test_an_empty_append_adds_nothing(self, store: EventStore) -> None:
        with pytest.raises(SessionNotFound):
            await store.append(S, [])
        await started(store)
        assert list((await store.append(S, [])).events) == []
        assert await store.head(S) == 2

    @pytest.mark.parametrize("durability", ["full", "process"])
    async def test_the_acknowledgement_promises_at_least_what_was_asked(
        self, store: EventStore, durability: Any
    ) -> None:
        await started(store)
        appended = await store.append(S, [said("x")], durability=durability)
        assert appended.durability in {"full", durability}

    # -- idempotency (E-09, reliability 16) -------------------------------------------------------------------------

    @pytest.mark.parametrize("name", [{"key": "order-1"}, {"id": "imported-1"}, {"key": "k", "id": "i"}])
    async def test_a_known_key_or_id_yields_the_first_event(self, store: EventStore, name: dict[str, Any]) -> None:
        await started(store)
        first = await store.append(S, [said("once", **name)])
        await store.append(S, [said("between")])
        again = await store.append(S, [said("once", **name), said("new")])
        assert again.events[0] == first.events[0]
        assert texts(await store.read(S)) == ["once", "between", "new"]
        assert sequences(again.events) == [3, 5]

    async def test_the_id_an_event_was_given_finds_it_again(self, store: EventStore) -> None:
        await started(store)
        (event,) = (await store.append(S, [said("derived")])).events
        again = await store.append(S, [said("derived", id=event.id), said("next", id=event_id(S, 4))])
        assert sequences(again.events) == [3, 4]
        with pytest.raises(KeyConflict):
            await store.append(S, [said("other", id=event_id(S, 4))])
        with pytest.raises(ValidationError):
            await store.append(S, [said("from the future", id=event_id(S, 9))])
        assert await store.head(S) == 4

    @pytest.mark.parametrize("name", [{"key": "k"}, {"id": "i"}])
    async def test_a_key_or_id_with_another_content_conflicts_and_adds_nothing(
        self, store: EventStore, name: dict[str, Any]
    ) -> None:
        await started(store)
        await store.append(S, [said("this", **name)])
        for drafts in ([said("that", **name)], [said("new"), said("that", **name)]):
            with pytest.raises(KeyConflict) as caught:
                await store.append(S, drafts)
            assert caught.value.details["sequence"] == 3
        assert await store.head(S) == 3

    async def test_a_key_holds_inside_one_batch_too(self, store: EventStore) -> None:
        await started(store)
        twice = await store.append(S, [said("a", key="k"), said("a", key="k"), said("b")])
        assert sequences(twice.events) == [3, 3, 4]
        with pytest.raises(KeyConflict):
            await store.append(S, [said("x", key="l"), said("y", key="l")])
        with pytest.raises(KeyConflict):
            await store.append(S, [said("a", id="one"), said("b", id="one")])
        assert await store.head(S) == 4

    async def test_keys_of_two_sessions_do_not_meet(self, store: EventStore) -> None:
        one, two = await started(store), await started(store, SessionId("ses_2"))
        await store.append(one, [said("mine", key="k", id="i")])
        await store.append(two, [said("yours", key="k", id="i")])
        assert texts(await store.read(one)) == ["mine"]
        assert texts(await store.read(two)) == ["yours"]

    async def test_a_retried_batch_makes_no_second_move(self, store: EventStore) -> None:
        await started(store)
        drafts = [said("prompt", key="p"), of_run(ev.RunQueued(key="q"), key="q")]
        first = await store.append(S, drafts, expected=2)
        retry = await store.append(S, [drafts[0], msgspec.structs.replace(drafts[1], run_id=RunId("run_other"))])
        assert list(retry.events) == list(first.events)
        assert list((await store.append(S, drafts, expected=2)).events) == list(first.events), "expected was met then"
        with pytest.raises(RunNotFound):
            await store.run(RunId("run_other"))

    async def test_equal_drafts_without_a_key_are_two_events(self, store: EventStore) -> None:
        await started(store)
        await store.append(S, [said("same"), said("same")])
        assert await store.head(S) == 4

    # -- all or none (ST-04, E-04, ST-09) ---------------------------------------------------------------------------

    async def test_a_batch_is_stored_whole_or_not_at_all(self, store: EventStore) -> None:
        await started(store)
        bad: list[tuple[type[Exception], Draft]] = [
            (InvalidTransition, Draft(data=ev.SessionStarted())),
            (InvalidTransition, of_run(ev.RunStarted(provider="x"))),
            (InvalidTransition, of_run(ev.MessageReceived(content="of no run"))),
            (ValidationError, Draft(data=ev.RunQueued())),
            (ValidationError, said("\ud800")),
            (ValidationError, Draft(data=ev.ToolCallStarted(tool_call_id="t", tool_name="n", tool_input=object()))),
            (ValidationError, said("x", key="")),
            (ValidationError, said("x", key="two\nlines")),
            (ValidationError, said("x", id="../../etc/passwd")),
            (ValidationError, of_run(ev.RunQueued(timeout="soon"), RunId("run_2"))),  # type: ignore[arg-type]
            (ValidationError, of_run(ev.RunQueued(), RunId("no spaces please"))),
        ]
        for error, draft in bad:
            with pytest.raises(error):
                await store.append(S, [said("good", key="g"), draft, said("good too")])
            assert await store.head(S) == 2, draft
        await store.append(S, [said("good", key="g")])
        assert texts(await store.read(S)) == ["good"]

    async def test_one_callers_error_does_not_touch_its_neighbours(self, store: EventStore) -> None:
        await started(store)
        failed: list[int] = []

        async def write(n: int) -> None:
            try:
                move = Draft(data=ev.SessionStarted()) if n % 3 == 0 else said(f"right {n}")
                await store.append(S, [said(f"left {n}"), move])
            except InvalidTransition:
                failed.append(n)

        async with anyio.create_task_group() as group:
            for n in range(30):
                group.start_soon(write, n)
        assert sorted(failed) == list(range(0, 30, 3))
        log = await store.read(S, after=2)
        assert sequences(log) == list(range(3, 43))
        pairs = {(texts(log)[i], texts(log)[i + 1]) for i in range(0, 40, 2)}
        assert pairs == {(f"left {n}", f"right {n}") for n in range(30) if n % 3}

    async def test_only_a_creation_makes_a_session(self, store: EventStore) -> None:
        for drafts in ([said("hello")], [Draft(data=ev.SessionStarted())], [said("x"), *_creation()]):
            with pytest.raises(SessionNotFound):
                await store.append(S, drafts)
        assert await store.head(S) == 0
        with pytest.raises(ValidationError):
            await store.append(SessionId("not an id!"), _creation())

    async def test_expected_guards_the_head(self, store: EventStore) -> None:
        await started(store)
        await store.append(S, [said("a")], expected=2)
        for wrong in (0, 2, 4):
            with pytest.raises(SequenceConflict) as caught:
                await store.append(S, [said("b")], expected=wrong)
            assert caught.value.details["head"] == 3
        await store.append(S, [said("b")], expected=3)
        assert texts(await store.read(S)) == ["a", "b"]
        new = SessionId("ses_2")
        await store.append(new, _creation(), expected=0)

    async def test_of_two_that_expect_the_same_head_one_wins(self, store: EventStore) -> None:
        await started(store)
        lost: list[int] = []

        async def write(n: int) -> None:
            try:
                await store.append(S, [said(f"writer {n}")], expected=2)
            except SequenceConflict:
                lost.append(n)

        async with anyio.create_task_group() as group:
            for n in range(10):
                group.start_soon(write, n)
        assert len(lost) == 9
        assert len(texts(await store.read(S))) == 1

    # -- states (B-01, B-02, B-03, B-05, B-07) ----------------------------------------------------------------------

    @pytest.mark.parametrize("end", sorted(ev.TERMINAL_TYPES))
    async def test_the_first_terminal_event_wins_and_nothing_follows_it(self, store: EventStore, end: str) -> None:
        await started(store)
        await running(store)
        ends: dict[str, Body] = {
            "run_completed": ev.RunCompleted(stop_reason="end_turn"),
            "run_failed": ev.RunFailed(error_code="provider_error", error_message="broke"),
            "run_cancelled": ev.RunCancelled(reason="enough"),
            "run_timeout": ev.RunTimeout(deadline="total", seconds=1),
            "run_interrupted": ev.RunInterrupted(outcome="unknown"),
        }
        await store.append(S, [of_run(ends[end])])
        head = await store.head(S)
        later: list[Body] = [*ends.values(), ev.MessageReceived(content="late"), ev.RunStarted(provider="x")]
        for data in later:
            with pytest.raises(RunTerminal):
                await store.append(S, [of_run(data)])
        with pytest.raises(RunTerminal):
            await store.append(S, [said("of the session"), of_run(ev.MessageReceived(content="late"))])
        assert await store.head(S) == head
        run = await store.run(R)
        assert run.status == end.removeprefix("run_")
        assert run.ended_at is not None
        assert run.last_sequence == head

    async def test_of_many_terminal_events_at_once_one_is_stored(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        refused: list[str] = []

        async def end(data: Body) -> None:
            try:
                await store.append(S, [of_run(data)])
            except RunTerminal:
                refused.append(data.type)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(end, ev.RunCompleted(stop_reason="end_turn"))
                group.start_soon(end, ev.RunCancelled())
        assert len(refused) == 9
        assert len(await store.read(S, where=EventFilter(types=ev.TERMINAL_TYPES))) == 1

    async def test_a_batch_cannot_end_a_run_twice(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        with pytest.raises(RunTerminal):
            await store.append(S, [of_run(ev.RunCancelled()), of_run(ev.RunCompleted(stop_reason="end_turn"))])
        assert (await store.run(R)).status is RunStatus.RUNNING

    async def test_moves_outside_the_tables_are_refused(self, store: EventStore) -> None:
        await store.append(S, _creation())
        with pytest.raises(StateError) as caught:
            await store.append(S, [of_run(ev.RunQueued())])
        assert caught.value.code == "invalid_status"
        for data in (ev.SessionPaused(), ev.SessionResumed(), ev.SessionCompleted(), ev.SessionCreated(agent_id="b")):
            with pytest.raises(InvalidTransition):
                await store.append(S, [Draft(data=data)])
        await store.append(S, [Draft(data=ev.SessionStarted())])
        await store.append(S, [of_run(ev.RunQueued())])
        for move in (ev.RunQueued(), ev.RunCompleted(stop_reason="end_turn")):
            with pytest.raises(InvalidTransition):
                await store.append(S, [of_run(move)])
        await store.append(S, [Draft(data=ev.SessionCompleted())])
        with pytest.raises(StateError):
            await store.append(S, [of_run(ev.RunQueued(), RunId("run_2"))])
        await store.append(S, [of_run(ev.RunStarted(provider="x"))])
        assert (await store.session(S)).status is SessionStatus.COMPLETED

    async def test_a_run_belongs_to_one_session(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        other = await started(store, SessionId("ses_2"))
        for data in (ev.MessageReceived(content="x"), ev.RunQueued(), ev.RunCancelled()):
            with pytest.raises(StateError) as caught:
                await store.append(other, [of_run(data)])
            assert caught.value.code == "run_mismatch"
        assert await store.head(other) == 2

    async def test_states_are_what_the_events_tell(self, store: EventStore) -> None:
        await started(store, provider="scripted", metadata={"a": 1}, tags=("x", "y"), system_prompt="Be kind.")
        await running(store, key="q1", options={"prompt": "do"}, metadata={"m": [1, None]}, timeout=2.5)
        await store.append(
            S,
            [
                of_run(ev.RouteSelected(provider="scripted", order=("scripted", "b"), skipped={"c": "no"})),
                of_run(ev.RunStarted(provider="scripted", model="m1", provider_session_id="native", attempt=2)),
                of_run(ev.ToolCallStarted(tool_call_id="t1", tool_name="Bash")),
                of_run(ev.TokenUsageUpdated(usage=Usage(input_tokens=3, output_tokens=4), cost_usd="0.5")),
                of_run(ev.TokenUsageUpdated(usage=Usage(input_tokens=1), cost_usd="0.25")),
                of_run(ev.TurnCompleted(turns=2)),
            ],
        )
        run = await store.run(R)
        assert (run.status, run.key, run.options, run.timeout) == (RunStatus.RUNNING, "q1", {"prompt": "do"}, 2.5)
        assert (run.attempt, run.model, run.order, run.skipped) == (2, "m1", ("scripted", "b"), {"c": "no"})
        assert (run.usage, run.cost_usd) == (Usage(input_tokens=4, output_tokens=4), "0.75")
        assert (run.turns, run.tool_calls, run.open_tool_calls) == (2, 1, ("t1",))
        assert run.metadata == {"m": [1, None]}
        session = await store.session(S)
        assert (session.metadata, session.tags, session.system_prompt) == ({"a": 1}, ("x", "y"), "Be kind.")
        assert session.provider_sessions == {"scripted": "native"}

    async def test_concurrent_edits_of_one_session_all_survive(self, store: EventStore) -> None:
        await started(store, max_concurrent_runs=8)

        async def work(n: int) -> None:
            run_id = RunId(f"run_{n}")
            await running(store, run_id)
            provider = f"p{n}"
            await store.append(S, [of_run(ev.RunStarted(provider=provider, provider_session_id=f"native {n}"), run_id)])
            await store.append(S, [of_run(ev.RunCompleted(stop_reason="end_turn"), run_id)])

        async with anyio.create_task_group() as group:
            for n in range(8):
                group.start_soon(work, n)
            group.start_soon(store.append, S, [Draft(data=ev.SessionPaused())])
        session = await store.session(S)
        assert session.provider_sessions == {f"p{n}": f"native {n}" for n in range(8)}
        assert session.status is SessionStatus.PAUSED

    @pytest.mark.parametrize(
        "end",
        [
            ev.RunFailed(error_code="timeout", error_message="m"),
            ev.RunCancelled(),
            ev.RunInterrupted(outcome="unknown"),
        ],
    )
    async def test_a_run_that_ends_badly_keeps_what_it_used(self, store: EventStore, end: Body) -> None:
        await started(store)
        await running(store)
        used = Usage(input_tokens=7, output_tokens=5)
        native = ev.RunStarted(provider="scripted", provider_session_id="native")
        usage = ev.TokenUsageUpdated(usage=used, cost_usd="0.5", price_source="table")
        await store.append(S, [of_run(native), of_run(usage)])
        await store.append(S, [of_run(end)])
        run = await store.run(R)
        assert (run.usage, run.cost_usd, run.cost_source) == (used, "0.5", "table")
        assert run.provider_session_id == "native"

    async def test_a_draft_that_is_changed_later_changes_nothing(self, store: EventStore) -> None:
        mutable: dict[str, Any] = {"a": [1]}
        await started(store, metadata=mutable)
        await running(store, options=mutable)
        await store.append(S, [Draft(data=ev.ToolCallStarted(tool_call_id="t", tool_name="n", tool_input=mutable))])
        mutable["a"].append(2)
        assert (await store.session(S)).metadata == {"a": [1]}
        assert (await store.run(R)).options == {"a": [1]}
        last = (await store.read(S))[-1]
        assert isinstance(last.data, ev.ToolCallStarted)
        assert last.data.tool_input == {"a": [1]}

    # -- reading (E-10, reliability 25) -----------------------------------------------------------------------------

    async def test_pages_read_one_after_another_are_the_log(self, store: EventStore) -> None:
        await started(store)
        await store.append(S, [said(str(n)) for n in range(25)])
        whole = await store.read(S)
        pages: list[Event] = []
        while page := await store.read(S, after=pages[-1].sequence if pages else 0, limit=4):
            assert len(page) <= 4
            pages += page
        assert pages == list(whole)
        assert sequences(whole) == list(range(1, 28))
        assert await store.read(S, after=27) == []

    async def test_long_logs_of_many_sessions_keep_apart(self, store: EventStore) -> None:
        sessions = [await started(store, SessionId(f"ses_{n}")) for n in range(3)]
        for n in range(40):
            for session in sessions:
                drafts = [said(f"{session} {n} {m}") for m in range(100 + n)]
                await store.append(session, drafts, durability="process")
        head = 2 + sum(100 + n for n in range(40))
        for session in sessions:
            assert await store.head(session) == head
            log = await store.read(session, limit=head)
            assert sequences(log) == list(range(1, head + 1))
            assert all(text.startswith(session) for text in texts(log))
            for after in (0, 1, 1364, 1365, 1366, 2730, head - 1, head):
                assert sequences(await store.read(session, after=after, limit=7)) == list(
                    range(after + 1, min(after + 8, head + 1))
                )
        await store.delete_session(sessions[1])
        assert await store.head(sessions[1]) == 0
        appended = await store.append(sessions[0], [said("more"), said("and more")])
        assert list(appended.events) == await store.read(sessions[0], after=head)
        assert len(await store.read(sessions[2], limit=head)) == head

    async def test_every_filter_narrows_and_limit_counts_matches(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        await running(store, RunId("run_2"))
        hour = timedelta(hours=1)
        for n in range(6):
            run_id = R if n % 2 else RunId("run_2")
            await store.append(S, [of_run(ev.MessageReceived(content=str(n)), run_id, at=DAY + n * hour)])
            await store.append(S, [of_run(ev.TurnCompleted(turns=n), run_id, at=DAY + n * hour)])

        async def read(after: int = 0, limit: int = 500, **where: Any) -> list[str]:
            where.setdefault("types", {"message_received"})
            return texts(await store.read(S, after=after, limit=limit, where=EventFilter(**where)))

        assert await read() == ["0", "1", "2", "3", "4", "5"]
        assert await read(run_id=R) == ["1", "3", "5"]
        assert await read(run_id=R, limit=2) == ["1", "3"], "the first matches"
        assert await read(run_id=RunId("run_none")) == []
        assert await read(types=["turn_completed"]) == []
        assert await read(types=[]) == []
        assert await read(since=DAY + 3 * hour) == ["3", "4", "5"], "since is inclusive"
        assert await read(since=DAY + 3 * hour, run_id=R) == ["3", "5"]
        assert await read(before=9) == ["0"], "before is exclusive"
        assert await read(before=7) == []
        assert await read(after=7) == ["1", "2", "3", "4", "5"]
        assert await read(after=9, before=14, run_id=RunId("run_2")) == ["2"]
        both = await store.read(S, where=EventFilter(types=("turn_completed", "message_received"), run_id=R))
        assert len(both) == 6
        assert all(event.run_id == R for event in both)
        assert len(await store.read(S, where=EventFilter())) == await store.head(S)

    async def test_a_reader_never_sees_a_place_before_the_one_in_front_of_it(self, store: EventStore) -> None:
        await started(store)
        seen: list[Event] = []

        async def write(writer: int) -> None:
            for n in range(12):
                await store.append(S, [said(f"{writer}.{n}.{part}") for part in range(1 + writer)])

        async def follow() -> None:
            while len(seen) < 2 + 12 * (1 + 2 + 3 + 4):
                page = await store.read(S, after=len(seen), limit=9)
                assert sequences(page) == list(range(len(seen) + 1, len(seen) + 1 + len(page)))
                seen.extend(page)
                assert await store.head(S) >= len(seen)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            for writer in range(4):
                group.start_soon(write, writer)
            group.start_soon(follow)
        assert seen == list(await store.read(S))

    async def test_many_ask_at_once(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        await store.append(S, [said(str(n)) for n in range(50)])
        answers: list[int] = []

        async def ask(n: int) -> None:
            assert (await store.run(R)).id == R
            assert len(await store.read(S, after=n % 50)) == 54 - n % 50
            answers.append(n)

        async with anyio.create_task_group() as group:
            for n in range(60):
                group.start_soon(ask, n)
        assert len(answers) == 60

    async def test_a_body_of_ten_megabytes_is_kept_and_one_beyond_the_limit_refused(self, store: EventStore) -> None:
        await started(store)
        await store.append(S, [said("é" * 5_000_000)])
        (event,) = await store.read(S, after=2)
        assert texts([event]) == ["é" * 5_000_000]
        with pytest.raises(ValidationError) as caught:
            await store.append(S, [said("x" * (MAX_BODY_BYTES + 1))])
        assert caught.value.details["bytes"] > MAX_BODY_BYTES
        assert await store.head(S) == 3

    async def test_a_cursor_that_cannot_be_is_refused(self, store: EventStore) -> None:
        await started(store)
        for after in (-1, 3, 1 << 40):
            with pytest.raises(ValidationError) as caught:
                await store.read(S, after=after)
            assert caught.value.code == "invalid_cursor"
            with pytest.raises(ValidationError):
                await store.read(S, after=after, where=EventFilter(types=["x"]))
        for limit in (0, -1):
            with pytest.raises(ValidationError):
                await store.read(S, limit=limit)
        assert await store.read(S, after=2) == []

    async def test_what_is_not_there_is_not_found(self, store: EventStore) -> None:
        with pytest.raises(SessionNotFound):
            await store.read(S)
        with pytest.raises(SessionNotFound):
            await store.session(S)
        with pytest.raises(RunNotFound):
            await store.run(R)
        with pytest.raises(RunNotFound):
            await store.claim(R, owner="a", ttl=1)
        assert await store.head(S) == 0
        assert await store.run_by_key(S, "k") is None
        assert await store.sessions() == []
        assert await store.runs() == []
        assert await store.orphans("a") == []

    async def test_kinds_of_a_newer_version_come_back_byte_for_byte(self, store: EventStore) -> None:
        await started(store)
        body = b'{ "odd":\t[1.50, "\\u00e9"] }'
        unknown = ev.Unknown(kind="moon_landed", body=msgspec.Raw(body), schema_version=7)
        newer = ev.Unknown(kind="message_received", body=msgspec.Raw(b'{"content":{"rich":1}}'), schema_version=9)
        await store.append(S, [Draft(data=unknown), Draft(data=newer)])
        first, second = await store.read(S, after=2)
        assert (kind_of(first.data), encode_body(first.data), first.schema_version) == ("moon_landed", body, 7)
        assert (kind_of(second.data), second.schema_version) == ("message_received", 9)
        assert await store.read(S, where=EventFilter(types=["moon_landed"])) == [first]

    async def test_a_known_kind_in_disguise_obeys_the_tables(self, store: EventStore) -> None:
        await started(store)
        disguised = ev.Unknown(kind="session_started", body=msgspec.Raw(b"{}"))
        with pytest.raises(InvalidTransition):
            await store.append(S, [Draft(data=disguised)])
        (event,) = (await store.append(S, [Draft(data=ev.Unknown(kind="session_idle"))])).events
        assert event.data == ev.SessionIdle()

    # -- listing (ST-02) --------------------------------------------------------------------------------------------

    async def test_sessions_are_listed_newest_first_and_by_what_they_are(self, store: EventStore) -> None:
        for n, agent in enumerate(["a", "b", "a", "c"]):
            created = ev.SessionCreated(
                agent_id=agent, provider="p" if n % 2 else None, tags=("t", f"n{n}")[: 1 + n % 2]
            )
            at = DAY + timedelta(seconds=n // 2)
            await store.append(SessionId(f"ses_{n}"), [Draft(data=created, at=at)])
        await store.append(SessionId("ses_0"), [Draft(data=ev.SessionStarted())])

        async def listed(**options: Any) -> list[str]:
            return [state.id for state in await store.sessions(**options)]

        assert await listed() == ["ses_3", "ses_2", "ses_1", "ses_0"]
        assert await listed(limit=3) == ["ses_3", "ses_2", "ses_1"]
        assert await listed(after=SessionId("ses_2")) == ["ses_1", "ses_0"]
        assert await listed(after=SessionId("ses_0")) == []
        assert await listed(status=[SessionStatus.ACTIVE]) == ["ses_0"]
        assert await listed(status=[SessionStatus.ACTIVE, SessionStatus.PENDING], agent_id="a") == ["ses_2", "ses_0"]
        assert await listed(status=[]) == []
        assert await listed(provider="p") == ["ses_3", "ses_1"]
        assert await listed(tags=["t"]) == ["ses_3", "ses_2", "ses_1", "ses_0"]
        assert await listed(tags=["n1", "t"]) == ["ses_1"]
        assert await listed(tags=["t', '"]) == []
        assert await listed(agent_id="a", after=SessionId("ses_1"), limit=1) == ["ses_0"]
        for options in ({"after": SessionId("ses_none")}, {"limit": 0}):
            with pytest.raises(ValidationError):
                await listed(**options)

    async def test_runs_are_listed_newest_first_and_by_what_they_are(self, store: EventStore) -> None:
        await started(store)
        other = await started(store, SessionId("ses_2"))
        for n in range(4):
            queued = of_run(ev.RunQueued(), RunId(f"run_{n}"), at=DAY + timedelta(seconds=n // 2))
            await store.append(S if n else other, [queued])
        await store.append(S, [of_run(ev.RunStarted(provider="x"), RunId("run_1"))])

        async def listed(**options: Any) -> list[str]:
            return [state.id for state in await store.runs(**options)]

        assert await listed() == ["run_3", "run_2", "run_1", "run_0"]
        assert await listed(session_id=S) == ["run_3", "run_2", "run_1"]
        assert await listed(status=[RunStatus.QUEUED]) == ["run_3", "run_2", "run_0"]
        assert await listed(status=[RunStatus.QUEUED, RunStatus.RUNNING], session_id=S, limit=2) == ["run_3", "run_2"]
        assert await listed(after=RunId("run_2")) == ["run_1", "run_0"]
        assert await listed(after=RunId("run_2"), session_id=other) == ["run_0"]
        with pytest.raises(ValidationError):
            await listed(after=RunId("run_none"))

    async def test_a_run_is_found_by_the_key_it_was_queued_under(self, store: EventStore) -> None:
        await started(store)
        other = await started(store, SessionId("ses_2"))
        await running(store, key="k")
        assert await store.run_by_key(S, "k") == await store.run(R)
        assert await store.run_by_key(S, "l") is None
        assert await store.run_by_key(other, "k") is None

    async def test_a_deleted_session_is_gone_and_deleting_is_idempotent(self, store: EventStore) -> None:
        await started(store)
        keep = await started(store, SessionId("ses_2"))
        await store.append(keep, [said("kept", key="k")])
        await running(store, key="k")
        await store.append(S, [said("x", key="k2", id="i2")])
        with pytest.raises(StateError) as caught:
            await store.delete_session(S)
        assert caught.value.code == "invalid_operation"
        assert await store.head(S) == 5
        await store.append(S, [of_run(ev.RunCancelled())])
        await store.append(S, [of_run(ev.RunQueued(), RunId("run_2"))])
        for _ in range(2):
            await store.delete_session(S)
            assert await store.head(S) == 0
            assert [state.id for state in await store.sessions()] == [keep]
            assert await store.runs() == []
            assert await store.run_by_key(S, "k") is None
            for question in (store.read(S), store.session(S), store.append(S, [said("x")])):
                with pytest.raises(SessionNotFound):
                    await question
            with pytest.raises(RunNotFound):
                await store.run(R)
        await started(store)
        assert sequences((await store.append(S, [said("y", key="k2", id="i2")])).events) == [3]
        assert texts(await store.read(S)) == ["y"]
        assert texts(await store.read(keep)) == ["kept"]

    # -- owners (reliability 17, 44) --------------------------------------------------------------------------------

    async def test_a_claim_shuts_others_out_until_it_lapses(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        first = await store.claim(R, owner="a", ttl=60)
        with pytest.raises(Fenced):
            await store.claim(R, owner="b", ttl=60)
        await store.append(S, [of_run(ev.TurnCompleted(turns=1))], fence=first)
        await store.renew("a", ttl=0)
        await anyio.sleep(0.01)
        await store.append(S, [of_run(ev.TurnCompleted(turns=2))], fence=first)
        second = await store.claim(R, owner="b", ttl=60)
        assert second > first
        head = await store.head(S)
        with pytest.raises(Fenced):
            await store.append(S, [of_run(ev.TurnCompleted(turns=3))], fence=first)
        assert await store.head(S) == head
        await store.append(S, [of_run(ev.RunCompleted(stop_reason="end_turn"))], fence=second)
        with pytest.raises(RunTerminal):
            await store.claim(R, owner="b", ttl=60)
        with pytest.raises(RunTerminal):
            await store.append(S, [of_run(ev.TurnCompleted(turns=4))], fence=second)

    async def test_a_second_claim_of_the_same_owner_makes_the_first_stale(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        first = await store.claim(R, owner="a", ttl=60)
        second = await store.claim(R, owner="a", ttl=60)
        with pytest.raises(Fenced):
            await store.append(S, [of_run(ev.TurnCompleted(turns=1))], fence=first)
        await store.append(S, [of_run(ev.TurnCompleted(turns=1))], fence=second)
        with pytest.raises(Fenced):
            await store.append(S, [said("of no owner")], fence=0)

    async def test_orphans_are_the_runs_nobody_looks_after(self, store: EventStore) -> None:
        await started(store)
        for n in range(4):
            await running(store, RunId(f"run_{n}"))
        await store.append(S, [of_run(ev.RunCancelled(), RunId("run_0"))])
        await store.claim(RunId("run_1"), owner="me", ttl=0)
        await store.claim(RunId("run_2"), owner="dead", ttl=0)
        await store.claim(RunId("run_3"), owner="alive", ttl=60)
        await anyio.sleep(0.01)
        assert {run.id for run in await store.orphans("me")} == {"run_2"}
        assert {run.id for run in await store.orphans("new")} == {"run_1", "run_2"}
        await store.renew("dead", ttl=60)
        assert {run.id for run in await store.orphans("me")} == set()

    # -- life and death of the store --------------------------------------------------------------------------------

    async def test_it_says_what_it_is(self, store: EventStore) -> None:
        info = await store.info()
        assert info.kind
        assert info.location
        assert info.schema >= 1
        assert info.writable

    async def test_closing_twice_is_closing_once_and_nothing_works_after(self, store: EventStore) -> None:
        await started(store)
        await store.aclose()
        await store.aclose()
        for question in (store.append(S, [said("late")]), store.read(S), store.head(S), store.sessions()):
            with pytest.raises(StateError) as caught:
                await question
            assert caught.value.code == "invalid_operation"

    async def test_what_survives_a_reopening_is_everything_or_nothing(self, store: EventStore, tmp_path: Path) -> None:
        await started(store, tags=("t",))
        await running(store, key="k")
        await store.append(S, [said("quick")], durability="process")
        await store.append(S, [said("keyed", key="k1", id="i1")])
        fence = await store.claim(R, owner="a", ttl=600)
        log, session, run = await store.read(S), await store.session(S), await store.run(R)
        await store.aclose()
        again = await self.make_store(tmp_path)
        try:
            if not self.durable:
                assert await again.sessions() == []
                assert await again.head(S) == 0
                return
            assert await again.read(S) == log
            assert await again.session(S) == session
            assert await again.run(R) == run
            assert await again.run_by_key(S, "k") == run
            assert [orphan.id for orphan in await again.orphans("a")] == [R], "its owner died with the store"
            with pytest.raises(Fenced):
                await again.append(S, [of_run(ev.TurnCompleted(turns=1))], fence=fence)
            assert sequences((await again.append(S, [said("keyed", key="k1", id="i1"), said("z")])).events) == [6, 7]
            assert await again.claim(R, owner="a", ttl=1) > fence
        finally:
            await again.aclose()

    async def test_a_caller_that_is_cancelled_leaves_a_whole_batch_or_none(self, store: EventStore) -> None:
        await started(store)

        async def write(n: int) -> None:
            await store.append(S, [said(f"{n}a", key=f"{n}a"), said(f"{n}b", key=f"{n}b")])

        async with anyio.create_task_group() as group:
            for n in range(20):
                group.start_soon(write, n)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await store.append(S, [said("end")])
        log = await store.read(S)
        assert sequences(log) == list(range(1, len(log) + 1))
        words = texts(log)[:-1]
        assert words == [word for n in range(20) if f"{n}a" in words for word in (f"{n}a", f"{n}b")]


def _creation() -> list[Draft]:
    return [Draft(data=ev.SessionCreated(agent_id="tester"))]
