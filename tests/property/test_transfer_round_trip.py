"""Whatever a log tells, also in kinds nobody knows: exported, imported and exported again, it is the same file."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

import agentkeel
from agentkeel.core import events as ev
from agentkeel.core.archive import Reader, Writer
from agentkeel.core.codec import encode_body
from agentkeel.core.events import Body, Draft, Event, Unknown
from agentkeel.core.ids import EventId, RunId, SessionId, event_id
from agentkeel.core.redact import Redactor
from agentkeel.testing import ScriptedProvider
from agentkeel.transfer import export_session, import_session

S = SessionId("ses_1")

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
unknown = st.builds(
    Unknown,
    kind=words.filter(lambda kind: kind not in ev.BODIES),
    body=(json_values.map(msgspec.json.encode) | st.binary(max_size=20)).map(msgspec.Raw),
    schema_version=st.integers(1, 9),
)
bodies: st.SearchStrategy[Body] = st.one_of(
    unknown,
    st.builds(ev.MessageReceived, content=words, partial=st.booleans()),
    st.builds(ev.ToolCallStarted, tool_call_id=words, tool_name=words, tool_input=json_values),
    st.builds(ev.ErrorOccurred, error_code=words, error_message=words, details=st.dictionaries(words, json_values)),
    st.just(ev.SessionIdle()),
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "source": st.sampled_from(["agent", "engine", "user"]),
        "provider": words,
        "parent": words.map(EventId),
        "correlation_id": words,
        "causation_id": words,
        "raw": st.binary(max_size=20),
        "at": st.datetimes(timezones=st.just(UTC)),
        "run_id": st.sampled_from([RunId("run_1"), RunId("run_2")]),
    },
)
drafts = st.lists(st.builds(lambda data, envelope: Draft(data=data, **envelope), bodies, envelopes), max_size=12)


def whole(middle: list[Draft], keys: list[int], ids: list[int]) -> list[Draft]:
    """A log with two runs that begin and end, and `middle` in them; some drafts have a key or an id of their own."""
    runs = (RunId("run_1"), RunId("run_2"))
    named = [
        msgspec.structs.replace(
            draft, key=f"key {n}" if n in keys else None, id=EventId(f"own_{n}") if n in ids else None
        )
        for n, draft in enumerate(middle)
    ]
    return [
        Draft(data=ev.SessionCreated(agent_id="tester")),
        Draft(data=ev.SessionStarted()),
        *(Draft(data=ev.RunQueued(), run_id=run) for run in runs),
        *named,
        *(Draft(data=ev.RunCancelled(), run_id=run) for run in runs),
    ]


@given(drafts, st.lists(st.integers(0, 11)), st.lists(st.integers(0, 11)))
@settings(max_examples=60, deadline=None)
def test_a_log_is_the_same_after_any_number_of_journeys(middle: list[Draft], keys: list[int], ids: list[int]) -> None:
    async def journeys() -> None:
        plain = Redactor(patterns=())
        options: dict[str, Any] = {"providers": [ScriptedProvider()], "redactor": plain}
        async with agentkeel.open("memory:", **options) as first, agentkeel.open("memory:", **options) as second:
            await first._context.log.store.append(S, whole(middle, keys, ids))
            lines = [line async for line in export_session(first._context, S)]
            await import_session(second._context, lines)
            assert [line async for line in export_session(second._context, S)] == lines
            assert await second.session(S).events() == await first.session(S).events()
            await import_session(second._context, lines, id="other")
            events = await second.session("other").events()
            assert [_told(event) for event in events] == [_told(event) for event in await first.session(S).events()]

    asyncio.run(journeys())


def _told(event: Event) -> tuple[Any, ...]:
    """All that an event tells but whose session it is, and which run's."""
    return (event.id, event.sequence, event.at, encode_body(event.data), event.key, event.source, event.raw)


@given(bodies, st.binary(max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_line_gives_back_its_event_to_the_byte(data: Body, raw: bytes) -> None:
    event = Event(
        id=event_id(S, 1),
        session_id=S,
        sequence=1,
        at=datetime(2026, 1, 2, tzinfo=UTC),
        data=data,
        raw=raw,
        schema_version=data.schema_version if isinstance(data, Unknown) else ev.SCHEMA_VERSION,
    )
    writer, reader = Writer(S, event.at, agentkeel="0"), Reader()
    reader.take(writer.manifest().encode())
    line = writer.event(event)
    assert line.count("\n") == 1
    read = reader.take(line.encode())
    assert read is not None
    assert encode_body(read.data) == encode_body(data)
    assert read == event
    reader.take(writer.trailer().encode())
    assert reader.finish()[1].events == 1


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_changed_byte_of_an_event_passes(data: st.DataObject) -> None:
    writer = Writer(S, datetime(2026, 1, 2, tzinfo=UTC), agentkeel="0")
    first = writer.manifest()
    events = [
        Event(id=event_id(S, n), session_id=S, sequence=n, at=datetime(2026, 1, 2, tzinfo=UTC), data=body)
        for n, body in enumerate([ev.SessionCreated(agent_id="a"), ev.SessionIdle()], start=1)
    ]
    written = "".join(writer.event(event) for event in events).encode()
    at = data.draw(st.integers(0, len(written) - 1))
    changed = written[:at] + bytes([data.draw(st.integers(0, 255).filter(lambda byte: byte != written[at]))])
    whole_file = first.encode() + changed + written[at + 1 :] + writer.trailer().encode()
    reader = Reader()
    try:
        for line in whole_file.splitlines(keepends=True):
            reader.take(line)
        reader.finish()
    except agentkeel.ValidationError:
        return
    raise AssertionError(f"byte {at} was changed and nobody saw it")
