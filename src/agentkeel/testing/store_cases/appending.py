"""Appending: a dense order, each thing once, batches whole or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from agentkeel.core import events as ev
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import EventId, RunId, SessionId, event_id
from agentkeel.errors import (
    InvalidTransition,
    KeyConflict,
    RunNotFound,
    SequenceConflict,
    SessionNotFound,
    ValidationError,
)
from agentkeel.ports.store import EventStore
from agentkeel.testing.store_cases.common import (
    DAY,
    R,
    S,
    StoreCases,
    created,
    of_run,
    running,
    said,
    sequences,
    started,
    texts,
)

__all__ = ["AppendingCases"]


class AppendingCases(StoreCases):
    """What `append` promises of the log."""

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

    async def test_a_batch_that_adds_nothing_still_finds_that_its_session_is_gone(self, store: EventStore) -> None:
        """Nothing is written, so nothing but a look can tell: what a store remembers of a session may be old."""
        await started(store, S)
        known = Draft(data=ev.MessageSent(content="x"), key="k")
        await store.append(S, [known])
        assert sequences((await store.append(S, [known])).events) == [3]
        await store.delete_session(S)
        for drafts in ([], [known]):
            with pytest.raises(SessionNotFound):
                await store.append(S, drafts)

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
            (ValidationError, said("x", provider="\ud800")),
            (ValidationError, said("x", correlation_id="\ud800")),
            (ValidationError, said("x", parent=EventId("\ud800"))),
            (ValidationError, said("x", source="martian")),
            (ValidationError, said("x", raw="no bytes")),
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
                wrong = Draft(data=ev.SessionStarted()) if n % 2 else said("x", causation_id="\ud800")
                await store.append(S, [said(f"left {n}"), said(f"right {n}") if n % 3 else wrong])
            except (InvalidTransition, ValidationError):
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
        for drafts in ([said("hello")], [Draft(data=ev.SessionStarted())], [said("x"), *created()]):
            with pytest.raises(SessionNotFound):
                await store.append(S, drafts)
        assert await store.head(S) == 0
        with pytest.raises(ValidationError):
            await store.append(SessionId("not an id!"), created())

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
        await store.append(new, created(), expected=0)

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
