"""What Claude Code says becomes drafts of events. Sans-I/O: feed lines, get values.

The program's rules, as measured (2.1.329):

- A turn is over when the session is `idle` after the result that carries our prompt's id. One prompt may have several
  results, as sub-agents work on in the background and report; the last one counts. Between turns a background command
  may wake the model: that turn belongs to no prompt, and what it said opens the next turn of ours.
- Text comes twice: in pieces, then whole, one `assistant` line a block. After a retry the pieces begin again under a
  new message id; only whole lines are final.
- An `assistant` line with an `error` is the program speaking, not the model. It ends nothing: the turn may go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agentkeel.adapters.providers._wire.jsonl import BadLines, Junk, decode
from agentkeel.adapters.providers._wire.lines import Line
from agentkeel.adapters.providers.claude.accounting import Account, usage_of_message
from agentkeel.adapters.providers.claude.errors import Symptoms, code_for, failed
from agentkeel.adapters.providers.claude.fields import Message, flag, number, objects, record, seconds, string
from agentkeel.adapters.providers.claude.outcome import ended, quota_rejected, status_of, symptoms_of
from agentkeel.adapters.providers.claude.protocol import Permission, refusal_line
from agentkeel.adapters.providers.claude.tools import ToolCalls, kind_of
from agentkeel.core.events import (
    Body,
    Draft,
    ErrorOccurred,
    ErrorRecovered,
    MessageReceived,
    MessageStreamed,
    PermissionRequested,
    PermissionResolved,
    ReasoningStreamed,
    TurnCompleted,
    Unknown,
)
from agentkeel.errors import ProviderError
from agentkeel.ports.provider import Began, Decision, Said

__all__ = ["DROPPED", "Mapper"]

DROPPED: Mapping[str, str] = {
    "control_response": "answers to our own requests",
    "command_lifecycle": "what becomes of our prompt; read for its state",
    "keep_alive": "no content",
    "system.session_state_changed": "read for its state",
    "system.background_tasks_changed": "read for its list; each task's own lines are kept",
    "system.permission_denied": "read for the call it refuses; the call's own result says why",
    "system.status": "a spinner's text",
    "system.thinking_tokens": "an estimate while thinking; the real count comes with the usage",
    "system.task_progress": "a counter ticking; the task's end is kept",
    "system.ui_invalidate": "a request to redraw",
    "stream_event.ping": "no content",
    "stream_event.content_block_stop": "the whole block has its own line",
    "stream_event.message_stop": "the end of the message was in message_delta",
    "stream_event.content_block_delta.input_json_delta": "a tool's input comes whole",
    "stream_event.content_block_delta.signature_delta": "for the model service only",
}
"""Lines that become no event, and why. Everything else that has no event of its own is kept as `Unknown`."""

_KEPT_BYTES = 64 * 1024


class _Turn:
    """What is known of the running turn."""

    def __init__(self, prompt_id: str) -> None:
        self.prompt_id = prompt_id
        self.began = False
        self.held: list[Said] = []
        self.result: Message | None = None
        self.cancelled = False
        self.over = False
        self.turns = 0
        self.message_id: str | None = None
        self.message_open = False
        self.text: str | None = None
        self.error: Message | None = None
        self.retry: Message | None = None
        self.troubled: str | None = None


class _Streaming:
    """The model message that is coming in: what was said of it before its blocks are whole."""

    def __init__(self, message: Message) -> None:
        self.id = str(message.get("id"))
        self.model = str(message.get("model"))
        self.usage: Message = record(message.get("usage"))
        self.text: list[str] = []
        self.thought = False
        self.counted = False


class Mapper:
    """The lines of one process, turn by turn.

    Attributes:
        session_id: The agent's own id of the conversation, once it named it.
        alive: Whether the process may get another prompt, as far as it said.
        protocol_error: Set once the program talks something else than its protocol. Stop it.
    """

    def __init__(self, *, provider: str = "claude") -> None:
        self.session_id: str | None = None
        self.alive = True
        self.protocol_error: ProviderError | None = None
        self._replies: list[bytes] = []
        self._bad_lines = BadLines()
        self._provider = provider
        self._account = Account()
        self._calls = ToolCalls()
        self._asked: dict[str, Permission] = {}
        self._background_agents = False
        self._quota_rejected = False
        self._turn: _Turn | None = None
        self._streaming: _Streaming | None = None
        self._began = Began()
        self._said: list[Said] = []
        self._readers: Mapping[str, Callable[[Message, bytes], None]] = {
            "system": self._system,
            "stream_event": self._stream_event,
            "assistant": self._assistant,
            "user": self._user,
            "result": self._result,
            "control_request": self._control_request,
            "control_cancel_request": self._control_cancel_request,
            "command_lifecycle": self._command_lifecycle,
            "rate_limit_event": self._rate_limit,
        }

    # ---- the life of a turn

    @property
    def busy(self) -> bool:
        """Whether a turn has begun and not ended."""
        return self._turn is not None

    @property
    def settling(self) -> bool:
        """The result is there, nothing works in the background, and only the word `idle` is missing."""
        return self._turn is not None and self._turn.result is not None and not self._background_agents

    def begin(self, prompt_id: str) -> None:
        """A prompt goes out; what comes from now on belongs to its turn."""
        self._turn = _Turn(prompt_id)
        self._account.begin()

    def feed(self, line: Line) -> list[Said]:
        """What one line says. After an `Ended` nothing more comes until the next `begin`."""
        message = decode(line)
        try:
            self._bad_lines.observe(message)
        except ProviderError as error:
            self.protocol_error, self.alive = error, False
        if isinstance(message, Junk):
            self._say(Unknown(kind="claude.junk", body=_json({"text": message.text, "reason": message.reason})))
            return self._take()
        raw = line if isinstance(line, bytes) else line.head(_KEPT_BYTES)
        kind = message.get("type")
        reader = self._readers.get(kind) if isinstance(kind, str) else None
        if reader is not None:
            reader(message, raw)
        else:
            self._unknown(str(kind), raw)
        return self._take()

    def replies(self) -> list[bytes]:
        """Lines to write back now: answers to questions that are not for a person."""
        replies, self._replies = self._replies, []
        return replies

    def settle(self) -> list[Said]:
        """The turn ends by the result it has, though the program did not say `idle`."""
        self._end()
        return self._take()

    def lose(self) -> list[Said]:
        """The program is gone. With a result the turn ended; without one all that is half-said is said, and no end."""
        turn = self._turn
        if turn is None:
            return []
        if turn.result is not None:
            return self.settle()
        streaming = self._streaming
        if streaming is not None:
            if text := "".join(streaming.text):
                self._say(MessageReceived(content=text, message_id=streaming.id, partial=True))
            if not streaming.counted:
                self._say(*self._account.message(streaming.model, usage_of_message(streaming.usage, {})))
        self._say(*self._calls.abandon())
        self._withdraw(*self._asked)
        if turn.held:
            self._begin(self._began)
        self._turn = self._streaming = None
        self.alive = False
        return self._take()

    # ---- permissions

    def permission(self, request_id: str, decision: Decision) -> Permission | None:
        """The question to answer, which is open no longer; None if it was withdrawn or answered."""
        permission = self._asked.pop(request_id, None)
        if permission is not None and not decision.allow:
            self._calls.deny(permission.tool_call_id)
        return permission

    def _control_request(self, message: Message, raw: bytes) -> None:
        request, request_id = record(message.get("request")), str(message.get("request_id"))
        if request.get("subtype") != "can_use_tool":
            self._replies.append(refusal_line(request_id, str(request.get("subtype"))))
            self._unknown(f"control_request.{request.get('subtype')}", raw)
            return
        call_id, tool_input = string(request.get("tool_use_id")), record(request.get("input"))
        self._asked[request_id] = Permission(request_id=request_id, tool_call_id=call_id, tool_input=tool_input)
        name = str(request.get("tool_name"))
        self._say(
            PermissionRequested(
                request_id=request_id,
                tool_name=name,
                kind=kind_of(name),
                tool_call_id=call_id,
                tool_input=tool_input,
                reason=string(request.get("decision_reason")),
            )
        )

    def _control_cancel_request(self, message: Message, raw: bytes) -> None:
        self._withdraw(str(message.get("request_id")))

    def _withdraw(self, *request_ids: str) -> None:
        for request_id in request_ids:
            if self._asked.pop(request_id, None) is not None:
                self._say(PermissionResolved(request_id=request_id, decision="withdrawn", by="agent"))

    # ---- the model's messages

    def _stream_event(self, message: Message, raw: bytes) -> None:
        if message.get("parent_tool_use_id") is not None:
            return  # A sub-agent's pieces would mix with the main ones; its whole lines come as well.
        event = record(message.get("event"))
        streaming = self._streaming
        match event.get("type"):
            case "message_start":
                self._close_message(None)
                if self._turn is not None:
                    self._tell_error(self._turn)
                self._streaming = _Streaming(record(event.get("message")))
            case "content_block_start" if streaming is not None:
                streaming.text.clear()
            case "content_block_delta":
                self._delta(record(event.get("delta")), raw)
            case "message_delta" if streaming is not None:
                self._message_over(streaming, event)
            case kind:
                self._unknown(f"stream_event.{kind}", raw)

    def _delta(self, delta: Message, raw: bytes) -> None:
        streaming = self._streaming
        message_id = streaming.id if streaming is not None else None
        match delta.get("type"):
            case "text_delta" if text := string(delta.get("text")):
                if streaming is not None:
                    streaming.text.append(text)
                self._say(MessageStreamed(delta=text, message_id=message_id))
            case "thinking_delta" if text := string(delta.get("thinking")):
                if streaming is not None:
                    streaming.thought = True
                self._say(ReasoningStreamed(delta=text, message_id=message_id))
            case "text_delta" | "thinking_delta":
                pass  # Empty.
            case kind:
                self._unknown(f"stream_event.content_block_delta.{kind}", raw)

    def _message_over(self, streaming: _Streaming, event: Message) -> None:
        usage = usage_of_message(streaming.usage, record(event.get("usage")))
        if not streaming.counted:
            streaming.counted = True
            self._say(*self._account.message(streaming.model, usage))
        self._open_message(streaming.id)
        self._close_message(string(record(event.get("delta")).get("stop_reason")))

    def _assistant(self, message: Message, raw: bytes) -> None:
        inner = record(message.get("message"))
        parent = string(message.get("parent_tool_use_id"))
        turn = self._turn
        if message.get("error") is not None:
            if turn is not None:
                self._tell_error(turn)
                turn.error = message
            return
        message_id = str(inner.get("id"))
        if parent is None:
            self._open_message(message_id)
        if turn is not None:
            self._tell_error(turn, recovered=True)
        for block in objects(inner.get("content")):
            self._block(block, message_id, parent, message, raw)

    def _block(self, block: Message, message_id: str, parent: str | None, message: Message, raw: bytes) -> None:
        streaming = self._streaming if self._streaming is not None and self._streaming.id == message_id else None
        match block.get("type"):
            case "text":
                if streaming is not None:
                    streaming.text.clear()
                if text := string(block.get("text")):
                    self._say_message(text, message_id, parent, partial=flag(message.get("aborted")))
            case "thinking":
                thought = string(block.get("thinking"))
                if thought and parent is None and not (streaming is not None and streaming.thought):
                    self._say(ReasoningStreamed(delta=thought, message_id=message_id))
            case "tool_use":
                if started := self._calls.begin(block, parent):
                    self._say(started)
            case kind:
                self._unknown(f"assistant.{kind}", raw)

    def _say_message(self, text: str, message_id: str, parent: str | None, *, partial: bool) -> None:
        if self._turn is not None and parent is None:
            self._turn.text = text
        self._say(MessageReceived(content=text, message_id=message_id, parent_tool_call_id=parent, partial=partial))

    def _open_message(self, message_id: str) -> None:
        """A model request of the main loop was answered, in part at least."""
        turn = self._turn
        if turn is not None and turn.message_id != message_id:
            self._close_message(None)
            turn.message_id, turn.message_open = message_id, True
            turn.turns += 1

    def _close_message(self, stop_reason: str | None) -> None:
        turn = self._turn
        if turn is not None and turn.message_open:
            turn.message_open = False
            self._say(TurnCompleted(turns=turn.turns, stop_reason=stop_reason))

    # ---- tools

    def _user(self, message: Message, raw: bytes) -> None:
        if flag(message.get("isReplay")):
            return  # An echo of what we sent.
        blocks = objects(record(message.get("message")).get("content"))
        results = [block for block in blocks if block.get("type") == "tool_result"]
        rich = message.get("tool_use_result") if len(results) == 1 else None
        metas = {str(meta.get("id")): meta for meta in objects(message.get("tool_result_meta"))}
        for block in results:
            self._say(self._calls.end(block, rich, metas.get(str(block.get("tool_use_id")), {})))
        if not results:
            self._unknown("user", raw)  # The program's own words to the model: "continue", "interrupted".

    # ---- the program

    def _system(self, message: Message, raw: bytes) -> None:
        match message.get("subtype"):
            case "init":
                self._init(message)
            case "session_state_changed":
                self._state(message.get("state"))
            case "background_tasks_changed":
                tasks = objects(message.get("tasks"))
                self._background_agents = any(task.get("task_type") != "local_bash" for task in tasks)
            case "api_retry":
                self._api_retry(message)
            case "permission_denied":
                self._calls.deny(string(message.get("tool_use_id")))
            case subtype:
                self._unknown(f"system.{subtype}", raw)

    def _init(self, message: Message) -> None:
        self.session_id = string(message.get("session_id")) or self.session_id
        tools = message.get("tools")
        details = {
            name: message[name]
            for name in ("permissionMode", "apiKeySource", "mcp_servers", "cwd")
            if message.get(name) is not None
        }
        self._began = Began(
            model=string(message.get("model")),
            provider_session_id=self.session_id,
            tools=tuple(str(tool) for tool in tools) if isinstance(tools, list) else (),
            agent_version=string(message.get("claude_code_version")),
            details=details,
        )
        if self._turn is not None and not self._turn.began:
            self._begin(self._began)

    def _state(self, state: object) -> None:
        turn = self._turn
        if state != "idle" or turn is None:
            return
        if turn.result is not None or turn.cancelled or turn.over:
            self._end()

    def _command_lifecycle(self, message: Message, raw: bytes) -> None:
        turn = self._turn
        if turn is None or message.get("command_uuid") != turn.prompt_id:
            return
        turn.cancelled = message.get("state") == "cancelled"
        turn.over = message.get("state") == "completed"

    def _api_retry(self, message: Message) -> None:
        seen = Symptoms(
            status=number(message.get("error_status")),
            retry_error=string(message.get("error")),
            text="a failed request",
        )
        code = code_for(seen)
        if self._turn is not None:
            self._tell_error(self._turn)
            self._turn.retry = message
            self._turn.troubled = code
        attempt, most = message.get("attempt"), message.get("max_retries")
        self._say(
            ErrorOccurred(
                error_code=code,
                error_message=f"A model request failed ({seen.retry_error or seen.status}); "
                f"{self._provider} tries again ({attempt} of {most}).",
                retry_after=seconds(message.get("retry_delay_ms")),
                will_retry=True,
                details={"attempt": attempt, "max_retries": most, "status": seen.status},
            )
        )

    def _rate_limit(self, message: Message, raw: bytes) -> None:
        self._quota_rejected = quota_rejected(record(message.get("rate_limit_info")))
        self._unknown("rate_limit_event", raw)

    def _tell_error(self, turn: _Turn, *, recovered: bool = False) -> None:
        """An error line that turned out not to be the turn's end, and its mending."""
        if turn.error is not None:
            error = failed(self._provider, symptoms_of({}, turn.error, None, quota_rejected=False))
            self._say(
                ErrorOccurred(
                    error_code=error.code,
                    error_message=error.provider_error.message if error.provider_error else error.message,
                    provider_error=error.provider_error,
                    will_retry=True,
                )
            )
            turn.error, turn.troubled = None, error.code
        if recovered and turn.troubled is not None:
            self._say(ErrorRecovered(error_code=turn.troubled))
            turn.troubled = None

    # ---- results

    def _result(self, message: Message, raw: bytes) -> None:
        self.session_id = self.session_id or string(message.get("session_id"))
        self._close_message(string(message.get("stop_reason")))
        self._say(*self._account.settle(message))
        if message.get("terminal_reason") == "budget_exhausted" or message.get("subtype") == "error_max_budget_usd":
            self.alive = False  # Every later turn would fail at once, without a request.
        turn = self._turn
        if turn is None:
            return
        many = message.get("user_message_uuids")
        named = [message.get("user_message_uuid"), *(many if isinstance(many, list) else ())]
        ours = turn.prompt_id in named or (not any(named) and message.get("origin") is None)
        if ours or turn.result is not None:
            turn.result = message

    def _end(self) -> None:
        """The turn is over: all that is open is closed, and said how it ended."""
        turn = self._turn
        if turn is None:
            return
        self._say(*self._calls.abandon())
        self._withdraw(*self._asked)
        result = turn.result
        if result is None and not turn.cancelled:
            result = {"subtype": "error_during_execution", "terminal_reason": "completed", "result": "No result came."}
        if result is not None and status_of(result) == "completed":
            self._tell_error(turn, recovered=True)
        end = ended(
            self._provider,
            result,
            symptoms_of(result or {}, turn.error, turn.retry, quota_rejected=self._quota_rejected),
            turn.text,
            usage=self._account.usage,
            cost_usd=self._account.cost_usd,
            turns=turn.turns,
            provider_session_id=self.session_id,
        )
        if not turn.began:
            self._begin(self._began)
        self._said.append(end)
        self._turn = self._streaming = None

    # ---- saying

    def _begin(self, began: Began) -> None:
        turn = self._turn
        if turn is not None:
            turn.began = True
            self._said[:0] = [began, *turn.held]
            turn.held = []

    def _say(self, *bodies: Body) -> None:
        drafts = [Draft(data=body, source="agent") for body in bodies]
        if self._turn is not None and not self._turn.began:
            self._turn.held += drafts
        else:
            self._said += drafts

    def _unknown(self, kind: str, raw: bytes) -> None:
        if kind not in DROPPED:
            self._say(Unknown(kind=f"claude.{kind}", body=_kept(raw)))

    def _take(self) -> list[Said]:
        said, self._said = self._said, []
        return said


def _json(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _kept(raw: bytes) -> msgspec.Raw:
    """A line as it came; the beginning of one that is too long for the log."""
    if len(raw) < _KEPT_BYTES:
        return msgspec.Raw(raw)
    return _json({"truncated": True, "text": raw[:_KEPT_BYTES].decode("utf-8", "replace")})
