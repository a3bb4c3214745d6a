"""Tool calls that the app-server keeps silent about, read from Codex's own record of the conversation.

Where approval is `never` or `on-request` and the sandbox stops a command at once, no item is sent for it, though it ran
and may have done something before it was stopped (0.169.0). The model's call and its outcome are in the rollout, one
JSON object a line, all of a turn's by the time the turn is over.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec

from agentkeel.adapters.providers.codex.items import Reason, Tool, closed, started
from agentkeel.core.events import Body

__all__ = ["MAX_READ_BYTES", "Rollout", "silent_calls"]

MAX_READ_BYTES: Final = 32 << 20
"""A turn that wrote more than this is read so far."""

_COMMANDS: Final = frozenset({"exec_command", "shell", "shell_command", "local_shell"})
_EXIT = re.compile(r"^Process exited with code (-?\d+)$|^Exit code: (-?\d+)$", re.MULTILINE)
_REFUSED = re.compile(r"reject|denied by policy|not allowed|blocked by policy", re.IGNORECASE)


class Rollout:
    """Codex's record of one conversation, read from where the last turn left it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    async def skip(self) -> None:
        """What is in it now belongs to the past."""
        self._offset = await anyio.to_thread.run_sync(self._size)

    async def lines(self) -> list[bytes]:
        """Whole lines that are new since the last call. None, if it cannot be read: it is a second witness only."""
        data = await anyio.to_thread.run_sync(self._read)
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        return data[:whole].splitlines()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0  # It appears with the first turn.

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                return file.read(MAX_READ_BYTES)
        except OSError:
            return b""


def silent_calls(lines: list[bytes], *, told: Container[str], cwd: Path) -> list[Body]:
    """Start and end of every command or patch in `lines` whose call id is not in `told`."""
    calls: dict[str, Tool] = {}
    outputs: dict[str, str] = {}
    for item in _response_items(lines):
        call_id = item.get("call_id")
        if not isinstance(call_id, str) or call_id in told:
            continue
        if "output" in item:
            outputs[call_id] = _text(item["output"])
        elif tool := _tool(item, cwd):
            calls[call_id] = tool
    return [body for call_id, tool in calls.items() for body in _told(call_id, tool, outputs.get(call_id))]


def _response_items(lines: list[bytes]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        if b'"response_item"' not in line:
            continue
        try:
            record = msgspec.json.decode(line)
        except ValueError:
            continue  # A line cut by a crash: nothing after it was written either.
        payload = record.get("payload") if isinstance(record, Mapping) else None
        if isinstance(payload, Mapping) and record.get("type") == "response_item":
            yield payload


def _tool(item: Mapping[str, Any], cwd: Path) -> Tool | None:
    if item.get("type") == "custom_tool_call" and item.get("name") == "apply_patch":
        return Tool("apply_patch", "edit", {"patch": item.get("input")})
    if item.get("type") != "function_call" or item.get("name") not in _COMMANDS:
        return None
    try:
        arguments = msgspec.json.decode(str(item.get("arguments")))
    except ValueError:
        return None  # No command: Codex could not read it either.
    if not isinstance(arguments, Mapping):
        return None
    command = arguments.get("cmd", arguments.get("command"))
    return Tool("shell", "bash", {"command": command, "cwd": str(cwd / str(arguments.get("workdir") or ""))})


def _told(call_id: str, tool: Tool, output: str | None) -> list[Body]:
    found = _EXIT.search(output or "")
    code = int(found[1] or found[2]) if found else None
    reason: Reason | None = None
    if output is None:
        reason = "interrupted"
    elif code is None:
        reason = "denied" if _REFUSED.search(output) else "failed"
    elif code != 0:
        reason = "failed"
    _, _, said = (output or "").partition("\nOutput:\n")
    item = {"type": "commandExecution", "aggregatedOutput": said or output, "exitCode": code}
    return [started(call_id, tool, parent=None), closed(call_id, tool, item, reason=reason)]


def _text(output: Any) -> str:
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()
