r"""Foreign text as a person may see it: nothing hidden, nothing reordered, nothing that a reader's program obeys.

Control characters, bidi marks and characters without width are shown as `\x1b` or `\u202e`. A backslash stays as it
is, so this is for reading, not for parsing back. Source: spec/reliability.md B2; Unicode TR 36 and 39.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["line", "lines", "marked", "shortened"]

# C0, DEL and C1; soft hyphen and others of no width; bidi marks, embeddings and isolates; line and paragraph
# separators; fillers that look like nothing; tags and variation selectors beyond the two of emoji; lone surrogates.
_UNSAFE = (
    "\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff"
)
_ALL = re.compile(f"[{_UNSAFE}]")
_NOT_LINES = re.compile(f"(?![\n\t])[{_UNSAFE}]")


def line(text: str) -> str:
    """`text` in one line."""
    return _ALL.sub(lambda match: _spelled(match[0]), text)


def lines(text: str) -> str:
    """`text` with its newlines and tabs; a carriage return before a newline goes."""
    return marked(text, lambda spelled: spelled)


def marked(text: str, mark: Callable[[str], str]) -> str:
    """Like `lines`, with `mark` around every character that is spelled out."""
    if text.isascii() and text.isprintable():
        return text
    return _NOT_LINES.sub(lambda match: mark(_spelled(match[0])), text.replace("\r\n", "\n"))


def shortened(text: str, most: int) -> str:
    """`text`, or its first `most` characters and a word on how many are left out."""
    if len(text) <= most:
        return text
    return f"{text[:most]}\n… {len(text) - most:,} more characters; the JSONL export has them."


def _spelled(character: str) -> str:
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    if known is not None:
        return known
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
