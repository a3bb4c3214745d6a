"""A text that arrives in pieces is redacted like the whole text, wherever it was cut (B-29)."""

import runpy
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkeel.core.redact import CATEGORISED, DEFAULT, PLAIN, Pattern, Redactor

_samples = runpy.run_path(str(Path(__file__).parent.parent / "core" / "redact_samples.py"))
SAMPLES: tuple[tuple[str, str, str], ...] = _samples["SAMPLES"]
PROSE: tuple[str, ...] = _samples["PROSE"]
REDACTOR = Redactor(secrets=['own-secret: "né"\n'], accelerate=False)
BLOCK = next(text for name, text, _ in SAMPLES if name == "private-key")


def streamed(redactor: Redactor, *chunks: str) -> str:
    stream = redactor.stream()
    return "".join([*map(stream.feed, chunks), stream.flush()])


@pytest.mark.parametrize(("name", "text", "secret"), SAMPLES, ids=[s[0] for s in SAMPLES])
def test_every_two_way_and_many_three_way_cuts_equal_the_whole(name: str, text: str, secret: str) -> None:
    text = f"so: {text}. Next"
    whole = REDACTOR.text(text)
    assert secret not in whole
    step = max(1, len(text) // 40)
    for cut in range(len(text) + 1):
        assert streamed(REDACTOR, text[:cut], text[cut:]) == whole
        for second in range(cut, len(text) + 1, step):
            assert streamed(REDACTOR, text[:cut], text[cut:second], text[second:]) == whole
    assert streamed(REDACTOR, *text) == whole


pieces = st.sampled_from(
    [text for _, text, _ in SAMPLES]
    + [text[: len(text) // 2] for _, text, _ in SAMPLES]
    + [text[:7] for _, text, _ in SAMPLES]
    + list(PROSE)
    + [PLAIN, 'own-secret: "né"\n', 'own-secret: \\"n\\u00e9\\"\\n']
)
noise = st.text(st.sampled_from("aZ0 .,:=@/\\\"'-_\n[]{}é漢İK"), max_size=6)
texts = st.lists(st.one_of(pieces, noise), max_size=6).map("".join)


@settings(deadline=None)
@given(texts, st.lists(st.integers(min_value=0, max_value=2000), max_size=8))
def test_any_text_cut_anywhere_equals_the_whole(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[a:b] for a, b in pairwise(places)]
    assert streamed(REDACTOR, *chunks) == REDACTOR.text(text)


@settings(deadline=None)
@given(texts, st.integers(min_value=1, max_value=7), st.sampled_from([PLAIN, CATEGORISED, "<gone away>"]))
def test_small_pieces_equal_the_whole(text: str, size: int, replacement: str) -> None:
    redactor = Redactor(replacement=replacement, accelerate=False)
    text = text.replace(PLAIN, replacement.replace("<name>", "password"))
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    assert streamed(redactor, *chunks) == redactor.text(text)


@pytest.mark.parametrize("text", PROSE)
def test_prose_flows_with_at_most_a_few_characters_held(text: str) -> None:
    stream, given_, released = REDACTOR.stream(), 0, 0
    for word in text.split(" "):
        given_ += len(word) + 1
        released += len(stream.feed(word + " "))
        assert given_ - released <= 40
    assert released + len(stream.flush()) == given_


def test_plain_words_are_released_at_once() -> None:
    stream = REDACTOR.stream()
    for chunk in ["Reading ", "the", " file", " now.\n"]:
        released = stream.feed(chunk)
        assert len(chunk) - len(released) <= 1
    assert not stream.pending


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_a_key_block_over_many_chunks_is_gone(size: int) -> None:
    text = f"before {BLOCK} after"
    assert streamed(REDACTOR, *(text[at : at + size] for at in range(0, len(text), size))) == "before [REDACTED] after"


@pytest.mark.parametrize("size", [50, 1000, 5000])
@pytest.mark.parametrize(
    "text",
    [
        "a Bearer " + "x1" * 3000 + " b",
        "password=" + "x1" * 3000 + " b",
        'password="' + "x 1" * 3000 + '" b',
        "eyJ" + "a" * 300 + "." + "b" * 5000 + "." + "c" * 3000 + " b",
        "key: -----BEGIN PRIVATE KEY-----\n" + ("MIIE" * 16 + "\n") * 600 + "-----END PRIVATE KEY-----\nb",
    ],
    ids=lambda text: text[:12],
)
def test_a_secret_longer_than_the_hold_back_is_dropped_to_its_end(text: str, size: int) -> None:
    stream = REDACTOR.stream()
    parts = []
    for at in range(0, len(text), size):
        parts.append(stream.feed(text[at : at + size]))
        assert len(stream._held) <= 17_000 + size
    assert "".join(parts) + stream.flush() == REDACTOR.text(text)


def test_a_key_block_that_never_ends_is_redacted_above_the_hold_back() -> None:
    text = "x -----BEGIN PRIVATE KEY-----\n" + "ab cd\n" * 4000
    assert streamed(REDACTOR, *(text[at : at + 500] for at in range(0, len(text), 500))) == "x [REDACTED]"


@settings(deadline=None)
@given(st.lists(st.sampled_from(["TICKET-1234", "TICKET-", "1234", " 5678 9012 3456", " ", "x"]), max_size=8))
def test_user_patterns_stream_too(chunks: list[str]) -> None:
    mine = (
        Pattern(name="ticket", regex="TICKET-[0-9]{4}", literals=("ticket-",), max_length=11),
        Pattern(name="card", regex="[0-9]{4}(?: [0-9]{4}){3}", max_length=19),
    )
    redactor = Redactor((*DEFAULT, *mine), accelerate=False)
    assert streamed(redactor, *chunks) == redactor.text("".join(chunks))


def test_a_stream_can_be_used_again_after_a_flush() -> None:
    stream = REDACTOR.stream()
    first = stream.feed("password=abc") + stream.flush()
    assert first == "password=[REDACTED]"
    assert stream.feed("def ") + stream.flush() == "def "
