"""JSON-RPC, one object a line, without the "jsonrpc" member, as `codex app-server` speaks it (0.169.0).

`Peer` owns no pipe and no clock: it makes the bytes to write, says what a line means, and keeps the table of calls that
wait. `Calls` is the thin async side: `call` writes and waits while its owner feeds the lines that arrive.

That server silently loses requests under a burst (of 1,000 at once 239 were never answered), so at most 64 calls wait
for their answers, and each has a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from agentkeel.adapters.providers._wire.jsonl import Junk, decode
from agentkeel.adapters.providers._wire.lines import Line
from agentkeel.errors import AtCapacity, ProviderError, ProviderTimeout

__all__ = [
    "MAX_UNANSWERED",
    "CallFailed",
    "Calls",
    "Message",
    "Notification",
    "Peer",
    "Request",
    "Response",
    "RpcError",
    "Unparsable",
]

MAX_UNANSWERED = 64

_encoder = msgspec.json.Encoder()


class RpcError(msgspec.Struct, frozen=True, kw_only=True):
    """The error member of an answer."""

    code: int
    message: str
    data: Any = None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. `method` is the call it answers; None when no call waits for it (late, doubled or never asked)."""

    id: int | str | None
    method: str | None
    result: Any = None
    error: RpcError | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The other side asks; it waits for `Peer.answer` or `Peer.refuse` with this `id`."""

    id: int | str
    method: str
    params: Any = None


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """The other side tells; no answer is expected. `members` has all else of the object (`emittedAtMs`)."""

    method: str
    params: Any = None
    members: dict[str, Any] = {}


class Unparsable(msgspec.Struct, frozen=True, kw_only=True):
    """A line that is no message; its bytes are kept."""

    junk: Junk


Message: TypeAlias = Response | Request | Notification | Unparsable


class _Waiting(msgspec.Struct, frozen=True):
    method: str
    deadline: float


class Peer:
    """Our side of the conversation. Times are seconds of any one clock, given by the caller."""

    def __init__(self, *, max_unanswered: int = MAX_UNANSWERED) -> None:
        self._max_unanswered = max_unanswered
        self._last_id = 0
        self._waiting: dict[int | str, _Waiting] = {}

    @property
    def unanswered(self) -> int:
        """How many calls wait for their answers."""
        return len(self._waiting)

    def request(self, method: str, params: Any = None, *, deadline: float = float("inf")) -> tuple[int, bytes]:
        """A call waits in the table from now on; its id, and the bytes to write.

        Raises:
            AtCapacity: So many calls wait already. Write nothing; wait for an answer first.
        """
        if len(self._waiting) >= self._max_unanswered:
            raise AtCapacity(
                f"{len(self._waiting)} requests to the agent are unanswered; {method} was not sent. "
                "Wait for an answer first.",
                details={"method": method, "unanswered": len(self._waiting)},
            )
        data = {"id": self._last_id + 1, "method": method}
        encoded = _line(data if params is None else {**data, "params": params})
        self._last_id += 1
        self._waiting[self._last_id] = _Waiting(method, deadline)
        return self._last_id, encoded

    def notify(self, method: str, params: Any = None) -> bytes:
        """The bytes of a notification."""
        return _line({"method": method} if params is None else {"method": method, "params": params})

    def answer(self, request_id: int | str, result: Any) -> bytes:
        """The bytes of an answer to a `Request`."""
        return _line({"id": request_id, "result": result})

    def refuse(self, request_id: int | str, code: int, message: str) -> bytes:
        """The bytes of an error answer to a `Request`."""
        return _line({"id": request_id, "error": {"code": code, "message": message}})

    def forget(self, request_id: int) -> None:
        """The call waits no more; an answer that still comes has no `method`."""
        self._waiting.pop(request_id, None)

    def expire(self, now: float) -> list[tuple[int | str, str]]:
        """Calls whose deadline has passed, as (id, method). They wait no more."""
        late = [(call, waiting.method) for call, waiting in self._waiting.items() if waiting.deadline <= now]
        for call, _ in late:
            del self._waiting[call]
        return late

    def feed(self, line: Line) -> Message:
        """What `line` says. An answer ends the wait of its call."""
        value = decode(line)
        if isinstance(value, Junk):
            return Unparsable(junk=value)
        message = self._read(value)
        if message is None:
            raw = line if isinstance(line, bytes) else line.head(1 << 16)
            size = len(line) if isinstance(line, bytes) else line.size
            return Unparsable(junk=Junk(raw=raw, reason="neither request, answer nor notification", size=size))
        return message

    def _read(self, value: dict[str, Any]) -> Message | None:
        match value:
            case {"method": str(method), "id": int() | str() as call} if not isinstance(call, bool):
                return Request(id=call, method=method, params=value.get("params"))
            case {"method": str(method)} if "id" not in value:
                rest = {k: v for k, v in value.items() if k not in {"method", "params"}}
                return Notification(method=method, params=value.get("params"), members=rest)
            case {"id": int() | str() | None as call, "error": dict(error)}:
                return self._answered(call, error=_error(error))
            case {"id": int() | str() as call, "result": result}:
                return self._answered(call, result=result)
        return None

    def _answered(self, call: int | str | None, *, result: Any = None, error: RpcError | None = None) -> Response:
        waiting = self._waiting.pop(call, None) if call is not None else None
        return Response(id=call, method=waiting.method if waiting else None, result=result, error=error)


class CallFailed(ProviderError):
    """The other side answered with an error; `details` has its `rpc_code`, `method` and `data`."""

    default_code = "provider_error"

    def __init__(self, method: str, error: RpcError) -> None:
        super().__init__(
            f"The agent refused {method}: {error.message} ({error.code}).",
            details={"method": method, "rpc_code": error.code, "data": error.data, "kind": "rpc_error"},
        )
        self.method = method
        self.error = error


class Calls:
    """Calls over a pipe. Whoever reads the pipe feeds its lines here, and keeps what is no answer.

    Args:
        write: Writes bytes to the other side, such as `Process.write`.
        peer: The state of the conversation.
    """

    def __init__(self, write: Callable[[bytes], Awaitable[None]], *, peer: Peer | None = None) -> None:
        self.peer = peer or Peer()
        self._write = write
        self._answers: dict[int | str, asyncio.Future[Response]] = {}
        self._ended: ProviderError | None = None

    async def call(self, method: str, params: Any = None, *, timeout: float = 30.0) -> Any:  # noqa: ASYNC109
        """The result of `method`. Cancelled or late, the call is forgotten; its answer then comes out of `feed`.

        Raises:
            CallFailed: The other side answered with an error.
            ProviderTimeout: No answer within `timeout` seconds.
            AtCapacity: 64 calls wait already. Nothing was sent.
            ProviderError: The other side is gone (see `end`).
        """
        if self._ended is not None:
            raise self._ended
        call, data = self.peer.request(method, params)
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._answers[call] = answer
        try:
            async with asyncio.timeout(timeout):
                await self._write(data)
                response = await answer
        except TimeoutError as error:
            raise ProviderTimeout(
                f"The agent did not answer {method} within {timeout:g} s.",
                details={"method": method, "timeout_seconds": timeout, "kind": "timeout"},
            ) from error
        finally:
            self.peer.forget(call)
            del self._answers[call]
            if answer.done() and not answer.cancelled():
                answer.exception()  # Seen, even if the write failed first.
        if response.error is not None:
            raise CallFailed(method, response.error)
        return response.result

    async def notify(self, method: str, params: Any = None) -> None:
        """The other side is told."""
        await self._write(self.peer.notify(method, params))

    async def answer(self, request_id: int | str, result: Any) -> None:
        """The other side has the result of its request."""
        await self._write(self.peer.answer(request_id, result))

    async def refuse(self, request_id: int | str, code: int, message: str) -> None:
        """The other side's request has failed."""
        await self._write(self.peer.refuse(request_id, code, message))

    def feed(self, line: Line) -> Message | None:
        """What `line` says, or None if it was the answer of a call that waits here."""
        message = self.peer.feed(line)
        if isinstance(message, Response) and message.id is not None:
            answer = self._answers.get(message.id)
            if answer is not None and not answer.done():
                answer.set_result(message)
                return None
        return message

    def end(self, error: ProviderError) -> None:
        """All calls, waiting and to come, raise `error`: the other side is gone."""
        self._ended = error
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)


def _line(value: Any) -> bytes:
    return _encoder.encode(value) + b"\n"


def _error(error: dict[str, Any]) -> RpcError:
    code, message = error.get("code"), error.get("message")
    return RpcError(
        code=code if isinstance(code, int) else 0,
        message=message if isinstance(message, str) else "",
        data=error.get("data"),
    )
