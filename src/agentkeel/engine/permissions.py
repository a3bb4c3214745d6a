"""Who answers when an agent asks before it uses a tool.

The permission mode of the run answers first; what it leaves open goes to the caller's function; what nobody answers is
denied, and the model is told why. An approver that fails or is too slow denies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec

from agentkeel.core.events import PermissionRequested
from agentkeel.ports.provider import Decision, PermissionMode

__all__ = ["Approver", "Answer", "Permissions"]

Approver = Callable[[PermissionRequested], Awaitable[Decision]]

_EDITS = frozenset({"edit", "write"})
_READS = frozenset({"read", "search"})


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, and who made it: mode, caller, deadline, or nobody."""

    decision: Decision
    by: str


class Permissions:
    """Answers requests in the name of one run."""

    def __init__(
        self, *, mode: PermissionMode | None, workspace: Path, approver: Approver | None, timeout: float
    ) -> None:
        self._mode = mode or "default"
        self._workspace = workspace
        self._approver = approver
        self._timeout = timeout

    async def answer(self, request: PermissionRequested) -> Answer:
        """The answer to `request`; always one, in bounded time."""
        by_mode = self._by_mode(request)
        if by_mode is not None:
            return Answer(decision=by_mode, by="mode")
        if self._approver is None:
            return Answer(
                decision=Decision(
                    allow=False,
                    message=f"{request.tool_name} was not allowed: nobody is here to approve it "
                    f"(permission mode {self._mode}).",
                ),
                by="nobody",
            )
        return await self._ask(self._approver, request)

    async def _ask(self, approver: Approver, request: PermissionRequested) -> Answer:
        with anyio.move_on_after(self._timeout):
            try:
                decision = await approver(request)
                if not isinstance(decision, Decision):
                    raise TypeError(f"it gave {decision!r}, not a Decision")  # noqa: TRY301 - told like its other failures
                return Answer(decision=decision, by="caller")
            except Exception as error:  # noqa: BLE001 - the caller's code: its failure is an answer, in the log
                message = f"{request.tool_name} was not allowed: the approver failed ({type(error).__name__})."
                return Answer(decision=Decision(allow=False, message=message), by="caller_error")
        message = f"{request.tool_name} was not allowed: no answer within {self._timeout:g} s."
        return Answer(decision=Decision(allow=False, message=message), by="deadline")

    def _by_mode(self, request: PermissionRequested) -> Decision | None:
        match self._mode:
            case "full_auto" | "dangerously_skip_permissions":
                return Decision(allow=True)
            case "accept_edits" if request.kind in _EDITS and _inside(self._workspace, request.tool_input):
                return Decision(allow=True)
            case "plan":
                if request.kind in _READS:
                    return Decision(allow=True)
                return Decision(allow=False, message="This run only plans: nothing may be changed.")
            case _:
                return None


def _inside(workspace: Path, tool_input: Any) -> bool:
    """Whether the input names files, and all of them are in the workspace, also through links."""
    root = workspace.resolve()
    paths = [root.joinpath(path).resolve() for path in _paths(tool_input)]
    return bool(paths) and all(path.is_relative_to(root) and path != root for path in paths)


def _paths(tool_input: Any) -> Iterator[str]:
    """The files that an edit names, in the words of the agents we know."""
    if not isinstance(tool_input, Mapping):
        return
    for name in ("path", "file_path", "notebook_path"):
        if isinstance(tool_input.get(name), str):
            yield tool_input[name]
    changes = tool_input.get("changes")
    for change in changes if isinstance(changes, list) else ():
        yield from _paths(change)
