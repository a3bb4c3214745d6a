"""One turn, as its items tell it: each said once, and closed at the end whether Codex closed it or not. Sans-I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from agentkeel.adapters.providers.codex.errors import Failure, failure_of
from agentkeel.adapters.providers.codex.items import (
    MAX_OUTPUT_BYTES,
    Json,
    Reason,
    Tool,
    closed,
    started,
    text_of,
    tool_of,
)
from agentkeel.core.events import (
    Body,
    ErrorOccurred,
    ErrorRecovered,
    MessageReceived,
    MessageStreamed,
    ReasoningStreamed,
)
from agentkeel.errors import ProviderFailure

__all__ = ["Call", "Turn"]

_RECONNECTING = re.compile(r"Reconnecting\.\.\. (?P<attempt>\d+)/(?P<of>\d+)")
_QUIET_STARTS: Final = frozenset({"userMessage", "agentMessage", "reasoning", "plan"})


class Call(msgspec.Struct):
    """A tool call that has begun. `heard` is the start of its output, for a call that is cut off.

    `denied`: we said no, and Codex may end the turn without another word about it.
    """

    tool: Tool
    thread_id: str
    item: Json
    denied: bool = False
    heard: list[str] = msgspec.field(default_factory=list)
    heard_size: int = 0

    @property
    def output(self) -> str | None:
        """What was heard of it, if anything."""
        return "".join(self.heard) or None


class Turn:
    """What happens between two `turn/start`; with no `turn_id`, between turns, where items are late ones to be ignored.

    Attributes:
        calls: Tool calls that have begun and not ended, by item id.
        children: Running turns of sub-agents, by thread.
        over: Codex's summary of the turn, once it has said that the turn is over.
        text: The answer: the last message that is no commentary, else the last message.
        cause: The last failure after which Codex does not try again.
    """

    def __init__(self, turn_id: str | None, *, thread_id: str | None, parents: dict[str, str]) -> None:
        self.turn_id = turn_id
        self.calls: dict[str, Call] = {}
        self.children: dict[str, str] = {}
        self.over: Json | None = None
        self.text: str | None = None
        self.cause: Failure | None = None
        self._thread_id = thread_id
        self._parents = parents  # A sub-agent's thread -> the call that started it.
        self._commentary = False
        self._texts: dict[str, list[str]] = {}
        self._thoughts: set[str] = set()
        self._done: set[str] = set()
        self._trouble: Failure | None = None
        self._readers: Mapping[str, Callable[[Json], Sequence[Body] | None]] = {
            "item/started": self._item_started,
            "item/completed": self._item_completed,
            "item/agentMessage/delta": self._words,
            "item/reasoning/summaryTextDelta": self._thought,
            "item/reasoning/textDelta": self._thought,
            "item/reasoning/summaryPartAdded": self._next_thought,
            "item/commandExecution/outputDelta": self._output,
            "error": self._failed,
            "turn/started": self._started,
            "turn/completed": self._completed,
        }

    def notified(self, method: str, params: Json) -> Sequence[Body] | None:
        """The events a notification means; None if it is none this knows."""
        reader = self._readers.get(method)
        if reader is None:
            return None
        if method.startswith("item/") and self._own(params) and params.get("turnId", self.turn_id) != self.turn_id:
            return []  # An item of a turn that is over; it was closed then.
        said = reader(params)
        if said and self._trouble is not None and method.startswith("item/"):
            return [*self.recovered(), *said]
        return said

    @property
    def told(self) -> frozenset[str]:
        """Ids of all items that were told, open ones too."""
        return frozenset(self._done | self.calls.keys())

    def recovered(self) -> Sequence[Body]:
        """Whatever was being retried has worked."""
        trouble, self._trouble = self._trouble, None
        return [ErrorRecovered(error_code=trouble.code)] if trouble else []

    def close(self) -> list[Body]:
        """What is still open is closed: messages as far as they came, calls as interrupted."""
        said: list[Body] = []
        summary = (self.over or {}).get("items")
        for item in summary if isinstance(summary, list) else []:
            if isinstance(item, Mapping) and item.get("type") == "agentMessage" and item.get("id") not in self._done:
                said += self._message(str(item.get("id")), item, {})
        said += self._break_off()
        for item_id, call in self.calls.items():
            reason: Reason = "denied" if call.denied else "interrupted"
            said.append(closed(item_id, call.tool, call.item, output=call.output, reason=reason))
        self._done.update(self.calls)
        self.calls.clear()
        return said

    # -- items ---------------------------------------------------------------------------------------------------

    def _item_started(self, params: Json) -> Sequence[Body] | None:
        item = params.get("item")
        if not isinstance(item, Mapping):
            return None
        item_id, tool = str(item.get("id")), tool_of(item)
        if item.get("type") in _QUIET_STARTS or item_id in self.calls or item_id in self._done:
            return []
        return None if tool is None else self._begin(item_id, tool, item, params)

    def _begin(self, item_id: str, tool: Tool, item: Json, params: Json) -> list[Body]:
        thread_id = str(params.get("threadId"))
        self.calls[item_id] = Call(tool=tool, thread_id=thread_id, item=item)
        return [started(item_id, tool, parent=self._parents.get(thread_id))]

    def _item_completed(self, params: Json) -> Sequence[Body] | None:
        item = params.get("item")
        if not isinstance(item, Mapping):
            return None
        item_id, tool = str(item.get("id")), tool_of(item)
        if item_id in self._done:
            return []
        match item.get("type"):
            case "userMessage":
                return []  # Our own prompt, said back.
            case "agentMessage":
                return self._message(item_id, item, params)
            case "reasoning":
                self._done.add(item_id)
                text = "" if item_id in self._thoughts else text_of(item)
                return [ReasoningStreamed(delta=text, message_id=item_id)] if text else []
        return None if tool is None else self._tool_ended(item_id, tool, item, params)

    def _tool_ended(self, item_id: str, tool: Tool, item: Json, params: Json) -> list[Body]:
        said = [] if item_id in self.calls else self._begin(item_id, tool, item, params)
        call = self.calls.pop(item_id)
        self._done.add(item_id)
        if item.get("type") == "collabAgentToolCall":
            children = item.get("receiverThreadIds")
            for child in children if isinstance(children, list) else []:
                self._parents.setdefault(str(child), item_id)
        # What ends badly after the turn did was ended by us. The input is the one the call began with, for a grant
        # is bound to that.
        reason: Reason | None = "interrupted" if self.over is not None and item.get("status") == "failed" else None
        return [*said, closed(item_id, call.tool, item, output=call.output, reason=reason)]

    def _message(self, item_id: str, item: Json, params: Json) -> list[Body]:
        self._done.add(item_id)
        self._texts.pop(item_id, None)
        text, commentary = text_of(item), item.get("phase") == "commentary"
        if self._own(params) and (not commentary or self.text is None or self._commentary):
            self.text, self._commentary = text, commentary
        parent = self._parents.get(str(params.get("threadId")))
        return [MessageReceived(content=text, message_id=item_id, parent_tool_call_id=parent)]

    # -- pieces --------------------------------------------------------------------------------------------------

    def _words(self, params: Json) -> Sequence[Body] | None:
        item_id, delta = params.get("itemId"), params.get("delta")
        if not isinstance(item_id, str) or not isinstance(delta, str):
            return None
        if item_id in self._done or not self._own(params):
            return []  # A sub-agent's words come whole.
        self._texts.setdefault(item_id, []).append(delta)
        return [MessageStreamed(delta=delta, message_id=item_id)]

    def _thought(self, params: Json) -> Sequence[Body] | None:
        item_id, delta = params.get("itemId"), params.get("delta")
        if not isinstance(item_id, str) or not isinstance(delta, str):
            return None
        self._thoughts.add(item_id)
        return [ReasoningStreamed(delta=delta, message_id=item_id)]

    def _next_thought(self, params: Json) -> Sequence[Body]:
        item_id = str(params.get("itemId"))
        return [ReasoningStreamed(delta="\n\n", message_id=item_id)] if item_id in self._thoughts else []

    def _output(self, params: Json) -> Sequence[Body]:
        call, delta = self.calls.get(str(params.get("itemId"))), params.get("delta")
        if call is not None and isinstance(delta, str) and call.heard_size <= MAX_OUTPUT_BYTES:
            call.heard.append(delta)
            call.heard_size += len(delta)
        return []  # The item that is completed has it all.

    # -- trouble and the end -------------------------------------------------------------------------------------

    def _failed(self, params: Json) -> Sequence[Body]:
        told, own = failure_of(params.get("error")), self._own(params)
        if not params.get("willRetry"):
            if own:
                self.cause = told  # The turn's end tells it.
                return []
            return [_occurred(told, {}, will_retry=False)]
        self._trouble = told
        attempt = _RECONNECTING.search(told.message)
        numbers = {name: int(number) for name, number in attempt.groupdict().items()} if attempt else {}
        broken = self._break_off() if own else []
        return [*broken, _occurred(told, numbers, will_retry=True)]

    def _break_off(self) -> list[Body]:
        broken: list[Body] = [
            MessageReceived(content="".join(parts), message_id=item_id, partial=True)
            for item_id, parts in self._texts.items()
        ]
        self._done.update(self._texts)
        self._texts.clear()
        return broken

    def _started(self, params: Json) -> Sequence[Body] | None:
        turn = params.get("turn")
        if isinstance(turn, Mapping) and not self._own(params):
            self.children[str(params.get("threadId"))] = str(turn.get("id"))
        return []

    def _completed(self, params: Json) -> Sequence[Body] | None:
        turn = params.get("turn")
        if not isinstance(turn, Mapping):
            return None
        if not self._own(params):
            self.children.pop(str(params.get("threadId")), None)
        elif turn.get("id") == self.turn_id:
            self.over = turn
        return []

    def _own(self, params: Json) -> bool:
        return self._thread_id is None or params.get("threadId", self._thread_id) == self._thread_id


def _occurred(told: Failure, details: Mapping[str, Any], *, will_retry: bool) -> ErrorOccurred:
    status = {} if told.status is None else {"http_status": told.status}
    return ErrorOccurred(
        error_code=told.code,
        error_message=told.message,
        provider_error=ProviderFailure.of("codex", told.name, told.message),
        retry_after=told.retry_after,
        will_retry=will_retry,
        details={"kind": told.name, **status, **details},
    )
