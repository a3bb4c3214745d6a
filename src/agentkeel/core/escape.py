r"""The one door through which foreign text reaches a person.

Whatever an agent, a model, a file name or a branch name holds, what comes out moves no cursor, sets no clipboard,
reorders nothing and hides nothing: such characters are shown as `\x1b` or `\u202e`. A backslash stays as it is, so this
is for reading, not for parsing back. Source: Unicode TR 36 and 39.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

__all__ = ["CLEAR_LINE", "cut", "escape", "escape_json", "escape_styled", "plain"]

CLEAR_LINE = "\r\x1b[2K"
"""The one movement of ours: back to the start of the line, which is empty then."""

# C0, DEL and C1; soft hyphen and other characters of no width; bidi marks, embeddings and isolates; line and paragraph
# separators; fillers that look like nothing; tags and variation selectors beyond the two of emoji; lone surrogates.
_UNSAFE = (
    "\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff"
)
_ALL = re.compile(f"[{_UNSAFE}]")
_NOT_LINES = re.compile(f"(?![\n\t])[{_UNSAFE}]")
_OURS = re.compile(r"(\x1b\[[0-9;]{0,32}m|\r\x1b\[2K)")
# Operating system commands and their kin up to their end, or the line's; control sequences; two-character escapes.
_CODES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~]"
)


def escape(text: str, *, lines: bool = False, mark: Callable[[str], str] = str) -> str:
    """`text` with nothing in it that a terminal obeys.

    With `lines`, newlines and tabs stay, and a carriage return before a newline goes; else the text stays one line.
    `mark` is put around every character that is spelled out.
    """
    if text.isprintable() and text.isascii():
        return text
    if lines:
        return _NOT_LINES.sub(lambda match: mark(_spelled(match)), text.replace("\r\n", "\n"))
    return _ALL.sub(lambda match: mark(_spelled(match)), text)


def escape_styled(text: str) -> str:
    """`text` of lines in which a terminal obeys colours and `CLEAR_LINE` alone; all else is shown as `escape` does."""
    if "\x1b" not in text:
        return escape(text, lines=True)
    parts = _OURS.split(text)
    return "".join(part if index % 2 else escape(part, lines=True) for index, part in enumerate(parts))


def escape_json(value: Any) -> str:
    """`value` as one line of JSON in printable ASCII: any JSON reader gets the value, any terminal shows the line."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).replace("\x7f", "\\u007f")


def plain(text: str) -> str:
    """`text` for a file: no colours, no movements. What would be written over something stands on a line of its own."""
    if "\x1b" in text or not text.isascii():
        text = _CODES.sub("", text)
    return escape(text.replace("\r\n", "\n").replace("\r", "\n"), lines=True)


def cut(text: str, width: int) -> str:
    """`text` in one line of at most `width` characters."""
    shown = escape(text[: width + 1])
    return shown if len(shown) <= width else shown[: width - 1] + "…"


def _spelled(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    if known is not None:
        return known
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
