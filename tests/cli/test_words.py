"""Escaping, and how figures, tools and times are put into words."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkeel.cli.escape import cut, escape, escape_json
from agentkeel.cli.exits import exit_code
from agentkeel.cli.words import argument, seconds_of
from agentkeel.core.figures import duration, money, tokens
from agentkeel.core.usage import Usage
from agentkeel.errors import CODES, ValidationError, failure

BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_no_control_and_no_bidi_and_no_separator_gets_through() -> None:
    for code in range(sys.maxunicode + 1):
        letter = chr(code)
        if unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} or unicodedata.bidirectional(letter) in BIDI:
            assert escape(letter).isascii(), hex(code)
            assert escape(letter).isprintable(), hex(code)


@pytest.mark.parametrize("letter", "\u200b\u200c\u200d\u200e\u200f\u061c\u2060\u2063\ufeff\u00ad\U000e0041\U000e0100")
def test_what_has_no_width_is_shown(letter: str) -> None:
    assert escape(f"a{letter}b").isascii()


@pytest.mark.parametrize("text", ["plain", "naïve café", "漢字", "العربية", "✓ ❤️ 🎉", "C:\\temp", "\\x1b"])
def test_what_people_write_is_left_alone(text: str) -> None:
    assert escape(text) == text


def test_only_where_lines_are_wanted_do_newlines_stay() -> None:
    assert escape("a\r\nb\tc\rd\n", lines=True) == "a\nb\tc\\rd\n"
    assert escape("a\nb\tc\r") == "a\\nb\\tc\\r"


@given(st.text())
def test_what_is_escaped_stays_so(text: str) -> None:
    assert escape(escape(text)) == escape(text)


@given(st.text())
def test_json_is_printable_ascii_and_the_same_value(text: str) -> None:
    assert escape_json(text).isascii()
    assert escape_json(text).isprintable()
    assert json.loads(escape_json({text: [text]})) == {text: [text]}


@given(st.text(), st.integers(1, 50))
def test_what_is_cut_fits(text: str, width: int) -> None:
    assert len(cut(text, width)) <= width
    if len(escape(text)) <= width:
        assert cut(text, width) == escape(text)


@pytest.mark.parametrize(
    ("tool_input", "told"),
    [
        ({"command": "ls -l", "description": "List"}, "ls -l"),
        ({"file_path": "/w/src/a.py", "content": "x"}, "src/a.py"),
        ({"command": ["git", "status"]}, "git status"),
        ({"changes": [{"path": "/w/a.py"}, {"path": "b"}]}, "a.py and 1 more"),
        ({"pattern": "def .*"}, "def .*"),
        ({"a": 1, "b": [2]}, '{"a":1,"b":[2]}'),
        ({"anything": {"command": "x"}}, "x"),
        ("two\nlines", "two\\nlines"),
        ("x" * 61, "x" * 59 + "…"),
        ({}, ""),
        ([], ""),
        (None, ""),
        (7, "7"),
    ],
)
def test_a_tool_call_is_told_by_what_it_is_about(tool_input: object, told: str) -> None:
    assert argument(tool_input, "/w") == told


def test_figures_are_for_people() -> None:
    assert [duration(seconds) for seconds in (None, 0.04, 9.94, 12.4, 59.6, 185, 7440)] == [
        *("", "0.0 s", "9.9 s", "12 s", "1 min 0 s", "3 min 5 s", "2 h 4 min")
    ]
    assert [money(amount) for amount in (None, "0.00123", "12.346")] == ["", "$0.0012", "$12.35"]
    usage = Usage(input_tokens=1000, cache_read_tokens=200, output_tokens=34)
    assert tokens(usage) == "1,234 tokens (1,200 in, 34 out)"
    assert tokens(Usage()) == ""


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("500ms", 0.5), ("1h", 3600)])
def test_a_time_may_be_given_in_several_ways(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "1d", "nan", "1e3"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="is no time"):
        seconds_of(text)


def test_every_code_has_one_of_the_exit_codes() -> None:
    codes = {code: exit_code(failure(code, "x")) for code in CODES}
    assert set(codes.values()) == {1, 2, 75, 77, 124, 130}
    assert {code for code, number in codes.items() if number == 75} == {
        *("provider_rate_limited", "provider_unavailable", "max_runs_exceeded", "max_sessions_exceeded"),
        *("store_owned", "store_full", "storage_connection_failed"),
    }
    assert {code for code, number in codes.items() if number == 77} == {"policy_violation", "tool_permission_denied"}
    assert {code for code, number in codes.items() if number == 124} == {"timeout", "provider_timeout"}
    assert {code for code, number in codes.items() if number == 130} == {"cancelled", "interrupted"}
