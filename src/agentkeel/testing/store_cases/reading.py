"""Reading: pages, filters, cursors and lists."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from agentkeel.core import events as ev
from agentkeel.core.append import MAX_BODY_BYTES
from agentkeel.core.codec import encode_body, kind_of
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunStatus
from agentkeel.core.session import SessionStatus
from agentkeel.errors import (
    InvalidTransition,
    RunNotFound,
    SessionNotFound,
    StateError,
    ValidationError,
)
from agentkeel.ports.store import EventFilter, EventStore
from agentkeel.testing.store_cases.common import (
    DAY,
    R,
    S,
    StoreCases,
    of_run,
    running,
    said,
    sequences,
    started,
    texts,
)

__all__ = ["ReadingCases"]


class ReadingCases(StoreCases):
    """What `read`, `sessions`, `runs` and `delete_session` promise."""

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
