"""What a command wrote: streamed while it comes, kept up to a limit, read to the end whatever its size. Pure."""

from __future__ import annotations

import codecs
import signal
from typing import Any

from agentkeel.adapters.providers._wire.lines import Line, LongLine, Splitter

__all__ = ["Chunks", "Transcript", "exit_of"]


class Chunks(Splitter):
    """Cuts nothing: every chunk of output comes out as it was read."""

    def feed(self, chunk: bytes) -> list[Line]:
        """The chunk itself."""
        return [chunk]

    def finish(self) -> list[Line]:
        """Nothing is held back."""
        return []


class Transcript:
    """The first `limit` bytes of an output, as text.

    Bytes that are no UTF-8 become U+FFFD; a character that the limit cuts in two is left out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pieces: list[str] = []
        self.total = 0

    def add(self, lines: list[Line]) -> str:
        """The text that is new in `lines`: empty beyond the limit, or while a character is incomplete."""
        chunk = b"".join(line.head(self._limit) if isinstance(line, LongLine) else line for line in lines)
        wanted = chunk[: max(0, self._limit - self.total)]
        self.total += len(chunk)
        return self._keep(self._decoder.decode(wanted))

    def finish(self) -> str:
        """The text that was still held back: a character that never was completed."""
        return "" if self.truncated else self._keep(self._decoder.decode(b"", final=True))

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self._pieces)

    @property
    def truncated(self) -> bool:
        """Whether there was more than is kept."""
        return self.total > self._limit

    def _keep(self, text: str) -> str:
        if text:
            self._pieces.append(text)
        return text


def exit_of(returncode: int) -> dict[str, Any]:
    """Exit code and signal of a child, as a shell would tell it: a death by signal n is 128 + n, and is named."""
    if returncode >= 0:
        return {"exit_code": returncode}
    number = -returncode
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return {"exit_code": 128 + number, "signal": name}
