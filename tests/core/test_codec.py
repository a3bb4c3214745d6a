"""What is stored comes back: every body, of this version, of older and of newer ones, and ids that name places."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkeel.core import events as ev
from agentkeel.core.codec import (
    decode_body,
    encode_body,
    event_from_json,
    event_to_json,
    kind_of,
    same_content,
)
from agentkeel.core.events import BODIES, SCHEMA_VERSION, Body, Draft, Event, Unknown
from agentkeel.core.ids import EventId, RunId, SessionId, event_id, place_of, run_id, session_id
from agentkeel.core.naming import check_id
from agentkeel.core.usage import Usage
from agentkeel.errors import ProviderFailure, StorageError, ValidationError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
whole = st.integers(-(1 << 53), 1 << 53)
json_values = st.recursive(
    st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
first, last = datetime(1900, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001 - hypothesis adds the zone
times = st.datetimes(first, last, timezones=st.just(UTC))


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return json_values
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is not None and issubclass(origin, Mapping) if isinstance(origin, type) else False:
        return st.dictionaries(texts, values_of(arguments[1]), max_size=3)
    if arguments:
        return st.one_of([values_of(part) for part in arguments])
    named: dict[Any, st.SearchStrategy[Any]] = {
        str: texts,
        int: whole,
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        type(None): st.none(),
        datetime: times,
    }
    supertype = getattr(kind, "__supertype__", None)
    if supertype is not None:
        return values_of(supertype)
    return named[kind] if kind in named else structs(kind)


def structs(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a struct, all fields given."""
    fields = {field.name: values_of(field.type) for field in msgspec.structs.fields(kind)}
    return st.builds(kind, **fields)


bodies = st.sampled_from(sorted(BODIES)).flatmap(lambda kind: structs(BODIES[kind]))


@given(bodies)
def test_decode_of_encode_is_the_identity(body: Body) -> None:
    assert decode_body(kind_of(body), encode_body(body)) == body


def test_every_kind_has_its_own_name_in_the_past_tense() -> None:
    assert len(BODIES) >= 50
    for name, body in BODIES.items():
        assert body.type == name
        assert name.islower()
        assert body.__doc__
    assert Unknown.type not in BODIES


@given(st.sampled_from(sorted(BODIES)))
def test_a_body_with_only_what_it_must_say_is_small_and_comes_back(kind: str) -> None:
    body = BODIES[kind]
    needed = {field.name: _least(field.type) for field in msgspec.structs.fields(body) if field.required}
    made = body(**needed)
    assert set(msgspec.json.decode(encode_body(made))) == set(needed)
    assert decode_body(kind, encode_body(made)) == made


def _least(kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)[0]
    supertype = getattr(kind, "__supertype__", kind)
    return {str: "x", int: 1, float: 1.0, Usage: Usage()}[supertype]


@given(texts.filter(lambda kind: kind not in BODIES), json_values, st.integers(1, 99))
def test_a_kind_nobody_knows_comes_back_byte_for_byte(kind: str, value: Any, version: int) -> None:
    stored = b" " + msgspec.json.encode(value)
    body = decode_body(kind, stored, version)
    assert isinstance(body, Unknown)
    assert (kind_of(body), encode_body(body), body.schema_version) == (kind, stored, version)


@given(st.sampled_from(sorted(BODIES)))
def test_a_known_kind_of_a_newer_schema_is_handed_on_untouched(kind: str) -> None:
    stored = b'{"renamed": {"deeply": 1}}'
    body = decode_body(kind, stored, SCHEMA_VERSION + 1)
    assert isinstance(body, Unknown)
    assert (kind_of(body), encode_body(body), body.schema_version) == (kind, stored, SCHEMA_VERSION + 1)


def test_a_field_of_a_newer_writer_of_the_same_schema_is_ignored() -> None:
    assert decode_body("message_received", b'{"content":"x","mood":"good"}') == ev.MessageReceived(content="x")


def test_an_older_body_is_lifted_step_by_step() -> None:
    def one(body: dict[str, Any]) -> dict[str, Any]:
        return {"content": body["text"]}

    def zero(body: dict[str, Any]) -> dict[str, Any]:
        return {"text": body["words"].upper()}

    lifts = {("message_received", -1): zero, ("message_received", 0): one}
    lifted = decode_body("message_received", b'{"words":"hi"}', -1, upcasters=lifts)
    assert lifted == ev.MessageReceived(content="HI")
    assert decode_body("message_received", b'{"text":"hi"}', 0, upcasters=lifts) == ev.MessageReceived(content="hi")
    assert decode_body("session_idle", b"{}", 0, upcasters=lifts) == ev.SessionIdle(), "a kind that never changed"


@pytest.mark.parametrize(
    "stored", [b"", b"{", b"[]", b"null", b'{"content":1}', b"{}", b'{"content":"\xff"}', b'{"content":"x"} trailing']
)
def test_bytes_that_are_no_body_are_an_error_that_names_them(stored: bytes) -> None:
    with pytest.raises(StorageError) as caught:
        decode_body("message_received", stored)
    assert caught.value.code == "storage_read_failed"
    assert caught.value.details["bytes"] == len(stored)


def events(data: st.SearchStrategy[Body]) -> st.SearchStrategy[Event]:
    some = st.none() | texts
    return st.builds(
        Event,
        id=texts.map(EventId),
        session_id=texts.map(SessionId),
        sequence=st.integers(1, 1 << 40),
        at=times,
        data=data,
        run_id=some.map(lambda text: None if text is None else RunId(text)),
        source=st.sampled_from(["agent", "engine", "user"]),
        provider=some,
        key=some,
        parent=some,
        correlation_id=some,
        causation_id=some,
        schema_version=st.just(SCHEMA_VERSION),
        raw=st.none() | texts.map(str.encode),
    )


@given(events(bodies))
def test_an_event_comes_back_from_json(event: Event) -> None:
    assert event_from_json(msgspec.json.decode(msgspec.json.encode(event_to_json(event)))) == event


@given(st.binary(min_size=1, max_size=40))
def test_bytes_that_are_no_json_survive_the_json_of_their_event(body: bytes) -> None:
    event = Event(
        id=EventId("evt_1"),
        session_id=SessionId("ses_1"),
        sequence=1,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        data=Unknown(kind="corrupt", body=msgspec.Raw(body)),
    )
    back = event_from_json(msgspec.json.decode(msgspec.json.encode(event_to_json(event))))
    assert isinstance(back.data, Unknown)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        assert bytes(back.data.body) == body
    else:
        assert msgspec.json.decode(back.data.body) == value


def test_the_json_of_an_event_has_its_type_and_no_nulls() -> None:
    event = Event(
        id=EventId("e"),
        session_id=SessionId("s"),
        sequence=1,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        data=ev.SessionIdle(),
    )
    assert event_to_json(event) == {
        "id": "e",
        "session_id": "s",
        "sequence": 1,
        "type": "session_idle",
        "data": {},
        "at": "2026-01-01T00:00:00+00:00",
        "source": "engine",
        "schema_version": 1,
    }


@pytest.mark.parametrize("missing", ["id", "session_id", "sequence", "at", "type", "data"])
def test_json_that_is_no_event_is_an_error(missing: str) -> None:
    at = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    event = Event(id=EventId("e"), session_id=SessionId("s"), sequence=1, at=at, data=ev.SessionIdle())
    values = event_to_json(event)
    assert event_from_json(values) == event
    del values[missing]
    with pytest.raises(StorageError):
        event_from_json(values)


def test_a_retry_is_told_from_another_thing_by_what_it_says() -> None:
    event = Event(
        id=EventId("e"),
        session_id=SessionId("s"),
        sequence=1,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        data=ev.MessageSent(content="x"),
    )
    assert same_content(Draft(data=ev.MessageSent(content="x"), correlation_id="other"), event)
    assert not same_content(Draft(data=ev.MessageSent(content="y")), event)
    assert not same_content(Draft(data=ev.MessageReceived(content="x")), event)


def test_the_stored_form_of_a_failure_keeps_its_six_fields() -> None:
    said = ProviderFailure.of("codex", "exit", exit_code=2, stderr="no\n")
    body = ev.RunFailed(error_code="agent_crashed", error_message="m", provider_error=said)
    assert decode_body("run_failed", encode_body(body)) == body


# -- ids --------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=16, max_size=16))
def test_ids_are_spelled_with_their_kind_and_32_digits(entropy: bytes) -> None:
    for made, prefix in ((session_id(entropy), "ses_"), (run_id(entropy), "run_")):
        assert made == prefix + entropy.hex()
        assert check_id(made) == made


@given(texts, st.integers(1, (1 << 48) - 1))
def test_an_events_id_names_its_place_in_its_session_only(text: str, sequence: int) -> None:
    session = SessionId(text)
    made = event_id(session, sequence)
    assert made.startswith("evt_")
    assert len(made) == 36
    assert place_of(session, made) == sequence
    assert place_of(SessionId(text + "x"), made) is None


@pytest.mark.parametrize("text", ["", "evt_", "evt_zz", "run_1", "evt_" + "0" * 31, "evt_" + "0" * 33])
def test_other_ids_name_no_place(text: str) -> None:
    assert place_of(SessionId("s"), EventId(text)) is None


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 40))
def test_later_places_sort_later(a: int, b: int) -> None:
    session = SessionId("s")
    assert (event_id(session, a) < event_id(session, b)) == (a < b)


@pytest.mark.parametrize("text", ["", " ", "a b", "../x", "-x", ".x", "a\n", "é", "x" * 129, "a/b"])
def test_an_id_a_user_may_not_choose_is_refused(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        check_id(text, what="session_id")
    assert caught.value.code == "invalid_format"
    assert caught.value.details == {"field": "session_id"}
