"""Lines from chunks, and what lines hold: framing survives any cut, any length and any bytes."""

import errno
import io
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkeel.adapters.providers._wire.jsonl import BadLines, Junk, decode
from agentkeel.adapters.providers._wire.lines import Line, LongLine, Splitter
from agentkeel.errors import ProviderError

SPILL, LIMIT = 8, 20

streams = st.lists(
    st.one_of(
        st.sampled_from([b"\n", b"\r\n", b"\r", b"\x00", b"\xff"]),
        st.binary(min_size=1, max_size=6),
        st.integers(1, 40).map(lambda n: b"x" * n),
    ),
    max_size=30,
).map(b"".join)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(edges)]


def expected(data: bytes) -> list[tuple[bytes, int, str | None]]:
    """What the lines of `data` are, said plainly: kept bytes, size, and why something is missing."""
    raw = data.split(b"\n")
    if not raw[-1]:
        raw.pop()
    found: list[tuple[bytes, int, str | None]] = []
    for line in raw:
        whole = line.removesuffix(b"\r")
        kept = whole[:LIMIT] if len(line) > SPILL else whole
        found.append((kept, len(whole), None if kept == whole else "limit"))
    return found


def seen(lines: list[Line]) -> list[tuple[bytes, int, str | None]]:
    found: list[tuple[bytes, int, str | None]] = []
    for line in lines:
        if isinstance(line, LongLine):
            with line:
                found.append((line.read(), line.size, line.lost))
        else:
            found.append((line, len(line), None))
    return found


@given(streams, st.lists(st.integers(0, 300), max_size=20))
def test_any_chunking_gives_the_same_lines(data: bytes, places: list[int]) -> None:
    splitter = Splitter(spill_bytes=SPILL, max_bytes=LIMIT)
    lines = [line for chunk in cut(data, places) for line in splitter.feed(chunk)]
    assert seen(lines + splitter.finish()) == expected(data)


@given(streams)
def test_one_byte_at_a_time_gives_the_same_lines_too(data: bytes) -> None:
    splitter = Splitter(spill_bytes=SPILL, max_bytes=LIMIT)
    lines = [line for byte in data for line in splitter.feed(bytes([byte]))]
    assert seen(lines + splitter.finish()) == expected(data)


def test_only_lines_above_the_threshold_go_to_a_file(tmp_path: Path) -> None:
    splitter = Splitter(scratch=tmp_path, spill_bytes=SPILL, max_bytes=LIMIT)
    short, long = splitter.feed(b"a" * SPILL + b"\n" + b"b" * (SPILL + 1) + b"\n")
    assert short == b"a" * SPILL
    assert isinstance(long, LongLine)
    assert (long.read(), long.truncated, long.lost) == (b"b" * (SPILL + 1), False, None)
    assert splitter.spilled_bytes == SPILL + 1
    long.close()


def test_a_line_above_the_limit_is_cut_and_the_next_line_is_whole() -> None:
    splitter = Splitter(spill_bytes=SPILL, max_bytes=LIMIT)
    long, after = splitter.feed(b"x" * 1000 + b'\n{"after": 1}'[:8] + b"\n")
    assert isinstance(long, LongLine)
    with long:
        assert (long.size, long.kept, long.truncated, long.lost) == (1000, LIMIT, True, "limit")
        assert list(long.chunks(7)) == [b"x" * 7, b"x" * 7, b"x" * 6]
        assert long.head(3) == b"xxx"
    assert after == b'{"after'


def test_a_long_line_leaves_no_name_behind_and_frees_its_file_when_closed(tmp_path: Path) -> None:
    splitter = Splitter(scratch=tmp_path, spill_bytes=SPILL, max_bytes=LIMIT)
    open_before = open_files()
    (long,) = splitter.feed(b"x" * 15 + b"\n")
    assert list(tmp_path.iterdir()) == []
    assert isinstance(long, LongLine)
    long.close()
    assert open_files() == open_before


def test_closing_the_splitter_frees_the_file_of_an_unfinished_line(tmp_path: Path) -> None:
    splitter = Splitter(scratch=tmp_path, spill_bytes=SPILL, max_bytes=LIMIT)
    open_before = open_files()
    assert splitter.feed(b"x" * 15) == []
    splitter.close()
    assert open_files() == open_before
    assert splitter.finish() == []


def test_without_a_place_for_files_the_start_of_a_long_line_is_kept_and_framing_holds(tmp_path: Path) -> None:
    splitter = Splitter(scratch=tmp_path / "missing", spill_bytes=SPILL, max_bytes=LIMIT)
    long, after = splitter.feed(b"x" * 15 + b"\nafter\n")
    assert isinstance(long, LongLine)
    assert (long.read(), long.size, long.lost) == (b"x" * SPILL, 15, "disk")
    assert after == b"after"


def test_a_full_disk_cuts_the_line_and_keeps_its_start_and_the_framing(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")  # Every write there fails with ENOSPC.
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full.open("r+b", buffering=0))
    splitter = Splitter(spill_bytes=SPILL, max_bytes=LIMIT)
    lines = splitter.feed(b"x" * 15 + b"\nafter\n")
    assert isinstance(lines[0], LongLine)
    assert (lines[0].size, lines[0].kept, lines[0].lost) == (15, 0, "disk")
    assert lines[1] == b"after"
    lines[0].close()


def test_a_disk_that_has_space_again_does_not_leave_a_hole_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullOnce(io.BytesIO):
        failed = False

        def write(self, data: bytes | bytearray | memoryview) -> int:
            if not self.failed and self.tell() >= 10:
                self.failed = True
                raise OSError(errno.ENOSPC, "no space left")
            return super().write(data)

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: FullOnce())
    splitter = Splitter(spill_bytes=SPILL, max_bytes=40)
    for chunk in (b"a" * 10, b"b" * 5, b"c" * 5):
        assert splitter.feed(chunk) == []
    (long,) = splitter.feed(b"\n")
    assert isinstance(long, LongLine)
    assert (long.read(), long.size, long.lost) == (b"a" * 10, 20, "disk")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"Welcome to the agent!",
        b'{"cut": ',
        b'{"a":"\xff"}',
        b'{"a":"\x00"}',
        b'{"a":"\\ud800"}',
        b'{"a":1e999}',
        b"[" * 100_000,
        b'["no", "object"]',
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda line: repr(line[:12]),
)
def test_a_line_that_is_no_json_object_is_kept_as_junk_with_its_bytes(bad: bytes) -> None:
    junk = decode(bad)
    assert isinstance(junk, Junk)
    assert (junk.raw, junk.size) == (bad, len(bad))
    assert junk.reason


@given(st.binary(max_size=200))
def test_any_bytes_decode_to_an_object_or_to_junk_whose_text_any_log_can_hold(data: bytes) -> None:
    value = decode(data)
    if isinstance(value, Junk):
        assert value.raw == data
        assert "\x00" not in value.text
        assert value.text.encode("utf-8").decode("utf-8") == value.text


def test_a_spilled_line_decodes_like_any_other_and_a_cut_one_is_junk_with_its_size() -> None:
    splitter = Splitter(spill_bytes=SPILL, max_bytes=LIMIT)
    whole, cut_off = splitter.feed(b'{"a": "bcdefgh"}\n{"a": "' + b"x" * 100 + b'"}\n')
    assert isinstance(whole, LongLine)
    assert decode(whole) == {"a": "bcdefgh"}
    junk = decode(cut_off)
    assert isinstance(junk, Junk)
    assert (junk.size, len(junk.raw), junk.reason) == (109, LIMIT, "line cut (limit)")
    for line in (whole, cut_off):
        assert isinstance(line, LongLine)
        line.close()


def test_twenty_bad_lines_in_a_row_are_a_protocol_error_and_one_good_line_forgives() -> None:
    bad_lines = BadLines()
    for _ in range(19):
        bad_lines.observe(decode(b"junk"))
    bad_lines.observe(decode(b"{}"))
    for _ in range(19):
        bad_lines.observe(decode(b"junk"))
    with pytest.raises(ProviderError, match="20 lines in a row") as caught:
        bad_lines.observe(decode(b"junk"))
    assert caught.value.code == "agent_protocol_error"
    assert bad_lines.total == 39
