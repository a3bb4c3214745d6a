"""The model's messages: pieces as they come, whole blocks, tool calls, and the usage of each message.

Text comes twice: in pieces (`stream_event`), then whole, one `assistant` line a block. After a retry the pieces begin
again under a new message id; only whole lines are final. A tool's result may come before its message is complete.
"""

from __future__ import annotations

from agentkeel.adapters.providers.claude.accounting import Account, usage_of_message
from agentkeel.adapters.providers.claude.fields import Message, flag, objects, record, string
from agentkeel.adapters.providers.claude.tools import ToolCalls
from agentkeel.adapters.providers.claude.unmapped import unmapped
from agentkeel.core.events import Body, MessageReceived, MessageStreamed, ReasoningStreamed, TurnCompleted

__all__ = ["Messages"]


class _Incoming:
    """The message whose pieces come in, and what was said of it before its blocks are whole."""

    def __init__(self, message: Message) -> None:
        self.id = str(message.get("id"))
        self.model = str(message.get("model"))
        self.usage: Message = record(message.get("usage"))
        self.text: list[str] = []
        self.thought = False
        self.counted = False


class Messages:
    """The messages of one process.

    Attributes:
        turns: How many messages of the main loop were answered in this turn; a sub-agent's are its own.
        text: The last whole text of the main loop in this turn.
    """

    def __init__(self, account: Account, calls: ToolCalls) -> None:
        self.turns = 0
        self.text: str | None = None
        self._account = account
        self._calls = calls
        self._incoming: _Incoming | None = None
        self._last_id: str | None = None
        self._open = False

    def begin(self) -> None:
        """A new turn."""
        self.turns, self.text, self._last_id, self._open, self._incoming = 0, None, None, False, None

    def pieces(self, message: Message, raw: bytes) -> list[Body]:
        """What a `stream_event` says."""
        if message.get("parent_tool_use_id") is not None:
            return []  # A sub-agent's pieces would mix with the main ones; its whole lines come as well.
        event = record(message.get("event"))
        match event.get("type"):
            case "message_start":
                closed = self.close(None)
                self._incoming = _Incoming(record(event.get("message")))
                return closed
            case "content_block_delta":
                return self._piece(record(event.get("delta")), raw)
            case "message_delta" if self._incoming is not None:
                return self._over(self._incoming, event)
            case kind:
                return [*unmapped(f"stream_event.{kind}", raw)]

    def whole(self, message: Message, raw: bytes) -> list[Body]:
        """What an `assistant` line without an error says."""
        inner = record(message.get("message"))
        parent = string(message.get("parent_tool_use_id"))
        message_id = str(inner.get("id"))
        said = self._answered(message_id) if parent is None else []
        for block in objects(inner.get("content")):
            said += self._block(block, message_id, parent, message, raw)
        return said

    def close(self, stop_reason: str | None) -> list[Body]:
        """The last message is over, if that was not known yet."""
        if not self._open:
            return []
        self._open = False
        return [TurnCompleted(turns=self.turns, stop_reason=stop_reason)]

    def lose(self) -> list[Body]:
        """Nothing more comes: the text and the usage of a half message are all there will be of it."""
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            return []
        text = "".join(incoming.text)
        said: list[Body] = [MessageReceived(content=text, message_id=incoming.id, partial=True)] if text else []
        if not incoming.counted:
            said += self._account.message(incoming.model, usage_of_message(incoming.usage, {}))
        return said

    def _piece(self, delta: Message, raw: bytes) -> list[Body]:
        incoming = self._incoming
        message_id = incoming.id if incoming is not None else None
        match delta.get("type"):
            case "text_delta" if text := string(delta.get("text")):
                if incoming is not None:
                    incoming.text.append(text)
                return [MessageStreamed(delta=text, message_id=message_id)]
            case "thinking_delta" if text := string(delta.get("thinking")):
                if incoming is not None:
                    incoming.thought = True
                return [ReasoningStreamed(delta=text, message_id=message_id)]
            case "text_delta" | "thinking_delta":
                return []  # Empty.
            case kind:
                return [*unmapped(f"stream_event.content_block_delta.{kind}", raw)]

    def _over(self, incoming: _Incoming, event: Message) -> list[Body]:
        said: list[Body] = []
        if not incoming.counted:
            incoming.counted = True
            usage = usage_of_message(incoming.usage, record(event.get("usage")))
            said += self._account.message(incoming.model, usage)
        said += self._answered(incoming.id)
        return said + self.close(string(record(event.get("delta")).get("stop_reason")))

    def _block(self, block: Message, message_id: str, parent: str | None, message: Message, raw: bytes) -> list[Body]:
        incoming = self._incoming if self._incoming is not None and self._incoming.id == message_id else None
        match block.get("type"):
            case "text":
                if incoming is not None:
                    incoming.text.clear()
                return self._text(string(block.get("text")), message_id, parent, partial=flag(message.get("aborted")))
            case "thinking":
                thought = string(block.get("thinking"))
                new = thought and parent is None and not (incoming is not None and incoming.thought)
                return [ReasoningStreamed(delta=thought, message_id=message_id)] if thought and new else []
            case "tool_use":
                started = self._calls.begin(block, parent)
                return [started] if started is not None else []
            case kind:
                return [*unmapped(f"assistant.{kind}", raw)]

    def _text(self, text: str | None, message_id: str, parent: str | None, *, partial: bool) -> list[Body]:
        if text is None:
            return []
        if parent is None:
            self.text = text
        return [MessageReceived(content=text, message_id=message_id, parent_tool_call_id=parent, partial=partial)]

    def _answered(self, message_id: str) -> list[Body]:
        """A model request of the main loop was answered, in part at least."""
        if message_id == self._last_id:
            return []
        closed = self.close(None)
        self._last_id, self._open = message_id, True
        self.turns += 1
        return closed
