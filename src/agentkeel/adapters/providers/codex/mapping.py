"""What an app-server says of one conversation, as what our turns say. Sans-I/O: feed messages, get values.

Every item is said once, every token is counted once, and whatever Codex left open is closed when its turn ends.
Messages nobody maps are kept as `Unknown`; the few that are dropped stand in `DROPPED`, each with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from agentkeel.adapters.providers.codex.approvals import Asked
from agentkeel.adapters.providers.codex.errors import error_of, failure_of
from agentkeel.adapters.providers.codex.items import MAX_OUTPUT_BYTES, Json, Tool
from agentkeel.adapters.providers.codex.tokens import Tokens
from agentkeel.adapters.providers.codex.turn import Turn
from agentkeel.core.events import Body, Draft, PermissionResolved, TokenUsageUpdated, TurnCompleted, Unknown
from agentkeel.errors import Error, failure
from agentkeel.ports.provider import Began, Ended, Said

__all__ = ["DROPPED", "Conversation"]

DROPPED: Final[Mapping[str, str]] = {
    "thread/started": "the answer to our own request says the same",
    "thread/status/changed": "turn/started, turn/completed and the approvals say the same",
    "thread/readState/changed": "what a person has read in Codex's own windows",
    "thread/settings/updated": "repeats what we asked for",
    "thread/goal/cleared": "sent at every resume, whether there was a goal or not",
    "remoteControl/status/changed": "a feature we never turn on",
    "account/rateLimits/updated": "share of an account's allowance, after every request; no event of ours holds it",
    "turn/diff/updated": "the whole diff again at every change; the engine computes its own",
    "item/fileChange/outputDelta": "the item that is completed has the changes",
    "item/fileChange/patchUpdated": "the item that is completed has the changes",
    "item/plan/delta": "the plan that is completed has the whole text",
}
"""Notifications that become no event, and why. Codex is asked not to send them at all."""


class Conversation:
    """One thread of Codex, with the threads of its sub-agents, for as long as its connection lives.

    Attributes:
        thread_id: Codex's id of the conversation, once known.
        model: The model Codex says it uses.
        rollout: Path of Codex's own record of the conversation.
    """

    def __init__(self, *, resumed: bool = False) -> None:
        self.thread_id: str | None = None
        self.model: str | None = None
        self.rollout: str | None = None
        self._began = Began()
        self._tokens = Tokens(resumed=resumed)
        self._held: list[Said] = []
        self._asked: dict[str, Asked] = {}
        self._parents: dict[str, str] = {}
        self._turn = self._new_turn(None)

    # -- the life of a turn --------------------------------------------------------------------------------------

    def opened(self, result: Json, *, user_agent: str, configured_model: str | None) -> None:
        """The thread is there, as the answer to thread/start or thread/resume says."""
        self.thread_id = str(result["thread"]["id"])
        self.model = result.get("model")
        self.rollout = result["thread"].get("path")
        self._turn = self._new_turn(None)
        version = re.match(r"[^/\s]*/(\S+)", user_agent)
        sandbox = result.get("sandbox")
        self._began = Began(
            provider_session_id=self.thread_id,
            agent_version=version[1] if version else None,
            details={
                "configured_model": configured_model,
                "confirmed_model": self.model,
                "confirmed_reasoning_effort": result.get("reasoningEffort"),
                "confirmation_source": "app-server",
                "model_provider": result.get("modelProvider"),
                "approval_policy": result.get("approvalPolicy"),
                "sandbox": sandbox.get("type") if isinstance(sandbox, Mapping) else sandbox,
            },
        )

    @property
    def turn_id(self) -> str | None:
        """The running turn, or None."""
        return self._turn.turn_id

    @property
    def over(self) -> bool:
        """Codex has said that the running turn is over: `end` gives the rest."""
        return self._turn.over is not None

    @property
    def left_running(self) -> tuple[str, ...]:
        """Threads that have commands running."""
        return tuple(sorted({call.thread_id for call in self._turn.calls.values() if call.tool.kind == "bash"}))

    @property
    def sub_agents(self) -> Mapping[str, str]:
        """Running turns of sub-agents, by thread."""
        return dict(self._turn.children)

    def begin(self, turn_id: str) -> list[Said]:
        """The turn runs: `Began`, then all that was said before it could be."""
        if turn_id == self.turn_id:
            return []  # Codex took the prompt into the turn that runs.
        self._turn = self._new_turn(turn_id)
        self._tokens.begin()
        said, self._held = self._held, []
        return [msgspec.structs.replace(self._began, model=self.model), *said]

    @property
    def told(self) -> frozenset[str]:
        """Ids of the running turn's items that were told."""
        return self._turn.told

    def end(self, silent: Sequence[Body] = ()) -> list[Said]:
        """The turn is over: what was open is closed, then calls nobody told of, then one `Ended`."""
        turn, summary = self._turn, self._turn.over or {}
        said = [*self._close(), *_drafts(silent)]
        ended = Ended(
            status="failed",
            stop_reason=str(summary.get("status")),
            text=turn.text,
            usage=self._tokens.turn,
            turns=1,
            provider_session_id=self.thread_id,
        )
        match summary.get("status"):
            case "completed":
                said += _drafts([TurnCompleted(turns=1, stop_reason="completed")])
                return [*said, msgspec.structs.replace(ended, status="completed")]
            case "interrupted":
                return [*said, msgspec.structs.replace(ended, status="interrupted")]
        return [*said, msgspec.structs.replace(ended, error=_cause(turn, summary))]

    def cut_off(self, silent: Sequence[Body] = ()) -> list[Said]:
        """Codex will say no more: what was open is closed. There is no `Ended`."""
        said, self._held = self._held, []
        return [*said, *self._close(), *_drafts(silent)]

    # -- what is said --------------------------------------------------------------------------------------------

    def notified(self, method: str, params: Any, members: Mapping[str, Any] | None = None) -> list[Said]:
        """What a notification says. Before a turn began it is held until `begin`."""
        if method in DROPPED:
            return []
        said = self._read(method, params) if isinstance(params, Mapping) else None
        if said is None:
            return self.keep(method, {"method": method, "params": params, **(members or {})})
        return self._said(said)

    def wants(self, asked: Asked) -> list[Said]:
        """Codex asks for a permission, and waits."""
        request = asked.request
        if request.tool_call_id is None:  # MCP's words do not name the call they are about.
            open_calls = (item for item, call in self._turn.calls.items() if call.tool.name == request.tool_name)
            request = msgspec.structs.replace(request, tool_call_id=next(open_calls, None))
        self._asked[request.request_id] = msgspec.structs.replace(asked, request=request)
        return self._said([request])

    def waiting(self, request_id: str) -> Asked | None:
        """The request that waits under this id; None if it was answered or withdrawn."""
        return self._asked.get(request_id)

    def answered(self, request_id: str, *, allowed: bool) -> None:
        """The request has its answer."""
        asked = self._asked.pop(request_id, None)
        call = self._turn.calls.get(asked.request.tool_call_id or "") if asked else None
        if call is not None:
            call.denied = not allowed

    def granted(self, asked: Asked, *, by: str) -> list[Said]:
        """We answered yes ourselves, so nobody else is asked."""
        request = asked.request
        about = f"{request.tool_name} {request.tool_call_id or ''}".strip()
        return self._said([PermissionResolved(request_id=request.request_id, decision="allow", by=by, message=about)])

    def tool(self, item_id: str) -> Tool | None:
        """The tool call of this id, while it is open."""
        call = self._turn.calls.get(item_id)
        return call.tool if call else None

    def keep(self, kind: str, message: Any) -> list[Said]:
        """A message nobody maps is kept as it came; of a very long one, its beginning."""
        body = msgspec.json.encode(message)
        if len(body) > MAX_OUTPUT_BYTES:
            head = body[:4096].decode("utf-8", "ignore")
            body = msgspec.json.encode({"truncated": True, "bytes": len(body), "head": head})
        return self._said([Unknown(kind=f"codex.{kind}", body=msgspec.Raw(body))])

    # -- inside --------------------------------------------------------------------------------------------------

    def _read(self, method: str, params: Json) -> Sequence[Body] | None:
        match method:
            case "thread/tokenUsage/updated":
                return self._usage(params)
            case "serverRequest/resolved":
                request_id = str(params.get("requestId"))
                return [_withdrawn(request_id)] if self._asked.pop(request_id, None) else []
            case "model/rerouted":
                if params.get("threadId") == self.thread_id and isinstance(params.get("toModel"), str):
                    self.model = params["toModel"]
                return None
        return self._turn.notified(method, params)

    def _usage(self, params: Json) -> Sequence[Body] | None:
        usage, thread_id = params.get("tokenUsage"), str(params.get("threadId"))
        if not isinstance(usage, Mapping):
            return None
        own = self.thread_id in {None, thread_id}
        fresh = self._tokens.report(thread_id, usage, running=self.turn_id is not None, own=own)
        return [*self._turn.recovered(), TokenUsageUpdated(usage=fresh, model=self.model)] if fresh else []

    def _close(self) -> list[Said]:
        said = [*self._turn.close(), *(_withdrawn(request_id) for request_id in self._asked)]
        self._asked.clear()
        self._turn = self._new_turn(None)
        return _drafts(said)

    def _new_turn(self, turn_id: str | None) -> Turn:
        return Turn(turn_id, thread_id=self.thread_id, parents=self._parents)

    def _said(self, bodies: Sequence[Body]) -> list[Said]:
        if self.turn_id is not None:
            return _drafts(bodies)
        self._held += _drafts(bodies)
        return []


def _drafts(bodies: Sequence[Body]) -> list[Said]:
    return [Draft(data=body, source="agent") for body in bodies]


def _withdrawn(request_id: str) -> PermissionResolved:
    return PermissionResolved(request_id=request_id, decision="withdrawn", by="agent")


def _cause(turn: Turn, summary: Json) -> Error:
    told = summary.get("error")
    cause = failure_of(told) if told else turn.cause
    if cause is None:
        return failure("provider_error", f"Codex ended its turn as {summary.get('status')!r} and did not say why.")
    return error_of(cause)
