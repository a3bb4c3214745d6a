"""What Claude Code says becomes drafts of events. Sans-I/O: feed lines, get values.

When a turn is over is the program's most intricate rule, as measured (2.1.329): it is over when the session is `idle`
after the result that carries our prompt's id. One prompt may have several results, as sub-agents work on in the
background and report; the last one counts. Between turns a background command may wake the model: that turn belongs to
no prompt, and what it said opens the next turn of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from agentkeel.adapters.providers._wire.jsonl import BadLines, Junk, decode
from agentkeel.adapters.providers._wire.lines import Line
from agentkeel.adapters.providers.claude.accounting import Account
from agentkeel.adapters.providers.claude.fields import Message, flag, objects, record, string
from agentkeel.adapters.providers.claude.messages import Messages
from agentkeel.adapters.providers.claude.outcome import ended, status_of
from agentkeel.adapters.providers.claude.protocol import Permission, refusal_line
from agentkeel.adapters.providers.claude.questions import Questions
from agentkeel.adapters.providers.claude.tools import ToolCalls
from agentkeel.adapters.providers.claude.troubles import Troubles
from agentkeel.adapters.providers.claude.unmapped import KEPT_BYTES, junk, unmapped
from agentkeel.core.events import Body, Draft
from agentkeel.errors import ProviderError
from agentkeel.ports.provider import Began, Decision, Said

__all__ = ["Mapper"]

_BUDGET_USED_UP = "error_max_budget_usd"
_INIT_DETAILS = ("permissionMode", "apiKeySource", "mcp_servers", "cwd")


class _Turn:
    """How far the running turn is."""

    def __init__(self, prompt_id: str) -> None:
        self.prompt_id = prompt_id
        self.began = False
        self.held: list[Said] = []
        self.result: Message | None = None
        self.resumed = False  # The model works again after a result: another result will come.
        self.prompt_state: str | None = None


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
        self._provider = provider
        self._bad_lines = BadLines()
        self._account = Account()
        self._calls = ToolCalls()
        self._messages = Messages(self._account, self._calls)
        self._troubles = Troubles(provider)
        self._questions = Questions()
        self._replies: list[bytes] = []
        self._agents_at_work = False
        self._began = Began()
        self._turn: _Turn | None = None
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

    @property
    def busy(self) -> bool:
        """Whether a turn has begun and not ended."""
        return self._turn is not None

    @property
    def settling(self) -> bool:
        """The result is there, nobody works on, and only the word `idle` is missing."""
        turn = self._turn
        return turn is not None and turn.result is not None and not turn.resumed and not self._agents_at_work

    def begin(self, prompt_id: str) -> None:
        """A prompt goes out; what comes from now on belongs to its turn."""
        self._turn = _Turn(prompt_id)
        self._account.begin()
        self._messages.begin()
        self._troubles.begin()

    def feed(self, line: Line) -> list[Said]:
        """What one line says. A turn says one `Ended` at most, and nothing after it."""
        message = decode(line)
        try:
            self._bad_lines.observe(message)
        except ProviderError as error:
            self.protocol_error, self.alive = error, False
        if isinstance(message, Junk):
            self._say([junk(message)])
            return self._take()
        raw = line if isinstance(line, bytes) else line.head(KEPT_BYTES)
        kind = message.get("type")
        reader = self._readers.get(kind) if isinstance(kind, str) else None
        if reader is not None:
            reader(message, raw)
        else:
            self._say(unmapped(str(kind), raw))
        return self._take()

    def replies(self) -> list[bytes]:
        """Lines to write back now: answers to requests that are not for a person."""
        replies, self._replies = self._replies, []
        return replies

    def permission(self, request_id: str, decision: Decision) -> Permission | None:
        """The question that `decision` answers, open no longer; None if it was withdrawn or answered."""
        permission = self._questions.take(request_id)
        if permission is not None and not decision.allow:
            self._calls.deny(permission.tool_call_id)
        return permission

    def settle(self) -> list[Said]:
        """The turn ends by the result it has, though the program did not say `idle`."""
        self._end()
        return self._take()

    def lose(self) -> list[Said]:
        """The program is gone. After its last result the turn ended; else all that is half-said is said, and no end."""
        turn = self._turn
        if turn is None:
            return []
        if self.settling:
            return self.settle()
        self._say([*self._troubles.goes_on(lost=True), *self._messages.lose(), *self._calls.abandon()])
        self._say(self._questions.withdraw_all())
        if turn.held:
            self._begin()
        self._turn, self.alive = None, False
        return self._take()

    # ---- one reader for each type of line

    def _stream_event(self, message: Message, raw: bytes) -> None:
        self._resume(message)
        self._say(self._messages.pieces(message, raw))
        if record(message.get("event")).get("type") == "message_start":
            self._say(self._troubles.goes_on())

    def _assistant(self, message: Message, raw: bytes) -> None:
        self._resume(message)
        if message.get("error") is not None:
            self._say(self._troubles.error(message))
            return
        self._say(self._troubles.goes_on(answered=True))
        self._say(self._messages.whole(message, raw))

    def _user(self, message: Message, raw: bytes) -> None:
        if flag(message.get("isReplay")):
            return  # An echo of what we sent.
        blocks = objects(record(message.get("message")).get("content"))
        results = [block for block in blocks if block.get("type") == "tool_result"]
        rich = message.get("tool_use_result") if len(results) == 1 else None
        metas = {str(meta.get("id")): meta for meta in objects(message.get("tool_result_meta"))}
        self._say(self._calls.end(block, rich, metas.get(str(block.get("tool_use_id")), {})) for block in results)
        if not results:
            self._say(unmapped("user", raw))  # The program's own words to the model: "continue", "interrupted".

    def _system(self, message: Message, raw: bytes) -> None:
        match message.get("subtype"):
            case "init":
                self._init(message)
            case "session_state_changed":
                self._state(message.get("state"))
            case "background_tasks_changed":
                # A shell in the background does not keep the session from being idle.
                tasks = objects(message.get("tasks"))
                self._agents_at_work = any(task.get("task_type") != "local_bash" for task in tasks)
            case "api_retry":
                self._say(self._troubles.retry(message))
            case "permission_denied":
                self._calls.deny(string(message.get("tool_use_id")))
            case subtype:
                self._say(unmapped(f"system.{subtype}", raw))

    def _init(self, message: Message) -> None:
        """Sent again at the start of every turn."""
        self.session_id = string(message.get("session_id")) or self.session_id
        tools = message.get("tools")
        self._began = Began(
            model=string(message.get("model")),
            provider_session_id=self.session_id,
            tools=tuple(str(tool) for tool in tools) if isinstance(tools, list) else (),
            agent_version=string(message.get("claude_code_version")),
            details={name: message[name] for name in _INIT_DETAILS if message.get(name) is not None},
        )
        self._resume(message)
        if self._turn is not None and not self._turn.began:
            self._begin()

    def _state(self, state: object) -> None:
        turn = self._turn
        if turn is None or state != "idle":
            return
        # A prompt that was cancelled while it waited has no result.
        if turn.result is not None or turn.prompt_state in {"cancelled", "completed"}:
            self._end()

    def _command_lifecycle(self, message: Message, raw: bytes) -> None:
        if self._turn is not None and message.get("command_uuid") == self._turn.prompt_id:
            self._turn.prompt_state = string(message.get("state"))

    def _control_request(self, message: Message, raw: bytes) -> None:
        request, request_id = record(message.get("request")), str(message.get("request_id"))
        subtype = str(request.get("subtype"))
        if subtype == "can_use_tool":
            self._say([self._questions.ask(request_id, request)])
        else:
            self._replies.append(refusal_line(request_id, subtype))
            self._say(unmapped(f"control_request.{subtype}", raw))

    def _control_cancel_request(self, message: Message, raw: bytes) -> None:
        self._say(self._questions.withdraw(str(message.get("request_id"))))

    def _rate_limit(self, message: Message, raw: bytes) -> None:
        self._troubles.limits(message)
        self._say(unmapped("rate_limit_event", raw))

    def _result(self, message: Message, raw: bytes) -> None:
        self.session_id = self.session_id or string(message.get("session_id"))
        self._say(self._messages.close(string(message.get("stop_reason"))))
        self._say(self._account.settle(message))
        if message.get("subtype") == _BUDGET_USED_UP:
            self.alive = False  # Every later turn would fail at once, without a request.
        turn = self._turn
        if turn is None:
            return
        many = message.get("user_message_uuids")
        named = [message.get("user_message_uuid"), *(many if isinstance(many, list) else ())]
        ours = turn.prompt_id in named or (not any(named) and message.get("origin") is None)
        if ours or turn.result is not None:
            turn.result, turn.resumed = message, False

    # ---- the turn

    def _resume(self, message: Message) -> None:
        """The model of the main loop was asked again, which may take long before the next line."""
        ours = message.get("parent_tool_use_id") is None
        if self._turn is not None and self._turn.result is not None and ours:
            self._turn.resumed = True

    def _begin(self) -> None:
        turn = self._turn
        if turn is not None:
            turn.began = True
            self._said += [self._began, *turn.held]
            turn.held = []

    def _end(self) -> None:
        """The turn is over: all that is open is closed, and it is said how it ended."""
        turn = self._turn
        if turn is None:
            return
        result = turn.result
        if result is None and turn.prompt_state != "cancelled":
            result = {"subtype": "error_during_execution", "terminal_reason": "completed", "result": "No result came."}
        self._say([*self._messages.close(None), *self._calls.abandon(), *self._questions.withdraw_all()])
        if result is not None and status_of(result) == "completed":
            self._say(self._troubles.goes_on(answered=True))
        if not turn.began:
            self._begin()
        self._said.append(
            ended(
                self._provider,
                result,
                self._troubles.symptoms(result or {}),
                self._messages.text,
                usage=self._account.usage,
                cost_usd=self._account.cost_usd,
                turns=self._messages.turns,
                provider_session_id=self.session_id,
            )
        )
        self._turn = None

    def _say(self, bodies: Iterable[Body]) -> None:
        drafts: list[Said] = [Draft(data=body, source="agent") for body in bodies]
        if self._turn is not None and not self._turn.began:
            self._turn.held += drafts
        else:
            self._said += drafts

    def _take(self) -> list[Said]:
        said, self._said = self._said, []
        return said
