"""Our ends of a child's pipes, driven by the event loop: no task, no thread, nothing that can block.

Every pipe is served all the time, so a child that floods one never starves another. The only pipe that may be left
unread is stdout while its lines wait for a slow reader: that is the back-pressure, and it is bounded in bytes.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import termios
from collections import deque
from collections.abc import Callable
from typing import IO

from agentkeel.adapters.providers._wire.lines import Line, LongLine, Splitter
from agentkeel.errors import STDERR_MAX_BYTES, STDERR_MAX_LINES, ProviderError

__all__ = ["Incoming", "Outgoing", "StdinClosed", "Tail", "WaitingLines"]

# A bigger pipe means fewer wake-ups. The kernel gives an unprivileged user 64 MiB of them in all, then default sizes.
PIPE_BYTES = 1 << 18
_READ_BYTES = 1 << 18
_READS_PER_WAKE_UP = 4


class StdinClosed(ProviderError):
    """The child does not read its stdin any more: it has ended, or closed it. What was written may not have arrived."""

    default_code = "agent_crashed"


class Incoming:
    """The reading end of a child's stdout or stderr.

    `deliver(chunk)` gets all bytes in order and says whether to go on reading; `resume()` does so later.
    `ended()` is called once, when no more will come.
    """

    def __init__(self, pipe: IO[bytes], *, deliver: Callable[[bytes], bool], ended: Callable[[], None]) -> None:
        self._pipe = pipe
        self._fd = fd = pipe.fileno()
        self._deliver = deliver
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._left: int | None = None  # Bytes still to be read before `_cut`; None while no end is near.
        self._cut = False
        self.open = True
        os.set_blocking(fd, False)
        # Refused when the user's share is used up: the default size works as well.
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.resume()

    def resume(self) -> None:
        """Reading goes on."""
        if self.open and not self._reading:
            self._loop.add_reader(self._fd, self._readable)
            self._reading = True

    def expect_end(self) -> None:
        """The writer we care about is gone: all it wrote is in the pipe now, and will be delivered before `cut`."""
        if self.open and self._left is None:
            self._left = _bytes_in(self._fd)

    def cut(self) -> None:
        """Reading ends as soon as all that was there at `expect_end` is delivered, whoever still holds the pipe."""
        self._cut = True
        if self.open and not self._left:
            self._end()

    def read_out(self) -> None:
        """All that is in the pipe now is delivered, wanted or not, and the pipe is closed."""
        if self.open:
            left = _bytes_in(self._fd)
            while left > 0 and (chunk := self._read(left)):
                left -= len(chunk)
                self._deliver(chunk)
            self._end()

    def _readable(self) -> None:
        for _ in range(_READS_PER_WAKE_UP):
            chunk = self._read(_READ_BYTES)
            if chunk is None:
                return
            if not chunk:
                self._end()
                return
            wanted = self._deliver(chunk)
            if self._left is not None:
                self._left = max(0, self._left - len(chunk))
                if self._cut and not self._left:
                    self._end()
                    return
            if not wanted:
                self._pause()
                return
            if len(chunk) < _READ_BYTES:
                return

    def _read(self, size: int) -> bytes | None:
        try:
            return os.read(self._fd, size)
        except BlockingIOError:
            return None

    def _pause(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._fd)
            self._reading = False

    def _end(self) -> None:
        self._pause()
        self.open = False
        self._pipe.close()
        self._ended()


class WaitingLines:
    """Lines of a child's stdout that nobody has taken yet, bounded in bytes."""

    def __init__(self, splitter: Splitter, *, limit: int) -> None:
        self._splitter = splitter
        self._limit = limit
        self._lines: list[Line] = []
        self._bytes = 0
        self._changed = asyncio.Event()
        self.ended = False
        self.dropping = False
        self.dropped_bytes = 0

    def feed(self, chunk: bytes) -> bool:
        """The lines of `chunk` wait; False when so many bytes wait that reading must pause.

        A line that is still incomplete does not count: it can only be taken once its end was read.
        """
        spilled = self._splitter.spilled_bytes
        lines = self._splitter.feed(chunk)
        if not lines:
            return True
        if self.dropping and self._bytes > self._limit:
            self.dropped_bytes += len(chunk)
            _close(lines)
            return True
        self._add(lines, len(chunk) + self._splitter.spilled_bytes - spilled)
        return self.dropping or self._bytes <= self._limit

    def end(self) -> None:
        """No more bytes will come; an unfinished last line is a line."""
        rest = self._splitter.finish()
        if rest:
            self._add(rest, 0)
        self.ended = True
        self._changed.set()

    def take(self) -> list[Line]:
        """All waiting lines, at once."""
        lines, self._lines, self._bytes = self._lines, [], 0
        if not self.ended:
            self._changed.clear()
        return lines

    async def changed(self) -> None:
        """Lines wait, or none will come any more."""
        await self._changed.wait()

    def close(self) -> None:
        """Lines that nobody took are dropped, with their files."""
        _close(self._lines)
        self._lines = []
        self._splitter.close()
        self.ended = True
        self._changed.set()

    def _add(self, lines: list[Line], size: int) -> None:
        self._lines += lines
        self._bytes += size
        self._changed.set()


class Tail:
    """The end of a child's stderr."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self.total = 0

    def feed(self, chunk: bytes) -> bool:
        """`chunk` is the newest; what is older than `limit` bytes is forgotten."""
        self.total += len(chunk)
        self._bytes += chunk
        if len(self._bytes) > 2 * self._limit:
            del self._bytes[: -self._limit]
        return True

    @property
    def kept(self) -> bytes:
        """The last bytes, as many as the limit allows."""
        return bytes(self._bytes[-self._limit :])

    @property
    def text(self) -> str:
        """The last 200 lines within the last 16,384 bytes, cut between characters; bad UTF-8 is replaced."""
        tail = bytes(self._bytes[-min(self._limit, STDERR_MAX_BYTES) :])
        if len(tail) < self.total:
            # The cut may have gone through a character: drop its continuation bytes, 3 at most.
            begin = next((i for i in range(min(4, len(tail))) if tail[i] & 0xC0 != 0x80), 0)
            tail = tail[begin:]
        text = tail.decode("utf-8", "replace")
        while len(text.encode()) > STDERR_MAX_BYTES:  # Each replaced byte has become three.
            text = text[-(len(text) * STDERR_MAX_BYTES // len(text.encode())) :]
        return "".join(text.splitlines(keepends=True)[-STDERR_MAX_LINES:])

    @property
    def truncated(self) -> bool:
        """Whether `text` lacks something the child wrote."""
        return self.total > len(self._bytes) or len(self.text) < len(self._bytes.decode("utf-8", "replace"))


class Outgoing:
    """The writing end of a child's stdin. Bytes leave in the order given, also after a writer was cancelled."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._fd = fd = pipe.fileno()
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[memoryview] = deque()
        self._writers: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._given = 0
        self._written = 0
        self._closing = False
        self._broken: OSError | None = None
        self.open = True
        os.set_blocking(fd, False)

    async def write(self, data: bytes) -> None:
        """All of `data` is in the pipe. Waits while the child does not read.

        Cancelled, it stops waiting; the bytes still go out, whole, so that no message is ever cut in two.

        Raises:
            StdinClosed: The child will not get it (all).
        """
        if not self.open or self._closing:
            raise self._error()
        self._waiting.append(memoryview(data))
        self._given += len(data)
        self._flush()
        if self._broken is not None:
            raise self._error()
        if self._written < self._given:
            done: asyncio.Future[None] = self._loop.create_future()
            self._writers.append((self._given, done))
            await done

    def close_when_written(self) -> None:
        """The child sees the end of its stdin after all bytes given so far."""
        self._closing = True
        if self.open and not self._waiting:
            self._end()

    def close(self) -> None:
        """The pipe is closed now. Writers still waiting get `StdinClosed`."""
        self._closing = True
        if self.open:
            self._end()

    def _flush(self) -> None:
        while self._waiting:
            try:
                count = os.write(self._fd, self._waiting[0])
            except BlockingIOError:
                self._loop.add_writer(self._fd, self._flush)
                return
            except OSError as error:  # EPIPE
                self._broken = error
                self._end()
                return
            self._written += count
            rest = self._waiting[0][count:]
            if rest:
                self._waiting[0] = rest
            else:
                self._waiting.popleft()
        self._loop.remove_writer(self._fd)
        self._wake()
        if self._closing:
            self._end()

    def _wake(self) -> None:
        while self._writers and (not self.open or self._writers[0][0] <= self._written):
            upto, done = self._writers.popleft()
            if done.done():
                continue
            if upto <= self._written:
                done.set_result(None)
            else:
                done.set_exception(self._error())

    def _end(self) -> None:
        self.open = False
        self._loop.remove_writer(self._fd)
        self._pipe.close()
        self._waiting.clear()
        self._wake()

    def _error(self) -> StdinClosed:
        error = StdinClosed(
            "The agent does not read its input any more; what was sent last may not have arrived.",
            details={"kind": "transport_exit", "bytes_written": self._written},
        )
        error.__cause__ = self._broken
        return error


def _bytes_in(fd: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def _close(lines: list[Line]) -> None:
    for line in lines:
        if isinstance(line, LongLine):
            line.close()
