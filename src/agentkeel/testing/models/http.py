"""Just enough HTTP/1.1 to serve agents on loopback (RFC 9112): keep-alive, sized and chunked bodies, streams out.

Everything that is read is bounded. A client that goes away cancels the answer it was getting, and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TypeAlias

import anyio
from anyio.abc import ByteStream
from msgspec import Struct

__all__ = ["BadRequest", "HttpRequest", "Responder", "Answer", "serve", "ClientLeft"]

_MAX_HEAD_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024
_DISCARD_SECONDS = 1.0
_REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 413: "Content Too Large", 415: "Unsupported Media Type",
    429: "Too Many Requests", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
    501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
    505: "HTTP Version Not Supported", 529: "Overloaded",
}  # fmt: skip


class BadRequest(Exception):
    """The request cannot be read; the connection closes after an answer with this `status`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ClientLeft(Exception):
    """The client closed the connection before its answer was complete."""


class HttpRequest(Struct, frozen=True, kw_only=True):
    """A whole request. `path` is without the query; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    keep_alive: bool


class Responder:
    """The answer to one request: `send` it at once, or `start` a stream and send its pieces, or `cut` it."""

    def __init__(self, stream: ByteStream, *, keep_alive: bool, head_only: bool) -> None:
        self._stream = stream
        self._head_only = head_only
        self.keep_alive = keep_alive

    async def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole JSON answer."""
        head = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        await self._send(self._head(status, head) + (b"" if self._head_only else body))

    async def go_on(self) -> None:
        """Tell a client that waits for it (`Expect: 100-continue`) to send its body."""
        await self._send(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def start(self) -> None:
        """Send the head of a stream of server-sent events."""
        head = {"content-type": "text/event-stream", "cache-control": "no-cache", "transfer-encoding": "chunked"}
        await self._send(self._head(200, head))

    async def piece(self, data: bytes) -> None:
        """Send one non-empty piece of the stream, as one chunk."""
        await self._send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        """End the stream."""
        await self._send(b"0\r\n\r\n")

    async def cut(self, promised: bytes | None = None) -> None:
        """Close the connection now. With `promised`, send the head and the first half of that body before."""
        self.keep_alive = False
        if promised is not None:
            head = {"content-type": "application/json", "content-length": str(len(promised))}
            await self._send(self._head(200, head) + promised[: len(promised) // 2])

    def _head(self, status: int, headers: Mapping[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Scripted')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not self.keep_alive:
            lines.append("connection: close")
        return "\r\n".join((*lines, "", "")).encode("latin-1")

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise ClientLeft from error


Answer: TypeAlias = Callable[[HttpRequest, Responder], Awaitable[None]]
Refuse: TypeAlias = Callable[[BadRequest], bytes]


async def serve(stream: ByteStream, answer: Answer, *, refuse: Refuse, max_body_bytes: int) -> None:
    """Answer the requests of one connection, in order, until the client is gone or the connection should close.

    The caller closes `stream`.

    Args:
        answer: Called for each request. It is cancelled when the client goes away.
        refuse: Gives the body for a request that cannot be read; the connection closes after it.
    """
    connection = _Connection(stream, max_body_bytes)
    try:
        while (request := await connection.read()) is not None:
            responder = Responder(stream, keep_alive=request.keep_alive, head_only=request.method == "HEAD")
            async with anyio.create_task_group() as group:
                group.start_soon(connection.watch, group.cancel_scope)
                with suppress(ClientLeft):  # nobody is left to tell
                    await answer(request, responder)
                group.cancel_scope.cancel()
            if connection.ended or not responder.keep_alive:
                return
    except BadRequest as bad:
        responder = Responder(stream, keep_alive=False, head_only=False)
        with suppress(ClientLeft):
            await responder.send(bad.status, refuse(bad))
            await connection.discard()


class _Connection:
    """Reads requests off a stream; keeps what a client sends ahead of time."""

    def __init__(self, stream: ByteStream, max_body_bytes: int) -> None:
        self._stream = stream
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray()
        self.ended = False

    async def read(self) -> HttpRequest | None:
        """The next request, or None when the client is done.

        Raises:
            BadRequest: It is malformed, or larger than we take.
        """
        head = await self._until(b"\r\n\r\n", _MAX_HEAD_BYTES, 431, "the request head")
        if head is None:
            return None
        method, target, headers, old = _parse_head(head)
        if headers.get("expect", "").lower() == "100-continue":
            await Responder(self._stream, keep_alive=True, head_only=False).go_on()
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise BadRequest(415, f"content-encoding {headers['content-encoding']} is not read here; send it plain")
        wish = headers.get("connection", "").lower()
        return HttpRequest(
            method=method,
            path=target.partition("?")[0],
            headers=headers,
            body=await self._body(headers),
            keep_alive="keep-alive" in wish if old else "close" not in wish,
        )

    async def watch(self, scope: anyio.CancelScope) -> None:
        """Cancel `scope` when the client closes; keep what it sends meanwhile."""
        while len(self._buffer) <= _MAX_HEAD_BYTES:
            if not await self._more():
                scope.cancel()
                return

    async def discard(self) -> None:
        """Say that we are done, and read on for a moment: closing at once could destroy an answer not read yet."""
        with anyio.move_on_after(_DISCARD_SECONDS), suppress(anyio.BrokenResourceError, OSError):
            await self._stream.send_eof()
            while await self._more():
                self._buffer.clear()

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if coding := headers.get("transfer-encoding"):
            if coding.lower() != "chunked":
                raise BadRequest(501, f"transfer-encoding {coding} is not read here")
            if "content-length" in headers:
                raise BadRequest(400, "both transfer-encoding and content-length are given")
            return await self._chunks()
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise BadRequest(400, f"content-length {length!r} is no number")
        if int(length) > self._max_body_bytes:
            raise self._too_large()
        return await self._exactly(int(length))

    async def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            line = await self._until(b"\r\n", 1024, 400, "a chunk's size") or b""
            try:
                size = int(line.partition(b";")[0].strip(), 16)
            except ValueError as error:
                raise BadRequest(400, f"chunk size {line[:32]!r} is no hexadecimal number") from error
            if size < 0 or len(body) + size > self._max_body_bytes:
                raise self._too_large()
            if size == 0:
                while await self._until(b"\r\n", _MAX_HEAD_BYTES, 431, "the trailers"):
                    pass
                return bytes(body)
            body += await self._exactly(size)
            if await self._exactly(2) != b"\r\n":
                raise BadRequest(400, "a chunk is longer than its size says")

    async def _until(self, mark: bytes, limit: int, status: int, what: str) -> bytes | None:
        """The bytes before `mark`, which is taken too; None at a clean end of the connection."""
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > limit:
                raise BadRequest(status, f"{what} is longer than {limit} bytes")
            if not await self._more():
                if self._buffer:
                    raise BadRequest(400, f"the connection ended inside {what}")
                return None
        taken = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return taken

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if not await self._more():
                raise BadRequest(400, f"the connection ended {count - len(self._buffer)} bytes before the body did")
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _more(self) -> bool:
        try:
            self._buffer += await self._stream.receive(_READ_BYTES)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.ended = True
        return not self.ended

    def _too_large(self) -> BadRequest:
        return BadRequest(413, f"the body is larger than {self._max_body_bytes} bytes")


def _parse_head(head: bytes) -> tuple[str, str, dict[str, str], bool]:
    """Method, target, headers, and whether the client speaks HTTP/1.0."""
    first, *lines = head.decode("latin-1").split("\r\n")
    match first.split(" "):
        case [method, target, "HTTP/1.1" | "HTTP/1.0" as version] if method.isalpha() and target:
            pass
        case [_, _, version] if version.startswith("HTTP/"):
            raise BadRequest(505, f"{version} is not spoken here; use HTTP/1.1")
        case _:
            raise BadRequest(400, f"{first[:64]!r} is no request line")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(400, f"{line[:64]!r} is no header")
        headers[name.lower()] = value.strip()
    return method, target, headers, version == "HTTP/1.0"
