"""The words and figures that renderers share. What comes from an event leaves here escaped."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from agentkeel.core.escape import escape, escape_json

__all__ = ["Paint", "Words", "clip", "counted", "dollars", "json_line", "output_text", "short_model", "short_reason"]

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_DATE = re.compile(r"(?:[-@]20\d{2}-?\d{2}-?\d{2}|-latest)\Z")
_REASONS = {
    "end_turn": "end",
    "max_tokens": "max",
    "max_turns": "turns",
    "stop_sequence": "stop",
    "tool_use": "tool",
    "cancelled": "cancel",
}
_MOST_DIGITS = 30


class Paint:
    """Text in a style, escaped: the one place where a renderer writes a control character."""

    def __init__(self, color: bool) -> None:
        self._color = color

    def __call__(self, text: str, *styles: str, lines: bool = False) -> str:
        """`text`, with nothing in it that a terminal obeys, between the codes of its styles."""
        shown = escape(text, lines=lines)
        if not self._color or not styles or not shown:
            return shown
        return f"\x1b[{';'.join(_STYLES[style] for style in styles)}m{shown}\x1b[0m"


class Words:
    """The words of one message as they come. Line ends wait for the words behind them, so none is left over."""

    def __init__(self) -> None:
        self._held = ""

    def take(self, delta: str) -> list[str]:
        """The lines to show now: the first goes on where the last one stands. Not escaped."""
        text = self._held + delta
        words = text.rstrip("\r\n")
        self._held = text[len(words) :]
        return words.replace("\r\n", "\n").split("\n")


def clip(text: str, most: int) -> str:
    """`text` in one line of at most `most` characters; the last one is `…` where something is missing.

    An escape such as `\\x1b` is never cut in two.
    """
    if len(text) <= most:
        shown = escape(text)
        if len(shown) <= most:
            return shown
    elif len(shown := escape(text[:most])) == most:
        return shown[:-1] + "…"
    kept, room = [], most - 1
    for character in text[:most]:
        shown = escape(character)
        if len(shown) > room:
            break
        kept.append(shown)
        room -= len(shown)
    return "".join(kept) + "…"


def output_text(value: Any) -> str:
    """What a tool gave back, as the text in it where there is one, else as JSON. Not escaped."""
    return _text_in(value, 4)


def _text_in(value: Any, depth: int) -> str:  # noqa: PLR0911 - a case for each shape
    if not depth:
        return json_line(value)
    match value:
        case None:
            return ""
        case str():
            return value
        case {"stdout": str(out), **rest}:
            err = rest.get("stderr")
            return "\n".join(part for part in (out, err) if part and isinstance(part, str))
        case {"text": str(text)} | {"output": str(text)} | {"content": str(text)}:
            return text
        case {"content": [*blocks]}:
            return _text_in(blocks, depth - 1)
        case [*blocks] if blocks and all(isinstance(block, str | dict) for block in blocks):
            return "\n".join(_text_in(block, depth - 1) for block in blocks)
        case _:
            return json_line(value)


def json_line(value: Any) -> str:
    """`value` as JSON in one line of printable ASCII."""
    try:
        return escape_json(value)
    except (TypeError, ValueError):  # A draft may hold what only msgspec can write: a date, a set.
        return escape_json(msgspec.to_builtins(value, enc_hook=str))
    except RecursionError:
        return "…"


def short_model(model: str | None) -> str:
    """The name people use for a model: no vendor, no date. `claude-sonnet-4-5-20250929` is `sonnet-4-5`."""
    if not model:
        return "?"
    return _DATE.sub("", model.rpartition("/")[2]).removeprefix("claude-") or model


def short_reason(reason: str | None) -> str:
    """Why a run stopped, in one short word where there is one."""
    return _REASONS.get(reason or "", reason or "?")


def dollars(cost: str | None, places: int) -> str | None:
    """Dollars with so many decimal places; None where nobody knows. What is no number is shown as it is."""
    if cost is None:
        return None
    if len(cost) > _MOST_DIGITS:
        return clip(cost, _MOST_DIGITS)
    try:
        amount = Decimal(cost)
    except InvalidOperation:
        return escape(cost)
    # `1E+20000` is a number of five characters, and of twenty thousand when written out.
    if not amount.is_finite() or amount.adjusted() > _MOST_DIGITS:
        return escape(cost)
    return f"${amount:.{places}f}"


def counted(count: int, one: str) -> str:
    """`1 file`, `2 files`, `2 matches`."""
    plural = one if count == 1 else f"{one}es" if one.endswith(("ch", "sh")) else f"{one}s"
    return f"{count:,} {plural}"
