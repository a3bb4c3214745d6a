"""A session leaves a store and enters one: whole, as it was, or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import anyio
import msgspec
import pytest

import agentkeel
from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.context import Context
from agentkeel.core import events as ev
from agentkeel.core.codec import event_to_json
from agentkeel.core.events import Body, Draft, Unknown
from agentkeel.core.ids import EventId, RunId, SessionId
from agentkeel.errors import SequenceConflict, SessionNotFound, StateError, StorageError, StoreFull, ValidationError
from agentkeel.incoming import FREE_BYTES
from agentkeel.manager import Manager
from agentkeel.ports.store import Appended, EventStore
from agentkeel.testing import ScriptedProvider
from agentkeel.transfer import ExportFormat, export_session, import_session

pytestmark = pytest.mark.anyio

S = SessionId("ses_1")
R = RunId("run_1")
START = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)


@pytest.fixture
async def manager() -> AsyncIterator[Manager]:
    """A manager over an empty store."""
    async with agentkeel.open("memory:", providers=[ScriptedProvider("Done.", "Done again.")]) as manager:
        yield manager


@pytest.fixture
async def other() -> AsyncIterator[Manager]:
    """Another, over a store of its own."""
    async with agentkeel.open("memory:", providers=[ScriptedProvider("Done.")]) as manager:
        yield manager


def inside(manager: Manager) -> Context:
    return manager._context


async def exported(manager: Manager, id: str = S) -> list[str]:
    return [piece async for piece in export_session(inside(manager), SessionId(id))]


async def filled(manager: Manager, *drafts: Draft, session_id: SessionId = S) -> None:
    created = [Draft(data=ev.SessionCreated(agent_id="tester"), at=START), Draft(data=ev.SessionStarted())]
    await inside(manager).log.store.append(session_id, [*created, *drafts])


def of_run(data: Body, run: RunId = R, **envelope: Any) -> Draft:
    return Draft(data=data, run_id=run, **envelope)


def written(*bodies: tuple[str, dict[str, Any]] | dict[str, Any], session_id: str = S) -> list[str]:
    """The lines of a file that is whole, whatever its events tell."""
    lines = []
    for number, body in enumerate(bodies, start=1):
        fields = body if isinstance(body, dict) else {"type": body[0], "data": body[1]}
        event = {
            "id": f"evt_{number}",
            "session_id": session_id,
            "sequence": number,
            "at": START.isoformat(),
            "source": "engine",
            "schema_version": 1,
            **fields,
        }
        lines.append(json.dumps(event) + "\n")
    return sealed(lines, session_id=session_id)


def sealed(lines: list[str], *, session_id: str = S, **manifest: Any) -> list[str]:
    """The event lines with a manifest before and a trailer behind them that are right."""
    first = {
        "format": "agentkeel-session",
        "version": 1,
        "agentkeel": "0.1.0",
        "session_id": session_id,
        "created_at": START.isoformat(),
        "schema_version": 1,
        **manifest,
    }
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    last = {"end": "agentkeel-session", "events": len(lines), "head": len(lines), "sha256": digest, "artifacts": []}
    return [json.dumps(first) + "\n", *lines, json.dumps(last, separators=(",", ":")) + "\n"]


CREATED = ("session_created", {"agent_id": "tester"})


async def nothing_is_there(manager: Manager) -> None:
    assert await manager.sessions() == []
    assert await manager.runs() == []


class TestExport:
    async def test_each_piece_is_a_line_and_each_event_line_is_its_json(self, manager: Manager) -> None:
        session = await manager.start_session()
        await session.run("Hello")
        first, *lines, last = await exported(manager, session.id)
        assert json.loads(first)["session_id"] == session.id
        assert [json.loads(line) for line in lines] == [event_to_json(event) for event in await session.events()]
        trailer = json.loads(last)
        assert trailer["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
        assert trailer["events"] == trailer["head"] == len(lines)
        assert all(line.endswith("\n") and line.count("\n") == 1 for line in (first, *lines, last))

    async def test_the_same_log_gives_the_same_file(self, manager: Manager) -> None:
        session = await manager.start_session()
        await session.run("Hello")
        assert await exported(manager, session.id) == await exported(manager, session.id)

    async def test_what_is_added_meanwhile_is_not_in_it(self, manager: Manager) -> None:
        await filled(manager)
        lines = []
        async for line in export_session(inside(manager), S):
            lines.append(line)
            if len(lines) == 1:
                await inside(manager).log.append(S, [Draft(data=ev.SessionPaused())])
        assert json.loads(lines[-1])["events"] == 2

    async def test_a_secret_that_an_older_pattern_let_in_does_not_leave(self, manager: Manager) -> None:
        await filled(manager, Draft(data=ev.MessageReceived(content="it is hunter2-hunter2"), raw=b"hunter2-hunter2"))
        inside(manager).log.keep_out({"hunter2-hunter2"})
        for kind in get_args(ExportFormat):
            made = "".join([piece async for piece in export_session(inside(manager), S, kind)])
            assert "hunter2" not in made

    async def test_no_session_and_no_format_are_said(self, manager: Manager) -> None:
        with pytest.raises(SessionNotFound):
            await exported(manager, "ses_none")
        await filled(manager)
        with pytest.raises(ValidationError, match="jsonl, markdown, html"):
            [piece async for piece in export_session(inside(manager), S, "pdf")]  # type: ignore[arg-type]


class TestRoundTrip:
    async def test_an_import_gives_the_same_export(self, manager: Manager, other: Manager) -> None:
        session = await manager.start_session(tags=["t"])
        await session.run("Hello", key="k")
        await session.complete()
        lines = await exported(manager, session.id)
        imported = await import_session(inside(other), lines)
        assert await exported(other, session.id) == lines
        assert imported.session_id == session.id
        assert imported.events == len(lines) - 2
        assert (await other.session(session.id).info()) == (await session.info())
        assert await other.runs() == await manager.runs()

    async def test_bodies_and_raw_words_come_back_byte_by_byte(self, manager: Manager, other: Manager) -> None:
        bodies = [
            b'{"b":1.0,"a":1e3,"a":2,"big":123456789012345678901234567890}',
            b'{\n  "spaced": true\n}\r\n',
            b' {"padded":1} ',
            b"no json at all \xff",
            b"",
            b'{"id":"evil"},"id":"x"',
            b'"\\ud800"',
            b"[" * 5000 + b"]" * 5000,
        ]
        drafts = [Draft(data=Unknown(kind=f"kind {n}", body=msgspec.Raw(body))) for n, body in enumerate(bodies)]
        drafts += [Draft(data=ev.SessionIdle(), raw=raw) for raw in (b"plain", b"\xff\x00", "\u2028".encode(), b"")]
        drafts.append(
            Draft(
                data=Unknown(kind="newer", body=msgspec.Raw(b"{}"), schema_version=7),
                id=EventId("evt_mine"),
                key="a key",
                at=START + timedelta(microseconds=1),
                parent=EventId("evt_parent"),
                source="agent",
                provider="p",
                correlation_id="c1",
                causation_id="c2",
            )
        )
        await filled(manager, *drafts)
        lines = await exported(manager)
        await import_session(inside(other), lines)
        assert await exported(other) == lines
        after = await other.session(S).events()
        assert after == await manager.session(S).events()
        assert [bytes(event.data.body) for event in after[2 : 2 + len(bodies)]] == bodies  # type: ignore[attr-defined]

    async def test_a_copy_beside_its_original_gets_new_run_ids_and_keeps_all_else(self, manager: Manager) -> None:
        session = await manager.start_session()
        await session.run("Hello")
        lines = await exported(manager, session.id)
        imported = await import_session(inside(manager), export_session(inside(manager), session.id), id="copy")
        (old, new), *more = imported.renamed.items()
        assert not more
        again = "".join((await exported(manager, "copy"))[1:-1])
        assert again.replace('"copy"', f'"{session.id}"').replace(new, old) == "".join(lines[1:-1])
        assert (await exported(manager, session.id)) == lines

    @pytest.mark.parametrize("kind", ["path", "gzip", "file", "pipe", "lines"])
    async def test_every_kind_of_source_is_read(self, kind: str, other: Manager, tmp_path: Path) -> None:
        lines = written(CREATED)
        data = "".join(lines).encode()
        path = tmp_path / "session.jsonl"
        path.write_bytes(gzip.compress(data) if kind == "gzip" else data)
        with path.open("rb") as file:
            source: Any = {"path": str(path), "gzip": path, "file": file, "lines": iter(lines)}.get(kind)
            if kind == "pipe":
                reader, writer = os.pipe()
                os.write(writer, data)
                os.close(writer)
                source = os.fdopen(reader, "rb")
            imported = await import_session(inside(other), source)
            if kind == "pipe":
                source.close()
        assert imported.events == 1
        assert (await other.session(S).info()).agent_id == "tester"


class TestUnfinishedRuns:
    async def test_runs_that_had_not_ended_are_ended_as_interrupted(self, manager: Manager, other: Manager) -> None:
        await filled(
            manager,
            of_run(ev.RunQueued()),
            of_run(ev.RunStarted(provider="scripted")),
            of_run(ev.ToolCallStarted(tool_call_id="call", tool_name="bash")),
            of_run(ev.RunQueued(), RunId("run_2")),
        )
        imported = await import_session(inside(other), await exported(manager))
        assert imported.interrupted == ("run_1", "run_2")
        ends: list[Any] = [event.data for event in await other.session(S).events(types={"run_interrupted"})]
        first, second = ends
        assert (first.outcome, first.reason, first.open_tool_calls) == ("unknown", "imported", ("call",))
        assert second.outcome == "not_started"
        assert {run.status for run in await other.runs()} == {"interrupted"}
        assert (await other.session(S).events())[-1].type == "session_idle"

    async def test_an_imported_session_goes_on(self, manager: Manager, other: Manager) -> None:
        await filled(manager, of_run(ev.RunQueued()))
        await import_session(inside(other), await exported(manager))
        assert (await other.session(S).run("And now?")).text == "Done."


Damage = Callable[[list[str]], list[str]]
GOOD = [
    CREATED,
    ("session_started", {}),
    ("message_received", {"content": "one"}),
    ("message_received", {"content": "two"}),
]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "empty": (lambda _: [], "empty"),
    "no manifest": (lambda lines: lines[1:], "Line 1 .* no manifest"),
    "something else": (lambda _: ['{"a":1}\n'], "no manifest"),
    "no text": (lambda _: ["\x00\x01\n"], "no manifest"),
    "newer format": (lambda lines: [lines[0].replace('"version": 1', '"version": 2'), *lines[1:]], "use a newer one"),
    "event gone": (lambda lines: [*lines[:3], *lines[4:]], "Line 4 .* event 4 where 3 belongs"),
    "event twice": (lambda lines: [*lines[:3], *lines[2:]], "Line 4"),
    "swapped": (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "Line 4"),
    "cut off": (lambda lines: lines[:-1], "cut off"),
    "cut in a line": (lambda lines: [*lines[:-1], lines[-1][:20]], "cut off"),
    "changed": (lambda lines: ["".join(lines).replace("two", "2!!")], "SHA-256"),
    "more behind": (lambda lines: [*lines, lines[2]], "follows the last line"),
    "of another": (lambda lines: [*lines[:2], lines[2].replace("ses_1", "ses_2"), *lines[3:]], "belongs to"),
    "no event": (lambda lines: [*lines[:2], "[]\n", *lines[3:]], "Line 3 .* no event"),
    "body of another kind": (lambda _: written(("session_created", {"agent": 1})), "no event"),
    "no time zone": (lambda _: written({"type": "x", "data": {}, "at": "2026-01-01T00:00:00"}), "no time zone"),
    "bad base64": (lambda _: written({"type": "x", "body_base64": "%"}), "no event"),
    "deep": (lambda _: sealed(['{"data":' + "[" * 100_000 + "\n"]), "no event"),
    "bad id": (lambda lines: sealed([], session_id="../etc"), "not allowed"),
    "pruned": (lambda _: sealed([], first=1) and _pruned(), "pruned"),
    "no creation": (lambda _: written(("session_started", {})), "cannot be"),
    "run out of nowhere": (
        lambda _: written(CREATED, {"type": "run_started", "run_id": "r", "data": {"provider": "p"}}),
        "queued",
    ),
    "run after the end": (
        lambda _: written(CREATED, ("session_cancelled", {}), {"type": "run_queued", "run_id": "r", "data": {}}),
        "cannot be",
    ),
    "one id twice": (lambda _: written(CREATED, *[{"type": "x", "data": {}, "id": "evt_same"}] * 2), "same id"),
    "one key twice": (
        lambda _: written(CREATED, {"type": "x", "data": {}, "key": "k"}, {"type": "y", "data": {}, "key": "k"}),
        "key",
    ),
}


def _pruned() -> list[str]:
    first, event, last = sealed([written(CREATED)[1].replace('"sequence": 1', '"sequence": 5')], first=5)
    return [first, event, last.replace('"head":1', '"head":5')]


class TestRefusal:
    @pytest.mark.parametrize("name", DAMAGES)
    async def test_a_file_that_is_not_right_stores_nothing(self, name: str, other: Manager) -> None:
        damage, words = DAMAGES[name]
        with pytest.raises(ValidationError, match=words) as caught:
            await import_session(inside(other), damage(written(*GOOD)))
        assert "othing was stored" in caught.value.message or "removed" in caught.value.message or name == "bad id"
        await nothing_is_there(other)

    async def test_what_fails_late_is_removed_with_its_running_runs(self, other: Manager) -> None:
        many = [{"type": "message_received", "data": {"content": str(n)}} for n in range(1200)]
        running = [
            {"type": "run_queued", "run_id": "r", "data": {}},
            {"type": "run_started", "run_id": "r", "data": {"provider": "p"}},
        ]
        lines = written(CREATED, ("session_started", {}), *running, *many, ("session_resumed", {}))
        with pytest.raises(ValidationError, match="behind event 1,000"):
            await import_session(inside(other), lines)
        await nothing_is_there(other)
        assert await inside(other).log.store.head(S) == 0

    async def test_a_session_that_is_there_is_not_touched(self, manager: Manager) -> None:
        await filled(manager)
        before = await exported(manager)
        with pytest.raises(StateError, match="already"):
            await import_session(inside(manager), written(*GOOD))
        with pytest.raises(StateError, match="already"):
            await import_session(inside(manager), before, id=S)
        assert await exported(manager) == before

    async def test_a_file_that_is_not_there_is_said(self, other: Manager, tmp_path: Path) -> None:
        with pytest.raises(ValidationError, match=r"none\.jsonl cannot be read"):
            await import_session(inside(other), tmp_path / "none.jsonl")

    async def test_pieces_that_are_no_text_are_refused(self, other: Manager) -> None:
        with pytest.raises(ValidationError, match="int, not text"):
            await import_session(inside(other), b"bytes are a path of nothing")  # type: ignore[arg-type]


class TestBombs:
    async def test_gzip_that_swells_is_stopped_before_it_is_unpacked(self, other: Manager) -> None:
        line = "x" * 1_000_000 + "\n"
        body = [{"type": "x", "data": {"zeros": "0" * 1_000_000}}] * (2 * FREE_BYTES // len(line))
        packed = io.BytesIO(gzip.compress("".join(written(CREATED, *body)).encode()))
        with pytest.raises(ValidationError, match="more than 200 times"):
            await import_session(inside(other), packed)
        await nothing_is_there(other)

    async def test_a_line_without_end_is_not_read_whole(self, other: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("agentkeel.incoming.MAX_LINE_BYTES", 1000)
        monkeypatch.setattr("agentkeel.core.archive.MAX_LINE_BYTES", 1000)
        with pytest.raises(ValidationError, match="more than 1,000 bytes"):
            await import_session(inside(other), ["0" * 100_000])

    @pytest.mark.parametrize("packed", [False, True])
    async def test_the_whole_has_a_bound(self, packed: bool, other: Manager) -> None:
        data = "".join(written(*GOOD)).encode()
        with pytest.raises(ValidationError, match="more than 500 bytes"):
            await import_session(inside(other), io.BytesIO(gzip.compress(data) if packed else data), max_bytes=500)
        with pytest.raises(ValidationError, match="more than 500 bytes"):
            await import_session(inside(other), [data.decode()], max_bytes=500)

    @pytest.mark.parametrize("cut", [5, -9, -1])
    async def test_gzip_that_was_cut_off_is_said(self, cut: int, other: Manager) -> None:
        packed = gzip.compress("".join(written(*GOOD)).encode())
        with pytest.raises(ValidationError, match="cannot be unpacked"):
            await import_session(inside(other), io.BytesIO(packed[:cut]))
        await nothing_is_there(other)


class Filling(MemoryStore):
    """A store whose disk is full after some events, and that may refuse to let go of them."""

    def __init__(self, room: int, *, stuck: bool = False) -> None:
        super().__init__()
        self.room = room
        self.stuck = stuck

    async def append(self, session_id: SessionId, drafts: Any, **options: Any) -> Appended:
        self.room -= len(drafts)
        if self.room < 0:
            raise StoreFull("The disk is full.")
        return await super().append(session_id, drafts, **options)

    async def delete_session(self, session_id: SessionId) -> None:
        if self.stuck:
            raise StorageError("The disk is gone.", code="storage_write_failed")
        await super().delete_session(session_id)


def many(count: int) -> Iterator[str]:
    """A whole file of `count` events, line by line."""
    digest = hashlib.sha256()
    first, created, _ = written(CREATED)
    yield first
    digest.update(created.encode())
    yield created
    for number in range(2, count + 1):
        line = (
            f'{{"id":"evt_{number}","session_id":"{S}","sequence":{number},"type":"message_received",'
            f'"data":{{"content":"{number}"}},"at":"2026-03-04T05:06:07+00:00","source":"agent","schema_version":1}}\n'
        )
        digest.update(line.encode())
        yield line
    end = {"end": "agentkeel-session", "events": count, "head": count, "sha256": digest.hexdigest(), "artifacts": []}
    yield json.dumps(end, separators=(",", ":")) + "\n"


class TestStoreTrouble:
    async def test_what_was_stored_before_the_disk_was_full_is_removed(self) -> None:
        async with agentkeel.open(Filling(1200), providers=[ScriptedProvider()]) as manager:
            with pytest.raises(StoreFull):
                await import_session(inside(manager), many(2000))
            await nothing_is_there(manager)

    async def test_what_cannot_be_removed_is_named(self) -> None:
        async with agentkeel.open(Filling(1200, stuck=True), providers=[ScriptedProvider()]) as manager:
            with pytest.raises(StorageError, match="could not be removed") as caught:
                await import_session(inside(manager), many(2000))
            assert caught.value.details["stored"] == 1000

    async def test_an_import_that_is_called_off_leaves_nothing(self, other: Manager) -> None:
        store = inside(other).log.store
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(import_session, inside(other), many(3000))
            while await store.head(S) == 0:
                await anyio.sleep(0)
            tasks.cancel_scope.cancel()
        assert await store.head(S) < 3000
        await nothing_is_there(other)

    async def test_an_import_that_somebody_writes_into_is_removed(self, other: Manager) -> None:
        store = inside(other).log.store
        failed: list[SequenceConflict] = []

        async def bring_in() -> None:
            try:
                await import_session(inside(other), many(3000))
            except SequenceConflict as error:
                failed.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bring_in)
            while await store.head(S) == 0:
                await anyio.sleep(0)
            await inside(other).log.append(S, [Draft(data=ev.MessageReceived(content="not of the file"))])
        assert failed
        await nothing_is_there(other)

    async def test_a_store_that_is_only_read_says_so(self, tmp_path: Path) -> None:
        store = f"sqlite:{tmp_path / 'a.db'}"
        async with agentkeel.open(store, providers=[ScriptedProvider()]) as manager:
            await filled(manager)
        async with agentkeel.open(store, providers=[ScriptedProvider()], read_only=True) as reader:
            with pytest.raises(StateError, match="reading only"):
                await reader.import_session(await exported(reader), id="copy")


async def _fill(store: EventStore, count: int) -> None:
    await store.append(S, [Draft(data=ev.SessionCreated(agent_id="tester"))])
    for at in range(0, count, 1000):
        await store.append(S, [Draft(data=ev.MessageReceived(content=f"{at} {n}")) for n in range(1000)])


LONG = int(os.environ.get("AGENTKEEL_TEST_EVENTS", "20000"))
"""How long the long session is; the memory it may take does not depend on it."""


async def test_a_long_session_is_moved_in_the_memory_of_a_page(tmp_path: Path) -> None:
    file = tmp_path / "session.jsonl"
    async with agentkeel.open(f"sqlite:{tmp_path / 'a.db'}", providers=[ScriptedProvider()]) as manager:
        await _fill(inside(manager).log.store, LONG)
        tracemalloc.start()
        try:
            with file.open("w") as out:
                async for line in export_session(inside(manager), S):
                    out.write(line)
            await import_session(inside(manager), file, id="copy")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert await inside(manager).log.store.head(SessionId("copy")) == LONG + 1
    assert peak < 4_000_000


async def test_sqlite_gives_back_what_it_was_given(tmp_path: Path) -> None:
    lines = written(*GOOD, {"type": "hologram_shown", "data": {"depth": 3}})
    async with agentkeel.open(f"sqlite:{tmp_path / 'a.db'}", providers=[ScriptedProvider()]) as manager:
        await import_session(inside(manager), lines)
        again = await exported(manager)
    assert [json.loads(line) for line in again[1:-1]] == [json.loads(line) for line in lines[1:-1]]
