"""Sinks take events in order, say so when they cannot, and close only what is theirs."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkeel.adapters.sinks import (
    Bus,
    Callback,
    File,
    FileCursors,
    Jsonl,
    MemoryCursors,
    Publish,
    Terminal,
    topic_of,
)
from agentkeel.core import events as ev
from agentkeel.core.codec import event_from_json
from agentkeel.core.escape import CLEAR_LINE
from agentkeel.core.events import Body, Event
from agentkeel.core.ids import EventId, RunId, SessionId
from agentkeel.core.rendering import Compact, Passthrough, Studio
from agentkeel.core.usage import Usage
from agentkeel.engine.rendering import render_stream
from agentkeel.errors import StorageError, ValidationError

pytestmark = pytest.mark.anyio

S, R = SessionId("ses_1"), RunId("run_1")


def event(data: Body, sequence: int = 1, run_id: RunId | None = R) -> Event:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Event(id=EventId(f"evt_{sequence}"), session_id=S, sequence=sequence, at=at, data=data, run_id=run_id)


def said(n: int) -> Event:
    return event(ev.MessageSent(content=f"word {n}"), n)


class Kept:
    """A sink that keeps what it is given, and fails where it is told to."""

    def __init__(self, *, failing: tuple[str, ...] = ()) -> None:
        self.calls: list[str] = []
        self.texts: list[str] = []
        self.failing = failing

    async def open(self) -> None:
        self._call("open")

    async def write(self, event: Event | None, text: str) -> None:
        self._call("finish" if event is None else f"write {event.sequence}")
        self.texts.append(text)

    async def flush(self) -> None:
        self._call("flush")

    async def close(self) -> None:
        self._call("close")

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise OSError(f"no {name}")


# -- a stream to sinks ------------------------------------------------------------------------------------------


async def test_a_stream_reaches_every_sink_in_order_with_its_closing_words() -> None:
    one, two = Kept(), Kept()
    rendered = await render_stream([said(1), said(2)], Compact(color=False), [one, two])
    assert one.calls == two.calls == ["open", "write 1", "write 2", "finish", "flush", "close"]
    assert one.texts == [".message_sent\n", ".message_sent\n", "2 events, 0 tools\n"]
    assert (rendered.events, rendered.troubles) == (2, ())


async def test_a_sink_that_cannot_open_is_an_error_before_the_first_event() -> None:
    taken: list[int] = []

    def source() -> Iterator[Event]:
        taken.append(1)
        yield said(1)

    one, two, three = Kept(), Kept(failing=("open",)), Kept()
    with pytest.raises(OSError, match="no open"):
        await render_stream(source(), Passthrough(), [one, two, three])
    assert taken == []
    assert (one.calls, two.calls, three.calls) == (["open", "close"], ["open", "close"], [])


async def test_a_sink_that_fails_goes_on_with_the_next_event_and_hurts_no_other() -> None:
    bad, good = Kept(failing=("write 1", "flush")), Kept()
    rendered = await render_stream([said(1), said(2)], Passthrough(), [bad, good])
    assert bad.calls == ["open", "write 1", "write 2", "flush", "close"]
    assert good.calls == bad.calls
    (trouble,) = rendered.troubles
    assert (trouble.sink, trouble.failures, str(trouble.first)) == (bad, 2, "no write 1")


async def test_sinks_are_flushed_and_closed_when_the_events_end_in_an_exception() -> None:
    async def source() -> AsyncIterator[Event]:
        yield said(1)
        raise RuntimeError("cut off")

    sink = Kept()
    with pytest.raises(RuntimeError, match="cut off"):
        await render_stream(source(), Passthrough(), [sink])
    assert sink.calls == ["open", "write 1", "flush", "close"]


async def test_sinks_are_flushed_and_closed_when_the_caller_is_cancelled() -> None:
    async def source() -> AsyncIterator[Event]:
        yield said(1)
        scope.cancel()
        await anyio.sleep_forever()

    sink = Kept()
    with anyio.CancelScope() as scope:
        await render_stream(source(), Passthrough(), [sink])
    assert sink.calls == ["open", "write 1", "flush", "close"]


# -- terminal, file, function -----------------------------------------------------------------------------------


async def test_a_terminal_gets_colours_and_nothing_else_it_obeys() -> None:
    stream = io.StringIO()
    sink = Terminal(stream)
    await sink.write(said(1), f"\x1b[31mred\x1b[0m{CLEAR_LINE}ok\x1b[2J\x1b]0;t\x07\n")
    await sink.close()
    assert stream.getvalue() == f"\x1b[31mred\x1b[0m{CLEAR_LINE}ok\\x1b[2J\\x1b]0;t\\x07\n"


async def test_a_terminal_that_knows_few_letters_gets_the_others_spelled() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    await Terminal(stream).write(None, "✓ done\n")
    assert raw.getvalue() == b"\\u2713 done\n"


async def test_a_file_has_no_terminal_codes_and_keeps_what_was_in_it(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_text("before\n")
    tool: dict[str, Any] = {"tool_call_id": "c", "tool_name": "Bash", "kind": "bash", "tool_input": {"command": "ls"}}
    story = [event(ev.ToolCallStarted(**tool)), event(ev.ToolCallCompleted(**tool), 2)]
    await render_stream(story, Studio(color=True, tty=True), [File(path)])
    assert path.read_text() == "before\n● Running: ls\n✓ Ran: ls\n"


async def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    await render_stream([said(1)], Compact(), [File(path)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_file_closes_a_path_and_leaves_an_open_stream_open(tmp_path: Path) -> None:
    with (tmp_path / "own.log").open("w") as stream:
        await render_stream([said(1)], Compact(), [File(stream)])
        assert not stream.closed
        assert (tmp_path / "own.log").read_text() == ".message_sent\n1 event, 0 tools\n"
    sink = File(tmp_path / "path.log")
    await sink.open()
    await sink.close()
    await sink.close()
    with pytest.raises(StorageError, match="closed") as error:
        await sink.write(None, "late")
    assert error.value.code == "storage_write_failed"


async def test_a_stream_in_memory_is_a_file_too() -> None:
    stream = io.StringIO()
    await render_stream([said(1)], Compact(color=True), [File(stream)])
    assert stream.getvalue() == ".message_sent\n1 event, 0 tools\n"


async def test_flushing_a_file_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (synced.append(str(Path(f"/proc/self/fd/{file}").readlink())), fsync(file))
    )
    with (tmp_path / "b").open("w") as stream:
        for sink in (File(tmp_path / "a"), File(stream), Jsonl(tmp_path / "c")):
            await sink.open()
            await sink.write(said(1), "x\n")
            await sink.flush()
            await sink.close()
    assert [Path(path).name for path in synced] == ["a", "b", "c"]


async def test_a_file_that_cannot_be_opened_says_which_and_why(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"Could not open .*run\.log: No such file or directory") as error:
        await render_stream([said(1)], Compact(), [File(tmp_path / "no" / "run.log")])
    assert error.value.code == "storage_write_failed"


async def test_a_function_gets_the_event_and_its_text_awaited_or_not() -> None:
    got: list[tuple[int | None, str]] = []

    async def later(event: Event | None, text: str) -> None:
        await anyio.lowlevel.checkpoint()
        got.append((event and event.sequence, text))

    now = Callback(lambda event, text: got.append((event and event.sequence, text)))
    await render_stream([said(7)], Compact(color=False), [now, Callback(later)])
    assert got == [(7, ".message_sent\n")] * 2 + [(None, "1 event, 0 tools\n")] * 2


# -- lines of JSON ----------------------------------------------------------------------------------------------


async def test_full_lines_have_what_happened_and_no_nulls(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    await render_stream([said(1), event(ev.SessionIdle(), 2, run_id=None)], Passthrough(), [Jsonl(path)])
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {
        "ts": "2026-01-01T00:00:00+00:00",
        "type": "message_sent",
        "data": {"content": "word 1"},
        "session_id": "ses_1",
        "run_id": "run_1",
        "id": "evt_1",
        "sequence": 1,
    }
    assert "run_id" not in second


USAGE = Usage(input_tokens=12, output_tokens=3)


@pytest.mark.parametrize(
    ("data", "short"),
    [
        (ev.RunStarted(provider="claude", model="m1"), {"t": "rs", "m": "m1"}),
        (ev.RunStarted(provider="claude"), {"t": "rs"}),
        (ev.MessageStreamed(delta="hello"), {"t": "ms", "l": 5}),
        (ev.MessageReceived(content="hello you"), {"t": "mr", "l": 9}),
        (ev.ToolCallStarted(tool_call_id="c", tool_name="Bash"), {"t": "ts", "n": "Bash"}),
        (ev.ToolCallCompleted(tool_call_id="c", tool_name="Bash"), {"t": "tc", "n": "Bash"}),
        (ev.ToolCallFailed(tool_call_id="c", tool_name="Bash"), {"t": "tf", "n": "Bash"}),
        (ev.TokenUsageUpdated(usage=USAGE, cost_usd="0.1"), {"t": "tu", "i": 12, "o": 3, "$": "0.1"}),
        (ev.RunCompleted(stop_reason="end_turn"), {"t": "rc", "sr": "end_turn"}),
        (ev.RunFailed(error_code="c", error_message="x" * 200), {"t": "rf", "x": "x" * 120}),
        (ev.RunCancelled(), {"t": "rx"}),
        (ev.RunTimeout(deadline="idle", seconds=1), {"t": "rt"}),
        (ev.RunInterrupted(outcome="unknown"), {"t": "ri"}),
        (ev.ErrorOccurred(error_code="c", error_message="bad"), {"t": "er", "x": "bad"}),
        (ev.SessionIdle(), {"t": "session_idle"}),
        (ev.Unknown(kind="new"), {"t": "new"}),
    ],
)
async def test_a_compact_line(tmp_path: Path, data: Body, short: dict[str, Any]) -> None:
    path = tmp_path / "events.jsonl"
    await render_stream([event(data)], Passthrough(), [Jsonl(path, mode="compact", wall_ms=lambda: 1234)])
    assert json.loads(path.read_text()) == {"t": 1234, "id": "evt_1", "e": short}


async def test_a_line_moves_no_cursor_and_gives_the_value_back(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    hostile = "\x1b]52;c;x\x07\u202e\u2028\x7f\nnext"
    await render_stream([event(ev.MessageSent(content=hostile))], Passthrough(), [Jsonl(path)])
    (line,) = path.read_text().splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["data"]["content"] == hostile


async def test_a_line_that_a_crash_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"whole":1}\n{"ts":"2026')
    await render_stream([said(1)], Passthrough(), [Jsonl(path)])
    whole, half, next_ = path.read_text().splitlines()
    assert (whole, half) == ('{"whole":1}', '{"ts":"2026')
    assert json.loads(next_)["sequence"] == 1


async def test_a_line_that_a_full_disk_cut_off_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    sink = Jsonl(path)
    await sink.open()
    write = os.write

    def a_part_then_full(file: int, content: bytes) -> int:
        if len(content) < 60:
            raise OSError(28, "No space left on device")
        return write(file, content[: len(content) - 20])

    monkeypatch.setattr(os, "write", a_part_then_full)
    with pytest.raises(StorageError, match="No space left"):
        await sink.write(said(1), "")
    monkeypatch.setattr(os, "write", write)
    await sink.write(said(1), "")
    await sink.close()
    half, whole = path.read_text().splitlines()
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(half)
    assert json.loads(whole)["sequence"] == 1


async def test_a_buffered_file_has_its_lines_with_flush_and_a_great_many_before(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = Jsonl(path, buffered=True)
    await sink.open()
    await sink.write(said(1), "")
    assert path.read_text() == ""
    await sink.flush()
    assert len(path.read_text().splitlines()) == 1
    for number in range(2, 1002):
        await sink.write(said(number), "")
    assert len(path.read_text().splitlines()) > 300
    await sink.flush()
    await sink.close()
    assert [json.loads(line)["sequence"] for line in path.read_text().splitlines()] == list(range(1, 1002))


async def test_a_buffered_file_that_lost_lines_acknowledges_nothing_until_it_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = File(tmp_path / "run.log", buffered=True)
    await sink.open()

    def full(file: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        await sink.write(None, "one\n")
        with pytest.raises(StorageError, match="No space left"):
            await sink.write(None, "x" * 70_000)
    with pytest.raises(StorageError, match="Open it anew"):
        await sink.flush()
    await sink.close()
    await sink.open()
    await sink.write(None, "one\n")
    await sink.flush()
    await sink.close()
    assert (tmp_path / "run.log").read_text() == "one\n"


# -- brokers ----------------------------------------------------------------------------------------------------


class Broker:
    """Takes messages, except for topics it refuses."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.got: list[tuple[str, dict[str, Any]]] = []

    async def publish(self, topic: str, message: bytes) -> None:
        if topic in self.refused:
            raise ConnectionError(topic)
        self.got.append((topic, json.loads(message)))


@pytest.mark.parametrize(
    ("scope", "run_id", "topic"),
    [
        ("session", R, "agentkeel:session:ses_1"),
        ("run", R, "agentkeel:session:ses_1:run:run_1"),
        ("run", None, "agentkeel:session:ses_1"),
        ("type", R, "agentkeel:session:ses_1:type:session_idle"),
    ],
)
async def test_each_scope_has_its_topic(scope: Any, run_id: RunId | None, topic: str) -> None:
    broker = Broker()
    await Publish(broker, scope=scope).write(event(ev.SessionIdle(), run_id=run_id), "")
    assert [at for at, _ in broker.got] == [topic]


async def test_a_prefix_and_a_topic_of_ones_own() -> None:
    broker = Broker()
    await Publish(broker, prefix="mine").write(said(1), "")
    await Publish(broker, "all").write(said(1), "")
    await Publish(broker, lambda event: [event.type, "all", "all"]).write(said(1), "")
    await Publish(broker, lambda event: event.type).write(said(1), "")
    assert [at for at, _ in broker.got] == ["mine:session:ses_1", "all", "message_sent", "all", "message_sent"]


async def test_an_unknown_kind_cannot_name_a_topic() -> None:
    broker = Broker()
    await Publish(broker, scope="type").write(event(ev.Unknown(kind="x:run:other\n")), "")
    assert [at for at, _ in broker.got] == ["agentkeel:session:ses_1:type:unknown"]


async def test_a_message_is_the_event_and_its_text_where_asked() -> None:
    broker = Broker()
    await Publish(broker).write(said(1), "shown")
    await Publish(broker, with_text=True).write(said(1), "shown")
    await Publish(broker).write(None, "closing words")
    (_, bare), (_, with_text) = broker.got
    assert event_from_json(bare) == said(1)
    assert with_text == {**bare, "text": "shown"}


async def test_topics_that_fail_are_counted_and_do_not_stop_the_rest() -> None:
    broker = Broker("b")
    sink = Publish(broker, lambda _: ["a", "b", "c"])
    rendered = await render_stream([said(1), said(2)], Passthrough(), [sink])
    assert [(at, message["sequence"]) for at, message in broker.got] == [("a", 1), ("c", 1), ("a", 2), ("c", 2)]
    assert (sink.published, sink.failed) == (4, 2)
    assert rendered.troubles[0].failures == 2
    assert "1 of 3 topics did not take event evt_1" in str(rendered.troubles[0].first)


async def test_a_bad_scope_is_refused() -> None:
    with pytest.raises(ValidationError, match="no scope"):
        Publish(Broker(), scope="galaxy")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="not of both"):
        topic_of("ses_1", run_id="run_1", type="x")


async def test_a_run_is_subscribed_to_while_it_is_published() -> None:
    bus = Bus()
    with bus.subscribe(topic_of(S, run_id=R)) as mine, bus.subscribe(topic_of(S, run_id="run_2")) as other:
        await render_stream([said(1), said(2)], Passthrough(), [Publish(bus, scope="run")])
        got = [json.loads(await anext(mine))["sequence"] for _ in range(2)]
        with anyio.move_on_after(0.01) as nothing:
            await anext(other)
    assert got == [1, 2]
    assert nothing.cancelled_caught


async def test_a_slow_subscriber_holds_up_nobody_and_knows_what_it_missed() -> None:
    bus = Bus()
    with bus.subscribe("t", limit=2) as slow:
        for number in range(5):
            await bus.publish("t", str(number).encode())
        assert (await anext(slow), await anext(slow), slow.dropped) == (b"3", b"4", 3)
    await bus.publish("t", b"to nobody")


# -- cursors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_cursors_are_what_was_saved_last_for_each_sink(kind: str, tmp_path: Path) -> None:
    cursors = MemoryCursors() if kind == "memory" else FileCursors(tmp_path / "new" / "cursors")
    assert await cursors.load("a") == {}
    await cursors.save("a", {S: 1})
    await cursors.save("b", {S: 9})
    await cursors.save("a", {SessionId("ses_2"): 5})
    assert await cursors.load("a") == {"ses_2": 5}
    assert await cursors.load("b") == {"ses_1": 9}


async def test_cursors_outlive_their_keeper_and_leave_nothing_beside_them(tmp_path: Path) -> None:
    await FileCursors(tmp_path).save("a", {S: 1})
    assert await FileCursors(tmp_path).load("a") == {"ses_1": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


async def test_a_save_that_fails_keeps_the_old_cursors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cursors = FileCursors(tmp_path)
    await cursors.save("a", {S: 1})

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left") as error:
        await cursors.save("a", {S: 2})
    assert error.value.code == "storage_write_failed"
    assert await cursors.load("a") == {"ses_1": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", ['{"ses_1":', '{"ses_1":"x"}', "[]", ""])
async def test_cursors_that_cannot_be_read_are_an_error_and_are_kept(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(StorageError, match="remove it to send everything again") as error:
        await FileCursors(tmp_path).load("a")
    assert error.value.code == "storage_read_failed"
    assert (tmp_path / "a.json").read_text() == content


@pytest.mark.parametrize("name", ["../up", "", "a/b", "A", "x" * 65, "a\n", ".hidden"])
async def test_a_sinks_name_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="cannot name a sink"):
        await FileCursors(tmp_path).save(name, {S: 1})
