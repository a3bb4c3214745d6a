"""A scripted model on loopback, for running the real agent programs offline and deterministically.

`ModelServer` speaks the Anthropic Messages wire (Claude Code, and any client of that API) and the OpenAI Responses
wire (Codex, likewise), streaming and whole. The agents, their tools and the files they write are real; only the model
is a script.

    async with ModelServer([Shell("echo hi > hi.txt"), "Done."]) as server:
        environment = server.claude_env(home)

What a model can do is in `.models.steps`, how replies are chosen in `.models.scripts`;
all of it can be imported from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import anyio
import msgspec
from anyio.abc import SocketAttribute, SocketStream
from anyio.from_thread import start_blocking_portal
from msgspec import Struct

from agentkeel.testing.models import http, surroundings
from agentkeel.testing.models.messages import MessagesFormat
from agentkeel.testing.models.requests import (
    MalformedRequest,
    ModelRequest,
    OfferedTool,
    Purpose,
    Wire,
    read_messages,
    read_responses,
)
from agentkeel.testing.models.responses import ResponsesFormat
from agentkeel.testing.models.scripts import (
    ByPrompt,
    FromPrompt,
    InOrder,
    Script,
    ScriptLike,
    prompt_with,
    script_of,
)
from agentkeel.testing.models.steps import (
    CallTool,
    Cut,
    Delay,
    Edit,
    Fail,
    Finish,
    Hang,
    Reply,
    ReplyLike,
    Say,
    ScriptError,
    Shell,
    Step,
    Think,
    Usage,
    Write,
    reply_of,
)
from agentkeel.testing.models.turn import Turn, WireFormat, turn_of

__all__ = [
    "ModelServer",
    "ModelRequest",
    "OfferedTool",
    "Exchange",
    "Refused",
    "Wire",
    "Purpose",
    "Reply",
    "ReplyLike",
    "Step",
    "Say",
    "Think",
    "CallTool",
    "Shell",
    "Write",
    "Edit",
    "Usage",
    "Finish",
    "Delay",
    "Fail",
    "Cut",
    "Hang",
    "Script",
    "ScriptLike",
    "ScriptError",
    "InOrder",
    "ByPrompt",
    "FromPrompt",
    "prompt_with",
]

_FORMATS: Mapping[Wire, WireFormat] = {"messages": MessagesFormat(), "responses": ResponsesFormat()}
_ROUTES: Mapping[str, tuple[str, Callable[..., ModelRequest] | None]] = {
    "/v1/messages": ("POST", read_messages),
    "/v1/messages/count_tokens": ("POST", partial(read_messages, count=True)),
    "/v1/responses": ("POST", read_responses),
    "/v1/models": ("GET", None),
}

Outcome: TypeAlias = Literal["answered", "failed", "cut", "abandoned"]


class Exchange(Struct, frozen=True, kw_only=True):
    """A request, the reply it got, and how that ended.

    `outcome`: `answered` in full; `failed` or `cut`, as scripted; or `abandoned`, when the agent closed its connection
    or the server stopped before the end.
    """

    request: ModelRequest
    reply: Reply
    outcome: Outcome


class Refused(Struct, frozen=True, kw_only=True):
    """A request that is none of ours, or malformed: what was asked, and the status and message it got."""

    method: str
    path: str
    status: int
    message: str


class ModelServer:
    """A scripted model at `url` while the `async with` block runs, or the `with server.running()` block.

    Listens on 127.0.0.1 only and asks for no key. One script answers every conversation on both wires; requests that
    are not the conversation itself (Claude Code's small side questions, token counts) get a harmless answer and leave
    the script alone. An answer ends when the agent closes its connection, and all end when the block does.

    Args:
        script: What the model does: replies in order (see `InOrder`), `ByPrompt`, `FromPrompt`, or any function from a
            `ModelRequest` to a reply.
        port: 0 takes a free one.
        models: Names of models there are; any other gets 404. None: every name is one.
        max_body_bytes: Larger requests get 413.
    """

    def __init__(
        self,
        script: ScriptLike,
        *,
        port: int = 0,
        models: Sequence[str] | None = None,
        max_body_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._script: Script = script_of(script)
        self._wanted_port = port
        self._models = None if models is None else tuple(models)
        self._max_body_bytes = max_body_bytes
        self._port: int | None = None
        self._resources = AsyncExitStack()
        self._requests: list[ModelRequest] = []
        self._exchanges: list[Exchange] = []
        self._refused: list[Refused] = []
        self._errors: list[ScriptError] = []

    # ---- life

    async def __aenter__(self) -> ModelServer:
        async with AsyncExitStack() as opening:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self._wanted_port)
            await opening.enter_async_context(listener)
            self._port = listener.extra(SocketAttribute.local_port)  # noqa: S610  # not that `extra`
            group = await opening.enter_async_context(anyio.create_task_group())
            opening.callback(group.cancel_scope.cancel)
            group.start_soon(listener.serve, self._serve)
            self._resources = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._resources.aclose()  # the block's own exception goes on as it is, not inside a group
        self._port = None

    @contextmanager
    def running(self) -> Iterator[ModelServer]:
        """The same for programs that are not async: the server runs in a thread while the block does."""
        with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(self):
            yield self

    # ---- where it is, and how agents find it

    @property
    def port(self) -> int:
        """The port it listens on.

        Raises:
            RuntimeError: It is not running.
        """
        if self._port is None:
            raise RuntimeError("the model server is not running; enter it with `async with` or `running()`")
        return self._port

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, the base URL of the Messages wire; the Responses wire has `/v1` behind it."""
        return f"http://127.0.0.1:{self.port}"

    def claude_env(self, home: str | Path, *, retries: int = 0) -> dict[str, str]:
        """The whole environment that runs Claude Code against this server, with `home` (made if missing) as its HOME.

        Nothing of the caller's environment is in it; telemetry, updates and other outside contacts are off, and the key
        is a dummy. `retries` is how often Claude Code repeats a failed request.
        """
        return surroundings.claude_environment(self.url, Path(home), retries=retries)

    def codex_env(self, home: str | Path, *, model: str = "scripted-1", retries: int = 0) -> dict[str, str]:
        """The whole environment that runs Codex against this server, with `home` (made if missing) as its HOME.

        Writes `codex_config()` to `home/.codex/config.toml`; otherwise as `claude_env`.
        """
        return surroundings.codex_environment(self.url, Path(home), model=model, retries=retries)

    def codex_config(self, *, model: str = "scripted-1", retries: int = 0) -> str:
        """Text of a `config.toml` that points Codex at this server; it reads its key from `SCRIPTED_MODEL_KEY`."""
        return surroundings.codex_configuration(self.url, model=model, retries=retries)

    # ---- what happened

    @property
    def requests(self) -> Sequence[ModelRequest]:
        """Every model request so far, oldest first, side questions and counts among them."""
        return tuple(self._requests)

    @property
    def turns(self) -> Sequence[ModelRequest]:
        """The requests that the script answered."""
        return tuple(request for request in self._requests if request.purpose == "turn")

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """The answers that are over, in the order in which they ended."""
        return tuple(self._exchanges)

    @property
    def refused(self) -> Sequence[Refused]:
        """What else was asked of the server: unknown routes, malformed requests."""
        return tuple(self._refused)

    @property
    def errors(self) -> Sequence[ScriptError]:
        """What went wrong with the script; the agents got status 400 for it."""
        return tuple(self._errors)

    def check(self) -> None:
        """Nothing went wrong with the script so far.

        Raises:
            ScriptError: The first thing that did.
        """
        if self._errors:
            raise self._errors[0]

    # ---- answering

    async def _serve(self, stream: SocketStream) -> None:
        async with stream:
            await http.serve(stream, self._answer, refuse=self._refuse_unread, max_body_bytes=self._max_body_bytes)

    def _refuse_unread(self, bad: http.BadRequest) -> bytes:
        return self._refuse("", "", bad.status, bad.message)

    def _refuse(self, method: str, path: str, status: int, message: str) -> bytes:
        self._refused.append(Refused(method=method, path=path, status=status, message=message))
        kind = "not_found_error" if status == 404 else "invalid_request_error"
        return _json({"type": "error", "error": {"type": kind, "code": kind, "message": message}})

    async def _answer(self, asked: http.HttpRequest, responder: http.Responder) -> None:
        method, read = _ROUTES.get(asked.path, ("", None))
        if not method:
            message = f"no such route: {asked.method} {asked.path}"
            return await responder.send(404, self._refuse(asked.method, asked.path, 404, message))
        if asked.method != method:
            message = f"{asked.path} takes {method}, not {asked.method}"
            return await responder.send(405, self._refuse(asked.method, asked.path, 405, message), {"allow": method})
        if read is None:
            return await responder.send(200, _json(self._list_models()))
        try:
            request = read(len(self._requests) + 1, asked.headers, asked.body)
        except MalformedRequest as malformed:
            return await responder.send(400, self._refuse(asked.method, asked.path, 400, malformed.message))
        self._requests.append(request)
        if request.purpose == "count":
            return await responder.send(200, _json({"input_tokens": len(request.body) // 4}))
        return await self._converse(request, responder)

    async def _converse(self, request: ModelRequest, responder: http.Responder) -> None:
        given, turn = await self._choose(request)
        outcome: Outcome = "abandoned"
        try:
            outcome = await _perform(turn, request, responder)
        finally:
            self._exchanges.append(Exchange(request=request, reply=given, outcome=outcome))

    async def _choose(self, request: ModelRequest) -> tuple[Reply, Turn]:
        """The reply for a request, ready to send; a script that fails becomes a reply with status 400."""
        identity = hashlib.blake2b(request.body, digest_size=8).hexdigest() + f"_{request.number}"
        try:
            given = await self._reply_to(request)
            return given, turn_of(given, request, id=identity)
        except ScriptError as error:
            self._errors.append(error)
            failure = error
        except Exception as error:  # noqa: BLE001  # a caller's script may raise anything; check() reports it
            failure = ScriptError(f"the script raised {error!r}", code="script_raised")
            failure.__cause__ = error
            self._errors.append(failure)
        given = Reply(Fail(400, message=f"ModelServer: {failure}", headers={"x-should-retry": "false"}))
        return given, turn_of(given, request, id=identity)

    async def _reply_to(self, request: ModelRequest) -> Reply:
        if request.purpose == "side":
            return _side_answer(request)
        if self._models is not None and request.model not in self._models:
            return Reply(Fail(404, message=f"model: {request.model}"))
        given = self._script(request)
        return reply_of(await given if isawaitable(given) else given)

    def _list_models(self) -> dict[str, Any]:
        """Both providers' lists at once: their members do not clash."""
        names = self._models or ("scripted-1",)
        models = [
            {"type": "model", "object": "model", "id": name, "display_name": name, "created": 0} for name in names
        ]
        return {"object": "list", "data": models, "has_more": False, "first_id": names[0], "last_id": names[-1]}


def _side_answer(request: ModelRequest) -> Reply:
    """A harmless answer: a word, or where the agent gives a schema, an object with that word in every text."""
    text = "Scripted"
    match request.json.get("output_config"):
        case {"format": {"schema": {"properties": dict(properties)}}}:
            named = {name: text for name, schema in properties.items() if schema == {"type": "string"}}
            text = _json(named).decode()
    return Reply(Say(text), Usage(input_tokens=0, output_tokens=0))


async def _perform(turn: Turn, request: ModelRequest, responder: http.Responder) -> Outcome:
    """Send a turn's answer, with all its waits and faults."""
    wire = _FORMATS[request.wire]
    seconds, turn = turn.after_delays()
    await anyio.sleep(seconds)
    match turn.acts[0].does if turn.acts else None:
        case Fail(in_stream=False) as fail:
            return await _fail(fail, wire, responder)
        case Cut(where="before"):
            await responder.cut()
            return "cut"
        case Hang(where="before"):
            await anyio.sleep_forever()
    return await (_stream(turn, wire, responder) if request.stream else _whole(turn, wire, responder))


async def _stream(turn: Turn, wire: WireFormat, responder: http.Responder) -> Outcome:
    await responder.start()
    for beat in wire.stream(turn):
        match beat:
            case Delay(seconds):
                await anyio.sleep(seconds)
            case Cut(clean=clean):
                await (responder.end() if clean else responder.cut())
                return "cut"
            case Hang():
                await anyio.sleep_forever()
            case bytes():
                await responder.piece(beat)
    await responder.end()
    return "failed" if any(isinstance(act.does, Fail) for act in turn.acts) else "answered"


async def _whole(turn: Turn, wire: WireFormat, responder: http.Responder) -> Outcome:
    for act in turn.acts:
        match act.does:
            case Delay(seconds):
                await anyio.sleep(seconds)
            case Cut():
                await responder.cut(_json(wire.whole(turn)))
                return "cut"
            case Hang():
                await anyio.sleep_forever()
            case Fail() as fail:
                return await _fail(fail, wire, responder)
            case _:
                pass
    await responder.send(200, _json(wire.whole(turn)))
    return "answered"


async def _fail(fail: Fail, wire: WireFormat, responder: http.Responder) -> Outcome:
    headers = dict(fail.headers)
    if fail.retry_after is not None:
        headers["retry-after"] = f"{fail.retry_after:g}"
    await responder.send(fail.status, _json(wire.error(fail)), headers)
    return "failed"


def _json(document: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(document)
