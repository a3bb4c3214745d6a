"""Our side of `codex app-server`: what we ask, what we answer, and where each of its lines goes. Sans-I/O.

Bytes to write come out of every request, and of `take_outgoing` for what is answered at once. Source: the app-server's
own schema (`codex app-server generate-json-schema --experimental`) and captures, both of 0.169.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from agentkeel._version import __version__
from agentkeel.adapters.providers._wire.jsonl import BadLines
from agentkeel.adapters.providers._wire.jsonrpc import Notification, Peer, Request, Response, Unparsable
from agentkeel.adapters.providers._wire.lines import Line
from agentkeel.adapters.providers.codex.approvals import DECLINED_FORM, Asked, asked, words_for
from agentkeel.adapters.providers.codex.mapping import DROPPED, Conversation
from agentkeel.adapters.providers.codex.options import Mode
from agentkeel.ports.provider import Decision, Said

__all__ = ["Plan", "Protocol"]

_METHOD_NOT_FOUND: Final = -32601


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The conversation we want.

    Attributes:
        accepts: Whether we say yes to a patch ourselves, given its input.
    """

    workspace: Path
    mode: Mode
    model: str | None = None
    system_prompt: str | None = None
    resume: str | None = None
    accepts: Callable[[Any], bool] = lambda _: False


class Protocol:
    """One app-server connection with one conversation on it.

    Attributes:
        answers: Answers to requests made with `wanted`, by request id, until they are taken.
        said: What the agent said and nobody has taken yet.
        user_agent: What the server calls itself; its version is in it.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.peer = Peer()
        self.conversation = Conversation(resumed=plan.resume is not None)
        self.said: list[Said] = []
        self.answers: dict[int | str, Response] = {}
        self._wanted: set[int | str] = set()
        self._outgoing: list[bytes] = []
        self._bad = BadLines()
        self.user_agent = ""
        self._settings: Mapping[str, Any] = {}

    # -- what we ask ---------------------------------------------------------------------------------------------

    def initialize(self) -> tuple[int, bytes]:
        """The first request. `experimentalApi` gives us thread/backgroundTerminals/clean."""
        client = {"name": "agentkeel", "title": None, "version": __version__}
        capabilities = {
            "experimentalApi": True,
            "requestAttestation": False,
            "optOutNotificationMethods": sorted(DROPPED),
        }
        return self.request("initialize", {"clientInfo": client, "capabilities": capabilities})

    def initialized(self) -> bytes:
        """The notification that follows its answer."""
        return self.peer.notify("initialized")

    def account(self) -> tuple[int, bytes]:
        """Who is logged in, if the model provider asks for that."""
        return self.request("account/read", {"refreshToken": False})

    def configuration(self) -> tuple[int, bytes]:
        """What Codex is configured to, in the workspace."""
        return self.request("config/read", {"includeLayers": False, "cwd": str(self.plan.workspace)})

    def thread(self) -> tuple[int, bytes]:
        """A new conversation, or the one to take up. Each override is given on resume too: nothing of it is kept.

        The thread starts read-only and `turn` widens it. A thread that starts with a sandbox that may write in a git
        repository marks that repository as trusted in the user's own config.toml, and so runs the MCP servers and
        hooks that the repository brings along (0.169.0).
        """
        params = {
            "cwd": str(self.plan.workspace),
            "approvalPolicy": self.plan.mode.approval_policy,
            "approvalsReviewer": "user",  # Else the configuration may let a model answer what we are asked.
            "sandbox": "read-only",
        }
        if self.plan.model is not None:
            params["model"] = self.plan.model
        if self.plan.system_prompt is not None:
            params["developerInstructions"] = self.plan.system_prompt
        if self.plan.resume is None:
            return self.request("thread/start", params)
        return self.request("thread/resume", {"threadId": self.plan.resume, **params, "excludeTurns": True})

    def turn(self, text: str) -> tuple[int, bytes]:
        """A turn. Only while none is running: Codex would steer that one instead of refusing."""
        given = [{"type": "text", "text": text, "text_elements": []}]
        thread_id = self.conversation.thread_id
        return self.request(
            "turn/start", {"threadId": thread_id, "input": given, "sandboxPolicy": self._sandbox_policy()}
        )

    def interrupt(self, thread_id: str | None = None, turn_id: str | None = None) -> bytes:
        """The running turn, or that of a sub-agent, shall end. Commands it started go on: see `clean`."""
        which = {
            "threadId": thread_id or self.conversation.thread_id,
            "turnId": turn_id or self.conversation.turn_id,
        }
        return self.request("turn/interrupt", which, wanted=False)[1]

    def clean(self, thread_id: str) -> tuple[int, bytes]:
        """The commands a thread left running shall end."""
        return self.request("thread/backgroundTerminals/clean", {"threadId": thread_id})

    @property
    def base_url(self) -> str | None:
        """Where the built-in provider is pointed at, if not at its own service."""
        url = self._settings.get("openai_base_url")
        return url if isinstance(url, str) else None

    def answer(self, request_id: str, decision: Decision) -> bytes | None:
        """The answer to a permission request; None if it waits no more.

        Raises:
            CapabilityNotSupported: Codex cannot take this decision; the request still waits.
        """
        waiting = self.conversation.waiting(request_id)
        if waiting is None:
            return None
        words = words_for(waiting, decision)
        self.conversation.answered(request_id, allowed=decision.allow)
        return self.peer.answer(waiting.rpc_id, words)

    def request(self, method: str, params: Any, *, wanted: bool = True) -> tuple[int, bytes]:
        """A request's id and bytes. Its answer is kept in `answers` if `wanted`."""
        request_id, data = self.peer.request(method, params)
        if wanted:
            self._wanted.add(request_id)
        return request_id, data

    def _sandbox_policy(self) -> dict[str, Any]:
        """What the turn may do: the mode's sandbox, and for a writing one the user's own settings of it."""
        kind = self.plan.mode.sandbox
        if kind != "workspaceWrite":
            return {"type": kind}
        own = self._settings.get("sandbox_workspace_write")
        own = own if isinstance(own, Mapping) else {}
        return {
            "type": kind,
            "writableRoots": own.get("writable_roots") or [],
            "networkAccess": bool(own.get("network_access")),
            "excludeTmpdirEnvVar": bool(own.get("exclude_tmpdir_env_var")),
            "excludeSlashTmp": bool(own.get("exclude_slash_tmp")),
        }

    # -- what it says --------------------------------------------------------------------------------------------

    def feed(self, line: Line) -> None:
        """What `line` says is in `said`, `answers` or the outgoing bytes.

        Raises:
            ProviderError: `agent_protocol_error`: too many lines in a row that are no JSON objects.
        """
        message = self.peer.feed(line)
        match message:
            case Notification(method=method, params=params, members=members):
                self.said += self.conversation.notified(method, params, members)
            case Request():
                self._asked(message)
            case Response():
                self._answered(message)
            case Unparsable(junk=junk):
                told = {"text": junk.text, "reason": junk.reason, "size": junk.size}
                self.said += self.conversation.keep("junk", told)
                self._bad.observe(junk)
                return
        self._bad.observe(message)

    def take_said(self) -> list[Said]:
        """All that was said since the last call."""
        said, self.said = self.said, []
        return said

    def take_outgoing(self) -> bytes:
        """Bytes to write now: answers that nobody has to think about."""
        outgoing, self._outgoing = b"".join(self._outgoing), []
        return outgoing

    def _answered(self, response: Response) -> None:
        result = response.result
        if response.error is None and isinstance(result, Mapping):
            match response.method:
                case "initialize":
                    self.user_agent = str(result.get("userAgent"))
                case "config/read":
                    settings = result.get("config")
                    self._settings = settings if isinstance(settings, Mapping) else {}
                case "thread/start" | "thread/resume":
                    self._opened(result)
                case "turn/start":
                    self.said += self.conversation.begin(str(result["turn"]["id"]))
        if response.id in self._wanted:
            self._wanted.discard(response.id)
            self.answers[response.id] = response

    def _opened(self, result: Mapping[str, Any]) -> None:
        sandbox = {"sandbox": {"type": self.plan.mode.sandbox}}  # What each turn will have.
        self.conversation.opened({**result, **sandbox}, user_agent=self.user_agent, configured_model=self.plan.model)

    def _asked(self, request: Request) -> None:
        params = request.params if isinstance(request.params, Mapping) else {}
        found = asked(request.id, request.method, params, known=self.conversation.tool)
        if found is not None:
            self._wants(found)
            return
        told = {"id": request.id, "method": request.method, "params": request.params}
        self.said += self.conversation.keep(request.method, told)
        if request.method == "mcpServer/elicitation/request":
            self._outgoing.append(self.peer.answer(request.id, DECLINED_FORM))
        else:
            why = f"agentkeel does not answer {request.method}"
            self._outgoing.append(self.peer.refuse(request.id, _METHOD_NOT_FOUND, why))

    def _wants(self, found: Asked) -> None:
        if found.request.tool_name == "apply_patch" and self.plan.accepts(found.request.tool_input):
            self._outgoing.append(self.peer.answer(found.rpc_id, words_for(found, Decision(allow=True))))
            self.said += self.conversation.granted(found, by="accept_edits")
        else:
            self.said += self.conversation.wants(found)
