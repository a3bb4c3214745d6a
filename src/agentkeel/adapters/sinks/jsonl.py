"""Events as lines of JSON, for programs: whole, or as few bytes as tell what happened.

Both are printable ASCII, so any JSON reader gets the values and any terminal can show the file. A line that is no JSON
is one that a crash cut off: its event follows, whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from agentkeel.adapters.sinks.appending import AppendedFile
from agentkeel.core import events as ev
from agentkeel.core.codec import encode_body, kind_of
from agentkeel.core.escape import escape_json
from agentkeel.core.events import Event

__all__ = ["Jsonl"]

TEXT_CHARACTERS = 120
_SHORT: Mapping[str, str] = {
    "run_started": "rs",
    "message_streamed": "ms",
    "message_received": "mr",
    "tool_call_started": "ts",
    "tool_call_completed": "tc",
    "tool_call_failed": "tf",
    "token_usage_updated": "tu",
    "run_completed": "rc",
    "run_failed": "rf",
    "run_cancelled": "rx",
    "run_timeout": "rt",
    "run_interrupted": "ri",
    "error_occurred": "er",
}


class Jsonl:
    """A line for each event; rendered text is not used.

    full: `{"ts", "type", "data", "session_id", "run_id", "id", "sequence"}`, `ts` being when it happened; what is null
    is left out.

    compact: `{"t", "id", "e"}`, `t` being milliseconds when it was written, and `e` the event in short: `t` its type
    (rs ms mr ts tc tf tu rc rf rx rt ri er, else in full), `m` model, `l` characters, `n` name, `i` and `o` tokens, `$`
    dollars, `sr` stop reason, `x` an error's first 120 characters.

    Args:
        buffered: The file is written to in pieces of 64 KiB, and by `flush`. For an outbox, which flushes often.
        wall_ms: Milliseconds since 1970.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: Literal["full", "compact"] = "full",
        *,
        buffered: bool = False,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._file = AppendedFile(path, buffered=buffered)
        self._line = _full if mode == "full" else lambda event: _compact(event, wall_ms())

    async def open(self) -> None:
        """The file is open, or made (mode 0600).

        Raises:
            StorageError: It cannot be opened (`storage_write_failed`).
        """
        await self._file.open()

    async def write(self, event: Event | None, text: str) -> None:
        """The event's line is at the end of the file.

        Raises:
            StorageError: It is not there whole (`storage_write_failed`).
        """
        if event is not None:
            await self._file.write(escape_json(self._line(event)) + "\n")

    async def flush(self) -> None:
        """The disk has all lines."""
        await self._file.flush()

    async def close(self) -> None:
        """The file is closed."""
        await self._file.close()


def _full(event: Event) -> dict[str, Any]:
    line = {
        "ts": event.at.isoformat(),
        "type": kind_of(event.data),
        "data": msgspec.json.decode(encode_body(event.data)),
        "session_id": event.session_id,
        "run_id": event.run_id,
        "id": event.id,
        "sequence": event.sequence,
    }
    return {name: value for name, value in line.items() if value is not None}


def _compact(event: Event, wall_ms: int) -> dict[str, Any]:
    kind = kind_of(event.data)
    short = {"t": _SHORT.get(kind, kind), **_told(event.data)}
    return {"t": wall_ms, "id": event.id, "e": {name: value for name, value in short.items() if value is not None}}


def _told(data: ev.Body) -> dict[str, Any]:
    match data:
        case ev.RunStarted():
            return {"m": data.model}
        case ev.MessageStreamed():
            return {"l": len(data.delta)}
        case ev.MessageReceived():
            return {"l": len(data.content)}
        case ev.ToolCallStarted() | ev.ToolCallCompleted() | ev.ToolCallFailed():
            return {"n": data.tool_name}
        case ev.TokenUsageUpdated():
            return {"i": data.usage.input_tokens, "o": data.usage.output_tokens, "$": data.cost_usd}
        case _:
            return _ended(data)


def _ended(data: ev.Body) -> dict[str, Any]:
    match data:
        case ev.RunCompleted():
            used = {"i": data.usage.input_tokens, "o": data.usage.output_tokens} if data.usage.total_tokens else {}
            return {"sr": data.stop_reason, **used, "$": data.cost_usd}
        case ev.RunFailed() | ev.ErrorOccurred() | ev.SessionFailed() | ev.AttemptFailed():
            return {"x": data.error_message[:TEXT_CHARACTERS]}
        case _:
            return {}
