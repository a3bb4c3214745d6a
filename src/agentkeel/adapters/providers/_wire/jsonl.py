"""A line becomes a JSON object, or `Junk` that keeps its bytes: nothing an agent prints is lost or fatal at once.

Programs mix banners, warnings, broken UTF-8 and cut JSON into a stream that should be one object a line. Such a line is
data for the log (as a raw event); only many of them in a row mean that the other side speaks another protocol.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentkeel.adapters.providers._wire.lines import Line, LongLine
from agentkeel.errors import ProviderError

__all__ = ["BadLines", "Junk", "decode"]

_KEPT_OF_LONG = 1 << 16
_decoder = msgspec.json.Decoder()


class Junk(msgspec.Struct, frozen=True, kw_only=True):
    """A line that is no JSON object.

    `raw` has its bytes, or the first 64 KiB of a line that was spilled; `size` is the length of the whole line.
    """

    raw: bytes
    reason: str
    size: int

    @property
    def text(self) -> str:
        """The bytes as text that any log can hold: what is no UTF-8, and NUL, is spelled as an escape."""
        return self.raw.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")


def decode(line: Line) -> dict[str, Any] | Junk:
    """The JSON object on `line`, or why there is none.

    A long line is read into memory (at most `max_bytes` of its splitter) and stays open: its owner closes it.
    """
    if isinstance(line, LongLine) and line.truncated:
        return Junk(raw=line.head(_KEPT_OF_LONG), reason=f"line cut ({line.lost})", size=line.size)
    data = line.read() if isinstance(line, LongLine) else line
    try:
        value = _decoder.decode(data)
    except (ValueError, RecursionError) as error:
        # msgspec.DecodeError and UnicodeDecodeError are ValueErrors; deep nesting is a RecursionError.
        return Junk(raw=_bounded(line, data), reason=str(error), size=len(data))
    if isinstance(value, dict):
        return value
    return Junk(raw=_bounded(line, data), reason="not a JSON object", size=len(data))


def _bounded(line: Line, data: bytes) -> bytes:
    return data[:_KEPT_OF_LONG] if isinstance(line, LongLine) else data


class BadLines:
    """Counts bad lines in a row; one good line starts the count anew."""

    def __init__(self, limit: int = 20) -> None:
        self.limit = limit
        self.in_a_row = 0
        self.total = 0

    def observe(self, value: object) -> None:
        """Count `value` if it is `Junk`.

        Raises:
            ProviderError: `agent_protocol_error`, this is the `limit`-th bad line in a row. Stop the agent.
        """
        if not isinstance(value, Junk):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        self.total += 1
        if self.in_a_row >= self.limit:
            raise ProviderError(
                f"The agent sent {self.in_a_row} lines in a row that are no JSON objects; the last: "
                f"{value.text[:200]!r}. All lines are kept as raw events. Check its version and its command line.",
                code="agent_protocol_error",
                details={"kind": "protocol_error", "bad_lines": self.in_a_row, "reason": value.reason},
            )
