"""The audit chain: whatever is done to it is found, at the place where it was done."""

import hashlib
import json as spelling
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkeel.core.audit import (
    GENESIS,
    Anchor,
    Entry,
    chain,
    decode_entry,
    digest_of,
    encode_entry,
    hash_of,
    verify,
)
from agentkeel.core.ids import EventId
from agentkeel.errors import StorageError, ValidationError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
facts = st.fixed_dictionaries(
    {
        "at": st.integers(0, 2**47).map(lambda micros: NOON + timedelta(microseconds=micros)),
        "actor": texts,
        "action": texts,
        "subject": texts,
        "details": st.dictionaries(texts, json, max_size=3),
        "event": st.none() | texts.map(EventId),
    }
)


@st.composite
def chains(draw: st.DrawFn, min_size: int = 1) -> list[Entry]:
    entries: list[Entry] = []
    for each in draw(st.lists(facts, min_size=min_size, max_size=6)):
        entries.append(chain(entries[-1] if entries else None, **each))
    return entries


def three() -> list[Entry]:
    entries: list[Entry] = []
    for actor in ("ann", "ben", "cy"):
        before = entries[-1] if entries else None
        entries.append(chain(before, at=NOON, actor=actor, action="session.deleted", subject="ses_1"))
    return entries


@given(chains(min_size=0))
def test_a_chain_is_whole_in_memory_and_after_being_written_and_read(entries: list[Entry]) -> None:
    assert verify(entries) is None
    read = [decode_entry(encode_entry(entry)) for entry in entries]
    assert read == entries
    assert verify(read) is None
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    assert all(verify(read, anchor=Anchor.of(entry)) is None for entry in entries)


@given(st.data())
def test_a_change_of_any_field_is_found_at_its_entry(data: st.DataObject) -> None:
    entries = data.draw(chains())
    at = data.draw(st.integers(0, len(entries) - 1))
    field = data.draw(st.sampled_from(Entry.__struct_fields__))
    values = {
        "number": st.integers(-3, 10),
        "previous": st.sampled_from([GENESIS, "f" * 64, *(entry.hash for entry in entries)]),
        "hash": st.sampled_from([GENESIS, "f" * 64, *(entry.hash for entry in entries)]),
        "at": st.just(entries[at].at + timedelta(microseconds=1)),
        "details": st.dictionaries(texts, json, max_size=3),
        "event": st.none() | texts,
    }
    value = data.draw(values.get(field, texts))
    changed = msgspec.structs.replace(entries[at], **{field: value})
    forged = [*entries[:at], changed, *entries[at + 1 :]]
    if encode_entry(changed) == encode_entry(entries[at]):
        assert verify(forged) is None
    else:
        assert verify(forged) == at + 1


@given(st.data())
def test_a_change_of_any_byte_of_the_line_is_found_at_its_entry(data: st.DataObject) -> None:
    entries = data.draw(chains())
    at = data.draw(st.integers(0, len(entries) - 1))
    line = bytearray(encode_entry(entries[at]))
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[place]))
    try:
        forged = decode_entry(bytes(line))
    except StorageError:
        return  # It is no entry any more: whoever reads the file stops here.
    if forged == entries[at]:  # another spelling of the same number, such as 1e5 and 1E5
        assert hash_of(forged) == forged.hash
    else:
        assert verify([*entries[:at], forged, *entries[at + 1 :]]) == at + 1


@given(st.data())
def test_an_entry_that_was_taken_away_is_found(data: st.DataObject) -> None:
    entries = data.draw(chains(min_size=2))
    at = data.draw(st.integers(0, len(entries) - 2))
    assert verify(entries[:at] + entries[at + 1 :]) == at + 1


@given(st.data())
def test_entries_in_another_order_are_found(data: st.DataObject) -> None:
    entries = data.draw(chains(min_size=2))
    order = data.draw(st.permutations(entries).filter(lambda given: given != entries))
    first = next(number for number, (a, b) in enumerate(zip(order, entries, strict=True), 1) if a != b)
    assert verify(order) == first


@given(st.data())
def test_an_entry_that_was_put_in_is_found_even_with_a_hash_of_its_own(data: st.DataObject) -> None:
    entries = data.draw(chains())
    at = data.draw(st.integers(0, len(entries) - 1))
    forged = chain(entries[at - 1] if at else None, **data.draw(facts))
    if forged == entries[at]:
        return
    assert verify([*entries[:at], forged, *entries[at:]]) == at + 2  # it fits; what follows it does not


@given(st.data())
def test_an_entry_that_was_replaced_is_found_even_with_a_hash_of_its_own(data: st.DataObject) -> None:
    entries = data.draw(chains(min_size=2))
    at = data.draw(st.integers(0, len(entries) - 2))
    forged = chain(entries[at - 1] if at else None, **data.draw(facts))
    if forged == entries[at]:
        return
    assert verify([*entries[:at], forged, *entries[at + 1 :]]) == at + 2  # what follows names another one before it


@given(st.data())
def test_a_tail_that_was_cut_off_is_found_with_an_anchor_alone(data: st.DataObject) -> None:
    entries = data.draw(chains())
    left = data.draw(st.integers(0, len(entries) - 1))
    assert verify(entries[:left]) is None
    assert verify(entries[:left], anchor=Anchor.of(entries[-1])) == left + 1


@given(st.data())
def test_a_chain_that_was_written_anew_is_found_with_an_anchor_alone(data: st.DataObject) -> None:
    entries = data.draw(chains())
    forged: list[Entry] = []
    for entry in entries:
        before = forged[-1] if forged else None
        forged.append(chain(before, at=entry.at, actor="mallory", action=entry.action, subject=entry.subject))
    assert verify(forged) is None
    if forged[-1].hash != entries[-1].hash:
        assert verify(forged, anchor=Anchor.of(entries[-1])) == len(entries)


def test_a_number_that_was_left_out_is_found_even_with_a_hash_of_its_own() -> None:
    one, two, _ = three()
    jumped = msgspec.structs.replace(two, number=7)
    jumped = msgspec.structs.replace(jumped, hash=hash_of(jumped))
    assert verify([one, jumped]) == 2


def test_a_part_of_a_chain_is_verified_from_the_entry_before_it() -> None:
    one, two, last = three()
    assert verify([two, last], previous=one) is None
    assert verify([two, last]) == 1
    assert verify([last], previous=one) == 2


def test_the_hash_is_the_one_that_the_documents_describe() -> None:
    entry = chain(None, at=NOON, actor="ann", action="session.deleted", subject="ses_1", details={"b": 1, "a": "é"})
    spelled = (
        '["agentkeel.audit.1",1,"2026-01-01T12:00:00+00:00","ann","session.deleted","ses_1",{"a":"é","b":1},null,"'
        + "0" * 64
        + '"]'
    )
    assert entry.hash == hashlib.sha256(spelled.encode()).hexdigest()


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts, lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=4)), max_leaves=8))  # fmt: skip
def test_anybody_can_spell_what_is_hashed_with_another_json_writer(value: object) -> None:
    spelled = spelling.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest_of(value) == hashlib.sha256(spelled.encode()).hexdigest()


def test_the_same_instant_in_another_zone_is_the_same_entry() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=5)))
    assert chain(None, at=there, actor="a", action="b", subject="c") == chain(
        None, at=NOON, actor="a", action="b", subject="c"
    )


def test_the_order_of_keys_does_not_matter_to_a_digest() -> None:
    assert digest_of({"a": [{"x": 1, "y": 2}], "b": 0}) == digest_of({"b": 0, "a": [{"y": 2, "x": 1}]})
    assert digest_of({"a": 1}) != digest_of({"a": "1"})


@pytest.mark.parametrize("details", [{"x": object()}, {"x": "\ud800"}])
def test_what_cannot_be_written_down_is_refused(details: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="cannot be written down"):
        chain(None, at=NOON, actor="a", action="b", subject="c", details=details)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="zone"):
        chain(None, at=NOON.replace(tzinfo=None), actor="a", action="b", subject="c")


def test_an_anchor_survives_being_written_down() -> None:
    anchor = Anchor.of(three()[1])
    assert Anchor.parse(f" {anchor}\n") == anchor


@pytest.mark.parametrize("text", ["", "1", "0:" + "a" * 64, "1:abc", "1:" + "G" * 64, "-1:" + "a" * 64])
def test_what_spells_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="no anchor"):
        Anchor.parse(text)


@pytest.mark.parametrize("line", [b"", b"{}", b'{"number":1', b"\xff", b"[" * 5000])
def test_a_line_that_is_no_entry_is_refused(line: bytes) -> None:
    with pytest.raises(StorageError, match="no audit entry"):
        decode_entry(line)
