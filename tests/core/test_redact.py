"""Redaction of whole texts, values, structs and bytes."""

import base64
import enum
import json
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NewType
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkeel.core.redact import CATEGORISED, DEFAULT, PLAIN, Pattern, Redactor
from agentkeel.errors import ValidationError

_samples = runpy.run_path(str(Path(__file__).parent / "redact_samples.py"))
SAMPLES: tuple[tuple[str, str, str], ...] = _samples["SAMPLES"]
PROSE: tuple[str, ...] = _samples["PROSE"]

BUILDS = [Redactor(accelerate=False), Redactor(accelerate=True)]
REDACTOR = BUILDS[0]
SECRET = SAMPLES[0][1]

pieces = st.sampled_from([text for _, text, _ in SAMPLES] + [s[:9] for _, s, _ in SAMPLES] + list(PROSE))
noise = st.text(st.sampled_from("aZ0 .,:=@/\\\"'-_\n[]{}é漢İK"), max_size=6)
texts = st.lists(st.one_of(pieces, noise, st.just(PLAIN)), max_size=6).map("".join)


@pytest.mark.parametrize("redactor", BUILDS, ids=["stdlib", "re2"])
@pytest.mark.parametrize(("name", "text", "secret"), SAMPLES, ids=[s[0] for s in SAMPLES])
def test_each_pattern_takes_the_secret_and_leaves_what_is_around_it(
    redactor: Redactor, name: str, text: str, secret: str
) -> None:
    assert redactor.text(f"see: {text} — and so on") == f"see: {text.replace(secret, PLAIN)} — and so on"
    assert name in {span.name for span in Redactor(tuple(p for p in DEFAULT if p.name == name)).find(text)}


def test_every_default_pattern_has_a_sample() -> None:
    assert {name for name, _, _ in SAMPLES} == {pattern.name for pattern in DEFAULT}


@pytest.mark.parametrize("redactor", BUILDS, ids=["stdlib", "re2"])
@pytest.mark.parametrize("text", PROSE)
def test_prose_and_code_come_back_as_the_same_object(redactor: Redactor, text: str) -> None:
    assert redactor.text(text) is text


@pytest.mark.parametrize("pattern", DEFAULT, ids=lambda pattern: pattern.name)
def test_each_match_begins_with_a_literal_that_holds_a_gate(pattern: Pattern) -> None:
    literals = tuple(literal.lower() for literal in pattern.literals)
    for text in (text for name, text, _ in SAMPLES if name == pattern.name):
        found = re.search(pattern.regex, text)
        assert found
        assert found[0].lower().startswith(literals)
    if pattern.gates:
        assert all(any(gate in literal for gate in pattern.gates) for literal in literals)


def test_what_was_redacted_before_is_left_alone_and_what_follows_is_not() -> None:
    assert REDACTOR.text("password=[REDACTED]") == "password=[REDACTED]"
    assert REDACTOR.text("password=a[REDACTED]") == "password=[REDACTED][REDACTED]"
    assert REDACTOR.text("password=[REDACTED]&password=x") == "password=[REDACTED]&password=[REDACTED]"
    block = next(text for name, text, _ in SAMPLES if name == "private-key")
    once = REDACTOR.text(f"password=x{block}abc")
    assert once == REDACTOR.text(once) == "password=[REDACTED]abc"


@settings(deadline=None)
@given(texts)
def test_redacting_twice_equals_once(text: str) -> None:
    for replacement in (PLAIN, CATEGORISED, "***", "<gone away>"):
        redactor = Redactor(replacement=replacement, accelerate=False)
        once = redactor.text(text)
        assert redactor.text(once) == once


@settings(deadline=None)
@given(texts)
def test_both_builds_find_the_same(text: str) -> None:
    assert BUILDS[0].find(text) == BUILDS[1].find(text)


def test_categorised_replacement_names_the_pattern() -> None:
    assert Redactor(replacement=CATEGORISED).text(f"key {SECRET}.") == "key [REDACTED:aws-access-key]."


def test_overlapping_secrets_become_one_replacement() -> None:
    assert REDACTOR.text(f"Authorization: Bearer {SAMPLES[3][1]}; ok") == "Authorization: [REDACTED]; ok"
    assert REDACTOR.text(f"api_key={SECRET}\n") == "api_key=[REDACTED]\n"


def test_user_patterns_append_or_replace() -> None:
    mine = Pattern(name="ticket", regex="TICKET-[0-9]{4}", literals=("ticket-",))
    assert Redactor((*DEFAULT, mine)).text(f"TICKET-1234 {SECRET}") == "[REDACTED] [REDACTED]"
    assert Redactor((mine,)).text(f"TICKET-1234 {SECRET}") == f"[REDACTED] {SECRET}"


def test_both_builds_agree_where_unicode_folds_to_ascii() -> None:
    mine = Pattern(name="ticket", regex="(?i)ticket-[0-9]+", literals=("ticket-",))
    for text in ("tic\u212aet-1 TICKET-2", "t\u0130cket-1 ticket-2 \u0130 Ticket-3"):
        stdlib, fast = Redactor([mine], accelerate=False), Redactor([mine])
        assert stdlib.find(text) == fast.find(text)
        assert len(stdlib.find(text)) == text.lower().count("ticket-") - text.count("\u212a")


def test_a_pattern_without_literals_searches_every_text() -> None:
    redactor = Redactor([Pattern(name="card", regex=r"[0-9]{4}(?: [0-9]{4}){3}")])
    assert redactor.text("pay 1234 5678 9012 3456 now") == "pay [REDACTED] now"
    assert not redactor.clean(b'"nothing here"')


def test_a_pattern_that_is_no_expression_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="mine") as caught:
        Redactor([Pattern(name="mine", regex="(")])
    assert caught.value.code == "invalid_format"


@pytest.mark.parametrize("replacement", ["password=hidden", "", "sk-" + "x" * 40])
def test_a_replacement_that_is_itself_a_secret_or_nothing_is_refused(replacement: str) -> None:
    with pytest.raises(ValidationError):
        Redactor(replacement=replacement)


@pytest.mark.parametrize("redactor_kind", [False, True])
@pytest.mark.parametrize("secret", ['p"q\\r/s+t=u?é ü', "kEy-οδός-ΟΔΌΣ-1", "line one\nline two", "plainplain"])
def test_a_known_secret_is_found_in_every_spelling(secret: str, redactor_kind: bool) -> None:
    redactor = Redactor((), secrets=[secret], accelerate=redactor_kind)
    raw = secret.encode()
    spellings = [
        secret,
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    ]
    for spelling in spellings:
        assert redactor.text(f"<{spelling}>") == "<[REDACTED]>", spelling
        assert not redactor.clean(json.dumps(f"<{spelling}>").encode())
    for user in ("", "u:", "us:", "usr:"):
        encoded = base64.b64encode(f"{user}{secret}\n".encode()).decode()
        assert "[REDACTED]" in redactor.text(encoded)


def test_a_secret_of_five_characters_is_refused_and_never_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        Redactor(secrets=["abcde"])
    assert "abcde" not in str(caught.value)
    assert "longsecret" not in repr(Redactor(secrets=["longsecret"]))


def test_a_value_is_redacted_at_any_depth_and_kept_when_clean() -> None:
    clean: Any = {"a": ["b", {"c": None, "d": 1.5}], "e": True}
    assert REDACTOR.value(clean) is clean
    dirty: Any = {"a": ["b", {"c": f"x {SECRET}"}], SECRET: 1}
    assert REDACTOR.value(dirty) == {"a": ["b", {"c": "x [REDACTED]"}], "[REDACTED]": 1}
    assert dirty["a"][1]["c"].endswith(SECRET), "the given value is not changed"
    deep: Any = SECRET
    for _ in range(5000):
        deep = [deep]
    result = REDACTOR.value(deep)
    for _ in range(5000):
        (result,) = result
    assert result == PLAIN


def test_text_under_the_name_of_a_secret_is_one_whatever_it_looks_like() -> None:
    assert REDACTOR.value({"db_password": "x y", "apiKey": "z", "max_tokens": "5", "pwd": "/tmp"}) == {
        "db_password": PLAIN,
        "apiKey": PLAIN,
        "max_tokens": "5",
        "pwd": "/tmp",
    }
    again = {"password": PLAIN}
    assert REDACTOR.value(again) is again
    assert Redactor(replacement=CATEGORISED).value({"X-Api-Key": "z"}) == {"X-Api-Key": "[REDACTED:api-key]"}


def test_two_keys_that_are_secrets_stay_two_keys() -> None:
    assert REDACTOR.value({SECRET: 1, SAMPLES[1][1]: 2}) == {"[REDACTED]": 1, "[REDACTED] #2": 2}


Id = NewType("Id", str)


class Colour(enum.Enum):
    RED = "AKIA" + "R" * 16


class Inner(msgspec.Struct, frozen=True):
    note: str
    tool_call_id: str = SECRET


class Body(msgspec.Struct, frozen=True):
    text: str
    key: str = SECRET
    place: Id = Id(SECRET)
    kind_of: Literal["a"] = "a"
    colour: Colour = Colour.RED
    inner: Inner | None = None
    notes: tuple[Inner, ...] = ()
    tags: tuple[str, ...] = ()
    details: Mapping[str, Any] = {}
    raw: bytes | None = None
    kept: msgspec.Raw = msgspec.Raw(b"{}")


def test_a_struct_is_redacted_deep_and_its_ids_and_enums_are_left_alone() -> None:
    clean = Body("hello", inner=Inner("x"), notes=(Inner("y"),), tags=("z",), details={"a": [1]}, raw=b'{"a":1}')
    assert REDACTOR.struct(clean) is clean
    dirty = Body(
        SECRET,
        inner=Inner(SECRET),
        notes=(Inner("y"), Inner(SECRET)),
        tags=("z", SECRET),
        details={"password": "p"},
        raw=json.dumps({"a": SECRET}).encode(),
        kept=msgspec.Raw(json.dumps([SECRET]).encode()),
    )
    assert REDACTOR.struct(dirty) == Body(
        PLAIN,
        inner=Inner(PLAIN),
        notes=(Inner("y"), Inner(PLAIN)),
        tags=("z", PLAIN),
        details={"password": PLAIN},
        raw=b'{"a":"[REDACTED]"}',
        kept=msgspec.Raw(b'["[REDACTED]"]'),
    )


@pytest.mark.parametrize("redactor", BUILDS, ids=["stdlib", "re2"])
@pytest.mark.parametrize(("name", "text", "secret"), SAMPLES, ids=[s[0] for s in SAMPLES])
def test_clean_never_vouches_for_json_with_a_secret(redactor: Redactor, name: str, text: str, secret: str) -> None:
    escaped = "".join(f"\\u{ord(char):04X}" for char in text)
    for data in (json.dumps({"a": text}), json.dumps([text]).replace("/", "\\/"), f'"{escaped}"', f'"x{escaped[:6]}y"'):
        assert not redactor.clean(data.encode())


def test_clean_vouches_for_ordinary_agent_lines() -> None:
    line = json.dumps({"type": "text", "delta": "Reading \x1b[31mfiles\x1b[0m — naïve\n", "n": 1}).encode()
    for redactor in BUILDS:
        assert redactor.clean(line)
        assert redactor.raw(line) is line


def test_raw_bytes_are_decoded_before_they_are_judged() -> None:
    hidden = '{"a": "\\u0041KIA' + SECRET[4:] + '"}'
    assert REDACTOR.raw(hidden.encode()) == b'{"a":"[REDACTED]"}'
    assert REDACTOR.raw(b"\xff\xfe " + SECRET.encode()) == b"\xff\xfe [REDACTED]"
    prose = b"not json, a password, no secret \xff"
    assert REDACTOR.raw(prose) is prose


def test_a_lone_surrogate_does_not_stop_redaction() -> None:
    for redactor in BUILDS:
        assert redactor.text("\ud800 " + SECRET) == "\ud800 [REDACTED]"


@pytest.mark.parametrize(
    "text",
    [
        "eyJ" * 20_000,
        "sk-" * 20_000,
        "://" * 20_000,
        "postgres://" + "a:" * 20_000,
        "-----BEGIN PRIVATE KEY-----" * 3_000,
        "-----BEGIN PRIVATE KEY-----" + "-a" * 30_000,
        "-----BEGIN PRIVATE KEY-----" + "ab+/\\n" * 20_000,
        'password="' + "\\x" * 30_000,
        "password=" + "\\a" * 30_000 + '"',
        "api_key" * 10_000,
    ],
    ids=lambda text: text[:30],
)
@pytest.mark.timeout(10)
def test_hostile_texts_take_no_more_than_linear_work(text: str) -> None:
    """A regular expression that explodes runs into the suite's time limit; nothing is timed here."""
    whole = REDACTOR.text(text)
    assert REDACTOR.text(whole) == whole
    stream = REDACTOR.stream()
    assert len(stream.feed(text) + stream.flush()) <= len(whole)
